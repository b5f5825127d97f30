"""The street from MODEL to report: each stage hands its result to the next, and nothing flows back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.allocator import keep_freed_memory
from edgecnn.artifact import INTEGER_PRECISIONS, manifest_path, read_manifest, write_artifact
from edgecnn.data import Images, match_labels, open_images
from edgecnn.data.lint import CalibrationLint
from edgecnn.data.synthetic import SyntheticImages
from edgecnn.errors import InputError, MissingDependencyError, UnsupportedError
from edgecnn.evaluation.check import KEPT, Checking, Subject, check
from edgecnn.evaluation.references import fed_as, float_reference
from edgecnn.files import require_writable, write_json
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.serialize import save
from edgecnn.progress import Stopwatch, track
from edgecnn.quant.recipe import DEFAULT, Recipe
from edgecnn.quant.recipe import recipe as named_recipe
from edgecnn.quant.step_checkpoint import StepCheckpoint
from edgecnn.report.record import ReportEntry
from edgecnn.source import Source, load_graph
from edgecnn_converters.registry import TARGETS_OF_ALL, converter
from edgecnn_targets.devices import device
from edgecnn_targets.registry import runtime

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import Calibration

RANKING_IMAGES = 16  # calibration images on which --mixed ranks the layers
CALIBRATION_BATCH = 4  # images in memory at a time: few enough to stay in the caches between layers
LIBRARIES = ("edgecnn", "numpy", "torch", "pillow", "ai-edge-litert", "onnx", "onnxruntime", "openvino")
DATA_FREE = "none"  # of --calibration
UNSEEN = 2.0  # so many times as far as of synthesised images, which are of no class, may logits of photographs go
DATA_FREE_LOSS = (  # measured, docs/quantization.md
    "calibrated without data, on synthesised images: expect some 1 to 10 dB less SQNR than with real ones "
    "(MobileNetV1: 1.3 dB, MobileNetV2: 4.2 dB, a small EfficientNet: 9.6 dB); pass --calibration DIR if you can"
)
IO = {"int8": ("int8", "uint8", "float32"), "int16x8": ("int16", "float32")}  # of an artifact's input and output
PRECISIONS = {"none": "fp32", "fp16": "fp16", "w8": "w8", "int8": "int8", "int16x8": "int16x8"}  # of --quantize


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to export.

    Attributes:
        source: the model.
        target: a format, or ``all``.
        quantize: a key of ``PRECISIONS``.
        output: the directory.
        checking: how to check what comes out.
        calibration: a folder of images, ``demo``, or ``none`` for synthesised ones; needed for int8 and int16x8.
        calibration_images: at most so many; ``None`` is what the recipe is worth.
        recipe: a named recipe.
        reduce_range: 7-bit weights, for x86 without VNNI.
        per_tensor: one scale for all of a layer's weights.
        mixed: keep the fewest activations of an int8 network in 16 bits such that ``--max-drop`` holds.
        io: type of an integer artifact's input and output.
        skip_bad_images: leave unreadable calibration images out.
        seed: of every random choice.
    """

    source: Source
    target: str
    quantize: str
    output: Path
    checking: Checking
    calibration: str | None = None
    calibration_images: int | None = None
    recipe: str = DEFAULT
    reduce_range: bool = False
    per_tensor: bool = False
    mixed: bool = False
    io: str | None = None
    skip_bad_images: bool = False
    seed: int = 0

    @property
    def targets(self) -> list[str]:
        """The formats, each once."""
        return list(TARGETS_OF_ALL) if self.target == "all" else [self.target]

    @property
    def steps(self) -> Recipe:
        """The recipe, with what the other options change in it."""
        found = named_recipe(self.recipe)
        found = found.with_settings("weights", bits=7) if self.reduce_range else found
        return found.with_settings("weights", per_tensor=True) if self.per_tensor else found

    @property
    def precision(self) -> str:
        """One of ``artifact.PRECISIONS``."""
        return PRECISIONS[self.quantize]


