"""Random quantized graphs over the whole op set, for tests: pieces of one op or a block, and networks of pieces.

The pieces are what networks are made of, with the patterns that a runtime may fuse. Hand-made graphs: ``int8_builder``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from int8_builder import Int8Builder
from pieces import MORE_PIECES

from edgecnn.graph.contract import FIXED
from edgecnn.graph.ir import Graph
from edgecnn.graph.ops import same_padding


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


def _residual_chain(b: Int8Builder, x: str) -> str:
    """Sums that end in a ReLU and are read by a convolution and by the next sum: grids on both sides of zero."""
    channels = b.shape(x)[3]

    def conv(source: str, activation: str) -> str:
        weight_shape = (channels, 3, 3, channels)
        return b.weighted("conv2d", source, weight_shape, padding=(1, 1, 1, 1), activation=activation)

    for _ in range(2):
        inner = conv(conv(x, "relu"), "none")
        operands = (x, inner) if b.rng.random() < 0.5 else (inner, x)
        out = b.grid(float(b.quant(x).scale[0] + b.quant(inner).scale[0]), -128)
        x = b.op("add", *operands, activation="relu", out=out)
    return x


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


def _squeeze_excite_hard(b: Int8Builder, x: str) -> str:
    """With a hard sigmoid as the capture spells it, and a hard swish before: a block of MobileNetV3."""
    rng, channels = b.rng, b.shape(x)[3]
    wide = b.weighted("conv2d", x, (channels, 1, 1, channels), out=b.grid(10 / 255))
    x = b.op("hard_swish", wide, out=b.grid(float(b.quant(wide).scale[0])))
    pooled = b.op("mean", x, keepdims=True)
    squeezed = b.weighted("conv2d", pooled, (max(1, channels // 2), 1, 1, channels), activation="relu")
    excited = b.weighted("conv2d", squeezed, (channels, 1, 1, max(1, channels // 2)), out=b.grid(0.05))
    gate = b.op("add", excited, b.constant((1,), b.grid(0.025, -128)), activation="relu6", out=b.grid(6 / 255, -128))
    sixth = b.op("mul", gate, b.constant((1,), b.grid(1 / 6 / 255, -128)), out=b.grid(1 / 255, -128))
    return b.op("mul", *((x, sixth) if rng.random() < 0.5 else (sixth, x)))


def _swish(b: Int8Builder, x: str) -> str:
    """A convolution times its own sigmoid."""
    x = b.weighted("conv2d", x, (b.shape(x)[3], 1, 1, b.shape(x)[3]), out=b.grid(12 / 255))
    return b.op("mul", x, b.op("sigmoid", x))


def _pooled_product(b: Int8Builder, x: str) -> str:
    """A pooling times a constant per channel, of both signs."""
    pooled = _pool(str(b.rng.choice(["max_pool2d", "avg_pool2d"])))(b, x)
    return b.op("mul", pooled, b.constant((1, 1, 1, b.shape(x)[3])), activation=_activation(b.rng))


def _pad_pixel(b: Int8Builder, x: str) -> str:
    """A border around one pixel, or around a row of them."""
    _, height, width, channels = b.shape(x)
    kernel = (height, width) if b.rng.random() < 0.5 else (height, 1)
    pixel = b.weighted("conv2d", x, (channels, *kernel, 1), groups=channels)
    amounts = tuple(int(v) for v in b.rng.integers(0, 9, 4))
    return b.op("pad", pixel, padding=amounts, channels=(0, 0))


def _concat(b: Int8Builder, x: str) -> str:
    shared, channels = b.grid(0.5), b.shape(x)[3]
    branches = [
        b.weighted("conv2d", x, (int(b.rng.integers(1, 9)), 1, 1, channels), out=shared)
        for _ in range(int(b.rng.integers(2, 4)))
    ]
    return b.op("concat", *branches, axis=3)


def _dense(b: Int8Builder, x: str) -> str:
    """Concatenations that are read again, by a convolution and by the next concatenation."""
    if b.quant(x).same_as(FIXED):  # of a sigmoid: quantization refuses to join it with what has a scale of its own
        x = b.weighted("conv2d", x, (b.shape(x)[3], 1, 1, b.shape(x)[3]))
    for _ in range(2):
        grown = (int(b.rng.integers(1, 5)), 3, 3, b.shape(x)[3])
        inner = b.weighted("conv2d", x, grown, padding=(1, 1, 1, 1), out=b.quant(x), activation=_activation(b.rng))
        x = b.op("concat", x, inner, axis=3)
    return x


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


def _head_chain(b: Int8Builder, x: str) -> str:
    """Linear layers alone."""
    x = b.op("reshape", x, shape=(1, math.prod(b.shape(x))))
    for _ in range(int(b.rng.integers(2, 4))):
        weight_shape = (int(b.rng.integers(1, 33)), b.shape(x)[1])
        x = b.weighted("fully_connected", x, weight_shape, activation=_activation(b.rng))
    return x


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
    "residual_chain": _residual_chain,
    "add_constant": _constant_operand("add"),
    "mul_constant": _constant_operand("mul"),
    "squeeze_excite": _squeeze_excite,
    "squeeze_excite_hard": _squeeze_excite_hard,
    "swish": _swish,
    "concat": _concat,
    "dense": _dense,
    "concat_pixels": _concat_pixels,
    "product": _product,
    "reshape": _reshape,
    "max_pool": _pool("max_pool2d"),
    "avg_pool": _pool("avg_pool2d"),
    "pooled_product": _pooled_product,
    "pad": _pad,
    "pad_pixel": _pad_pixel,
    "relu": _unary("relu"),
    "relu6": _unary("relu6"),
    "hard_swish": _unary("hard_swish"),
    "sigmoid": _unary("sigmoid"),
    "mean": _spatial_mean,
    "fully_connected": _head_fully_connected,
    "fully_connected_chain": _head_chain,
    "softmax": _head_softmax,
}
MOST_CHANNELS, MOST_PIXELS = 1024, 2048  # a convolution of 10,000 channels takes gigabytes, attention their square
HEADS = ("mean", "fully_connected", "fully_connected_chain", "softmax")  # after which nothing can follow
BODY = tuple(piece for piece in PIECES if piece not in HEADS)


def piece_graph(piece: str, seed: int) -> Graph:
    """One piece (an op, or the few ops of a block) on a random small image."""
    rng = np.random.default_rng([seed, *piece.encode()])
    height, width, channels = (int(v) for v in rng.integers((3, 3, 1), (13, 13, 13)))
    b = Int8Builder((1, height, width, channels), seed)
    return b.graph((PIECES | MORE_PIECES)[piece](b, b.input))


def network(shape: tuple[int, ...], plan: Sequence[tuple[str, int]]) -> Graph:
    """A network of pieces, one after the other, on an image (height, width, channels).

    Each piece has a seed of its own, so that leaving one out changes no other: a failing network can shrink. Of what
    has grown beyond ``MOST_CHANNELS`` or ``MOST_PIXELS`` only a head is made.
    """
    b = Int8Builder((1, *shape))
    x = b.input
    for piece, seed in plan:
        if (b.shape(x)[-1] > MOST_CHANNELS or math.prod(b.shape(x)[1:-1]) > MOST_PIXELS) and piece not in HEADS:
            continue
        b.rng = np.random.default_rng(seed)
        x = (PIECES | MORE_PIECES)[piece](b, x)
    return b.graph(x)


def random_graph(seed: int, pieces: int = 6, body: Sequence[str] = BODY) -> Graph:
    """A network of random pieces, with a head half of the time."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(v) for v in rng.integers((9, 9, 1), (25, 25, 9)))
    names = [str(rng.choice(body)) for _ in range(pieces)] + [str(rng.choice(HEADS))] * bool(rng.random() < 0.5)
    return network(shape, [(name, int(rng.integers(2**31))) for name in names])
