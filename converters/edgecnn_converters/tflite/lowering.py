"""Lower graph nodes to TFLite operators, one row per op. A row writes the node's operators and makes its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgecnn.graph.ir import Node, Quantized
from edgecnn_converters.layout import is_depthwise
from edgecnn_converters.names import part
from edgecnn_converters.tflite import functions, moves, products
from edgecnn_converters.tflite.emitter import Emitter, scale_ratio
from edgecnn_converters.tflite.format import OHWI_TO_1HWO


def _conv2d(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    weight = e.graph.tensors[node.inputs[1]]
    source, padding = e.placed(node, (weight.shape[1], weight.shape[2]))
    depthwise = is_depthwise(e.graph, node)
    options = e.schema.DepthwiseConv2DOptionsT() if depthwise else e.schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, e.fused(node)
    options.strideH, options.strideW = a["stride"]
    options.dilationHFactor, options.dilationWFactor = a["dilation"]
    if depthwise:
        options.depthMultiplier = weight.shape[0] // a["groups"]
        variant = "dilated" if a["dilation"] != (1, 1) and not e.integer else None
        filters = e.constant(weight.name, OHWI_TO_1HWO)
    else:
        variant = "grouped" if a["groups"] > 1 else None
        filters = e.constant(weight.name)
    inputs = [source, filters, e.constant(node.inputs[2])]
    e.operator("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", variant, inputs, e.activation(node.output), options)


def _fully_connected(e: Emitter, node: Node) -> None:
    options = e.schema.FullyConnectedOptionsT(fusedActivationFunction=e.fused(node))
    e.operator("FULLY_CONNECTED", None, [e.operand(i) for i in node.inputs], e.activation(node.output), options)


def _add(e: Emitter, node: Node) -> None:
    options = e.schema.AddOptionsT(fusedActivationFunction=e.fused(node), potScaleInt16=False)
    e.operator("ADD", None, [e.operand(i) for i in node.inputs], e.activation(node.output), options)


def _mul(e: Emitter, node: Node) -> None:
    options = e.schema.MulOptionsT(fusedActivationFunction=e.fused(node))
    made = e.graph.tensors[node.output]
    enlarging = isinstance(made, Quantized) and made.quant.dtype == "int8" and scale_ratio(e.graph, node) >= 1
    variant = "int8 enlarging" if enlarging else None
    e.operator("MUL", variant, [e.operand(i) for i in node.inputs], e.activation(node.output), options)


def _pool(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    builtin = "MAX_POOL_2D" if node.op == "max_pool2d" else "AVERAGE_POOL_2D"
    source, padding = e.placed(node, a["kernel"], lowest=node.op == "max_pool2d")
    options = e.schema.Pool2DOptionsT(padding=padding)
    options.strideH, options.strideW = a["stride"]
    options.filterHeight, options.filterWidth = a["kernel"]
    e.operator(builtin, None, [source], e.activation(node.output), options)


def _mean(e: Emitter, node: Node) -> None:
    options = e.schema.ReducerOptionsT(keepDims=bool(node.attrs["keepdims"]))
    inputs = [e.operand(node.inputs[0]), e.parameters(part(node.output, "axes"), [1, 2])]
    e.operator("MEAN", None, inputs, e.activation(node.output), options)


def _batch_matmul(e: Emitter, node: Node) -> None:
    options = e.schema.BatchMatMulOptionsT(adjX=False, adjY=bool(node.attrs["transpose_b"]))
    e.operator("BATCH_MATMUL", None, [e.operand(i) for i in node.inputs], e.activation(node.output), options)


def _requantize(e: Emitter, node: Node) -> None:
    variant = "int8 to int16" if node.attrs["to"] == "int16" else None
    e.operator("QUANTIZE", variant, [e.operand(node.inputs[0])], e.activation(node.output), e.schema.QuantizeOptionsT())


def _unary(builtin: str) -> Callable[[Emitter, Node], None]:
    def row(e: Emitter, node: Node) -> None:
        options = e.schema.SoftmaxOptionsT(beta=1.0) if builtin == "SOFTMAX" else None
        e.operator(builtin, None, [e.operand(node.inputs[0])], e.activation(node.output), options)

    return row


def _argmax(e: Emitter, node: Node) -> None:
    """Make int32 indices, and of these bytes, or real values."""
    name, shape, made = node.output, e.graph.tensors[node.output].shape, e.activation(node.output)
    rank = len(e.graph.tensors[node.inputs[0]].shape)
    index = e.model.tensor(part(name, "index"), shape[:-1], "int32")
    options = e.schema.ArgMaxOptionsT(outputType=e.schema.TensorType.INT32)
    e.operator("ARG_MAX", None, [e.operand(node.inputs[0]), e.parameters(part(name, "axis"), rank - 1)], index, options)
    flat = e.model.tensor(part(name, "with_axis"), shape, "int32")
    e.operator("RESHAPE", "int8", [index, e.parameters(part(name, "shape"), shape)], flat, e.schema.ReshapeOptionsT())
    if not e.integer:
        cast = e.schema.CastOptionsT(inDataType=e.schema.TensorType.INT32, outDataType=e.schema.TensorType.FLOAT32)
        e.operator("CAST", "float", [flat], made, cast)
        return
    places = e.model.tensor(part(name, "integers"), shape, "int32")
    zero = e.parameters(part(name, "zero"), [int(e.graph.quant(name).zero_point[0])])
    e.operator("ADD", "int32", [flat, zero], places, e.schema.AddOptionsT(potScaleInt16=False))
    cast = e.schema.CastOptionsT(inDataType=e.schema.TensorType.INT32, outDataType=e.schema.TensorType.INT8)
    e.operator("CAST", "int8", [places], made, cast)


LOWERINGS: Mapping[str, Callable[[Emitter, Node], None]] = {
    "conv2d": _conv2d,
    "fully_connected": _fully_connected,
    "add": _add,
    "mul": _mul,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "mean": _mean,
    **moves.LOWERINGS,
    "requantize": _requantize,
    "relu": _unary("RELU"),
    "relu6": _unary("RELU6"),
    "hard_swish": _unary("HARD_SWISH"),
    "sigmoid": _unary("LOGISTIC"),
    "softmax": _unary("SOFTMAX"),
    "argmax": _argmax,
    "batch_matmul": _batch_matmul,
    "prelu": products.prelu,
    **functions.LOWERINGS,
}
