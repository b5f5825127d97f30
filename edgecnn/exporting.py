"""``edgecnn.export``: from a model to checked artifacts. Each stage takes the result of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.allocator import keep_freed_memory
from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.converting import convert, formats, onnx_activations, require_io
from edgecnn.data import Images, match_labels
from edgecnn.data.stored import parts
from edgecnn.errors import EdgecnnError, InputError, MissingDependencyError, unknown
from edgecnn.evaluation.check import check
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.own_metric import own_metrics
from edgecnn.evaluation.subject import Checking, Subject
from edgecnn.evaluation.validate import beside_network, open_validation
from edgecnn.files import exclusive, require_writable
from edgecnn.loading import InputShape, is_file, load, with_labels
from edgecnn.network import Artifact, Network, QuantizedNetwork
from edgecnn.preprocess import Preprocess
from edgecnn.progress import Progress, Stopwatch, say, use
from edgecnn.quant import DEFAULT
from edgecnn.quant.recipe import Recipe
from edgecnn.quantizing import QUANTIZED, Quantization, open_calibration, quantized, recipe_of
from edgecnn.report.record import Finding, Report, ReportEntry
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device
from edgecnn_targets.registry import runtime

if TYPE_CHECKING:
    from torch import nn

PRECISIONS = {"none": "fp32", "fp16": "fp16", "w8": "w8", "int8": "int8", "int16x8": "int16x8"}  # of --quantize


def export(
    model: str | Path | Network | nn.Module,
    *,
    target: str = "tflite",
    quantize: str = "int8",
    output: str | Path = "out",
    weights: str | Path | None = None,
    calibration: Any = None,
    calibration_images: int | None = None,
    recipe: str | Path | Recipe = DEFAULT,
    reduce_range: bool = False,
    per_tensor: bool = False,
    mixed: bool = False,
    io: str | None = None,
    batch: int = 1,
    data: Any = None,
    labels: Any = None,
    class_names: Sequence[str] | str | Path | None = None,
    class_map: Mapping[str, str] | str | Path | None = None,
    limit: int | None = None,
    devices: str | Sequence[str] = ("host",),
    limits: Limits | None = None,
    threads: int = 1,
    allow_float: bool = False,
    allow_loss: bool = False,
    exact_kernels: bool = False,
    metric: Any = None,
    input_shape: InputShape | None = None,
    preprocess: Preprocess | str | None = None,
    label_offset: int | None = None,
    padding: str | None = None,
    convention: str | None = None,
    classes: int | None = None,
    name: str | None = None,
    skip_bad_images: bool = False,
    guard: bool = True,
    wait: bool = True,
    seed: int = 0,
    evidence: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Load, quantize, convert, write and check: what ``edgecnn export`` does.

    Writes the artifacts with their manifests, ``NAME.edgecnn`` and ``report.json``. What is wrong with the arguments is
    found before work starts.

    Args:
        model: as for ``edgecnn.load``, or a ``Network``.
        target: a format, several with commas between, or ``all``.
        quantize: ``int8``, ``int16x8``, ``w8``, ``fp16`` or ``none``.
        output: the folder.
        weights, input_shape, preprocess, label_offset, padding, convention, classes, name: as for ``edgecnn.load``.
        calibration, calibration_images, recipe, reduce_range, per_tensor, guard: as for ``edgecnn.quantize``. Without
            ``calibration``, ``train/`` of ``data`` is taken where ``data`` has it beside ``val/``.
        mixed: keep the fewest layers in 16 bits such that ``limits.max_drop`` holds on ``data``.
        io, batch: as for ``edgecnn.convert``.
        class_names: as ``labels`` for ``edgecnn.load``. Without any, the classes of ``data`` are the network's labels,
            where there are as many.
        data, labels, class_map, limit, devices, limits, threads, allow_float, allow_loss, exact_kernels, metric,
            evidence: as for ``edgecnn.validate``. Without data, nothing is run but what a limit needs.
        skip_bad_images: leave unreadable images out, instead of stopping.
        wait: for another export that writes the folder; else it is an error.
        seed: of every random choice. The same arguments give the same bytes.
        progress: shows progress; ``Progress()`` is silent.

    Returns:
        One entry per artifact and device. Of several formats, one that cannot be written has an entry too, whose
        finding of severity ``error`` says why; the others are written and checked.

    Raises:
        InputError: an argument, a file or an image is wrong.
        UnsupportedError: no format asked for can hold the network.
        MissingDependencyError: every format asked for, or a device, lacks a library.

    Example:
        >>> edgecnn.export("mobilenet_v2", target="all", weights="w.safetensors", calibration="images/", data="val/")
    """
    places = (devices,) if isinstance(devices, str) else tuple(devices)
    checking = Checking(
        devices=places,
        threads=threads,
        limits=limits or Limits(),
        allow_float=allow_float,
        allow_loss=allow_loss,
        exact_kernels=exact_kernels,
        metrics=own_metrics(metric),
        evidence=evidence,
    )
    own: dict[str, Any] = {
        "weights": weights, "input_shape": input_shape, "preprocess": preprocess, "label_offset": label_offset,
        "padding": padding, "convention": convention, "classes": classes, "name": name,
        "labels": class_names,
    }  # fmt: skip
    if isinstance(model, Network) and any(value is not None for value in own.values()):
        raise InputError(f"{' and '.join(k for k, v in own.items() if v is not None)} are for load, not for a Network")
    if quantize not in PRECISIONS:
        raise InputError(unknown("precision", quantize, PRECISIONS))
    precision, asked, folder = PRECISIONS[quantize], formats(target), Path(output)
    held = isinstance(model, QuantizedNetwork) or (isinstance(model, str | Path) and is_file(str(model)))
    targets, refused = _ready(asked, precision)
    require_io(io, precision, asked)
    if any("activations" in converter(name).options for name in targets):
        onnx_activations(places)
    calibration = training_part(data) if calibration is None and precision in INTEGER_PRECISIONS else calibration
    require_calibration(calibration, precision, quantize, held)
    steps = recipe_of(recipe, reduce_range=reduce_range, per_tensor=per_tensor)
    checking.need(data)
    if mixed:
        require_mixed(precision, checking.limits, data, calibration, steps)
    runs = data is not None or checking.runs_anything
    if runs:
        checking.places(targets, precision)
    require_writable(folder)
    keep_freed_memory()
    with use(progress), ExitStack() as stack:
        watch = Stopwatch()
        images = open_validation(data, labels, checking.limits, limit, seed, skip_bad_images, class_map)
        ranging = None
        if calibration is not None:
            ranging = open_calibration(calibration, steps, calibration_images, seed, skip_bad_images)
        stack.enter_context(exclusive(folder, wait=wait, say=say))  # it may lie in a folder of images, read by now
        how = Quantization(
            precision=precision,
            recipe=steps,
            images=ranging,
            labelled=images if mixed else None,
            max_drop=checking.limits.max_drop,
            seed=seed,
            guard=guard,
        )
        with watch.step("capture") as notes:
            network = model if isinstance(model, Network) else load(model, **own, seed=seed)
            size = sum(t.value.nbytes for t in network.graph.constants())
            notes.append(f"{len(network.graph.nodes)} ops, {_megabytes(size)} of weights")
        network = _named_by(images, network) if class_map is None else network
        if images is not None and network.classes is not None:
            match_labels(images, network.labels, network.classes, network.graph.metadata.label_offset)
        from edgecnn.quant.step_checkpoint import StepCheckpoint

        checkpoint = StepCheckpoint(folder / f"{network.name}.unfinished", say)
        made = _quantized(network, how, watch, checkpoint)
        with watch.step("convert") as notes:
            artifacts = _written(made, targets, precision, io, batch, places, folder, refused)
            notes += [f"{a.path} {_megabytes(a.size_bytes)}" for a in artifacts]
        checkpoint.finish()
        costs = _mixed_costs(made, artifacts, io, batch, places, threads)
        if runs:
            with watch.step("validate") as notes:
                beside = beside_network(made, made.preprocess)
                fp32 = beside.reference if images is not None else None
                subjects = list(map(Subject.of, artifacts))
                entries = check(subjects, checking, images, reference=fp32, oracle=beside.oracle)
                notes.append(f"{entries[0].accuracy.n} images" if images is not None else "no images")
        else:
            entries = [Subject.of(artifact).entry(None) for artifact in artifacts]
        found, seconds = made.findings, dict(watch.seconds)
        entries += [_not_written(made, precision, *fault) for fault in refused.items()]
        entries.sort(key=lambda entry: asked.index(entry.target))
        entries = [
            replace(e, seconds=seconds, findings=(*found, *costs.get(e.target, ()), *e.findings)) for e in entries
        ]
        for artifact in artifacts:
            artifact.record(entries)
        report = Report(command="export", entries=tuple(entries))
        report.save(folder / "report.json")
        return report


