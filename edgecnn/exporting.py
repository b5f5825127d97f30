"""``edgecnn.export``: from a model to checked artifacts. Each stage takes the result of the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.allocator import keep_freed_memory
from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.converting import convert, formats
from edgecnn.data import Images, match_labels
from edgecnn.errors import EdgecnnError, InputError, unknown
from edgecnn.evaluation.check import check
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.own_metric import own_metrics
from edgecnn.evaluation.subject import Checking, Subject
from edgecnn.evaluation.validate import beside_network, open_validation
from edgecnn.export_job import PRECISIONS, Job, required, together
from edgecnn.files import exclusive
from edgecnn.image_inputs import InputShape
from edgecnn.loading import load, with_labels
from edgecnn.network import Artifact, Network, QuantizedNetwork
from edgecnn.preprocess import Preprocess
from edgecnn.progress import Progress, Stopwatch, say, use
from edgecnn.quant import DEFAULT
from edgecnn.quant.recipe import Recipe
from edgecnn.quantizing import QUANTIZED, Quantization, open_calibration, quantized, recipe_of
from edgecnn.report.record import Finding, Report, ReportEntry
from edgecnn_targets.devices import device

if TYPE_CHECKING:
    from torch import nn


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
    if quantize not in PRECISIONS:
        raise InputError(unknown("precision", quantize, PRECISIONS))
    own: dict[str, Any] = {
        "weights": weights, "input_shape": input_shape, "preprocess": preprocess, "label_offset": label_offset,
        "padding": padding, "convention": convention, "classes": classes, "name": name, "labels": class_names,
    }  # fmt: skip
    checking = Checking(
        devices=(devices,) if isinstance(devices, str) else tuple(devices),
        threads=threads,
        limits=limits or Limits(),
        allow_float=allow_float,
        allow_loss=allow_loss,
        exact_kernels=exact_kernels,
        metrics=own_metrics(metric),
        evidence=evidence,
    )
    job = Job(
        model=model,
        own=own,
        checking=checking,
        asked=formats(target),
        precision=PRECISIONS[quantize],
        recipe=recipe_of(recipe, reduce_range=reduce_range, per_tensor=per_tensor),
        folder=Path(output),
        io=io,
        batch=batch,
        data=data,
        labels=labels,
        class_map=class_map,
        limit=limit,
        calibration=calibration,
        calibration_images=calibration_images,
        skip_bad_images=skip_bad_images,
        mixed=mixed,
        guard=guard,
        seed=seed,
    )
    job = required(job, quantize)
    keep_freed_memory()
    with use(progress):
        return _run(job, wait=wait)


def _run(job: Job, *, wait: bool) -> Report:
    """Export; return the report, which is written."""
    from edgecnn.quant.step_checkpoint import StepCheckpoint

    watch = Stopwatch()
    images, how = _opened(job)
    with exclusive(job.folder, wait=wait, say=say):  # it may lie in a folder of images, read by now
        network = _loaded(job, images, watch)
        checkpoint = StepCheckpoint(job.folder / f"{network.name}.unfinished", say)
        made = _quantized(network, how, watch, checkpoint)
        with watch.step("convert") as notes:
            artifacts = _written(made, job)
            notes += [f"{a.path} {_megabytes(a.size_bytes)}" for a in artifacts]
        checkpoint.finish()
        entries = _entries(made, artifacts, images, job, watch)
        for artifact in artifacts:
            artifact.record(entries)
        report = Report(command="export", entries=tuple(entries))
        report.save(job.folder / "report.json")
        return report


def _opened(job: Job) -> tuple[Images | None, Quantization]:
    """Return the images to check on, and how to quantize, with the images of the calibration."""
    limits, seed, skip = job.checking.limits, job.seed, job.skip_bad_images
    images = open_validation(job.data, job.labels, limits, job.limit, seed, skip, job.class_map)
    ranging = None
    if job.calibration is not None:
        ranging = open_calibration(job.calibration, job.recipe, job.calibration_images, seed, skip)
    how = Quantization(
        precision=job.precision,
        recipe=job.recipe,
        images=ranging,
        labelled=images if job.mixed else None,
        max_drop=limits.max_drop,
        seed=seed,
        guard=job.guard,
    )
    return images, how


def _loaded(job: Job, images: Images | None, watch: Stopwatch) -> Network:
    """Return the network, whose classes are those of the images.

    Raises:
        InputError: it cannot be loaded, or the classes do not fit.
    """
    with watch.step("capture") as notes:
        network = job.model if isinstance(job.model, Network) else load(job.model, **job.own, seed=job.seed)
        size = sum(t.value.nbytes for t in network.graph.constants())
        notes.append(f"{len(network.graph.nodes)} ops, {_megabytes(size)} of weights")
    network = _named_by(images, network) if job.class_map is None else network
    if images is not None and network.classes is not None:
        match_labels(images, network.labels, network.classes, network.graph.metadata.label_offset)
    return network


def _entries(
    made: Network, artifacts: Sequence[Artifact], images: Images | None, job: Job, watch: Stopwatch
) -> list[ReportEntry]:
    """Return the entries of the artifacts, checked where something is run, and of what could not be written."""
    costs = _mixed_costs(made, artifacts, job)
    if job.runs:
        with watch.step("validate") as notes:
            beside = beside_network(made, made.preprocess)
            fp32 = beside.reference if images is not None else None
            subjects = list(map(Subject.of, artifacts))
            entries = check(subjects, job.checking, images, reference=fp32, oracle=beside.oracle)
            notes.append(f"{entries[0].accuracy.n} images" if images is not None else "no images")
    else:
        entries = [Subject.of(artifact).entry(None) for artifact in artifacts]
    found, seconds = made.findings, dict(watch.seconds)
    entries += [_not_written(made, job.precision, *fault) for fault in job.refused.items()]
    entries.sort(key=lambda entry: job.asked.index(entry.target))
    return [replace(e, seconds=seconds, findings=(*found, *costs.get(e.target, ()), *e.findings)) for e in entries]


def _named_by(images: Images | None, network: Network) -> Network:
    """Return the network with the names of the data's classes, where it has none and they are as many."""
    names, outputs = None if images is None else images.classes, network.classes
    if names is None or network.labels is not None or outputs != len(names) + network.graph.metadata.label_offset:
        return network
    say(f"note: the labels are the names of the data's {len(names)} classes, in their order; --labels FILE says others")
    return with_labels(network, names)