def export(request: Export, watch: Stopwatch) -> list[ReportEntry]:
    """Capture, quantize, convert, write, check; writes the artifacts, ``NAME.edgecnn`` and ``report.json``.

    Everything that can be wrong with the request is found before work starts, or when the network is known.

    Raises:
        InputError: the request, a file or an image is wrong.
        MissingDependencyError: a target or a device lacks a library.
    """
    _check_request(request)
    keep_freed_memory()
    images = request.checking.open_images()
    calibration_images = _calibration_images(request)
    with watch.step("capture") as notes:
        given = loaded = load_graph(request.source)
        if calibration_images is not None:
            from edgecnn.quant import pipeline as quantization

            loaded = quantization.aligned(loaded.as_float(), request.steps, request.precision)
        notes.append(f"{len(loaded.nodes)} ops, {_megabytes(_weight_bytes(loaded))} of weights")
    if images is not None:
        outputs = math.prod(loaded.tensors[loaded.outputs[0]].shape)
        match_labels(images, loaded.metadata.labels, outputs, loaded.metadata.label_offset)
    checkpoint = StepCheckpoint(request.output / f"{request.source.name}.unfinished", watch.say)
    graph, plain, findings = _quantized(request, loaded, calibration_images, images, watch, checkpoint)
    subjects = _emit(request, loaded, graph, watch)
    checkpoint.finish()
    costs = _costs(request, plain, subjects, watch) if plain is not None and graph.kept else {}
    if request.checking.runs_anything:
        with watch.step("validate") as notes:
            oracle = graph if graph.precision in INTEGER_PRECISIONS else None
            reference = None
            if images is not None:
                reference = fed_as(float_reference(given), loaded.metadata.preprocess, given.metadata.preprocess)
            entries = check(subjects, request.checking, images, reference=reference, oracle=oracle)
            notes.append(f"{entries[0].accuracy.n} images" if images is not None else "no images")
    else:
        entries = [_unchecked(subject) for subject in subjects]
    entries = [
        replace(e, seconds=dict(watch.seconds), findings=(*findings, *costs.get(e.target, ()), *e.findings))
        for e in entries
    ]
    for subject in subjects:
        _add_figures(subject, entries)
    write_json(request.output / "report.json", [entry.to_json() for entry in entries])
    return entries


def _check_request(request: Export) -> None:
    for target in request.targets:
        converter(target).require(request.precision)
        command = runtime(target).missing()
        if command is not None:
            raise MissingDependencyError(f"target {target} needs a library that is not installed: {command}")
    integer = request.precision in INTEGER_PRECISIONS
    if request.io is not None and request.io not in (allowed := IO.get(request.precision, ())):
        has = " or ".join(allowed) or "float32"
        raise InputError(f"--io {request.io} is for another precision; {request.quantize} has {has} input and output")
    if not integer and request.calibration is not None:
        raise InputError(f"--calibration is for --quantize int8 and int16x8; {request.quantize} needs none")
    if integer and request.calibration is None and not request.source.is_file:
        raise InputError(
            f"{request.quantize} needs calibration images: pass --calibration DIR (some 300 typical images), demo, "
            "or none to do without"
        )
    assert request.steps
    if request.mixed:
        _check_mixed(request)
    if request.checking.runs_anything:
        request.checking.places(request.targets, request.precision)
    require_writable(request.output)


def _check_mixed(request: Export) -> None:
    if request.precision != "int8":
        raise InputError(f"--mixed is for --quantize int8: {request.quantize} has no 8-bit activations to keep from")
    if request.checking.limits.max_drop is None or request.checking.data is None:
        raise InputError("--mixed keeps layers in 16 bits until a limit holds: pass --max-drop POINTS and --data DIR")
    if request.calibration is None:
        raise InputError("--mixed ranks the layers and quantizes again: pass --calibration DIR")
    if request.steps.setting("int16_promotion", "keep"):
        raise InputError(f"--mixed finds what to keep, and recipe {request.recipe} says it; give one of them")


