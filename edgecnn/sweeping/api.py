"""``edgecnn.sweep``: combinations of networks, recipes and devices, each stage once, in processes here or elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgecnn import __version__
from edgecnn.errors import InputError
from edgecnn.files import require_writable, write_json
from edgecnn.jobs import Executor, Status
from edgecnn.progress import Progress as Shown
from edgecnn.progress import say, use
from edgecnn.sweeping.cluster import executor_of
from edgecnn.sweeping.command import reproducing
from edgecnn.sweeping.figures import Figures, better, figures_of
from edgecnn.sweeping.plan import Planner, Row
from edgecnn.sweeping.report import PLAN, Plan, PlannedRow, SweepReport, read_report
from edgecnn.sweeping.run import Ended, Loop, Progress
from edgecnn.sweeping.samplers import Score, learned, sampled
from edgecnn.sweeping.spec import LEARNING, Sweep, direction, read_sweep
from edgecnn.sweeping.stages import chain
from edgecnn.sweeping.store import Store

Seen = Callable[[Progress, int | None], None]
"""Gets what is seen of a sweep after every change, and how many combinations there are, where that is known."""


def sweep(
    given: str | Path | Mapping[str, Any] | Sweep,
    *,
    output: str | Path = "sweep",
    workers: int | None = None,
    scheduler: str | None = None,
    jobs: int | None = None,
    minutes: float | None = None,
    progress: Shown | None = None,
    seen: Seen | None = None,
) -> SweepReport:
    """Try combinations of networks, recipes, precisions, formats and devices, and report which are best.

    Each result is a file in the folder, named by the digest of what it depends on. The same call goes on from what is
    there, whatever stopped it and wherever it ran. Figures do not depend on the number of workers.

    Args:
        given: a TOML file, or a mapping of the same keys; see docs/sweeps.md.
        output: the folder of results and report.
        workers, scheduler: of ``[engine]``, in place of what the file says.
        jobs, minutes: of ``[budget]``, likewise.
        progress: shows progress; ``Progress()`` is silent.
        seen: gets counts after every change, for a live table.

    Returns:
        A row per combination. What goes wrong in one is in its row.

    Raises:
        InputError: the file, a value or a combination is wrong, another sweep runs in the folder, or the scheduler or
            its workers do not fit. Nothing has run then.
        MissingDependencyError: a sampler, Dask, a format or a device needs a library; the message installs it.

    Example:
        >>> edgecnn.sweep({"axes": {"model": ["mobilenet_v2_0.35_96"], "recipe": ["fast", "minmax"]}}, output="small")
    """
    with use(progress):
        spec = overridden(read_sweep(given), workers, scheduler, jobs, minutes)
        folder = Path(output).absolute()
        local = spec.engine.scheduler is None and spec.engine.cluster is None
        planner = Planner(spec, here=local)
        rows = None if spec.sampler.name in LEARNING else list(sampled(spec, planner))
        if rows is not None and not rows:
            raise InputError(f"no combination is left to run: {planner.why_left_out()}")
        require_writable(folder)
        with _alone(folder), executor_of(spec.engine, planner.places(), planner.images()) as executor:
            return _run(spec, planner, rows, Store(folder), executor, seen)


def _run(
    spec: Sweep, planner: Planner, rows: list[Row] | None, store: Store, executor: Executor, seen: Seen | None
) -> SweepReport:
    until = None if spec.budget.minutes is None else time.monotonic() + 60 * spec.budget.minutes
    total = None if rows is None else len(rows)
    show = seen or (lambda progress, count: None)
    loop = Loop(store, executor, spec.engine, until=until, seen=lambda progress: show(progress, total))
    book = _Book(spec, planner, store, loop.progress)
    try:
        if rows is not None:
            book.add((row, None) for row in rows)
            for ended in loop.results(row.stage for row in rows):
                book.note(ended, total)
        else:
            for row, pruned in learned(spec, planner, lambda asked: book.evaluate(loop, asked)):
                book.add([(row, pruned)])
    finally:  # also of Ctrl-C and of a lost scheduler
        executor.close()
        report = read_report(store.folder) if (store.folder / PLAN).exists() else None
        if report is not None:
            report.write()
    assert report is not None
    return report


class _Book:
    """Keeps ``sweep.json``, and says a line for each combination that ends."""

    def __init__(self, spec: Sweep, planner: Planner, store: Store, progress: Progress) -> None:
        self._spec, self._planner, self._store, self._progress = spec, planner, store, progress
        self._rows: list[PlannedRow] = []
        self._ended = 0
        self._best: Figures = {}

    def add(self, rows: Iterable[tuple[Row, int | None]]) -> None:
        """Put combinations into the plan."""
        for row, pruned in rows:
            stages = tuple(stage.digest for stage in chain(row.stage))
            command = reproducing(row, self._spec, self._store.folder, len(self._rows) + 1)
            self._rows.append(
                PlannedRow(
                    point=row.point,
                    model=row.model,
                    stages=stages,
                    identity=row.stage.identity,
                    command=command,
                    pruned=pruned,
                )
            )
        plan = Plan(
            edgecnn=__version__,
            axes=self._spec.axes,
            objective=self._spec.objective,
            left_out=self._planner.left_out,
            rows=tuple(self._rows),
        )
        write_json(self._store.folder / PLAN, asdict(plan))

    def note(self, ended: Ended, total: int | None) -> None:
        """Say what came of a combination."""
        last, decided, result = ended
        self._ended += 1
        failures = result.value.get("failures", ()) if result.status is Status.OK else ()
        said = "ok" if result.status is Status.OK else f"{result.status} at {decided.name}: {result.text}"
        of = "" if total is None else f" of {total}"
        text = f"failed: {'; '.join(failures)}" if failures else said
        self._progress.rows_failed += text != "ok"
        name = last.name.partition(" ")[2]
        say(f"{self._ended:4d}{of}  {name}  {text}")
        objective = self._spec.objective[0]
        figures = figures_of(result.value["entry"]) if said == "ok" and not failures else {}
        if better(objective, figures, self._best):
            figure = direction(objective)[0]
            self._best, self._progress.best = figures, f"{name}: {figure} {figures[figure]:.4g}"

    def evaluate(self, loop: Loop, asked: Iterable[tuple[Row, int | None]]) -> dict[str, Score]:
        """Run combinations, some on fewer images; return the score of each by the digest of its row."""
        of = {
            (row.stage if images is None else self._planner.at_most(row, images)): row.stage.digest
            for row, images in asked
        }
        found: dict[str, Score] = {}
        for ended in loop.results(of):
            self.note(ended, None)
            last, decided, result = ended
            good = result.status is Status.OK and decided is last
            figures = figures_of(result.value["entry"]) if good else None
            found[of[last]] = figures, len(result.value.get("failures", ()))
        return {digest: found.get(digest, (None, 0)) for digest in of.values()}


def overridden(
    spec: Sweep, workers: int | None, scheduler: str | None, jobs: int | None, minutes: float | None
) -> Sweep:
    """Return a sweep with arguments of a call in place of what the file says."""
    engine, budget = spec.engine, spec.budget
    if scheduler is not None:
        engine = replace(engine, scheduler=scheduler, cluster=None, options={})
    return replace(
        spec,
        engine=replace(engine, workers=workers or engine.workers),
        budget=replace(budget, jobs=jobs or budget.jobs, minutes=minutes or budget.minutes),
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another sweep runs in {folder}; wait for it, or choose another folder with -o") from None
    try:
        yield
    finally:
        lock.release()
