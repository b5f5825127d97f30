"""The sweep file: axes, what is left out, limits, an objective, a sampler, a budget and an engine, as TOML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.evaluation.limits import Limits
from edgecnn.records import read_file, read_record

AXES = ("model", "width", "resolution", "recipe", "precision", "target", "device", "seed")
LEARNING = ("tpe", "nsga2")  # Optuna's, which propose combinations from results
SAMPLERS = ("grid", "random", *LEARNING)
UNBOUNDED = 10_000  # combinations that a grid may have without a budget
FIGURES = {  # name in results: whether more is better
    "top1": True, "fp32_top1": True, "drop": False, "agreement": True, "sqnr_db": True, "time_ms": False,
    "instructions": False, "cycles": False, "size_bytes": False, "sram_kib": False, "flash_kib": False,
    "heap_kib": False, "energy_mj": False, "npu_coverage": True, "macs": False, "parameters": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Which combinations are tried.

    Attributes:
        name: ``grid`` is all; ``random`` is some; ``tpe`` and ``nsga2`` are Optuna's, which learn from results.
        batch: Optuna is asked for so many at a time, so that its choice does not depend on the number of workers.
        seed: of the choice.
        rungs: with ``tpe``: numbers of images after which combinations that fall behind are pruned.

    Raises:
        InputError: a value is not allowed.
    """

    name: str = "grid"
    batch: int = 8
    seed: int = 0
    rungs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise InputError(unknown("sampler", self.name, SAMPLERS))
        if self.batch < 1 or any(rung < 1 for rung in self.rungs) or list(self.rungs) != sorted(set(self.rungs)):
            raise InputError(f"sampler: batch {self.batch}, rungs {list(self.rungs)}; give growing numbers above 0")
        if self.rungs and self.name != "tpe":
            raise InputError(f"sampler: rungs are for tpe, which prunes; {self.name} does not")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a sweep ends early.

    Attributes:
        jobs: combinations that are tried at most.
        minutes: after which no job is started.

    Raises:
        InputError: a value is not above 0.
    """

    jobs: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("jobs", self.jobs), ("minutes", self.minutes)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"budget: {name} is {value}; give a number above 0")


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where jobs run; nothing here changes a result.

    Attributes:
        workers: jobs at once here, or workers of a cluster; ``None`` is one for each core here.
        memory_mib: of one job; ``None`` is what all jobs may have here, or the limit of a Dask worker.
        timeout_s: of one job; ``None`` is no limit.
        retries: of a job whose process died or exceeded a limit.
        scheduler: address of a Dask scheduler, ``tcp://HOST:8786``, or a scheduler file ``FILE.json``; ``None`` is this
            machine.
        cluster: a class that makes a Dask cluster: ``dask.distributed.LocalCluster``, ``dask_jobqueue.SLURMCluster`` …
        options: its arguments.
        wait_s: how long the first worker, and later a scheduler or workers that are gone, are waited for.

    Raises:
        InputError: a value is not allowed.
    """

    workers: int | None = None
    memory_mib: int | None = None
    timeout_s: float | None = None
    retries: int = 2
    scheduler: str | None = None
    cluster: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    wait_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("workers", "memory_mib", "timeout_s", "wait_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"engine: {name} is {value}; give a number above 0")
        if self.retries < 0:
            raise InputError(f"engine: retries is {self.retries}; give 0 or more")
        if self.scheduler and self.cluster:
            raise InputError("engine: scheduler is one that runs, cluster makes one; give one of them")
        if self.options and not self.cluster:
            raise InputError("engine: options are of a cluster; name its class with cluster")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep, as its file says.

    Attributes:
        axes: name to values. Names are those of ``AXES``, or ``STEP.SETTING`` of the recipe.
        data, calibration: images, as for ``edgecnn.export``.
        weights: as for ``edgecnn.load``, where ``{model}`` stands for the model's name; or a table of model to weights,
            ``"*"`` for every other.
        preprocess, label_offset, io, threads, limit, calibration_images: as for ``edgecnn.export``.
        allow_float, allow_loss: as for ``edgecnn.validate``.
        exclude: combinations that are left out: tables of axis to a value or values.
        limits: what every result is checked against.
        max_macs, max_parameters: models of more are left out.
        objective: figures, the first one first; ``+NAME`` and ``-NAME`` say that more or less is better.
        sampler, budget, engine: see there.

    Raises:
        InputError: an axis is unknown or empty, or a value is not allowed.
    """

    axes: Mapping[str, Any]
    data: str = "demo"
    calibration: str = "demo"
    weights: str | Mapping[str, str] | None = None
    preprocess: str | None = None
    label_offset: int | None = None
    io: str | None = None
    threads: int = 1
    limit: int | None = None
    calibration_images: int | None = None
    allow_float: bool = False
    allow_loss: bool = False
    exclude: tuple[Mapping[str, Any], ...] = ()
    limits: Limits = field(default_factory=Limits)
    max_macs: float | None = None
    max_parameters: float | None = None
    objective: tuple[str, ...] = ("top1", "time_ms", "size_bytes")
    sampler: Sampler = field(default_factory=Sampler)
    budget: Budget = field(default_factory=Budget)
    engine: Engine = field(default_factory=Engine)

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", _axes(self.axes))
        for table in self.exclude:
            for axis in flat(table):
                if axis not in self.axes:
                    raise InputError(f"exclude: {unknown('axis', axis, self.axes)}")
        if not self.objective:
            raise InputError(f"objective is empty; give figures, such as {', '.join(list(FIGURES)[:1])}")
        for name in self.objective:
            direction(name)
        if self.sampler.rungs and len(self.objective) > 1:
            raise InputError("sampler: rungs prune by one figure; give one objective")
        if self.sampler.name != "grid" and self.budget.jobs is None:
            raise InputError(f"sampler {self.sampler.name} needs a budget: give [budget] jobs")
        if self.product > UNBOUNDED and self.budget.jobs is None and self.budget.minutes is None:
            raise InputError(
                f"the axes make {self.product:,} combinations; above {UNBOUNDED:,} give [budget] jobs or minutes"
            )

    @property
    def product(self) -> int:
        """Return how many combinations the axes make."""
        return math.prod(map(len, self.axes.values()))


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table whose nested tables (``weights.bits`` in TOML) are keys with a dot."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = value.items() if isinstance(value, Mapping) else None
        found |= {key: value} if inner is None else {f"{key}.{name}": each for name, each in inner}
    return found


def _axes(given: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the axes in one order, so that the same file gives the same plan."""
    found = {}
    named = flat(given)
    for name, values in named.items():
        if name not in AXES and "." not in name:
            raise InputError(f"{unknown('axis', name, AXES)}; or STEP.SETTING of a recipe, such as weights.bits")
        values = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not values:
            raise InputError(f"axis {name} has no values, so that there is no combination; give at least one")
        found[name] = tuple(dict.fromkeys(tuple(v) if isinstance(v, list) else v for v in values))
    if "model" not in found:
        raise InputError("the axes have no model; give axes.model, a list of names from `edgecnn models` or files")
    return {name: found[name] for name in sorted(found, key=lambda n: (AXES.index(n) if n in AXES else len(AXES), n))}


def direction(objective: str) -> tuple[str, bool]:
    """Return the figure of an objective, and whether more of it is better.

    Raises:
        InputError: it is no known figure, and no sign says which way is better.
    """
    sign, name = objective[:1], objective.lstrip("+-")
    if sign in ("+", "-"):
        return name, sign == "+"
    if name not in FIGURES:
        raise InputError(f"{unknown('objective', name, FIGURES)}; or a figure of your own as +NAME or -NAME")
    return name, FIGURES[name]


def read_sweep(given: str | Path | Mapping[str, Any] | Sweep) -> Sweep:
    """Return a sweep from a TOML file, or from a mapping of the same keys.

    Raises:
        InputError: no such file, an unknown key with the nearest one, or a value that is not allowed.
    """
    if isinstance(given, Sweep):
        return given
    if isinstance(given, Mapping):
        return read_record(Sweep, given, "sweep")
    return read_file(Sweep, Path(given))
