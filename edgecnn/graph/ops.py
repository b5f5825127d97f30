"""The op table: one row per op, and nodes of it. Whatever is not here is not in a graph.

Whatever another module asks of an op (has it weights, how is its output quantized, which aten ops become it) stands in
its row. So a new op is its row, a torch kernel (``interpreter.py``), an integer kernel (``oracle/kernels.py``) and one
row per converter and importer. ``tests/graph/test_new_op.py`` adds one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgecnn.errors import InputError, UnsupportedError, unknown

Attr = int | float | bool | str | tuple[int, ...]
MAX_RANK = 6  # dimensions of a tensor, with the batch
Shape = tuple[int, ...]
Attrs = Mapping[str, Attr]
ACTIVATIONS = ("none", "relu", "relu6")

REQUIRED = object()


@dataclass(frozen=True, kw_only=True)
class OpSpec:
    """One op.

    Attributes:
        inputs: names of the inputs, in order; a trailing ``*`` marks any number.
        attrs: attribute name to default; ``REQUIRED`` has none. An op with ``activation`` takes a fused one.
        shape: output shape from input shapes and attributes.
        scale: how the output is quantized: ``own`` (calibrated), ``same`` (shares the input's parameters, so
            the op only moves or compares integers), ``fixed`` (scale 1/256 and zero point -128 in int8, 1/32768 and
            0 in int16) or ``index`` (scale 1 and zero point -128: up to 256 whole numbers).
            Source: LiteRT 8-bit quantization specification, "Int8 quantized operator specifications".
        function: whether it is a function of one number, which ``functions.py`` has; in 8 bits, a table of 256 entries.
        weighted: whether inputs 1 and 2 are a weight and a bias: quantized per channel, symmetric.
        homogeneous: whether a positive factor passes through: ``f(c x) = c f(x)`` (of relu6, where nothing is clipped).
        aten: names of the aten ops of one tensor that become this op as they are. Others have a handler in ``aten.py``.
        interim: whether it is only between an importer and ``passes.simplify``, which makes another op of it.
        macs: multiply-accumulates from input shapes and the output shape; biases and elementwise ops count 0.
    """

    inputs: tuple[str, ...]
    shape: Callable[[list[Shape], Attrs], Shape]
    attrs: Mapping[str, object]
    scale: str = "own"
    function: bool = False
    weighted: bool = False
    homogeneous: bool = False
    aten: tuple[str, ...] = ()
    interim: bool = False
    macs: Callable[[list[Shape], Shape], int] = lambda inputs, output: 0


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operation."""

    op: str  # a name in ``OPS``
    inputs: tuple[str, ...]  # tensor names, in the order of the op's row
    output: str  # the one tensor it makes; a node has its output's name
    attrs: Attrs = field(default_factory=dict)  # every attribute of the op's row, defaults filled in
    source: str = ""  # the module path it came from (``features.3.conv``), for messages

    def __str__(self) -> str:
        return f"{self.op} {self.output!r} ({self.source or 'no source'})"

    @property
    def spec(self) -> OpSpec:
        """Return the op's row; raise ``UnsupportedError`` where there is none."""
        return _spec(self.op)

    @property
    def weighted(self) -> bool:
        """Whether inputs 1 and 2 are a weight and a bias."""
        return self.spec.weighted


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow ``SAME`` padding (before, after) of one dimension; the odd pixel goes after.

    Source: TensorFlow API documentation of ``tf.nn.convolution``, "Notes on padding".
    """
    total = max((math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _window(size: int, pad: int, kernel: int, stride: int, dilation: int) -> int:
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


def _spatial(x: Shape, kernel: tuple[int, int], a: Attrs) -> tuple[int, int]:
    top, bottom, left, right = _ints(a["padding"])
    (sh, sw), (dh, dw) = _ints(a["stride"]), _ints(a.get("dilation", (1, 1)))
    return _window(x[1], top + bottom, kernel[0], sh, dh), _window(x[2], left + right, kernel[1], sw, dw)


def _ints(value: Attr) -> tuple[int, ...]:
    assert isinstance(value, tuple)
    return value


def need(ok: bool, message: str) -> None:
    """Raise ``InputError`` with a message unless something holds."""
    if not ok:
        raise InputError(message)


def _conv_shape(s: list[Shape], a: Attrs) -> Shape:
    x, w = s[0], s[1]
    groups = a["groups"]
    assert isinstance(groups, int)
    need(len(x) == 4 and len(w) == 4, f"input must be NHWC and weight OHWI, got {x} and {w}")
    need(x[3] == w[3] * groups and w[0] % groups == 0, f"{groups} groups, weight {w} and {x[3]} channels do not fit")
    need(s[2:] == [(w[0],)], f"there must be a bias, of shape ({w[0]},)")
    return (x[0], *_spatial(x, (w[1], w[2]), a), w[0])


def _linear_shape(s: list[Shape], a: Attrs) -> Shape:
    x, w = s[0], s[1]
    need(len(x) == 2 and len(w) == 2 and x[1] == w[1], f"input {x} and weight {w} do not fit")
    need(s[2:] == [(w[0],)], f"there must be a bias, of shape ({w[0]},)")
    return (x[0], w[0])


def _broadcast_shape(s: list[Shape], a: Attrs) -> Shape:
    rank = max(len(x) for x in s)
    padded = [(1,) * (rank - len(x)) + x for x in s]
    for dims in zip(*padded, strict=True):
        need(len({d for d in dims if d != 1}) <= 1, f"shapes {s[0]} and {s[1]} do not broadcast")
    return tuple(max(dims) for dims in zip(*padded, strict=True))


def _pool_shape(s: list[Shape], a: Attrs) -> Shape:
    x = s[0]
    need(len(x) == 4, f"input must be NHWC, got {x}")
    kernel = _ints(a["kernel"])
    return (x[0], *_spatial(x, (kernel[0], kernel[1]), a), x[3])


def _mean_shape(s: list[Shape], a: Attrs) -> Shape:
    x = s[0]
    need(len(x) == 4, f"input must be NHWC, got {x}")
    return (x[0], 1, 1, x[3]) if a["keepdims"] else (x[0], x[3])


def _concat_shape(s: list[Shape], a: Attrs) -> Shape:
    axis = a["axis"]
    assert isinstance(axis, int)
    need(1 <= axis < len(s[0]), f"axis {axis} of {s[0]}; the batch cannot be concatenated")
    rest = {(*x[:axis], *x[axis + 1 :]) for x in s}
    need(len(rest) == 1, f"shapes {s} differ outside axis {axis}")
    return (*s[0][:axis], sum(x[axis] for x in s), *s[0][axis + 1 :])


def _pad_shape(s: list[Shape], a: Attrs) -> Shape:
    (top, bottom, left, right), (front, back) = _ints(a["padding"]), _ints(a["channels"])
    n, h, w, c = s[0]
    return (n, h + top + bottom, w + left + right, c + front + back)


def _reshape_shape(s: list[Shape], a: Attrs) -> Shape:
    shape = _ints(a["shape"])
    need(0 < len(shape) <= MAX_RANK, f"{shape} has {len(shape)} dimensions; 1 to {MAX_RANK} are allowed")
    need(shape[0] == s[0][0] and math.prod(shape) == math.prod(s[0]), f"cannot reshape {s[0]} to {shape}")
    return shape


def _transpose_shape(s: list[Shape], a: Attrs) -> Shape:
    perm, x = _ints(a["perm"]), s[0]
    need(sorted(perm) == list(range(len(x))) and perm[0] == 0, f"{perm} of {x}; the batch stays first")
    return tuple(x[k] for k in perm)


def _slice_shape(s: list[Shape], a: Attrs) -> Shape:
    begin, end, step = (_ints(a[key]) for key in ("begin", "end", "step"))
    x = s[0][1:]
    need(len(begin) == len(end) == len(step) == len(x), f"begin {begin}, end {end}, step {step} for {s[0]}")
    fits = all(0 <= b < e <= d and k > 0 for b, e, k, d in zip(begin, end, step, x, strict=True))
    need(fits, f"begin {begin}, end {end}, step {step} do not lie in {s[0]}")
    return (s[0][0], *(-(-(e - b) // k) for b, e, k in zip(begin, end, step, strict=True)))


def _gather_shape(s: list[Shape], a: Attrs) -> Shape:
    axis, indices, x = a["axis"], _ints(a["indices"]), s[0]
    assert isinstance(axis, int)
    need(1 <= axis < len(x), f"axis {axis} of {x}; the batch stays")
    need(all(0 <= k < x[axis] for k in indices), f"indices {indices} of {x[axis]}")
    return (*x[:axis], len(indices), *x[axis + 1 :])


def _resize_shape(s: list[Shape], a: Attrs) -> Shape:
    (height, width), x = _ints(a["size"]), s[0]
    need(len(x) == 4, f"input must be NHWC, got {x}")
    need(a["mode"] in RESIZE_MODES, f"resize mode {a['mode']!r}; allowed: {', '.join(RESIZE_MODES)}")
    need(not (a["align_corners"] and a["half_pixel"]), "align_corners and half_pixel exclude each other")
    return (x[0], height, width, x[3])


def _depth_to_space_shape(s: list[Shape], a: Attrs) -> Shape:
    x, block = s[0], a["block"]
    assert isinstance(block, int)
    need(len(x) == 4 and x[3] % block**2 == 0, f"block {block} of {x}")
    return (x[0], x[1] * block, x[2] * block, x[3] // block**2)


def _space_to_depth_shape(s: list[Shape], a: Attrs) -> Shape:
    x, block = s[0], a["block"]
    assert isinstance(block, int)
    need(len(x) == 4 and x[1] % block == 0 and x[2] % block == 0, f"block {block} of {x}")
    return (x[0], x[1] // block, x[2] // block, x[3] * block**2)


def _matmul_shape(s: list[Shape], a: Attrs) -> Shape:
    left, right = s
    need(
        len(left) == len(right) >= 3 and left[:-2] == right[:-2], f"inputs {left} and {right} must be alike but for two"
    )
    rows, columns = (right[-1], right[-2]) if a["transpose_b"] else (right[-2], right[-1])
    need(left[-1] == rows, f"inputs {left} and {right} do not fit")
    return (*left[:-1], columns)


def _prelu_shape(s: list[Shape], a: Attrs) -> Shape:
    x, alpha = s
    need(alpha == (x[-1],), f"there must be a slope for each of {x[-1]} channels, got {alpha}")
    return x


def _argmax_shape(s: list[Shape], a: Attrs) -> Shape:
    return (*s[0][:-1], 1)


def _same_shape(s: list[Shape], a: Attrs) -> Shape:
    return s[0]


def _weight_macs(inputs: list[Shape], output: Shape) -> int:
    return math.prod(output) * math.prod(inputs[1][1:])


def _matmul_macs(inputs: list[Shape], output: Shape) -> int:
    return math.prod(output) * inputs[0][-1]


def _function(homogeneous: bool = False, aten: tuple[str, ...] = (), **attrs: object) -> OpSpec:
    """Return the row of a function of one number; ``functions.py`` has its values."""
    return OpSpec(inputs=("x",), attrs=attrs, shape=_same_shape, homogeneous=homogeneous, aten=aten, function=True)


RESIZE_MODES = ("nearest", "bilinear")
_ACTIVATION = {"activation": "none"}
_PLACE = {"stride": (1, 1), "padding": (0, 0, 0, 0)}  # padding: top, bottom, left, right
_WINDOW = {"kernel": REQUIRED, **_PLACE}
_BORDER = {"padding": (0, 0, 0, 0), "channels": (0, 0)}

OPS: Mapping[str, OpSpec] = {
    "conv2d": OpSpec(
        inputs=("x", "weight", "bias"),
        attrs={**_PLACE, "dilation": (1, 1), "groups": 1, **_ACTIVATION},
        shape=_conv_shape,
        weighted=True,
        macs=_weight_macs,
    ),
    "fully_connected": OpSpec(
        inputs=("x", "weight", "bias"), attrs=_ACTIVATION, shape=_linear_shape, weighted=True, macs=_weight_macs
    ),
    "add": OpSpec(inputs=("a", "b"), attrs=_ACTIVATION, shape=_broadcast_shape, homogeneous=True),
    "mul": OpSpec(inputs=("a", "b"), attrs=_ACTIVATION, shape=_broadcast_shape),
    "max_pool2d": OpSpec(inputs=("x",), attrs=_WINDOW, shape=_pool_shape, scale="same", homogeneous=True),
    # The average is over the pixels inside the image: padding is not counted.
    "avg_pool2d": OpSpec(inputs=("x",), attrs=_WINDOW, shape=_pool_shape, scale="same", homogeneous=True),
    # over height and width
    "mean": OpSpec(inputs=("x",), attrs={"keepdims": False}, shape=_mean_shape, homogeneous=True),
    "concat": OpSpec(inputs=("x*",), attrs={"axis": REQUIRED}, shape=_concat_shape, scale="same"),
    # Zeros around height and width, and (front, back) around the channels; NHWC only.
    "pad": OpSpec(inputs=("x",), attrs=_BORDER, shape=_pad_shape, scale="same", homogeneous=True),
    "reshape": OpSpec(inputs=("x",), attrs={"shape": REQUIRED}, shape=_reshape_shape, scale="same", homogeneous=True),
    "relu": OpSpec(inputs=("x",), attrs={}, shape=_same_shape, homogeneous=True, aten=("relu",)),
    "relu6": OpSpec(inputs=("x",), attrs={}, shape=_same_shape, homogeneous=True),
    # x * relu6(x + 3) / 6
    "hard_swish": OpSpec(inputs=("x",), attrs={}, shape=_same_shape, aten=("hardswish",)),
    # The same values on the grid of another integer type; every other op's activations are all of one type.
    "requantize": OpSpec(inputs=("x",), attrs={"to": REQUIRED}, shape=_same_shape),
    "sigmoid": OpSpec(inputs=("x",), attrs={}, shape=_same_shape, scale="fixed", aten=("sigmoid",)),
    "softmax": OpSpec(inputs=("x",), attrs={}, shape=_same_shape, scale="fixed"),  # over the last dimension
    # the first place of the largest number of the last dimension, at a network's end
    "argmax": OpSpec(inputs=("x",), attrs={}, shape=_argmax_shape, scale="index"),
    "transpose": OpSpec(
        inputs=("x",), attrs={"perm": REQUIRED}, shape=_transpose_shape, scale="same", homogeneous=True
    ),
    # begin, end and step of every dimension but the batch; what Python's slices with steps above 0 are
    "slice": OpSpec(
        inputs=("x",),
        attrs={"begin": REQUIRED, "end": REQUIRED, "step": REQUIRED},
        shape=_slice_shape,
        scale="same",
        homogeneous=True,
    ),
    # the slices of one dimension at some indices, in any order: reflection, replication, a permutation of channels
    "gather": OpSpec(
        inputs=("x",),
        attrs={"axis": REQUIRED, "indices": REQUIRED},
        shape=_gather_shape,
        scale="same",
        homogeneous=True,
    ),
    # Source of align_corners and half_pixel: TensorFlow ``ResizeBilinear`` and ``ResizeNearestNeighbor``.
    "resize": OpSpec(
        inputs=("x",),
        attrs={"size": REQUIRED, "mode": REQUIRED, "align_corners": False, "half_pixel": False},
        shape=_resize_shape,
        scale="same",
        homogeneous=True,
    ),
    # Channels are (row in the block, column in the block, channel), as in TensorFlow.
    "depth_to_space": OpSpec(
        inputs=("x",), attrs={"block": REQUIRED}, shape=_depth_to_space_shape, scale="same", homogeneous=True
    ),
    "space_to_depth": OpSpec(
        inputs=("x",), attrs={"block": REQUIRED}, shape=_space_to_depth_shape, scale="same", homogeneous=True
    ),
    # of the last two dimensions of two activations; the others are equal
    "batch_matmul": OpSpec(inputs=("a", "b"), attrs={"transpose_b": False}, shape=_matmul_shape, macs=_matmul_macs),
    "prelu": OpSpec(inputs=("x", "alpha"), attrs={}, shape=_prelu_shape),  # alpha: a constant, (channels,)
    "leaky_relu": _function(homogeneous=True, alpha=0.01),
    "clamp": _function(low=REQUIRED, high=REQUIRED),
    "tanh": _function(aten=("tanh",)),
    "elu": _function(alpha=1.0),
    "gelu": _function(approximate=False),
    "softplus": _function(),
    "mish": _function(aten=("mish",)),
    "hard_sigmoid": _function(alpha=1 / 6, beta=0.5),  # clip(alpha x + beta, 0, 1)
    "abs": _function(homogeneous=True, aten=("abs",)),
    "erf": replace(_function(aten=("erf",)), interim=True),
    "exp": _function(aten=("exp",)),
    "log": _function(aten=("log",)),
    "pow": _function(exponent=REQUIRED),  # sqrt, rsqrt and reciprocal are powers
}


def make_node(op: str, inputs: tuple[str, ...], output: str, source: str = "", **attrs: Attr) -> Node:
    """Return a node with the defaults of the op's row filled in.

    Raises:
        UnsupportedError: no such op.
        InputError: an attribute is missing or not the op's.
    """
    spec = _spec(op)
    if extra := set(attrs) - set(spec.attrs):
        raise InputError(unknown(f"attribute of {op}", min(extra), spec.attrs))
    filled: dict[str, Any] = {**spec.attrs, **attrs}
    for name, value in filled.items():
        need(value is not REQUIRED, f"op {op} needs the attribute {name!r}")
    return Node(op=op, inputs=inputs, output=output, attrs=filled, source=source)


def output_shape(node: Node, inputs: list[Shape]) -> Shape:
    """Return the shape of a node's output.

    Raises:
        InputError: the input shapes do not fit the op; the message names the node.
    """
    try:
        shape = node.spec.shape(inputs, node.attrs)
    except InputError as error:
        raise InputError(f"{node}: {error}") from None
    if any(d < 1 for d in shape):
        raise InputError(f"{node}: input {inputs[0]} is too small, output would be {shape}")
    return shape


def _spec(op: str) -> OpSpec:
    if op not in OPS:
        raise UnsupportedError(unknown("op", op, OPS))
    return OPS[op]
