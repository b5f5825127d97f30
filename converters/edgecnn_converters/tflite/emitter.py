"""Write a graph's nodes into a TFLite model: its tensors, constants and operators, for the rows of ``lowering.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized, QuantizedConstant
from edgecnn.graph.ops import same_padding
from edgecnn_converters.names import part
from edgecnn_converters.tflite.format import VERSIONS
from edgecnn_converters.tflite.writer import ModelWriter


class Emitter:
    """Writes a graph's nodes into a model; keeps which graph tensor became which TFLite tensor."""

    def __init__(self, graph: Graph, precision: str) -> None:
        self.graph, self.precision, self.model = graph, precision, ModelWriter()
        self.schema = self.model.schema
        self.runtimes: set[str] = set()
        self.functions: dict[str, Any] = {}  # records of the nodes that became tables
        self._made: dict[str, int] = {}
        for name in graph.inputs:
            self.activation(name)

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


def scale_ratio(graph: Graph, node: Node) -> float:
    """Return the product of the inputs' scales over the output's."""
    scales = [float(graph.quant(n).scale[0]) for n in (*node.inputs, node.output)]
    return float(np.prod(scales[:-1]) / scales[-1])
