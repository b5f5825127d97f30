"""Post-training quantization: a float graph and some images in, the same graph with integers beside its values out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.contract import FIXED, WEIGHTED
from edgecnn.graph.ir import Graph, QParams, Tensor
from edgecnn.graph.ops import OPS
from edgecnn.quant import scheme
from edgecnn.quant.bias_correction import correct_biases
from edgecnn.quant.calibrate import Calibration, Range, mse_range
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
    result = _with_activations(graph, calibration.ranges, recipe)
    result = _with_constants(result)
    result, weight_scales = _with_weights(result, recipe)
    biases = correct_biases(result, calibration.images) if recipe.bias_correction else {}
    return _with_biases(result, weight_scales, biases)


def images_needed(recipe: Recipe) -> int:
    """Calibration images that the recipe's steps look at again."""
    return recipe.correction_images if recipe.bias_correction else 0


def quantize_weights(graph: Graph, recipe: Recipe) -> Graph:
    """The w8 graph: int8 weights per output channel; biases and activations stay float.

    Raises:
        InputError: the graph is quantized already.
    """
    if graph.precision != "fp32":
        raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
    changed = []
    for weight in _weights(graph):
        assert weight.value is not None
        scales = scheme.weight_scales(weight.value, recipe.weight_range, recipe.weight_limit)
        changed.append(scheme.quantize_weight(weight, scales, recipe.weight_limit))
    return graph.with_tensors(*changed)


def _weights(graph: Graph) -> list[Tensor]:
    return [graph.tensors[n.inputs[1]] for n in graph if n.op in WEIGHTED]


def scale_groups(graph: Graph) -> list[set[str]]:
    """Activations that must share their parameters: what ops of scale ``same`` read and make."""
    groups = {t.name: {t.name} for t in graph.activations()}
    for node in graph:
        if OPS[node.op].scale == "same":
            merged = set().union(*(groups[n] for n in (*node.inputs, node.output) if n in groups))
            groups.update(dict.fromkeys(merged, merged))
    return list({id(g): g for g in groups.values()}.values())


def _with_activations(graph: Graph, ranges: Mapping[str, Range], recipe: Recipe) -> Graph:
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
    if recipe.activation_range == "mse":
        samples = np.concatenate([r.samples for r in seen])
        union = Range(low=min(r.low for r in seen), high=max(r.high for r in seen), samples=samples)
        return scheme.activation_qparams(*mse_range(union))
    return scheme.activation_qparams(min(r.low for r in seen), max(r.high for r in seen))


def _with_constants(graph: Graph) -> Graph:
    """Constant operands of elementwise ops: int8 per tensor."""
    changed = []
    for node in graph:
        for name in node.inputs if node.op not in WEIGHTED else ():
            tensor = graph.tensors[name]
            if tensor.value is not None:
                quant = scheme.activation_qparams(float(tensor.value.min()), float(tensor.value.max()))
                changed.append(replace(tensor, quant=quant, integers=quant.quantize(tensor.value)))
    return graph.with_tensors(*changed)


def _with_weights(graph: Graph, recipe: Recipe) -> tuple[Graph, dict[str, NDArray[np.float32]]]:
    changed, scales = [], {}
    for node in graph:
        if node.op in WEIGHTED:
            source, weight, bias = (graph.tensors[i] for i in node.inputs)
            assert weight.value is not None
            assert bias.value is not None
            assert source.quant is not None
            found = scheme.weight_scales(weight.value, recipe.weight_range, recipe.weight_limit)
            made = graph.tensors[node.output].quant
            assert made is not None
            found = np.maximum(found, made.scale / source.quant.scale * scheme.SMALLEST_MULTIPLIER)
            scales[node.output] = scheme.widened_for_bias(found, source.quant.scale, bias.value)
            changed.append(scheme.quantize_weight(weight, scales[node.output], recipe.weight_limit))
    return graph.with_tensors(*changed), scales


def _with_biases(
    graph: Graph, weight_scales: Mapping[str, NDArray[np.float32]], corrected: Mapping[str, NDArray[np.float32]]
) -> Graph:
    changed = []
    for node in graph:
        if node.op in WEIGHTED:
            source, bias = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[2]]
            assert source.quant is not None
            scales = scheme.bias_scales(source.quant.scale, weight_scales[node.output])
            changed.append(scheme.quantize_bias(bias, scales, corrected.get(bias.name, bias.value)))  # type: ignore[arg-type]
    return graph.with_tensors(*changed)