def _named_by(images: Images | None, network: Network) -> Network:
    """Return the network with the names of the data's classes, where it has none and they are as many."""
    names, outputs = None if images is None else images.classes, network.classes
    if names is None or network.labels is not None or outputs != len(names) + network.graph.metadata.label_offset:
        return network
    say(f"note: the labels are the names of the data's {len(names)} classes, in their order; --labels FILE says others")
    return with_labels(network, names)


def _ready(targets: Sequence[str], precision: str) -> tuple[list[str], dict[str, EdgecnnError]]:
    """Return the formats whose library is installed, and the errors of the others.

    Raises:
        UnsupportedError: a format is not written in the precision.
        MissingDependencyError: no library is installed.
    """
    missing: dict[str, EdgecnnError] = {}
    for target in targets:
        converter(target).require(precision)
        try:
            require_library(target)
        except MissingDependencyError as error:
            missing[target] = error
    if len(missing) == len(targets):
        raise _together(missing)
    for lacking in missing.values():
        say(f"warning: {lacking}; the other formats are written")
    return [target for target in targets if target not in missing], missing


def require_library(target: str) -> None:
    """Check that the library of a format is installed.

    Raises:
        MissingDependencyError: it is not; the message installs it.
    """
    command = runtime(target).missing()
    if command is not None:
        raise MissingDependencyError(f"target {target} needs a library that is not installed: {command}")


