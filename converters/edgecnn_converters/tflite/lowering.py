"""Lower graph nodes to TFLite operators, one row per op. A row writes the node's operators and makes its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized, QuantizedConstant
from edgecnn.graph.ops import same_padding
from edgecnn_converters.layout import is_depthwise
from edgecnn_converters.names import part
from edgecnn_converters.tflite.format import OHWI_TO_1HWO, VERSIONS
from edgecnn_converters.tflite.writer import ModelWriter


class Emitter:
    """Writes a graph's nodes into a model; keeps which graph tensor became which TFLite tensor."""

    def __init__(self, graph: Graph, precision: str) -> None:
        self.graph, self.precision, self.model = graph, precision, ModelWriter()
        self.schema = self.model.schema
        self.runtimes: set[str] = set()
        self._made: dict[str, int] = {}
        self.activation(graph.inputs[0])

    @property
    def integer(self) -> bool:
        """Whether activations are integers."""
        return self.precision in INTEGER_PRECISIONS

    def activation(self, name: str) -> int:
        """Return the activation's TFLite tensor, made when asked for first."""
        if name not in self._made:
            tensor = self.graph.tensors[name]
            quant = tensor.quant if isinstance(tensor, Quantized) else None
            self._made[name] = self.model.tensor(name, tensor.shape, quant.dtype if quant else "float32", quant)
        return self._made[name]

    def operand(self, name: str) -> int:
        """Return an activation or a constant that an op takes as it is."""
        return self.constant(name) if isinstance(self.graph.tensors[name], Constant) else self.activation(name)

    def constant(self, name: str, axes: tuple[int, ...] | None = None) -> int:
        """Return a constant in the file's precision, transposed by ``axes``.

        fp16 and w8 store what is more than a vector as float16 or int8 behind a DEQUANTIZE: the operator that reads
        it is then a float one. (An int8 weight straight into a float operator would be LiteRT's hybrid kernel, which
        quantizes the activations too, so not weight-only.) XNNPACK undoes both when it loads the file.
        """
        if name in self._made:
            return self._made[name]
        tensor = self.graph.constant(name)
        shape = tensor.shape if axes is None else tuple(tensor.shape[a] for a in axes)
        quant: QParams | None = None
        stored: NDArray[Any] = tensor.value
        dtype = "float32"
        if isinstance(tensor, QuantizedConstant) and (self.integer or tensor.quant.dtype == "int8"):
            quant, stored, dtype = tensor.quant, tensor.integers, tensor.quant.dtype
            if axes is not None and quant.axis is not None:
                quant = replace(quant, axis=axes.index(quant.axis))
        elif self.precision == "fp16" and stored.ndim > 1:
            stored, dtype = stored.astype(np.float16), "float16"
        data = stored if axes is None else stored.transpose(axes)
        index = self.model.tensor(name, shape, dtype, quant, data)
        if dtype != "float32" and not self.integer:
            source, index = index, self.model.tensor(part(name, "dequantized"), shape, "float32")
            variant = "float16" if quant is None else "int8" if quant.axis is None else "int8 per channel"
            self.operator("DEQUANTIZE", variant, [source], index, self.schema.DequantizeOptionsT())
        self._made[name] = index
        return index

    def parameters(self, name: str, values: Any) -> int:
        """Add a small int32 constant: axes, paddings, a shape."""
        data: NDArray[np.int32] = np.array(values, np.int32)
        return self.model.tensor(name, data.shape, "int32", data=data)

    def operator(
        self, builtin: str, variant: str | None, inputs: list[int], output: int, options: Any | None = None
    ) -> None:
        """Add an operator. ``variant``: of ``VERSIONS``; ``None``: the plain one of the type it reads or makes."""
        types = (self.model.dtypes[inputs[0]], self.model.dtypes[output])
        plain = next((t for t in ("int16", "int8") if t in types), "float")
        version, runtime = VERSIONS[builtin][variant or plain]
        self.runtimes.add(runtime)
        self.model.operator(builtin, version, inputs, output, options)

    def fused(self, node: Node) -> int:
        """Return the schema's code of the node's activation."""
        return int(getattr(self.schema.ActivationFunctionType, str(node.attrs["activation"]).upper()))

    def placed(self, node: Node, kernel: tuple[int, int], lowest: bool = False) -> tuple[int, int]:
        """Return the node's first input and the schema's padding code, after a PAD where the schema has no code.

        With ``lowest``, what lies outside is below every pixel (max pooling), not zero.
        """
        source = self.operand(node.inputs[0])
        x, padding = self.graph.tensors[node.inputs[0]], placement(self.graph, node, kernel)
        if isinstance(padding, str):
            return source, getattr(self.schema.Padding, padding)
        top, bottom, left, right = padding
        shape = (x.shape[0], x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
        quant = x.quant if isinstance(x, Quantized) else None
        dtype = "float32" if quant is None else quant.dtype
        padded = self.model.tensor(part(node.output, "padded"), shape, dtype, quant)
        amounts = self.parameters(part(node.output, "padding"), [[0, 0], [top, bottom], [left, right], [0, 0]])
        zero_is_lowest = quant is not None and quant.zero_point[0] == quant.limits[0]
        if lowest and not zero_is_lowest:
            value = np.array([np.finfo(np.float32).min if quant is None else quant.limits[0]])
            outside = self.model.tensor(part(node.output, "outside"), (1,), dtype, quant, value.astype(dtype))
            self.operator("PADV2", None, [source, amounts, outside], padded, self.schema.PadV2OptionsT())
        else:
            self.operator("PAD", None, [source, amounts], padded, self.schema.PadOptionsT())
        return padded, self.schema.Padding.VALID


def placement(graph: Graph, node: Node, kernel: tuple[int, int]) -> str | tuple[int, int, int, int]:
    """Return ``SAME`` or ``VALID`` where that is the node's padding, else the padding that its windows really read."""
    a: Mapping[str, Any] = node.attrs
    x, output = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    same: list[int] = []
    read: list[int] = []
    for k in (0, 1):
        before, after = a["padding"][2 * k : 2 * k + 2]
        size, stride, dilation = x.shape[1 + k], a["stride"][k], a.get("dilation", (1, 1))[k]
        reach = (output.shape[1 + k] - 1) * stride + (kernel[k] - 1) * dilation + 1  # of the last window's end
        read += [before, min(after, max(0, reach - size - before))]
        same += same_padding(size, kernel[k], stride, dilation)
    if not any(read):
        return "VALID"
    return "SAME" if read == same else (read[0], read[1], read[2], read[3])


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


def scale_ratio(graph: Graph, node: Node) -> float:
    """Return the product of the inputs' scales over the output's."""
    scales = [float(graph.quant(n).scale[0]) for n in (*node.inputs, node.output)]
    return float(np.prod(scales[:-1]) / scales[-1])


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


def _concat(e: Emitter, node: Node) -> None:
    options = e.schema.ConcatenationOptionsT(axis=node.attrs["axis"])
    e.operator("CONCATENATION", None, [e.operand(i) for i in node.inputs], e.activation(node.output), options)


def _pad(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    top, bottom, left, right = a["padding"]
    amounts = e.parameters(part(node.output, "padding"), [[0, 0], [top, bottom], [left, right], a["channels"]])
    inputs = [e.operand(node.inputs[0]), amounts]
    e.operator("PAD", None, inputs, e.activation(node.output), e.schema.PadOptionsT())


def _reshape(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    shape = np.array([-1, *a["shape"][1:]], np.int32)  # any batch
    inputs = [e.operand(node.inputs[0]), e.parameters(part(node.output, "shape"), shape)]
    e.operator("RESHAPE", None, inputs, e.activation(node.output), e.schema.ReshapeOptionsT(newShape=shape))


def _requantize(e: Emitter, node: Node) -> None:
    variant = "int8 to int16" if node.attrs["to"] == "int16" else None
    e.operator("QUANTIZE", variant, [e.operand(node.inputs[0])], e.activation(node.output), e.schema.QuantizeOptionsT())


def _unary(builtin: str) -> Callable[[Emitter, Node], None]:
    def row(e: Emitter, node: Node) -> None:
        options = e.schema.SoftmaxOptionsT(beta=1.0) if builtin == "SOFTMAX" else None
        e.operator(builtin, None, [e.operand(node.inputs[0])], e.activation(node.output), options)

    return row


LOWERINGS: Mapping[str, Callable[[Emitter, Node], None]] = {
    "conv2d": _conv2d,
    "fully_connected": _fully_connected,
    "add": _add,
    "mul": _mul,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "mean": _mean,
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "requantize": _requantize,
    "relu": _unary("RELU"),
    "relu6": _unary("RELU6"),
    "hard_swish": _unary("HARD_SWISH"),
    "sigmoid": _unary("LOGISTIC"),
    "softmax": _unary("SOFTMAX"),
}
