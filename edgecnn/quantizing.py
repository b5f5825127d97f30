"""``edgecnn.quantize``: a network and some images in, the same network with integers out, with a record of how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.data import Images, open_images
from edgecnn.data.feed import Feed
from edgecnn.data.lint import CalibrationLint
from edgecnn.data.synthetic import SyntheticImages
from edgecnn.errors import InputError, unknown
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph
from edgecnn.loading import IMPORT
from edgecnn.network import KEPT, Network, QuantizedNetwork
from edgecnn.progress import Progress, Stopwatch, say, track, use
from edgecnn.quant import DEFAULT
from edgecnn.quant.recipe import Recipe
from edgecnn.quant.recipe import recipe as named_recipe
from edgecnn.report.record import Finding

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import Calibration
    from edgecnn.quant.step_checkpoint import StepCheckpoint

QUANTIZED = ("w8", *INTEGER_PRECISIONS)
RANKING_IMAGES = 16  # calibration images on which the layers are ranked for mixed precision
BATCH = 4  # images in memory at a time: few enough to stay in the caches between layers
DATA_FREE = "none"  # of the calibration
UNSEEN = 2.0  # so many times as far as of synthesised images, which are of no class, may logits of photographs go
DATA_FREE_LOSS = Finding(  # measured, docs/quantization.md
    code="data_free",
    text="calibrated without data, on synthesised images: expect some 1 to 10 dB less SQNR than with real ones "
    "(MobileNetV1: 1.3 dB, MobileNetV2: 4.2 dB, a small EfficientNet: 9.6 dB); pass --calibration DIR if you can",
)


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How to quantize: arguments of ``edgecnn.quantize``.

    Attributes:
        images: to calibrate on; ``None`` for w8.
        labelled: images on which mixed precision holds ``max_drop``; ``None`` keeps all layers in 8 bits.
    """

    precision: str
    recipe: Recipe
    images: Images | None
    labelled: Images | None = None
    max_drop: float | None = None
    seed: int = 0
    guard: bool = True