def _together(refused: Mapping[str, EdgecnnError]) -> EdgecnnError:
    """Return one error, of the first one's kind, that says what all say."""
    first, *_ = refused.values()
    return type(first)("; ".join(map(str, refused.values())))


def training_part(data: Any) -> Any:
    """Return the data, of which ``train/`` is for calibration, where it has such a folder; else ``None``."""
    return data if isinstance(data, str | Path) and parts(Path(data)) else None


def require_calibration(calibration: Any, precision: str, quantize: str, held: bool) -> None:
    """Check that there are images where the precision needs ranges; ``held`` is whether the model may have them.

    Raises:
        InputError: there are none, or some that nothing needs.
    """
    integer = precision in INTEGER_PRECISIONS
    if not integer and calibration is not None:
        raise InputError(f"--calibration is for --quantize int8 and int16x8; {quantize} needs none")
    if integer and calibration is None and not held:
        allowed = "--calibration DIR (some 300 typical images), demo, or none to do without"
        raise InputError(f"{quantize} needs calibration images: pass {allowed}")


def require_mixed(precision: str, limits: Limits, data: Any, calibration: Any, recipe: Recipe) -> None:
    """Check that ``mixed`` has what it works with.

    Raises:
        InputError: it has not.
    """
    if precision != "int8":
        raise InputError(f"--mixed is for --quantize int8: {precision} has no 8-bit activations to keep from")
    if limits.max_drop is None or data is None:
        raise InputError("--mixed keeps layers in 16 bits until a limit holds: pass --max-drop POINTS and --data DIR")
    if calibration is None:
        raise InputError("--mixed ranks the layers and quantizes again: pass --calibration DIR")
    if recipe.setting("int16_promotion", "keep"):
        raise InputError(f"--mixed finds what to keep, and recipe {recipe.name} says it; give one of them")


def _quantized(network: Network, how: Quantization, watch: Stopwatch, checkpoint: Any) -> Network:
    """The network in the precision asked for."""
    if how.precision in INTEGER_PRECISIONS and how.images is None:
        if network.precision != how.precision:
            raise InputError(f"{network.name} is {network.precision}, not {how.precision} yet; pass --calibration DIR")
        return network
    return quantized(network, how, watch, checkpoint) if how.precision in QUANTIZED else network.as_float()


def _written(
    network: Network,
    targets: Sequence[str],
    precision: str,
    io: str | None,
    batch: int,
    devices: Sequence[str],
    folder: Path,
    refused: dict[str, EdgecnnError],
) -> list[Artifact]:
    """Convert to every format, then write what could be converted; the others' errors go into ``refused``.

    Raises:
        EdgecnnError: no format could be converted; nothing is written.
    """
    made = []
    for target in targets:
        try:
            made.append(convert(network, target, precision=precision, io=io, batch=batch, devices=devices))
        except EdgecnnError as error:
            refused[target] = error
    if not made:
        raise _together(refused)
    network.save(folder)
    return [artifact.write(folder) for artifact in made]


def _not_written(network: Network, precision: str, target: str, error: EdgecnnError) -> ReportEntry:
    """Return the entry of a format that could not be written."""
    finding = Finding(code="not_written", text=f"not written: {error}", severity="error")
    model = network.graph.metadata.model
    return ReportEntry(
        model=model, target=target, device=None, artifact=None, size_bytes=0, precision=precision, findings=(finding,)
    )


def _mixed_costs(
    network: Network, artifacts: Sequence[Artifact], io: str | None, batch: int, devices: Sequence[str], threads: int
) -> Mapping[str, tuple[Finding, ...]]:
    """Measure what the layers that are kept out of 8 bits cost in latency on this machine, by target."""
    if not isinstance(network, QuantizedNetwork) or network.int8_alone is None or not network.graph.kept:
        return {}
    from edgecnn.mixed import latency_cost

    found = {}
    alone = replace(network, graph=network.int8_alone)
    for artifact in (a for a in artifacts if a.target in device("host").targets):
        plain = convert(alone, artifact.target, io=io, batch=batch, devices=devices).converted
        assert artifact.path is not None
        cost = latency_cost(plain, artifact.path, threads)
        say(f"mixed: {artifact.target}: {cost}")
        found[artifact.target] = (Finding(code="mixed_latency", text=f"what is kept costs latency: {cost}"),)
    return found


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
