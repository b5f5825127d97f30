"""What a sweep found so far, from the files in its folder alone: rows, Pareto fronts, main effects, commands."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.jobs import Status
from edgecnn.records import read_file
from edgecnn.report.document import document
from edgecnn.sweeping.figures import figures_of, front
from edgecnn.sweeping.spec import FIGURES, direction
from edgecnn.sweeping.store import Result, Store

PLAN = "sweep.json"
REPORTS = ("report.json", "report.csv", "report.md", "report.html")
TIMES = ("time_ms", "cycles", "instructions")  # figures of time; of a device, the first that it has
SHOWN = tuple(FIGURES)  # the columns of figures, in this order; those that no row has are left out


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A combination as the plan has it.

    Attributes:
        point: axis to value.
        model: its full name.
        stages: digests of its stages, the last one last.
        identity: of the last stage, which does not depend on versions.
        command: reproduces it.
        pruned: the number of images after which it was given up, or ``None``.
    """

    point: Mapping[str, Any]
    model: str
    stages: tuple[str, ...]
    identity: str
    command: str
    pruned: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What stands in ``sweep.json``.

    Attributes:
        edgecnn: version that made it.
        axes: name to values.
        objective: see ``spec.Sweep``.
        left_out: reason to how many combinations.
        rows: combinations.
    """

    edgecnn: str
    axes: Mapping[str, tuple[Any, ...]]
    objective: tuple[str, ...]
    left_out: Mapping[str, int]
    rows: tuple[PlannedRow, ...]


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """A combination and what came of it.

    Attributes:
        row: its number in the plan, from 1.
        point: axis to value; ``None`` where an axis does not matter to it.
        model: its full name.
        status: ``ok``; ``failed``, a check did not hold; ``error``, ``fault``, ``lost``, ``timeout``, ``memory``, its
            work could not be done; ``pruned``; ``older``, the result is of other versions of libraries; ``left``, there
            is no result yet.
        text: one line that says why it is not ``ok``, else empty.
        figures: name to number.
        result: digest of the result that decided it, or empty.
        command: reproduces it.
    """

    row: int
    point: Mapping[str, Any]
    model: str
    status: str
    text: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    result: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The mean of a figure over all measured rows with one value of an axis, beside the mean over all.

    Attributes:
        axis, value, figure: of which.
        n: rows.
        mean: of the figure.
        difference: from the mean over all measured rows in which the axis matters.
    """

    axis: str
    value: Any
    figure: str
    n: int
    mean: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """Hold what a sweep found so far.

    Attributes:
        folder: of the sweep.
        objective: figures by which rows are compared.
        rows: in the order of the plan.
        left_out: reason to how many combinations were left out of the plan.
    """

    folder: Path
    objective: tuple[str, ...]
    rows: tuple[SweepRow, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Return status to how many rows."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.status] = found.get(row.status, 0) + 1
        return found

    @property
    def passed(self) -> bool:
        """Return whether every row is ``ok`` or ``pruned``."""
        return set(self.counts) <= {"ok", "pruned"}

    @property
    def measured(self) -> list[SweepRow]:
        """Return the rows that have figures of these versions."""
        return [row for row in self.rows if row.status in ("ok", "failed")]

    @property
    def best(self) -> SweepRow | None:
        """Return the row that is best by the first objective, of those whose checks all hold."""
        name, more = direction(self.objective[0])
        rows = [row for row in self.measured if row.status == "ok" and name in row.figures]
        return max(rows, key=lambda row: row.figures[name] if more else -row.figures[name], default=None)

    @property
    def fronts(self) -> dict[str, list[int]]:
        """Return the Pareto front of each device: numbers of rows. Times of two devices are not compared."""
        places: dict[str, list[SweepRow]] = {}
        for row in self.measured:
            if row.status == "ok":
                places.setdefault(str(row.point.get("device", "host")), []).append(row)
        found = {}
        for place, rows in places.items():
            known = self.objective_on(rows)
            found[place] = [rows[k].row for k in front([row.figures for row in rows], known)] if known else []
        return found

    def objective_on(self, rows: Sequence[SweepRow]) -> list[str]:
        """Return the objectives that rows of one device have figures of; for time, cycles or instructions may stand."""
        have = {name for row in rows for name in row.figures}
        found = []
        for objective in self.objective:
            name, _ = direction(objective)
            names = TIMES if name == TIMES[0] else (name,)
            chosen = next((each for each in names if each in have), None)
            if chosen is not None:
                found.append(objective if chosen == name else chosen)
        return found

    @property
    def effects(self) -> list[Effect]:
        """Return the main effects of every axis of several values on every objective."""
        found = []
        for axis in self.rows[0].point if self.rows else ():
            for name, _ in map(direction, self.objective):
                rows = [row for row in self.measured if name in row.figures and row.point[axis] is not None]
                values = list(dict.fromkeys(_hashable(row.point[axis]) for row in rows))
                if len(values) < 2:
                    continue
                overall = statistics.fmean(row.figures[name] for row in rows)
                for value in values:
                    mine = [row.figures[name] for row in rows if _hashable(row.point[axis]) == value]
                    mean = statistics.fmean(mine)
                    found.append(
                        Effect(
                            axis=axis, value=value, figure=name, n=len(mine), mean=mean, difference=mean - overall
                        )
                    )  # fmt: skip
        return found

    def columns(self) -> list[str]:
        """Return the names of the figures that some row has: those that are known first, then others by name."""
        have = {name for row in self.rows for name in row.figures}
        return [name for name in SHOWN if name in have] + sorted(have - set(SHOWN))

    def table(self) -> list[dict[str, Any]]:
        """Return a flat record per row: number, axes, status, every figure (``None`` if absent), reason, command."""
        front = {number for numbers in self.fronts.values() for number in numbers}
        names = self.columns()
        return [
            {
                "row": row.row,
                **row.point,
                "network": row.model,
                "status": row.status,
                "pareto": row.row in front,
                **{name: row.figures.get(name) for name in names},
                "text": row.text,
                "result": row.result,
                "command": row.command,
            }
            for row in self.rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``report.json`` holds and ``--json`` prints."""
        return document("sweep", self.content())

    def content(self) -> dict[str, Any]:
        """Return counts, fronts, effects and rows as JSON values."""
        best = self.best
        return {
            "objective": list(self.objective),
            "counts": self.counts,
            "left_out": dict(self.left_out),
            "best": None if best is None else best.row,
            "fronts": self.fronts,
            "effects": [asdict(effect) for effect in self.effects],
            "entries": [asdict(row) for row in self.rows],
        }

    def write(self) -> None:
        """Write ``report.json``, ``.csv``, ``.md`` and ``.html`` into the folder.

        Raises:
            InputError: they cannot be written.
        """
        from edgecnn.sweeping.pages import forms

        made = forms(self)
        for name in REPORTS:
            made.save(self.folder / name)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return f"SweepReport {self.folder}: {len(self.rows)} combinations: {counts}"


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_report(folder: Path) -> SweepReport:
    """Return the report of a sweep at any time: while it runs, after it was killed, when it has ended.

    Raises:
        InputError: the folder holds no sweep.
    """
    path = folder / PLAN
    if not path.is_file():
        raise InputError(f"{folder} is the folder of no sweep: it holds no {PLAN}; give the folder of -o")
    plan, store = read_file(Plan, path), Store(folder)
    older: dict[str, Result] | None = None
    rows = []
    for number, planned in enumerate(plan.rows, start=1):
        made = SweepRow(row=number, point=planned.point, model=planned.model, status="left", command=planned.command)
        status: dict[str, Any] = {}
        if planned.pruned is not None:
            status = {"status": "pruned", "text": f"pruned after {planned.pruned} images"}
        elif (decided := _decided(store, planned.stages)) is not None:
            status = {"result": decided[0], **_ending(decided[1])}
        else:
            older = {r.identity: r for r in store.results() if r.kind == "validate"} if older is None else older
            if planned.identity in older:
                status = _older(older[planned.identity])
        rows.append(SweepRow(**{**vars(made), **status}))
    return SweepReport(folder=folder, objective=plan.objective, rows=tuple(rows), left_out=plan.left_out)


def _decided(store: Store, stages: Sequence[str]) -> tuple[str, Result] | None:
    """Return the last stage's result, or that of the first stage that did not end well."""
    last = store.result(stages[-1])
    if last is not None:
        return stages[-1], last
    for digest in stages[:-1]:
        found = store.result(digest)
        if found is not None and found.status is not Status.OK:
            return digest, found
    return None


def _ending(result: Result) -> dict[str, Any]:
    if result.status is not Status.OK:
        return {"status": str(result.status), "text": f"{result.name}: {result.text}"}
    failures = result.value["failures"]
    figures = figures_of(result.value["entry"])
    return {"status": "failed" if failures else "ok", "text": "; ".join(failures), "figures": figures}


def _older(result: Result) -> dict[str, Any]:
    versions = " ".join(f"{name} {version}" for name, version in result.versions.items())
    return {**_ending(result), "status": "older", "text": f"of other versions: {versions}; run the sweep again"}
