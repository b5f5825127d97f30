"""Take the integers of a file into the graph that was made of it: activations, weights, biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph import passes
from edgecnn.graph.contract import BIAS_OF, check_integers
from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized, QuantizedConstant, Tensor
from edgecnn.graph.ops import need
from edgecnn.graph.rewriting import apply
from edgecnn_converters.tflite.reader import TfliteOp
from edgecnn_converters.tflite.translation import Translation, grid

STAND_IN = QParams(scale=np.ones(1, np.float32), zero_point=np.zeros(1, np.int64), dtype="int8")


def quantized(t: Translation, graph: Graph) -> Graph:
    """Return the graph with the file's integers.

    An op of the file that became several nodes, one of which computes and the others move, has them on its grids.

    Raises:
        UnsupportedError: an op became several that compute, or its integers break the numerics contract; all of the
            former are listed.
    """
    tensors: dict[str, Tensor] = dict(graph.tensors)
    for name in graph.inputs:
        _put(tensors, name, grid(t.model.tensors[t.origin[name][0]]))
    faults: list[str] = []
    made = {node.output for node in graph.nodes}
    spans = [(op, [n for n in t.nodes[first:last] if n.output in made]) for op, first, last in t.spans]
    inside = {n.output for _, nodes in spans for n in nodes}
    for op, nodes in (*spans, (None, [n for n in graph.nodes if n.output not in inside])):
        try:
            _span(t, tensors, op, nodes)
        except InputError as error:
            name = "" if op is None else f"{op.name} {t.model.tensors[op.outputs[0]].name!r}"
            faults.append(f"{name}: {error}")
            for node in nodes:
                _put(tensors, node.output, STAND_IN)
    if faults:
        raise UnsupportedError(
            f"its integers are not taken: {'; '.join(faults)}. Give the float file, to quantize it here"
        )
    graph = replace(graph, tensors=tensors)
    try:
        check_integers(graph)
    except InputError as error:
        raise UnsupportedError(f"its integers break the numerics contract: {error}; give the float file") from None
    return apply(graph, (passes.fuse_padding,))


def _put(tensors: dict[str, Tensor], name: str, quant: QParams) -> None:
    tensors[name] = Quantized(name=name, shape=tensors[name].shape, quant=quant)


def _span(t: Translation, tensors: dict[str, Tensor], op: TfliteOp | None, nodes: list[Node]) -> None:
    """Put the nodes of one op on its grids."""
    computing = [node for node in nodes if node.spec.scale != "same"]
    parts = ", ".join(node.op for node in computing)
    need(len(computing) < 2, f"it becomes several ops ({parts}), between which the file has no integers")
    behind = not computing
    for node in nodes:
        behind = behind or node in computing
        if op is not None and computing and behind:
            quant = grid(t.model.tensors[op.outputs[0]])
        else:
            quant = Quantized.of(tensors[node.inputs[0]]).quant
        if op is not None and node.output in t.origin:
            made = t.model.tensors[t.origin[node.output][0]]
            need(quant.same_as(grid(made)), f"it puts {made.name!r} on another grid, and in the graph it only moves")
        _put(tensors, node.output, quant)
        if node.weighted:
            _take_weights(t, tensors, node)
        else:
            for name in node.inputs:
                _take_operand(t, tensors, name)


def _take_operand(t: Translation, tensors: dict[str, Tensor], name: str) -> None:
    tensor = tensors[name]
    if not isinstance(tensor, Constant) or isinstance(tensor, QuantizedConstant):
        return
    need(name in t.operands, "the graph has another constant there than the file")
    index = t.operands[name]
    quant = grid(t.model.tensors[index])
    need(quant.axis is None, f"its constant {t.model.tensors[index].name!r} has several scales; one is supported")
    integers = t.constants[index].reshape(tensor.shape)
    tensors[name] = tensor.quantized(quant, np.ascontiguousarray(integers))


def _take_weights(t: Translation, tensors: dict[str, Tensor], node: Node) -> None:
    need(node.output in t.weights, "the graph has other weights there than the file")
    index, bias, order = t.weights[node.output]
    source, (x, weight, shift) = t.model.tensors[index], (tensors[name] for name in node.inputs)
    assert isinstance(weight, Constant)
    assert isinstance(shift, Constant)
    need(source.dtype == "int8", f"its weight {source.name!r} is {source.dtype}; int8 is supported")
    quant = grid(source)
    need(
        not np.any(quant.zero_point),
        f"its weight {source.name!r} is asymmetric: zero point {quant.zero_point[0]}; 0 is supported",
    )
    integers = t.constants[index]
    if quant.axis is not None:
        outer = order.index(quant.axis)
        need(
            outer == 0,
            f"its weight {source.name!r} has scales along dimension {quant.axis}; output channels are supported",
        )
        quant = replace(quant, axis=0)
    integers = np.ascontiguousarray(integers.transpose([k for k in order if k >= 0])).reshape(weight.shape)
    tensors[weight.name] = weight.quantized(quant, integers)
    t.operands[weight.name] = index
    if bias is not None:
        t.operands[shift.name] = bias
    read = Quantized.of(x).quant
    tensors[shift.name] = shift.quantized(*_bias(t, bias, shift, read, quant))


def _bias(t: Translation, index: int | None, shift: Constant, read: QParams, weight: QParams) -> tuple[QParams, Any]:
    """Return the bias of the file. One that is not given is 0; TensorFlow shares zeros of any scale among layers."""
    if index is not None and np.any(t.constants[index]):
        return grid(t.model.tensors[index]), t.constants[index].reshape(shift.shape)
    dtype = BIAS_OF.get(read.dtype, "int32")
    product = (read.scale.astype(np.float64) * weight.scale).astype(np.float32)
    made = QParams(scale=product, zero_point=np.zeros(product.size, np.int64), dtype=dtype, axis=weight.axis)
    return made, np.zeros(shift.shape, dtype)
