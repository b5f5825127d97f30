"""Post-training quantization: a float graph and some images in, the same graph with integers beside its values out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.graph.contract import FIXED_OF, WEIGHTED
from edgecnn.graph.ir import Graph, QParams
from edgecnn.graph.ops import OPS
from edgecnn.quant import scheme
from edgecnn.quant.absorb import absorb_biases
from edgecnn.quant.bias_correction import correct_biases
from edgecnn.quant.blocks import Blocks
from edgecnn.quant.calibrate import Calibration, Range, calibrate, mse_range, peeked, percentile_range, union
from edgecnn.quant.equalize import equalize
from edgecnn.quant.felt import IMAGES, channel_weights, felt
from edgecnn.quant.learned_steps import learn_steps
from edgecnn.quant.one_sided import one_sided
from edgecnn.quant.pixels import on_pixels, pixel_grid
from edgecnn.quant.readers import Reader, around_swishes, reader_of
from edgecnn.quant.recipe import Recipe
from edgecnn.quant.reconstruct import reconstruct
from edgecnn.quant.resume import Unfinished
from edgecnn.quant.spare import copy_into_spare
from edgecnn.quant.statistics import channel_statistics
from edgecnn.quant.unison import added, in_unison, share_scales, weight_trials
from edgecnn.quant.widen import widen

SECOND_MARGIN = 1.1  # beyond the second largest logit of any image, above which two of another image could tie
INPUT_MARGIN = 256 / 255  # of the input's range: pixels in 256 levels do not fall half way between two integers then


def quantize(
    graph: Graph,
    calibration: Calibration,
    recipe: Recipe,
    precision: str = "int8",
    unfinished: Unfinished | None = None,
) -> Graph:
    """The integer graph: every activation has parameters, every constant integers.

    Args:
        graph: float.
        calibration: of this graph; with ``images_needed(recipe)`` images kept.
        recipe: the steps.
        precision: ``int8``, but for what the recipe keeps in 16 bits, or ``int16x8``.
        unfinished: of the step that takes minutes, what an earlier run has done; see ``resume``.

    Raises:
        InputError: the graph is quantized already, or the recipe keeps what it does not have.
        UnsupportedError: an op's scale contract cannot be met; names the node.
    """
    if graph.precision != "fp32":
        raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
    wide, ranges = widen(graph, calibration.ranges, wide_activations(graph, recipe, precision))
    looked = calibration.images[:IMAGES]
    weights = {}
    if recipe.shared_scales:
        weights = {name: float(each.sum()) for name, each in felt(wide, added(wide), looked).items()}
    result = quantize_activations(wide, ranges, recipe, precision, weights)
    if recipe.activation_range == "learned":
        result = learn_steps(result, calibration.images[: recipe.step_images], epochs=recipe.step_epochs)
        result = settled(result, recipe, weights)
    if recipe.spare_channels:
        result = copy_into_spare(result, looked)
    result = quantize_constants(result)
    result = quantize_weights(result, recipe)
    result = one_sided(quantize_biases(result))  # before what mends biases: it moves the grids of adds a little
    if recipe.reconstruction != "none":
        images = calibration.images[: recipe.reconstruction_images]
        together = None
        if recipe.reconstruction == "block":
            together = Blocks(layers=recipe.block_layers, iterations=recipe.block_iterations)
        return reconstruct(result, images, recipe.weight_limit, unfinished, together)
    if recipe.bias_correction:
        return correct_biases(result, calibration.images[: recipe.correction_images])
    return result


def aligned(graph: Graph, recipe: Recipe, precision: str) -> Graph:
    """The float graph, fed so that pixels are integers already where the recipe asks for it and they can be."""
    return on_pixels(graph) if recipe.pixel_grid and precision == "int8" else graph


def calibrated(
    graph: Graph, batches: Iterator[NDArray[np.float32]], recipe: Recipe, *, keep: int = 0
) -> tuple[Graph, Calibration]:
    """The float graph that the recipe quantizes, and what the images show of it.

    Args:
        graph: float.
        batches: (N, H, W, C) float32 network inputs.
        recipe: the steps.
        keep: how many images to keep at least.
    """
    felt_ones = _felt_ones(graph, recipe)
    weights: Mapping[str, NDArray[np.float64]] = {}
    ahead = max(recipe.statistics_images if recipe.prepares else 0, IMAGES if felt_ones else 0)
    if ahead:
        first, batches = peeked(batches, ahead)
        if len(first):
            graph = prepare(graph, first[: recipe.statistics_images], recipe)
            weights = channel_weights(graph, felt_ones, first[:IMAGES]) if felt_ones else {}
        del first  # they come again in the stream
    return graph, calibrate(graph, batches, keep=max(keep, images_needed(recipe)), weights=weights)


def _felt_ones(graph: Graph, recipe: Recipe) -> set[str]:
    """The activations in whose ranges a channel counts as much as the logits feel it; of a scale group all or none."""
    groups = groups_inside(graph) if recipe.activation_range in ("mse", "felt", "learned") else []
    if recipe.activation_range != "felt":
        swished = around_swishes(graph)
        groups = [group for group in groups if group & swished]
    return set().union(*groups)


def prepare(graph: Graph, images: NDArray[np.float32], recipe: Recipe) -> Graph:
    """The float graph that the recipe quantizes: it computes what the given one does, and suffers less from int8.

    Args:
        graph: float.
        images: (N, H, W, C) network inputs, ``recipe.statistics_images`` of them where the recipe prepares anything.
        recipe: the steps.
    """
    if recipe.equalization:
        graph = equalize(graph, channel_statistics(graph, images), per_tensor=recipe.per_tensor)
    if recipe.bias_absorption:
        graph = absorb_biases(graph, channel_statistics(graph, images))
    return graph


def images_needed(recipe: Recipe) -> int:
    """Calibration images that the recipe's steps look at again."""
    needed = [IMAGES] if recipe.spare_channels or recipe.shared_scales else [0]
    if recipe.activation_range == "learned":
        needed.append(recipe.step_images)
    if recipe.reconstruction != "none":
        needed.append(recipe.reconstruction_images)
    elif recipe.bias_correction:
        needed.append(recipe.correction_images)
    return max(needed)


