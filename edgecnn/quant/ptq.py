"""Post-training quantization: a float graph and some images in, the same graph with integers beside its values out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.ir import Graph, QParams, Tensor
from edgecnn.graph.ops import OPS
from edgecnn.quant import scheme
from edgecnn.quant.bias_correction import WEIGHTED, correct_biases
from edgecnn.quant.calibrate import Range, calibrate, mse_range
from edgecnn.recipe import Recipe


def quantize(
    graph: Graph, batches: Iterable[NDArray[np.float32]], recipe: Recipe, *, seed: int = 0, facts: Mapping[str, Any] | None = None
) -> Graph:
    """The int8 graph: every activation has parameters, every constant integers.

    Args:
        graph: float.
        batches: (N, H, W, C) float32 network inputs, streamed once.
        recipe: the steps.
        seed: of every random choice.
        facts: JSON values to keep with the graph (calibration set, its digest).

    Raises:
        InputError: the graph is quantized already, there are no images, or a value is not finite.
        UnsupportedError: an op's scale contract cannot be met; names the node.
    """
    if graph.precision != "fp32":
        raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
    kept = _Head(batches, recipe.correction_images if recipe.bias_correction else 0)
    ranges = calibrate(graph, kept, seed)
    result = _with_activations(graph, ranges, recipe)
    result = _with_constants(result)
    result, weight_scales = _with_weights(result, recipe)
    biases = correct_biases(result, kept.images()) if recipe.bias_correction else {}
    result = _with_biases(result, weight_scales, biases)
    record = {"recipe": recipe.to_json(), "seed": seed, **(facts or {})}
    return replace(result, metadata=replace(graph.metadata, quantization=record))


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
        changed.append(scheme.quantize_weight(weight, scheme.weight_scales(weight.value, recipe.weight_range)))
    result = graph.with_tensors(*changed)
    return replace(result, metadata=replace(graph.metadata, quantization={"recipe": recipe.to_json()}))


class _Head:
    """Passes batches through, and keeps the first images for later."""

    def __init__(self, batches: Iterable[NDArray[np.float32]], count: int) -> None:
        self._batches, self._count = batches, count
        self._kept: list[NDArray[np.float32]] = []

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for batch in self._batches:
            missing = self._count - sum(map(len, self._kept))
            if missing > 0:
                self._kept.append(batch[:missing])
            yield batch

    def images(self) -> NDArray[np.float32]:
        return np.concatenate(self._kept)


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
    changed = []
    for group in scale_groups(graph):
        if group & fixed:
            if group - fixed and any(_origin(graph, name) for name in group - fixed):
                names = ", ".join(sorted(group))
                raise UnsupportedError(
                    f"{names} must share one scale, but a sigmoid or softmax among them has the fixed scale 1/256; "
                    "join them after a layer of their own"
                )
            quant = scheme.FIXED
        else:
            quant = _group_qparams([ranges[name] for name in sorted(group)], recipe)
        changed += [replace(graph.tensors[name], quant=quant) for name in group]
    return graph.with_tensors(*changed)


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
            found = scheme.weight_scales(weight.value, recipe.weight_range)
            scales[node.output] = scheme.widened_for_bias(found, source.quant.scale, bias.value)
            changed.append(scheme.quantize_weight(weight, scales[node.output]))
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
