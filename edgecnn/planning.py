"""Say what an export or a validation would do, what it lacks and about how long it takes; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgecnn.artifact import INTEGER_PRECISIONS, graph_path, manifest_path
from edgecnn.converting import formats, onnx_activations, require_io
from edgecnn.data import Images, match_labels
from edgecnn.errors import EdgecnnError, InputError
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.own_metric import own_metrics
from edgecnn.evaluation.subject import Checking
from edgecnn.evaluation.validate import open_validation, validate
from edgecnn.export_job import PRECISIONS, require_calibration, require_library, require_mixed, training_part
from edgecnn.exporting import export
from edgecnn.files import require_writable
from edgecnn.loading import is_file, load, name_of
from edgecnn.network import Network
from edgecnn.quant.recipe import Recipe
from edgecnn.quantizing import open_calibration, recipe_of
from edgecnn.report.document import significant
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import select
from edgecnn_targets.interface import Kind
from edgecnn_targets.registry import kind_of, require, runtime_of

LOADING = "weights input_shape preprocess label_offset padding convention name"
CALIBRATE, QUANTIZE, COMPARE = 4.0, 15.0, 2.0
"""Float inferences that take as long as one image does in each stage; fitted to measurements."""

SEARCHES = 4  # times as long with sensitivity-weighted ranges

FIXED = {"quantize": 2.0, "convert": 0.5, "validate": 0.5}
"""Seconds that a stage takes without any image."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Hold what one stage would do; ``seconds`` is an estimate, or ``None`` where nothing is known."""

    name: str
    does: str
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Hold what is missing or wrong in one line, and the exit status that the command would have for it."""

    text: str
    status: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold what a command would do.

    Attributes:
        does: the command: ``export``, ``validate``, ``sweep``.
        name: of the network, the artifact or the sweep.
        stages: in order.
        files: that would be written.
        missing: what it lacks or what is wrong; with any, the command would end with an error.
        untimed: devices whose time is in no estimate.
        left_out: why combinations of a sweep are left out, each with how many.
    """

    does: str
    name: str
    stages: tuple[Stage, ...] = ()
    files: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    untimed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Return the estimate of all stages, or ``None`` where one of them has none."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return significant(sum(known), 2) if known and len(known) == len(self.stages) else None

    @property
    def exit_status(self) -> int:
        """Return the worst status of what is missing; 0 where nothing is."""
        return max((missing.status for missing in self.missing), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "seconds": self.seconds, "exit_status": self.exit_status}


@dataclass
class Faults:
    """Collect the errors of checks that do not depend on each other."""

    found: dict[str, Missing] = field(default_factory=dict)

    @contextmanager
    def collected(self, status: int | None = None) -> Iterator[None]:
        """Keep the error of the body, each text once; the command ends with a status, or with that of the error."""
        try:
            yield
        except EdgecnnError as error:
            made = Missing(text=str(error), status=error.exit_status if status is None else status)
            self.found.setdefault(str(error), made)