def quantize(
    network: Network,
    calibration: Any = None,
    *,
    recipe: str | Path | Recipe = DEFAULT,
    precision: str = "int8",
    calibration_images: int | None = None,
    reduce_range: bool = False,
    per_tensor: bool = False,
    max_drop: float | None = None,
    data: Any = None,
    labels: Any = None,
    checkpoint: str | Path | None = None,
    skip_bad_images: bool = False,
    guard: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizedNetwork:
    """Quantize a network once, for every format.

    Args:
        network: from ``edgecnn.load``.
        calibration: images that set the ranges, no labels needed: a folder, ``FILE.npz:SPLIT``, ``demo``, an array of
            levels (N, H, W, C) uint8, an iterable of arrays, a torch ``Dataset`` or ``DataLoader``; ``none``
            synthesises images, at some loss. Of several inputs: a mapping from input to array, ``FILE.npz`` with an
            array of each name, or an iterable of mappings or tuples.
        recipe: a name from ``edgecnn recipes``, a ``.toml`` file, or a ``Recipe``.
        precision: ``int8``, ``int16x8`` (16-bit activations) or ``w8`` (weights only, needs no images).
        calibration_images: at most so many; ``None`` is what the recipe is worth.
        reduce_range: 7-bit weights, for x86 without VNNI.
        per_tensor: one scale for all of a layer's weights.
        max_drop: keep the fewest activations in 16 bits such that top-1 drops by no more, in points, on ``data``.
        data: labelled images for ``max_drop``.
        labels: of ``data`` where it is an array.
        checkpoint: a folder that keeps the results of steps that take minutes until they have all ended, so that the
            same call goes on after a kill.
        skip_bad_images: leave unreadable images out, instead of stopping.
        guard: judge every step on some of the calibration images, and leave out what does harm.
        seed: of every random choice. The same inputs and seed give the same integers.
        progress: shows progress; ``Progress()`` is silent.

    Raises:
        InputError: images, recipe and network do not fit together.
        UnsupportedError: the scale contract of an op cannot be met.

    Example:
        >>> int8 = edgecnn.quantize(network, calibration="images/", recipe="fast")
    """
    with use(progress):
        if precision not in QUANTIZED:
            raise InputError(unknown("precision", precision, QUANTIZED))
        steps = recipe_of(recipe, reduce_range=reduce_range, per_tensor=per_tensor)
        images = None
        if precision in INTEGER_PRECISIONS:
            if calibration is None:
                raise InputError(f"{precision} needs calibration images: give some 300 typical images, demo or none")
            images = open_calibration(calibration, steps, calibration_images, seed, skip_bad_images)
        labelled = None
        if max_drop is not None:
            if data is None:
                raise InputError("max_drop holds on labelled images: pass data=")
            labelled = open_images(data, demo_split="test", labelled=True, labels=labels, skip_bad=skip_bad_images)
        how = Quantization(
            precision=precision,
            recipe=steps,
            images=images,
            labelled=labelled,
            max_drop=max_drop,
            seed=seed,
            guard=guard,
        )
        from edgecnn.quant.step_checkpoint import StepCheckpoint

        held = StepCheckpoint(None if checkpoint is None else Path(checkpoint), say)
        made = quantized(network, how, Stopwatch(), held)
        held.finish()
        return made


def recipe_of(name: str | Path | Recipe, *, reduce_range: bool = False, per_tensor: bool = False) -> Recipe:
    """Return the recipe, with what options change in it.

    Raises:
        InputError: no such recipe.
    """
    found = name if isinstance(name, Recipe) else named_recipe(str(name))
    found = found.with_settings("weights", bits=7) if reduce_range else found
    return found.with_settings("weights", per_tensor=True) if per_tensor else found


def open_calibration(given: Any, recipe: Recipe, count: int | None, seed: int, skip_bad: bool) -> Images:
    """Return the calibration images that a user names or holds.

    Raises:
        InputError: see ``edgecnn.data.open_images``.
    """
    count = count or recipe.calibration_images
    if isinstance(given, str) and given == DATA_FREE:
        return SyntheticImages(count=count, seed=seed)
    return open_images(given, demo_split="calibration", labelled=False, limit=count, shuffle=seed, skip_bad=skip_bad)


def quantized(
    network: Network, how: Quantization, watch: Stopwatch, checkpoint: StepCheckpoint | None
) -> QuantizedNetwork:
    """Quantize a network and record how: the one place where images become integers.

    Args:
        network: float, or quantized before: its float values are taken.
        how: with images, but for w8.
        watch: takes the seconds of ``calibrate`` and ``quantize``.
        checkpoint: of the step that takes minutes, what an earlier run has done.

    Raises:
        InputError: as ``quantize``.
    """
    from edgecnn.quant import pipeline as post_training
    from edgecnn.quant.guard import judging_images
    from edgecnn.quant.indices import compared, with_places
    from edgecnn.quant.shared_outputs import crowded_outputs

    record: dict[str, Any] = {"recipe": how.recipe.to_json()}
    if how.precision == "w8":
        with watch.step("quantize"):
            graph = post_training.quantize_weights(network.graph.as_float(), how.recipe)
        return _recorded(network, graph, record)
    assert how.images is not None
    given, images = network.graph.as_float(), how.images
    fed = post_training.aligned(compared(given, how.precision), how.recipe, how.precision)
    feed, lint = Feed.of(fed), CalibrationLint()
    with watch.step("calibrate") as notes:
        keep = RANKING_IMAGES if how.labelled is not None else 0
        judging = judging_images(fed) if how.guard else 0
        stream = _stream(images, feed, lint)
        exact, seen = post_training.calibrated(fed, stream, how.recipe, keep=keep, judging=judging)
        if isinstance(images, SyntheticImages):
            from edgecnn.quant.observers.histogram import extend

            seen = extend(seen, exact.outputs, UNSEEN)
        used = images.count if isinstance(images, SyntheticImages) else len(images) - len(images.bad)
        notes.append(f"{used} images")
    with watch.step("quantize") as notes:
        needed = post_training.images_needed(exact, how.recipe)
        judging = judging_images(exact, seen.count, needed) if how.guard else 0
        made = post_training.quantize(exact, seen, how.recipe, how.precision, checkpoint, judging=judging)
        notes.append(f"recipe {how.recipe.name}")
    findings = [DATA_FREE_LOSS] if isinstance(images, SyntheticImages) else []
    if images.bad:
        text = f"{len(images.bad)} unreadable calibration images were left out"
        findings.append(Finding(code="unreadable_images", text=text))
    known = network.classes
    outputs = None if known is None else known - exact.metadata.label_offset
    said = lint.findings(feed.preprocess, growth=seen.growth, classes=images.kinds, outputs=outputs)
    findings += [Finding(code="calibration", text=line, images=lint.at_fault.get(line, ())) for line in said]
    findings += [Finding(code="crowded_output", text=line) for line in crowded_outputs(made.graph, seen.statistics)]
    findings += [Finding(code="step_left_out", text=str(harm), severity="info") for harm in made.harms]
    for finding in findings:
        say(f"{'note' if finding.severity == 'info' else 'warning'}: {finding}")
    graph, recipe, alone = made.graph, made.recipe, None
    if how.labelled is not None:
        alone = graph
        graph, recipe, note = _mixed(replace(how, recipe=recipe), exact, graph, seen, checkpoint)
        findings.append(Finding(code="mixed_precision", text=note, severity="info"))
    graph, alone = with_places(graph, given), alone and with_places(alone, given)
    if graph.kept:
        record[KEPT] = graph.kept_tensors
    record |= {"recipe": recipe.to_json(), "calibration": {"images": used, "sha256": images.digest}, "seed": how.seed}
    imported = [finding for finding in network.findings if finding.code == IMPORT]
    return replace(_recorded(network, graph, record), findings=(*imported, *findings), int8_alone=alone)


def _recorded(network: Network, graph: Graph, record: dict[str, Any]) -> QuantizedNetwork:
    graph = replace(graph, metadata=replace(graph.metadata, quantization=record))
    return QuantizedNetwork(graph=graph, name=network.name, given=network)


def _stream(images: Images, feed: Feed, lint: CalibrationLint) -> Iterator[Batch]:
    """Network inputs, float32, which the lint looks at as they pass."""
    batches = images.batches(feed, BATCH)
    for given, _ in track(batches, "calibrate", len(images) or None, unit="images", each=BATCH):
        made, pixels = feed.inputs(given), feed.image_of(given)
        lint.update(next(iter(made.arrays.values())) if pixels is None else pixels, images.names)
        yield made


def _mixed(
    how: Quantization, exact: Graph, plain: Graph, seen: Calibration, checkpoint: StepCheckpoint | None
) -> tuple[Graph, Recipe, str]:
    """The graph that keeps the fewest activations in 16 bits such that the drop holds, its recipe, and a note."""
    from edgecnn.mixed import DropMeter, choose
    from edgecnn.quant import pipeline as post_training

    assert how.labelled is not None
    assert how.max_drop is not None

    def keeping(keep: tuple[str, ...]) -> Graph:
        return post_training.quantize(exact, seen, how.recipe.quick.with_settings("int16_promotion", keep=keep)).graph

    kept, note = choose(
        plain,
        keeping,
        seen.images[:RANKING_IMAGES],
        DropMeter(exact, how.labelled),
        how.max_drop,
    )
    say(f"mixed: {note}")
    recipe = how.recipe.with_settings("int16_promotion", keep=kept)
    made = post_training.quantize(exact, seen, recipe, checkpoint=checkpoint).graph if kept else plain
    return made, recipe, note
