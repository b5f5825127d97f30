"""Say what a sweep would do, what it lacks and about how long it takes; nothing is run or written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.evaluation.validate import open_validation
from edgecnn.files import require_writable
from edgecnn.jobs.local import cores
from edgecnn.loading import load
from edgecnn.planning import (
    FIXED,
    Faults,
    Plan,
    calibration_seconds,
    inference_seconds,
    quantization_seconds,
    untimed_devices,
    validation_seconds,
)
from edgecnn.planning import Stage as Planned
from edgecnn.quant.recipe import parsed_recipe
from edgecnn.quantizing import open_calibration
from edgecnn.report.document import significant
from edgecnn.sweeping.api import overridden
from edgecnn.sweeping.cluster import executor_of
from edgecnn.sweeping.plan import Planner, Row
from edgecnn.sweeping.report import PLAN, REPORTS
from edgecnn.sweeping.samplers import new_study, sampled
from edgecnn.sweeping.spec import LEARNING, Sweep, read_sweep
from edgecnn.sweeping.stages import STAGES, Stage, chain
from edgecnn.sweeping.store import Store
from edgecnn_targets.devices import device
from edgecnn_targets.registry import kind_of


def plan_sweep(
    given: str | Path | Mapping[str, Any] | Sweep,
    *,
    output: str | Path = "sweep",
    workers: int | None = None,
    scheduler: str | None = None,
    jobs: int | None = None,
    minutes: float | None = None,
) -> Plan:
    """Return what ``edgecnn.sweep`` would do with these arguments.

    Loads every network, to see that its weights fit and how large it is, opens the images, and asks the workers of a
    scheduler that runs; starts no cluster. What only ends a combination counts as status 1, as in the sweep.

    Raises:
        InputError: the file cannot be read, or a key or an axis is wrong.
    """
    spec, folder, faults = overridden(read_sweep(given), workers, scheduler, jobs, minutes), Path(output), Faults()
    here = spec.engine.scheduler is None and spec.engine.cluster is None
    planner = Planner(spec, here=here, checking=faults.collected)
    learning = spec.sampler.name in LEARNING
    rows = [] if learning else list(sampled(spec, planner))
    with faults.collected():
        require_writable(folder)
        if learning:
            new_study(spec)
        elif not (rows or faults.found):
            raise InputError(f"no combination is left to run: {planner.why_left_out()}")
    at_once = None
    with faults.collected():
        at_once = _at_once(spec, planner)
    most = "" if spec.budget.minutes is None else f"; no job starts after {spec.budget.minutes:g} minutes"
    if learning:
        does = f"at most {spec.budget.jobs} of {spec.product}, which {spec.sampler.name} chooses from results{most}"
        stages = [Planned(name="combinations", does=does)]
    else:
        lacking = ", and those that lack something" if faults.found else ""
        stages = [Planned(name="combinations", does=f"{len(rows)}{lacking}{most}", seconds=0.0 if rows else None)]
        stages += _stages(spec, rows, Store(folder), at_once, faults) if rows else ()
    return Plan(
        does="sweep",
        name=str(given) if isinstance(given, str | Path) else "",
        stages=tuple(stages),
        files=tuple(str(folder / name) for name in (PLAN, *REPORTS)),
        missing=tuple(faults.found.values()),
        untimed=untimed_devices(tuple(spec.axes.get("device", ("host",)))),
        left_out=tuple(f"{count}: {reason}" for reason, count in planner.left_out.items()),
    )


def _at_once(spec: Sweep, planner: Planner) -> int | None:
    """Return how many jobs run at once; ``None`` where only the cluster would tell. Asks a scheduler that runs.

    Raises:
        InputError: as ``executor_of``.
        MissingDependencyError: Dask or the class of the cluster is not installed.
    """
    engine = spec.engine
    if engine.cluster is not None:
        from edgecnn.jobs.dask_executor import cluster_class

        cluster_class(engine.cluster)
        return engine.workers
    if engine.scheduler is None:
        return engine.workers or cores()
    with executor_of(engine, planner.places(), planner.images()) as executor:
        return executor.at_once


def _stages(spec: Sweep, rows: Sequence[Row], store: Store, at_once: int | None, faults: Faults) -> Iterator[Planned]:
    """Yield each kind of stage with how many jobs it has, and about how long those without a result take."""
    found: dict[str, dict[str, Stage]] = {kind: {} for kind in STAGES}
    for row in rows:
        for stage in chain(row.stage):
            found[stage.kind].setdefault(stage.digest, stage)
    cost = _Cost(spec, faults)
    for kind, stages in found.items():
        left = [stage for digest, stage in stages.items() if store.done(digest) is None]
        does = f"{len(stages)} jobs" + (
            f", {len(stages) - len(left)} of them done before" if left != [*stages.values()] else ""
        )
        seconds = [cost.seconds(stage) for stage in left]
        together = sum(each or 0.0 for stage, each in zip(left, seconds, strict=True) if not stage.alone)
        alone = sum(each or 0.0 for stage, each in zip(left, seconds, strict=True) if stage.alone)
        known = at_once is not None and None not in seconds
        yield Planned(
            name=kind, does=does, seconds=significant(together / (at_once or 1) + alone, 2) if known else None
        )


class _Cost:
    """Estimates the seconds of stages as plans of an export do. Each network is loaded once, and images are opened.

    What is wrong with a network or with images ends its combinations, so that the sweep ends with status 1.
    """

    def __init__(self, spec: Sweep, faults: Faults) -> None:
        self._spec, self._faults = spec, faults
        self._networks: dict[str, tuple[float, float] | None] = {}  # by digest: seconds of loading, of an inference
        self._counts: dict[Any, int | None] = {}

    def seconds(self, stage: Stage) -> float | None:
        """Return the seconds of a stage, ``None`` where its network or its images cannot be read."""
        loaded = self._loaded(chain(stage)[0])
        if loaded is None:
            return None
        loading, once = loaded
        if stage.kind == "capture":
            return loading
        if stage.kind == "convert":
            return FIXED["convert"]
        if stage.kind == "quantize":
            return self._quantizing(stage.settings, once)
        count = self._count("data", self._validation)
        names = [name for name in (*stage.settings["devices"], stage.settings["witness"]) if name is not None]
        return None if count is None else validation_seconds(once, [kind_of(device(name)) for name in names], count)

    def _loaded(self, stage: Stage) -> tuple[float, float] | None:
        if stage.digest not in self._networks:
            self._networks[stage.digest] = None
            with self._faults.collected(1):
                start = time.perf_counter()
                network = load(**stage.settings)
                loading = time.perf_counter() - start
                once = inference_seconds(network)
                assert once is not None
                self._networks[stage.digest] = loading, once
        return self._networks[stage.digest]

    def _quantizing(self, settings: Mapping[str, Any], once: float) -> float | None:
        recipe, given, most = parsed_recipe(settings["recipe"]), settings["calibration"], settings["calibration_images"]
        if given is None:  # nothing but weights
            return quantization_seconds(once, recipe, 0)
        count = self._count(recipe, lambda: open_calibration(given, recipe, most, settings["seed"], False))
        ranging, steps = calibration_seconds(once, count or 0), quantization_seconds(once, recipe, count or 0)
        return None if count is None or ranging is None or steps is None else ranging + steps

    def _validation(self) -> Sized:
        found = open_validation(self._spec.data, None, self._spec.limits, self._spec.limit, 0, False)
        assert found is not None
        return found

    def _count(self, key: Any, opened: Callable[[], Sized]) -> int | None:
        """Return how many images there are, opened once for a key; ``None`` where they cannot be."""
        if key not in self._counts:
            self._counts[key] = None
            with self._faults.collected(1):
                self._counts[key] = len(opened())
        return self._counts[key]
