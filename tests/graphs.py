"""Quantized graphs for tests: a builder for hand-made ones, and random ones over the whole op set.

Weights are random integers, scales are chosen so that outputs fill their range without saturating all the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import FIXED
from edgecnn.graph.ir import Attr, Constant, Graph, Metadata, QParams, Quantized, Tensor
from edgecnn.graph.ops import OPS, make_node, output_shape, same_padding


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
        """A conv2d or fully_connected node with random integers; relu ones mostly get zero point -128."""
        name = self._name(op)
        channels, products = weight_shape[0], math.prod(weight_shape[1:])
        count = channels if self.rng.random() < 0.75 else 1  # per output channel, or per tensor
        scales = self.rng.uniform(0.002, 0.02, count).astype(np.float32)
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
            if op == "mul":
                scale = float(math.prod(self.quant(i).scale[0] for i in inputs)) * 80
            out = {"same": self.quant(inputs[0]), "fixed": FIXED}.get(OPS[op].scale) or self.grid(scale)
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


def random_images(graph: Graph, count: int, seed: int = 0) -> NDArray[np.int8]:
    """Integers over the whole range, shaped like the graph's input."""
    shape = graph.tensors[graph.inputs[0]].shape
    return np.random.default_rng(seed).integers(-128, 128, (count, *shape[1:])).astype(np.int8)


# --- random graphs ---