def _calibration_images(request: Export) -> Images | None:
    if request.calibration is None:
        return None
    count = request.calibration_images or request.steps.calibration_images
    if request.calibration == DATA_FREE:
        return SyntheticImages(count=count, seed=request.seed)
    return open_images(
        request.calibration,
        demo_split="calibration",
        labelled=False,
        limit=count,
        shuffle=request.seed,
        skip_bad=request.skip_bad_images,
    )


def _quantized(
    request: Export,
    loaded: Graph,
    images: Images | None,
    labelled: Images | None,
    watch: Stopwatch,
    checkpoint: StepCheckpoint,
) -> tuple[Graph, Graph | None, tuple[str, ...]]:
    """The graph in the precision asked for, the one without ``--mixed``, and what a user should know of it."""
    if request.precision in INTEGER_PRECISIONS and images is None:
        if loaded.precision != request.precision:
            was = f"{request.source.model} is {loaded.precision}, not {request.precision}"
            raise InputError(f"{was} yet; pass --calibration DIR")
        return loaded, None, ()
    graph, recipe = loaded.as_float(), request.steps
    if request.precision in ("fp32", "fp16"):
        return graph, None, ()
    from edgecnn.quant import pipeline as quantization
    from edgecnn.quant.observers.histogram import extend

    record: dict[str, Any] = {"recipe": recipe.to_json()}
    findings: tuple[str, ...] = ()
    notes_of_mixed: tuple[str, ...] = ()
    plain = None
    if request.precision == "w8":
        with watch.step("quantize"):
            graph = quantization.quantize_weights(graph, recipe)
    else:
        assert images is not None
        with watch.step("calibrate") as notes:
            lint = CalibrationLint()
            stream = _calibration_stream(images, loaded.metadata, lint)
            graph, seen = quantization.calibrated(graph, stream, recipe, keep=RANKING_IMAGES if request.mixed else 0)
            if request.calibration == DATA_FREE:
                seen = extend(seen, graph.outputs, UNSEEN)
            notes.append(f"{len(images) - len(images.bad)} images")
        with watch.step("quantize") as notes:
            exact, graph = graph, quantization.quantize(graph, seen, recipe, request.precision, checkpoint)
            notes.append(f"recipe {recipe.name}")
        assert loaded.metadata.preprocess is not None
        findings = lint.findings(
            loaded.metadata.preprocess,
            growth=seen.growth,
            classes=images.kinds,
            outputs=loaded.tensors[loaded.outputs[0]].shape[-1] - loaded.metadata.label_offset,
        )
        if request.calibration == DATA_FREE:
            findings = (DATA_FREE_LOSS, *findings)
        if request.mixed:
            assert labelled is not None
            plain = graph
            graph, recipe, notes_of_mixed = _mixed(request, exact, plain, seen, labelled, watch, checkpoint)
            record["recipe"] = recipe.to_json()
        if graph.kept:
            record[KEPT] = graph.kept_tensors
        if images.bad:
            findings = (f"{len(images.bad)} unreadable calibration images were left out", *findings)
        used = {"images": len(images) - len(images.bad), "sha256": images.digest}
        record |= {"calibration": used, "seed": request.seed}
    for finding in findings:
        watch.say(f"warning: {finding}")
    return replace(graph, metadata=replace(graph.metadata, quantization=record)), plain, (*findings, *notes_of_mixed)


def _mixed(
    request: Export,
    exact: Graph,
    plain: Graph,
    seen: Calibration,
    labelled: Images,
    watch: Stopwatch,
    checkpoint: StepCheckpoint,
) -> tuple[Graph, Recipe, tuple[str, ...]]:
    """The graph that keeps the fewest activations in 16 bits such that the limit holds, its recipe, and findings."""
    from edgecnn.mixed import DropMeter, choose
    from edgecnn.quant import pipeline as quantization

    assert exact.metadata.preprocess is not None
    assert request.checking.limits.max_drop is not None
    kept, said = choose(
        plain,
        lambda keep: quantization.quantize(
            exact, seen, request.steps.quick.with_settings("int16_promotion", keep=keep)
        ),
        seen.images[:RANKING_IMAGES],
        DropMeter(exact, labelled, exact.metadata.preprocess),
        request.checking.limits.max_drop,
        watch.say,
    )
    watch.say(f"mixed: {said}")
    recipe = request.steps.with_settings("int16_promotion", keep=kept)
    return quantization.quantize(exact, seen, recipe, checkpoint=checkpoint) if kept else plain, recipe, (said,)