def wide_activations(graph: Graph, recipe: Recipe, precision: str) -> set[str]:
    """The activations in 16 bits: all, or those that the recipe keeps so and all that must share their scale.

    Raises:
        InputError: the recipe keeps what is no activation inside the graph.
    """
    if precision == "int16x8":
        return {t.name for t in graph.activations()}
    groups = groups_inside(graph)
    inside: set[str] = set().union(*groups)
    strange = set(recipe.keep) - inside
    if strange:
        raise InputError(unknown("activation to keep in 16 bits", min(strange), sorted(inside)))
    return set().union(*(group for group in groups if group & set(recipe.keep)))


def groups_inside(graph: Graph) -> list[set[str]]:
    """The ``scale_groups`` that hold neither the network's input nor its output, whose types stay what they are."""
    return [group for group in scheme.scale_groups(graph) if not group & {*graph.inputs, *graph.outputs}]


def quantize_activations(
    graph: Graph,
    ranges: Mapping[str, Range],
    recipe: Recipe,
    precision: str = "int8",
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Graph:
    """Every activation gets the parameters of its range; those that must share a scale get the same.

    The input has the precision's type, and so has everything up to a requantize. What the network is given is never
    clipped. What it answers neither, but by ``recipe.logit_range``: see ``_logit_qparams``.

    Args:
        graph: float.
        ranges: of its activations.
        recipe: the steps.
        precision: as in ``quantize``.
        weights: for ``share_scales``, where the recipe has it.

    Raises:
        UnsupportedError: an op's scale contract cannot be met; names the node.
    """
    fixed = {n.output for n in graph if OPS[n.op].scale == "fixed"}
    types = scheme.activation_types(graph, "int16" if precision == "int16x8" else "int8")
    pixels = pixel_grid(graph.metadata.preprocess) if recipe.pixel_grid and precision == "int8" else None
    chosen: dict[str, QParams] = {}
    for group in scheme.scale_groups(graph):
        dtype = types[min(group)]
        if group & fixed:
            if group - fixed and any(_origin(graph, name) for name in group - fixed):
                names = ", ".join(sorted(group))
                raise UnsupportedError(
                    f"{names} must share one scale, but a sigmoid or softmax among them has a fixed scale; "
                    "join them after a layer of their own"
                )
            quant = FIXED_OF[dtype]
        elif pixels is not None and not group.isdisjoint(graph.inputs):
            quant = pixels
        elif recipe.logit_range == "mse" and types[min(group)] == "int8" and (named := group & set(graph.outputs)):
            quant = _logit_qparams(union([ranges[name] for name in sorted(group)]), ranges[min(named)].second)
        else:
            seen = [ranges[name] for name in sorted(group)]
            method = recipe.activation_range if group.isdisjoint((*graph.inputs, *graph.outputs)) else "minmax"
            margin = 1.0 if group.isdisjoint(graph.inputs) else INPUT_MARGIN
            reader = reader_of(graph, min(group)) if len(group) == 1 else None
            quant = _group_qparams(seen, method, recipe.percentile, dtype, margin, reader)
        chosen.update(dict.fromkeys(group, quant))
    return _settled(graph, chosen, recipe, weights)


def settled(graph: Graph, recipe: Recipe, weights: Mapping[str, float]) -> Graph:
    """The graph with the scales of its activations moved to where kernels can work with them, and round alike."""
    chosen: dict[str, QParams] = {}
    for group in scheme.scale_groups(graph):
        quant = graph.tensors[min(group)].quant
        assert quant is not None
        chosen.update(dict.fromkeys(group, quant))
    return _settled(graph, chosen, recipe, weights)


def _settled(graph: Graph, chosen: dict[str, QParams], recipe: Recipe, weights: Mapping[str, float]) -> Graph:
    """As ``settled``; those that must share their parameters are one object in ``chosen``, which changes."""
    _widen_for_kernels(graph, chosen)
    if recipe.shared_scales:
        share_scales(graph, chosen, weights)
    in_unison(graph, chosen)
    return graph.with_tensors(*(replace(graph.tensors[name], quant=quant) for name, quant in chosen.items()))


def _widen_for_kernels(graph: Graph, chosen: dict[str, QParams]) -> None:
    """Raise scales, in place, until every op's integer kernels can work with them; only dead layers need it."""

    def raise_to(name: str, scale: float) -> bool:
        old = chosen[name]
        if np.float32(scale) <= old.scale[0]:
            return False
        group = [other for other, quant in chosen.items() if quant is old]
        chosen.update(dict.fromkeys(group, scheme.rescaled(old, scale)))
        return True

    changed = True
    while changed:
        changed = False
        for node in graph:
            if OPS[node.op].scale != "own" or node.op == "requantize":
                continue
            names, dtype = [i for i in node.inputs if i in chosen], chosen[node.output].dtype
            constants = [v for i in node.inputs[1:] if (v := graph.tensors[i].value) is not None]
            weight = max((scheme.constant_scale(node.op, v, dtype) for v in constants[:1]), default=0.0)
            scales, output = scheme.kernel_scales(
                node.op, [float(chosen[i].scale[0]) for i in names], float(chosen[node.output].scale[0]), weight
            )
            for name, scale in ((node.output, output), *zip(names, scales, strict=True)):
                changed |= chosen[name] not in FIXED_OF.values() and raise_to(name, scale)
            if dtype == "int16" and node.op in WEIGHTED:
                changed |= raise_to(node.output, scheme.accumulator_scale(float(chosen[names[0]].scale[0]), *constants))


def _origin(graph: Graph, name: str) -> bool:
    """Whether a tensor has a range of its own: an input, or made by an op that does not pass its input's scale on."""
    node = graph.producer(name)
    return node is None or OPS[node.op].scale == "own"


def _logit_qparams(together: Range, second: float) -> QParams:
    """Logits clipped where that lowers the squared error, but above any image's second largest: none of them tie.

    The largest logit of an image may be clipped: it stays the largest. An output that is no vector is never clipped.

    Args:
        together: of all that shares the output's scale.
        second: ``Range.second`` of the output.
    """
    if math.isnan(second):
        return scheme.activation_qparams(together.low, together.high)
    low, high = mse_range(together)
    return scheme.activation_qparams(low, min(max(high, SECOND_MARGIN * second), together.high))


def _group_qparams(
    seen: list[Range], method: str, percentile: float, dtype: str, margin: float, reader: Reader | None
) -> QParams:
    if dtype == "int16":  # 32,767 steps cover all that was seen; clipping gains nothing
        return scheme.activation_qparams(min(r.low for r in seen), max(r.high for r in seen), dtype)
    together = union(seen)
    match method:
        case "mse" | "felt" | "learned":
            return scheme.activation_qparams(*mse_range(together, reader))
        case "percentile":
            return scheme.activation_qparams(*percentile_range(together, percentile))
    return scheme.activation_qparams(together.low * margin, together.high * margin)


def quantize_constants(graph: Graph) -> Graph:
    """Constant operands of elementwise ops: per tensor, in the type of the output."""
    changed = []
    for node in graph:
        for name in node.inputs if node.op not in WEIGHTED else ():
            tensor = graph.tensors[name]
            if tensor.value is not None:
                made = graph.tensors[node.output].quant
                assert made is not None
                quant = scheme.activation_qparams(float(tensor.value.min()), float(tensor.value.max()), made.dtype)
                changed.append(replace(tensor, quant=quant, integers=quant.quantize(tensor.value)))
    return graph.with_tensors(*changed)


def quantize_weights(graph: Graph, recipe: Recipe) -> Graph:
    """int8 weights per output channel, or per tensor; biases and activations stay as they are.

    Where the activations are quantized already, scales are no smaller than integer kernels and int32 biases bear.

    Raises:
        InputError: the weights are quantized already.
    """
    changed = []
    for node in graph:
        if node.op in WEIGHTED:
            source, weight, bias = (graph.tensors[i] for i in node.inputs)
            if weight.quant is not None:
                raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
            assert weight.value is not None
            assert bias.value is not None
            scales = scheme.weight_scales(
                weight.value, recipe.weight_range, recipe.weight_limit, per_tensor=recipe.per_tensor
            )
            made = graph.tensors[node.output].quant
            if source.quant is not None and made is not None:
                scales = scheme.bearable(scales, source.quant, made, bias.value)
                if source.quant.dtype == made.dtype == "int8":
                    trials = weight_trials(node, source.quant, made, scales)
                    scales = scheme.least_error(weight.value, trials, recipe.weight_limit)
            changed.append(scheme.quantize_weight(weight, scales, recipe.weight_limit))
    return graph.with_tensors(*changed)


def quantize_biases(graph: Graph) -> Graph:
    """int32 (after int16 activations: int64) biases at the product of their layer's input and weight scales."""
    changed = []
    for node in graph:
        if node.op in WEIGHTED:
            source, weight, bias = (graph.tensors[i] for i in node.inputs)
            assert source.quant is not None
            assert weight.quant is not None
            assert bias.value is not None
            scales = scheme.bias_scales(source.quant.scale, weight.quant.scale)
            changed.append(scheme.quantize_bias(bias, scales, bias.value, scheme.bias_type(source.quant)))
    return graph.with_tensors(*changed)