def plan_export(model: str, **given: Any) -> Plan:
    """Return what ``edgecnn.export`` would do with these arguments.

    Loads the network, to see that its weights fit and how large it is, and opens the data; runs and writes nothing.
    """
    asked, faults = _bound(export, (model,), given), Faults()
    precision, folder, targets = PRECISIONS[asked.quantize], Path(asked.output), list[str]()
    for name in asked.target.split(","):
        with faults.collected():
            targets += formats(name)
    for target in targets:
        with faults.collected():
            converter(target).require(precision)
        with faults.collected():
            require_library(target)
    with faults.collected():
        require_io(asked.io, precision, targets)
    with faults.collected():
        if any("activations" in converter(target).options for target in targets):
            onnx_activations(asked.devices)
    if asked.calibration is None and precision in INTEGER_PRECISIONS:
        asked.calibration = training_part(asked.data)
    with faults.collected():
        require_calibration(asked.calibration, precision, asked.quantize, is_file(model))
    with faults.collected():
        require_writable(folder)
    recipe = ranging = network = None
    with faults.collected():
        recipe = recipe_of(asked.recipe, reduce_range=asked.reduce_range, per_tensor=asked.per_tensor)
        if asked.calibration is not None and precision in INTEGER_PRECISIONS:
            ranging = open_calibration(
                asked.calibration, recipe, asked.calibration_images, asked.seed, asked.skip_bad_images
            )
        if asked.mixed:
            require_mixed(precision, asked.limits, asked.data, asked.calibration, recipe)
    start = time.perf_counter()
    with faults.collected():
        network = load(model, labels=asked.class_names, seed=asked.seed, **{k: given.get(k) for k in LOADING.split()})
    loading = None if network is None else significant(time.perf_counter() - start, 2)
    name = network.name if network is not None else asked.name or name_of(model)
    once = inference_seconds(network)
    checked = _validation(asked, targets, precision, network, once, faults)
    stages = [Stage(name="capture", does=name if network is None else _size(network), seconds=loading)]
    if ranging is not None and recipe is not None:
        count, steps = len(ranging), ", ".join(step.name for step in recipe.steps)
        does = f"{count} images of {asked.calibration}"
        stages.append(Stage(name="calibrate", does=does, seconds=calibration_seconds(once, count)))
        does = f"{precision}, recipe {recipe.name}: {steps}"
        stages.append(Stage(name="quantize", does=does, seconds=quantization_seconds(once, recipe, count)))
    stages.append(Stage(name="convert", does=", ".join(targets), seconds=FIXED["convert"] * len(targets)))
    return Plan(
        does="export",
        name=name,
        stages=(*stages, *checked),
        files=tuple(map(str, _files(folder, name, targets))),
        missing=tuple(faults.found.values()),
        untimed=untimed_devices(asked.devices) if checked else (),
    )


def plan_validation(artifact: str | Path, **given: Any) -> Plan:
    """Return what ``edgecnn.validate`` would do with these arguments; runs nothing."""
    asked, faults, path = _bound(validate, (artifact,), given), Faults(), Path(artifact)
    targets, precision, network = list[str](), "int8", None
    with faults.collected():
        targets.append(runtime_of(path).target)
        if not path.is_file():
            raise InputError(f"no artifact at {path}; give a file that `edgecnn export` wrote")
        _, precision, _ = converter(targets[0]).described(path)
        beside = graph_path(path)
        if beside.is_file():
            network = load(beside)
    stages = _validation(asked, targets, precision, network, inference_seconds(network), faults)
    return Plan(
        does="validate",
        name=str(path),
        stages=tuple(stages),
        missing=tuple(faults.found.values()),
        untimed=untimed_devices(asked.devices),
    )


def plan_again(name: str, target: str, **given: Any) -> Plan:
    """Return what a validation of artifacts that an export is to write would do: its devices and its data."""
    asked, faults, targets = _bound(validate, (name,), given), Faults(), list[str]()
    with faults.collected():
        takes = {target for device in select(asked.devices) for target in device.targets}
        targets = [each for each in formats(target) if each in takes]
        if not targets:
            raise InputError(f"device {','.join(asked.devices)} takes none of {target}; add one of {sorted(takes)}")
    stages = _validation(asked, targets, "int8", None, None, faults)
    missing = tuple(faults.found.values())
    return Plan(
        does="validate", name=name, stages=tuple(stages), missing=missing, untimed=untimed_devices(asked.devices)
    )


def _bound(function: Any, first: tuple[Any, ...], given: Mapping[str, Any]) -> SimpleNamespace:
    """Return every argument of a call of ours, its default where it is not given."""
    call = signature(function).bind(*first, **{k: v for k, v in given.items() if k != "progress"})
    call.apply_defaults()
    asked = SimpleNamespace(**call.arguments)
    asked.limits = asked.limits or Limits()
    asked.devices = (asked.devices,) if isinstance(asked.devices, str) else tuple(asked.devices)
    return asked


