"""Post-training quantization: a float graph and some images in, the same graph with integers beside its values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.contract import FIXED, WEIGHTED
from edgecnn.graph.ir import Graph, QParams
from edgecnn.graph.ops import OPS
from edgecnn.quant import scheme
from edgecnn.quant.bias_correction import correct_biases
from edgecnn.quant.calibrate import Calibration, Range, mse_range, percentile_range
from edgecnn.recipe import Recipe


def quantize(graph: Graph, calibration: Calibration, recipe: Recipe) -> Graph:
    """The int8 graph: every activation has parameters, every constant integers.

    Args:
        graph: float.
        calibration: of this graph; with ``images_needed(recipe)`` images kept.
        recipe: the steps.

    Raises:
        InputError: the graph is quantized already.
        UnsupportedError: an op's scale contract cannot be met; names the node.
    """
    if graph.precision != "fp32":
        raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
    result = quantize_activations(graph, calibration.ranges, recipe)
    result = quantize_constants(result)
    result = quantize_weights(result, recipe)
    result = quantize_biases(result)
    if recipe.bias_correction:
        result = correct_biases(result, calibration.images[: recipe.correction_images])
    return result


def images_needed(recipe: Recipe) -> int:
    """Calibration images that the recipe's steps look at again."""
    correcting = recipe.correction_images if recipe.bias_correction else 0
    learning = recipe.reconstruction_images if recipe.reconstruction != "none" else 0
    return max(correcting, learning)


def scale_groups(graph: Graph) -> list[set[str]]:
    """Activations that must share their parameters: what ops of scale ``same`` read and make."""
    groups = {t.name: {t.name} for t in graph.activations()}
    for node in graph:
        if OPS[node.op].scale == "same":
            merged = set().union(*(groups[n] for n in (*node.inputs, node.output) if n in groups))
            groups.update(dict.fromkeys(merged, merged))
    return list({id(g): g for g in groups.values()}.values())


def quantize_activations(graph: Graph, ranges: Mapping[str, Range], recipe: Recipe) -> Graph:
    """Every activation gets the parameters of its range; those that must share a scale get the same.

    Raises:
        UnsupportedError: an op's scale contract cannot be met; names the node.
    """
    fixed = {n.output for n in graph if OPS[n.op].scale == "fixed"}
    chosen: dict[str, QParams] = {}
    for group in scale_groups(graph):
        if group & fixed:
            if group - fixed and any(_origin(graph, name) for name in group - fixed):
                names = ", ".join(sorted(group))
                raise UnsupportedError(
                    f"{names} must share one scale, but a sigmoid or softmax among them has the fixed scale 1/256; "
                    "join them after a layer of their own"
                )
            quant = FIXED
        else:
            quant = _group_qparams([ranges[name] for name in sorted(group)], recipe)
        chosen.update(dict.fromkeys(group, quant))
    _widen_for_kernels(graph, chosen)
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
            if OPS[node.op].scale != "own":
                continue
            names = [i for i in node.inputs if i in chosen]
            constants = [v for i in node.inputs[1:2] if (v := graph.tensors[i].value) is not None]
            weight = max((scheme.constant_scale(node.op, v) for v in constants), default=0.0)
            scales, output = scheme.kernel_scales(
                node.op, [float(chosen[i].scale[0]) for i in names], float(chosen[node.output].scale[0]), weight
            )
            for name, scale in ((node.output, output), *zip(names, scales, strict=True)):
                changed |= chosen[name] is not FIXED and raise_to(name, scale)


def _origin(graph: Graph, name: str) -> bool:
    """Whether a tensor has a range of its own: an input, or made by an op that does not pass its input's scale on."""
    node = graph.producer(name)
    return node is None or OPS[node.op].scale == "own"


def _group_qparams(seen: list[Range], recipe: Recipe) -> QParams:
    samples = np.concatenate([r.samples for r in seen])
    union = Range(low=min(r.low for r in seen), high=max(r.high for r in seen), samples=samples)
    match recipe.activation_range:
        case "mse":
            return scheme.activation_qparams(*mse_range(union))
        case "percentile":
            return scheme.activation_qparams(*percentile_range(union, recipe.percentile))
    return scheme.activation_qparams(union.low, union.high)


def quantize_constants(graph: Graph) -> Graph:
    """Constant operands of elementwise ops: int8 per tensor."""
    changed = []
    for node in graph:
        for name in node.inputs if node.op not in WEIGHTED else ():
            tensor = graph.tensors[name]
            if tensor.value is not None:
                quant = scheme.activation_qparams(float(tensor.value.min()), float(tensor.value.max()))
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
                scales = np.maximum(scales, made.scale / source.quant.scale * scheme.SMALLEST_MULTIPLIER)
                scales = scheme.widened_for_bias(scales, source.quant.scale, bias.value)
            changed.append(scheme.quantize_weight(weight, scales, recipe.weight_limit))
    return graph.with_tensors(*changed)


def quantize_biases(graph: Graph) -> Graph:
    """int32 biases at the product of their layer's input and weight scales."""
    changed = []
    for node in graph:
        if node.op in WEIGHTED:
            source, weight, bias = (graph.tensors[i] for i in node.inputs)
            assert source.quant is not None
            assert weight.quant is not None
            assert bias.value is not None
            scales = scheme.bias_scales(source.quant.scale, weight.quant.scale)
            changed.append(scheme.quantize_bias(bias, scales, bias.value))
    return graph.with_tensors(*changed)
