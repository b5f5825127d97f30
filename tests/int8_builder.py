"""A builder of quantized graphs for tests.

Weights are random integers, scales are chosen so that outputs fill their range without saturating all the time.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import FIXED, INDEX
from edgecnn.graph.ir import Attr, Constant, Graph, Metadata, QParams, Quantized, Tensor
from edgecnn.graph.ops import OPS, make_node, output_shape


class Int8Builder:
    """A full int8 graph in the making. Methods take and return tensor names."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.tensors: dict[str, Tensor] = {}
        self.input = self._activation("input", shape, self.grid(0.02))

    def grid(self, scale: float, zero_point: int | None = None) -> QParams:
        """A grid near ``scale``; a random zero point unless given."""
        zero = int(self.rng.integers(-128, 128)) if zero_point is None else zero_point
        return QParams(scale=np.array([scale * self.rng.uniform(0.7, 1.4)]), zero_point=np.array([zero]), dtype="int8")

    def quant(self, name: str) -> QParams:
        """The grid of a tensor."""
        return Quantized.of(self.tensors[name]).quant

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.tensors[name].shape

    def weighted(self, op: str, x: str, weight_shape: tuple[int, ...], *, bias: bool = True, out: QParams | None = None,
                 **attrs: Attr) -> str:  # fmt: skip
        """A conv2d or fully_connected node of random integers, as wide out as in; relu ones mostly with zero -128."""
        name = self._name(op)
        channels, products = weight_shape[0], math.prod(weight_shape[1:])
        count = channels if self.rng.random() < 0.75 else 1  # per output channel, or per tensor
        scales = (self.rng.uniform(0.15, 1.5, count) / (73 * math.sqrt(products))).astype(np.float32)
        weights = self.rng.integers(-127, 128, weight_shape).astype(np.int8)
        inputs = [x, self._constant(f"{name}.weight", weights, scales, axis=0)]
        noise = 73 * 73 * math.sqrt(products)
        bias_scales = (np.float64(self.quant(x).scale[0]) * scales.astype(np.float64)).astype(np.float32)
        integers = self.rng.integers(-int(noise), int(noise) + 1, channels).astype(np.int32) * bias
        inputs.append(self._constant(f"{name}.bias", integers.astype(np.int32), bias_scales, axis=0))
        if out is None:
            spread = float(self.quant(x).scale[0] * scales.mean()) * noise / 60
            rectified = attrs.get("activation", "none") != "none" and self.rng.random() < 0.8
            out = self.grid(spread, -128 if rectified else None)
        return self._node(op, tuple(inputs), name, out, attrs)

    def op(self, op: str, *inputs: str, out: QParams | None = None, **attrs: Attr) -> str:
        """Any other node. Without ``out``: the grid the contract asks for, or one near the inputs'."""
        if out is None:
            scale = float(sum(self.quant(i).scale[0] for i in inputs))
            if op in ("mul", "batch_matmul"):
                scale = float(math.prod(self.quant(i).scale[0] for i in inputs)) * 80
                scale *= math.sqrt(self.shape(inputs[0])[-1]) if op == "batch_matmul" else 1
            out = {"same": self.quant(inputs[0]), "fixed": FIXED, "index": INDEX}.get(OPS[op].scale) or self.grid(scale)
        return self._node(op, inputs, self._name(op), out, attrs)

    def constant(self, shape: tuple[int, ...], grid: QParams | None = None) -> str:
        """A constant operand of add or mul."""
        grid = grid or self.grid(0.02)
        name = self._name("constant")
        integers = self.rng.integers(-128, 128, shape).astype(np.int8)
        self.tensors[name] = Constant(name=name, value=grid.dequantize(integers)).quantized(grid, integers)
        return name

    def graph(self, output: str | None = None, metadata: Metadata | None = None) -> Graph:
        """The graph, ending in ``output`` (the last node's)."""
        return Graph(
            nodes=tuple(self.nodes),
            tensors=self.tensors,
            inputs=(self.input,),
            outputs=(output or self.nodes[-1].output,),
            metadata=metadata or Metadata(),
        )

    def _name(self, op: str) -> str:
        return f"{op}_{len(self.tensors)}"

    def _activation(self, name: str, shape: tuple[int, ...], quant: QParams) -> str:
        self.tensors[name] = Quantized(name=name, shape=shape, quant=quant)
        return name

    def _constant(self, name: str, integers: NDArray[Any], scales: NDArray[np.float32], axis: int) -> str:
        zeros = np.zeros(len(scales), np.int64)
        quant = QParams(scale=scales, zero_point=zeros, dtype=str(integers.dtype), axis=axis)
        self.tensors[name] = Constant(name=name, value=quant.dequantize(integers)).quantized(quant, integers)
        return name

    def _node(self, op: str, inputs: tuple[str, ...], name: str, out: QParams, attrs: dict[str, Attr]) -> str:
        node = make_node(op, inputs, name, f"test.{name}", **attrs)
        self.nodes.append(node)
        return self._activation(name, output_shape(node, [self.shape(i) for i in inputs]), out)


def float_graph(graph: Graph) -> Graph:
    """The same graph without quantization; weights are the integers' real values."""
    return replace(graph, tensors={n: t.as_float() for n, t in graph.tensors.items()})


def weight_only_graph(graph: Graph) -> Graph:
    """The same graph with integers in its weights only."""
    weights = {node.inputs[1] for node in graph.nodes if node.op in ("conv2d", "fully_connected")}
    return float_graph(graph).with_tensors(*(graph.tensors[n] for n in weights))


def random_images(graph: Graph, count: int, seed: int = 0) -> NDArray[Any]:
    """Draw integers over the whole range of the graph's input, of its type, int8 or int16."""
    tensor = graph.tensors[graph.inputs[0]]
    quant = Quantized.of(tensor).quant
    low, high = quant.limits
    return np.random.default_rng(seed).integers(low, high + 1, (count, *tensor.shape[1:])).astype(quant.dtype)