def _quantized(network: Network, how: Quantization, watch: Stopwatch, checkpoint: Any) -> Network:
    """The network in the precision asked for."""
    if how.precision in INTEGER_PRECISIONS and how.images is None:
        if network.precision != how.precision:
            raise InputError(f"{network.name} is {network.precision}, not {how.precision} yet; pass --calibration DIR")
        return network
    return quantized(network, how, watch, checkpoint) if how.precision in QUANTIZED else network.as_float()


def _written(network: Network, job: Job) -> list[Artifact]:
    """Convert to every format, then write what could be converted; the others' errors go into ``job.refused``.

    Raises:
        EdgecnnError: no format could be converted; nothing is written.
    """
    made = []
    for target in job.targets:
        try:
            made.append(_converted(network, target, job))
        except EdgecnnError as error:
            job.refused[target] = error
    if not made:
        raise together(job.refused)
    network.save(job.folder)
    return [artifact.write(job.folder) for artifact in made]


def _converted(network: Network, target: str, job: Job) -> Artifact:
    places = job.checking.devices
    return convert(network, target, precision=job.precision, io=job.io, batch=job.batch, devices=places)


def _not_written(network: Network, precision: str, target: str, error: EdgecnnError) -> ReportEntry:
    """Return the entry of a format that could not be written."""
    finding = Finding(code="not_written", text=f"not written: {error}", severity="error")
    model = network.graph.metadata.model
    return ReportEntry(
        model=model, target=target, device=None, artifact=None, size_bytes=0, precision=precision, findings=(finding,)
    )


def _mixed_costs(network: Network, artifacts: Sequence[Artifact], job: Job) -> Mapping[str, tuple[Finding, ...]]:
    """Measure what the layers that are kept out of 8 bits cost in latency on this machine, by target."""
    if not isinstance(network, QuantizedNetwork) or network.int8_alone is None or not network.graph.kept:
        return {}
    from edgecnn.mixed import latency_cost

    found = {}
    alone = replace(network, graph=network.int8_alone)
    for artifact in (a for a in artifacts if a.target in device("host").targets):
        plain = _converted(alone, artifact.target, job).converted
        assert artifact.path is not None
        cost = latency_cost(plain, artifact.path, job.checking.threads)
        say(f"mixed: {artifact.target}: {cost}")
        found[artifact.target] = (Finding(code="mixed_latency", text=f"what is kept costs latency: {cost}"),)
    return found


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