def _paddings(rng: np.random.Generator, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int],
              dilation: tuple[int, int]) -> tuple[int, int, int, int]:  # fmt: skip
    """None, TensorFlow's SAME, symmetric, or anything."""
    effective = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    kind = rng.integers(0, 4)
    if kind == 1:
        places = [same_padding(size[i], kernel[i], stride[i], dilation[i]) for i in (0, 1)]
    elif kind == 2:
        places = [(e // 2, e // 2) for e in effective]
    elif kind == 3:
        places = [(int(rng.integers(0, e)), int(rng.integers(0, e))) for e in effective]
    else:
        places = [(0, 0), (0, 0)]
    for i in (0, 1):  # whatever was drawn, the kernel has to fit once
        short = effective[i] - size[i] - sum(places[i])
        if short > 0:
            places[i] = (places[i][0], places[i][1] + short)
    return (*places[0], *places[1])  # type: ignore[return-value]


def _pair(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    a, b = (int(v) for v in rng.integers(low, high + 1, 2))
    return (a, a) if rng.random() < 0.6 else (a, b)


def _activation(rng: np.random.Generator) -> str:
    return str(rng.choice(["none", "relu", "relu6"]))


def _conv(b: Int8Builder, x: str, *, groups: int = 1, out_channels: int | None = None) -> str:
    rng, (_, height, width, channels) = b.rng, b.shape(x)
    kernel, stride = _pair(rng, 1, 5), _pair(rng, 1, 3)
    dilation = _pair(rng, 1, 2) if stride == (1, 1) else (1, 1)
    outputs = out_channels or groups * int(rng.integers(1, 9))
    padding = _paddings(rng, (height, width), kernel, stride, dilation)
    return b.weighted("conv2d", x, (outputs, *kernel, channels // groups), bias=bool(rng.random() < 0.8), stride=stride,
                      padding=padding, dilation=dilation, groups=groups, activation=_activation(rng))  # fmt: skip


def _depthwise(b: Int8Builder, x: str) -> str:
    channels = b.shape(x)[3]
    return _conv(b, x, groups=channels, out_channels=channels * int(b.rng.choice([1, 1, 2, 3])))


def _grouped(b: Int8Builder, x: str) -> str:
    channels = b.shape(x)[3]
    return _conv(b, x, groups=next(g for g in (4, 3, 2, 5, 7, 1) if channels % g == 0))


def _pointwise(b: Int8Builder, x: str) -> str:
    outputs = int(b.rng.integers(1, 33))
    return b.weighted("conv2d", x, (outputs, 1, 1, b.shape(x)[3]), activation=_activation(b.rng))


def _residual(b: Int8Builder, x: str) -> str:
    channels = b.shape(x)[3]
    inner = b.weighted("conv2d", x, (channels, 3, 3, channels), padding=(1, 1, 1, 1))
    return b.op("add", *((x, inner) if b.rng.random() < 0.5 else (inner, x)), activation=_activation(b.rng))


def _residual_alone(b: Int8Builder, x: str) -> str:
    """A sum with a convolution that only the sum reads and that does not read the other operand.

    A runtime may fuse such a convolution, both roundings and the sum into one kernel.
    """
    channels = b.shape(x)[3]

    def conv(source: str) -> str:
        return b.weighted("conv2d", source, (channels, 1, 1, channels), activation=_activation(b.rng))

    first = conv(x)
    inner = conv(conv(first))
    return b.op("add", *((first, inner) if b.rng.random() < 0.5 else (inner, first)), activation=_activation(b.rng))


def _constant_operand(op: str) -> Callable[[Int8Builder, str], str]:
    def piece(b: Int8Builder, x: str) -> str:
        shape = (1, 1, 1, b.shape(x)[3]) if b.rng.random() < 0.7 else (1,)
        return b.op(op, x, b.constant(shape), activation=_activation(b.rng))

    return piece


def _squeeze_excite(b: Int8Builder, x: str) -> str:
    channels = b.shape(x)[3]
    pooled = b.op("mean", x, keepdims=True)
    squeezed = b.weighted("conv2d", pooled, (max(1, channels // 2), 1, 1, channels), activation="relu")
    gate = b.op("sigmoid", b.weighted("conv2d", squeezed, (channels, 1, 1, max(1, channels // 2))))
    return b.op("mul", x, gate)


def _concat(b: Int8Builder, x: str) -> str:
    shared, channels = b.grid(0.5), b.shape(x)[3]
    branches = [
        b.weighted("conv2d", x, (int(b.rng.integers(1, 9)), 1, 1, channels), out=shared)
        for _ in range(int(b.rng.integers(2, 4)))
    ]
    return b.op("concat", *branches, axis=3)


def _concat_pixels(b: Int8Builder, x: str) -> str:
    """Side by side in height or width, with the pixels of another branch."""
    channels = b.shape(x)[3]
    if b.quant(x).same_as(FIXED):  # of a sigmoid: quantization refuses to join it with what has a scale of its own
        x = b.weighted("conv2d", x, (channels, 1, 1, channels))
    inner = b.weighted("conv2d", x, (channels, 1, 1, channels), out=b.quant(x))
    return b.op("concat", x, inner, axis=int(b.rng.integers(1, 3)))


def _product(b: Int8Builder, x: str) -> str:
    """Two branches multiplied."""
    channels = b.shape(x)[3]
    left, right = (b.weighted("conv2d", x, (channels, 1, 1, channels)) for _ in range(2))
    return b.op("mul", left, right, activation=_activation(b.rng))


def _reshape(b: Int8Builder, x: str) -> str:
    """The same elements in rows of another length."""
    _, height, width, channels = b.shape(x)
    shapes = [(1, width, height, channels), (1, height, channels, width), (1, 1, height * width, channels)]
    return b.op("reshape", x, shape=shapes[int(b.rng.integers(len(shapes)))])


def _pool(op: str) -> Callable[[Int8Builder, str], str]:
    def piece(b: Int8Builder, x: str) -> str:
        rng, (_, height, width, _) = b.rng, b.shape(x)
        kernel, stride = _pair(rng, 1, 4), _pair(rng, 1, 3)
        kernel = (min(kernel[0], height), min(kernel[1], width))
        padding = (0, 0, 0, 0)
        if rng.random() < 0.5:
            padding = tuple(p for i in (0, 1) for p in same_padding((height, width)[i], kernel[i], stride[i]))
        elif op == "max_pool2d" and min(kernel) > 1:
            padding = tuple(int(rng.integers(0, kernel[i // 2])) for i in range(4))
        return b.op(op, x, kernel=kernel, stride=stride, padding=padding)

    return piece


def _pad(b: Int8Builder, x: str) -> str:
    amounts = [int(v) for v in b.rng.integers(0, 3, 6)]
    return b.op("pad", x, padding=tuple(amounts[:4]), channels=tuple(amounts[4:]))


def _unary(op: str) -> Callable[[Int8Builder, str], str]:
    def piece(b: Int8Builder, x: str) -> str:
        if op == "hard_swish":  # LiteRT needs an output scale above 1/128 of the input's; 3 in the middle of the range
            wide = b.weighted("conv2d", x, (b.shape(x)[3], 1, 1, b.shape(x)[3]), out=b.grid(10 / 255))
            return b.op(op, wide, out=b.grid(float(b.quant(wide).scale[0])))
        return b.op(op, x)

    return piece


def _spatial_mean(b: Int8Builder, x: str) -> str:
    return b.op("mean", x, keepdims=True)


def _head_fully_connected(b: Int8Builder, x: str) -> str:
    flat = b.op("mean", x) if b.rng.random() < 0.5 else b.op("reshape", x, shape=(1, math.prod(b.shape(x))))
    outputs = int(b.rng.integers(1, 21))
    bias = bool(b.rng.random() < 0.8)
    return b.weighted("fully_connected", flat, (outputs, b.shape(flat)[1]), bias=bias, activation=_activation(b.rng))


def _head_softmax(b: Int8Builder, x: str) -> str:
    logits = b.weighted("fully_connected", b.op("mean", x), (10, b.shape(x)[3]), out=b.grid(0.1))
    return b.op("softmax", logits)


PIECES: dict[str, Callable[[Int8Builder, str], str]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "grouped": _grouped,
    "pointwise": _pointwise,
    "residual": _residual,
    "residual_alone": _residual_alone,
    "add_constant": _constant_operand("add"),
    "mul_constant": _constant_operand("mul"),
    "squeeze_excite": _squeeze_excite,
    "concat": _concat,
    "concat_pixels": _concat_pixels,
    "product": _product,
    "reshape": _reshape,
    "max_pool": _pool("max_pool2d"),
    "avg_pool": _pool("avg_pool2d"),
    "pad": _pad,
    "relu": _unary("relu"),
    "relu6": _unary("relu6"),
    "hard_swish": _unary("hard_swish"),
    "sigmoid": _unary("sigmoid"),
    "mean": _spatial_mean,
    "fully_connected": _head_fully_connected,
    "softmax": _head_softmax,
}
HEADS = ("mean", "fully_connected", "softmax")  # after which nothing can follow
BODY = tuple(piece for piece in PIECES if piece not in HEADS)


def piece_graph(piece: str, seed: int) -> Graph:
    """One piece (an op, or the few ops of a block) on a random small image."""
    rng = np.random.default_rng([seed, *piece.encode()])
    height, width, channels = (int(v) for v in rng.integers((3, 3, 1), (13, 13, 13)))
    b = Int8Builder((1, height, width, channels), seed)
    return b.graph(PIECES[piece](b, b.input))


def network(shape: tuple[int, ...], plan: Sequence[tuple[str, int]]) -> Graph:
    """A network of pieces, one after the other, on an image (height, width, channels).

    Each piece has a seed of its own, so that leaving one out changes no other: a failing network can shrink.
    """
    b = Int8Builder((1, *shape))
    x = b.input
    for piece, seed in plan:
        b.rng = np.random.default_rng(seed)
        x = PIECES[piece](b, x)
    return b.graph(x)


def random_graph(seed: int, pieces: int = 6) -> Graph:
    """A network of random pieces, with a head half of the time."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(v) for v in rng.integers((9, 9, 1), (25, 25, 9)))
    names = [str(rng.choice(BODY)) for _ in range(pieces)] + [str(rng.choice(HEADS))] * bool(rng.random() < 0.5)
    return network(shape, [(name, int(rng.integers(2**31))) for name in names])