def _validation(
    asked: SimpleNamespace,
    targets: Sequence[str],
    precision: str,
    network: Network | None,
    once: float | None,
    faults: Faults,
) -> list[Stage]:
    """Return the stage of a validation, if there is one; what is missing for it goes to the faults."""
    images: Images | None = None
    places: list[Any] = []
    with faults.collected():
        own_metrics(asked.metric)
    checking = Checking(devices=asked.devices, threads=asked.threads, limits=asked.limits)
    with faults.collected():
        checking.need(asked.data)
    with faults.collected():
        images = open_validation(
            asked.data, asked.labels, asked.limits, asked.limit, asked.seed, asked.skip_bad_images, asked.class_map
        )
        if images is not None and network is not None and network.classes is not None and network.labels:
            match_labels(images, network.labels, network.classes, network.graph.metadata.label_offset)
    with faults.collected():
        places = select(asked.devices)
    for place in places:
        for target in (target for target in targets if target in place.targets):
            with faults.collected():
                require(place, target)
    runs = False
    with faults.collected():
        runs = asked.data is not None or checking.runs_anything
        if runs and targets:
            checking.places(targets, precision)
    if not runs:
        return []
    count = 0 if images is None else len(images)
    figures = ", ".join(f"{row.option} {value:g}" for row, value in checking.limits.given) or "no limits"
    does = f"{count or 'no'} images on {', '.join(place.name for place in places)}; {figures}"
    kinds = [kind_of(place) for place in places for target in targets if target in place.targets]
    return [Stage(name="validate", does=does, seconds=validation_seconds(once, kinds, count))]


def untimed_devices(devices: Sequence[str]) -> tuple[str, ...]:
    """Return the devices whose kind does not say how long they take."""
    try:
        return tuple(device.name for device in select(devices) if kind_of(device).start_s is None)
    except EdgecnnError:
        return ()


def _files(folder: Path, name: str, targets: Sequence[str]) -> Iterator[Path]:
    yield folder / f"{name}.edgecnn"
    for target in targets:
        row = converter(target)
        home = folder / f"{name}{row.folder}" if row.folder else folder
        main = home / f"{name}{row.suffixes[0]}"
        yield from row.files(main)
        yield manifest_path(main, target)
    yield folder / "report.json"


def _size(network: Network) -> str:
    from edgecnn.graph.summary import layers

    macs = sum(layer.macs for layer in layers(network.graph))
    size = sum(tensor.value.nbytes for tensor in network.graph.constants())
    return f"{len(network.graph.nodes)} ops, {macs / 1e6:,.1f} M MACs, {size / 1e6:.2f} MB of weights"


def inference_seconds(network: Network | None) -> float | None:
    """Return the seconds that the float network takes for one sample here and now, the unit of every estimate."""
    if network is None:
        return None
    import numpy as np

    from edgecnn.evaluation.references import float_reference
    from edgecnn.graph.batch import Batch

    run = float_reference(network.as_float().graph)
    shapes = {name: network.graph.tensors[name].shape[1:] for name in network.graph.inputs}
    sample = Batch({name: np.zeros((4, *shape), np.float32) for name, shape in shapes.items()})
    run(sample)
    spans = []
    for _ in range(3):
        start = time.perf_counter()
        run(sample)
        spans.append(time.perf_counter() - start)
    return min(spans) / 4  # of a busy machine, what disturbed it least


def calibration_seconds(once: float | None, count: int) -> float | None:
    """Return the seconds of reading ranges from so many images, an inference taking ``once``."""
    return _seconds("calibrate", once, CALIBRATE * count)


def quantization_seconds(once: float | None, recipe: Recipe, count: int) -> float | None:
    """Return the seconds of the steps of a recipe."""
    slow = SEARCHES if recipe.setting("ranges", "sensitivity") == "everywhere" else 1
    return _seconds("quantize", once, QUANTIZE * slow * count)


def validation_seconds(once: float | None, kinds: Sequence[Kind], count: int) -> float | None:
    """Return the seconds of a validation on devices of these kinds."""
    starts, slowdown = sum(kind.start_s or 0 for kind in kinds), sum(kind.slowdown for kind in kinds)
    return _seconds("validate", once, (COMPARE + slowdown) * count, starts)


def _seconds(stage: str, once: float | None, inferences: float, more: float = 0.0) -> float | None:
    return None if once is None else significant(FIXED.get(stage, 0.0) + more + once * inferences, 2)