def _costs(request: Export, plain: Graph, subjects: Sequence[Subject], watch: Stopwatch) -> Mapping[str, tuple[str]]:
    """What the layers that are kept cost in latency, by target."""
    from edgecnn.mixed import latency_cost

    found = {}
    for subject in (s for s in subjects if s.target in device("host").targets):
        emission = converter(subject.target).convert(plain, precision="int8", **_choices(request, subject.target))
        cost = latency_cost(emission, subject.path, request.checking.threads)
        watch.say(f"mixed: {subject.target}: {cost}")
        found[subject.target] = (f"what is kept costs latency: {cost}",)
    return found


def _calibration_stream(images: Images, metadata: Metadata, lint: CalibrationLint) -> Iterator[NDArray[np.float32]]:
    preprocess = metadata.preprocess
    if preprocess is None:
        raise InputError(
            f"nothing says how images are fed to {metadata.model}; pass --preprocess resize=HxW,mean=…,std=…"
        )
    count = math.ceil(len(images) / CALIBRATION_BATCH)
    for pixels, _ in track(images.batches(preprocess, CALIBRATION_BATCH), "calibrate", count):
        lint.update(pixels)
        yield preprocess.normalise(pixels)


def _emit(request: Export, loaded: Graph, graph: Graph, watch: Stopwatch) -> list[Subject]:
    name, subjects = request.source.name, []
    with watch.step("convert") as notes:
        faults = [(t, *fault) for t in request.targets for fault in converter(t).unsupported(graph, request.precision)]
        if faults:
            raise UnsupportedError(
                "; ".join(f"{target} cannot hold {node}: {reason}" for target, node, reason in faults)
            )
        emissions = [
            converter(t).convert(graph, precision=request.precision, **_choices(request, t)) for t in request.targets
        ]
        kept = request.output / f"{name}.edgecnn"
        if not (request.source.is_file and kept.exists() and kept.samefile(request.source.model)):
            save(graph, kept)
        for emission in emissions:
            path = write_artifact(request.output, name, emission, graph.metadata, _versions())
            size = sum(map(len, emission.files.values()))
            subjects.append(
                Subject(
                    path=path,
                    target=emission.target,
                    precision=emission.precision,
                    size_bytes=size,
                    metadata=graph.metadata,
                )
            )
            notes.append(f"{path} {_megabytes(size)}")
    return subjects


def _choices(request: Export, target: str) -> dict[str, str]:
    """What the user, or the devices, choose of an artifact's form."""
    chosen = {"io": request.io} if request.io is not None else {}
    if target == "c":
        chosen["name"] = request.source.name
    if target == "onnx" and request.precision == "int8":
        chosen["activations"] = request.checking.onnx_activations()
    return chosen


def _versions() -> Mapping[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = packages.version(library)
        except packages.PackageNotFoundError:
            continue
    return found


def _unchecked(subject: Subject) -> ReportEntry:
    return ReportEntry(
        model=subject.metadata.model,
        target=subject.target,
        device=None,
        artifact=str(subject.path),
        size_bytes=subject.size_bytes,
        precision=subject.precision,
    )


def _add_figures(subject: Subject, entries: Sequence[ReportEntry]) -> None:
    manifest = read_manifest(subject.path, subject.target)
    assert manifest is not None
    mine = tuple(entry.to_json() for entry in entries if entry.artifact == str(subject.path))
    write_json(manifest_path(subject.path, subject.target), replace(manifest, figures=mine).to_json())


def _weight_bytes(graph: Graph) -> int:
    return sum(t.value.nbytes for t in graph.tensors.values() if t.value is not None)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
