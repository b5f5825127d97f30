"""Operations of ``keras.ops`` and of TensorFlow that stand as layers in a functional model, in ops of the graph.

``x * 2 + y`` on symbolic tensors of Keras 3 makes the layers ``Multiply`` and ``Add`` of ``keras.src.ops.numpy``; of
Keras 2, layers ``TFOpLambda`` with the name of a TensorFlow function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.builder import Builder
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn_converters.keras import activations, plain
from edgecnn_converters.keras.translation import Handler, Made, Step, operand

MISSING = object()
X = (
    "x",
    "input_tensor",
    "inputs",
    "input",
    "value",
    "values",
    "features",
    "tensor",
    "logits",
    "a",
    "images",
    "image",
    "xs",
)


def _given(step: Step, *names: str, at: int = 1, default: Any = MISSING) -> Any:
    """Return an argument by any of its names, by its place, or as the operation was made with."""
    for name in names:
        if name in step.kwargs:
            return step.kwargs[name]
    if len(step.args) > at:
        return step.args[at]
    for name in names:
        if name in step.config:
            return step.config[name]
    need(default is not MISSING, f"the argument {names[0]!r} is missing")
    return default


def _x(step: Step) -> Value:
    value = _given(step, *X, at=0)
    need(isinstance(value, Value), "a constant where an activation is needed")
    assert isinstance(value, Value)
    return value


def _dims(given: Any, rank: int) -> list[int]:
    """Return dimensions from an axis, several, or ``None`` for all."""
    if given is None:
        return [*range(rank)]
    return sorted({int(a) % rank for a in ([*given] if isinstance(given, list | tuple) else [given])})


def _binary(step: Step, op: str) -> Value:
    left, right = (operand(_given(step, *names, at=at)) for at, names in enumerate((("x1", *X), ("x2", "y", "b"))))
    return step.b.binary(op, left, right)


def _unary(function: Callable[[Builder, Value], Value], step: Step) -> Value:
    return function(step.b, _x(step))


def _reduced(step: Step, kind: Callable[..., Value]) -> Value:
    x = _x(step)
    dims = _dims(_given(step, "axis", default=None), len(step.b.shape(x)))
    return kind(step.b, x, dims, keepdims=bool(_given(step, "keepdims", at=2, default=False)))


def _power(step: Step) -> Value:
    x, exponent = (_given(step, *names, at=at) for at, names in enumerate((("x1", *X), ("x2", "y"))))
    need(isinstance(x, Value) and not isinstance(exponent, Value), "a power whose exponent is no constant")
    p = float(np.asarray(exponent))
    return step.b.binary("mul", x, x) if p == 2 else step.b.unary("pow", x, exponent=p)


def _clip(step: Step) -> Value:
    low = _given(step, "x_min", "clip_value_min", at=1)
    high = _given(step, "x_max", "clip_value_max", at=2)
    return step.b.clamp(_x(step), float(low), float(high))


def _leaky(step: Step) -> Value:
    return step.b.unary("leaky_relu", _x(step), alpha=float(_given(step, "negative_slope", "alpha", default=0.2)))


def _gelu(step: Step) -> Value:
    approximate = _given(step, "approximate", default=True)
    return step.b.unary("gelu", _x(step), approximate=bool(approximate))


def _tf_gelu(step: Step) -> Value:
    return step.b.unary("gelu", _x(step), approximate=bool(_given(step, "approximate", default=False)))


def _elu(step: Step) -> Value:
    return step.b.unary("elu", _x(step), alpha=float(_given(step, "alpha", default=1.0)))


def _softmax(step: Step) -> Value:
    axis = _given(step, "axis", default=-1)
    return reductions.softmax(step.b, _x(step), -1 if axis is None else int(axis))


def _log_softmax(step: Step) -> Value:
    return activations.log_softmax(step.b, _x(step), int(_given(step, "axis", default=-1)))


def _normalize(step: Step) -> Value:
    x = _x(step)
    need(int(_given(step, "order", default=2, at=2)) == 2, "a norm of another order than 2")
    dims = _dims(_given(step, "axis", default=-1), len(step.b.shape(x)))
    return reductions.l2_normalize(step.b, x, dims, float(_given(step, "epsilon", at=3, default=1e-12) or 1e-12))


def _tf_normalize(step: Step) -> Value:
    """``x / sqrt(max(sum(x^2), epsilon))``."""
    x = _x(step)
    dims = _dims(_given(step, "axis", default=None), len(step.b.shape(x)))
    return reductions.l2_normalize(step.b, x, dims, float(_given(step, "epsilon", at=2, default=1e-12)) ** 0.5)


# --- what moves ---


def _values(step: Step) -> list[Value]:
    given = _given(step, "xs", "values", "arrays", *X, at=0)
    values = given if isinstance(given, list) else [given]
    need(bool(values) and all(isinstance(v, Value) for v in values), "a constant where activations are needed")
    return [*values]


def _concatenate(step: Step) -> Value:
    values = _values(step)
    axis = _given(step, "axis", default=0 if step.layer.kind != "Concatenate" else -1)
    return step.b.concat(values, int(axis) % len(step.b.shape(values[0])))


def _stack(step: Step) -> Value:
    values, b = _values(step), step.b
    shape = b.shape(values[0])
    axis = int(_given(step, "axis", default=0)) % (len(shape) + 1)
    return b.concat([b.reshape(v, (*shape[:axis], 1, *shape[axis:])) for v in values], axis)


def _split(step: Step) -> Made:
    x, b = _x(step), step.b
    shape = b.shape(x)
    given = _given(step, "indices_or_sections", "num_or_size_splits")
    axis = int(_given(step, "axis", at=2, default=0)) % len(shape)
    if isinstance(given, int):
        need(given > 0 and shape[axis] % given == 0, f"{given} parts of {shape[axis]}")
        cuts = [k * shape[axis] // given for k in range(1, given)]
    elif "num_or_size_splits" in step.kwargs:
        sizes = [int(v) for v in given]
        rest = shape[axis] - sum(s for s in sizes if s != -1)
        cuts = [int(v) for v in np.cumsum([rest if s == -1 else s for s in sizes])[:-1]]
    else:
        cuts = [int(v) for v in given]
    ends = [0, *cuts, shape[axis]]
    return [b.slice(x, axis, first, end) for first, end in pairwise(ends)]


def _reshape(step: Step) -> Value:
    x = _x(step)
    shape = [-1 if d is None else d for d in _given(step, "newshape", "shape")]
    need(not any(isinstance(d, Value) for d in shape), "a shape that is computed while the network runs")
    sizes = [int(d) for d in shape]
    if sizes and sizes[0] == -1 and sizes.count(-1) > 1:
        sizes[0] = step.b.shape(x)[0]
    return plain.reshaped(step, x, sizes)


def _transpose(step: Step) -> Value:
    x = _x(step)
    rank = len(step.b.shape(x))
    perm = _given(step, "axes", "perm", default=None)
    return step.b.transpose(x, [int(p) for p in perm] if perm is not None else [*range(rank)][::-1])


def _swap(step: Step) -> Value:
    x = _x(step)
    perm = [*range(len(step.b.shape(x)))]
    one, other = (int(_given(step, f"axis{k}", at=k)) % len(perm) for k in (1, 2))
    perm[one], perm[other] = other, one
    return step.b.transpose(x, perm)


def _expand(step: Step) -> Value:
    x = _x(step)
    shape = [*step.b.shape(x)]
    given = _given(step, "axis")
    axes = [*given] if isinstance(given, list | tuple) else [given]
    rank = len(shape) + len(axes)
    for axis in sorted(int(a) % rank for a in axes):
        shape.insert(axis, 1)
    return step.b.reshape(x, shape)


def _squeeze(step: Step) -> Value:
    x = _x(step)
    shape, given = step.b.shape(x), _given(step, "axis", default=None)
    dims = _dims(given, len(shape)) if given not in (None, []) else [k for k, d in enumerate(shape) if d == 1][1:]
    need(all(shape[d] == 1 for d in dims), f"dimensions {dims} of {shape} are not 1")
    return step.b.reshape(x, [d for k, d in enumerate(shape) if k not in dims])


def _take(step: Step) -> Value:
    """Add ``x[key]``: slices, numbers, new axes, an ellipsis."""
    b, x = step.b, _x(step)
    given = _given(step, "key", "slice_spec")
    keys = [*given] if isinstance(given, list | tuple) else [given]
    keys = [slice(*(k.get(p) for p in ("start", "stop", "step"))) if isinstance(k, Mapping) else k for k in keys]
    keys = [Ellipsis if k is Ellipsis or k == "..." else k for k in keys]
    rank = len(b.shape(x))
    missing = rank - sum(k is not None and k is not Ellipsis for k in keys)
    need(missing >= 0 and keys.count(Ellipsis) <= 1, f"{keys} of {b.shape(x)}")
    where = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys = [*keys[:where], *[slice(None)] * missing, *keys[where + 1 :]]
    final: list[int] = []
    dim = 0
    for key in keys:
        if key is None:
            final.append(1)
            continue
        size = b.shape(x)[dim]
        if isinstance(key, slice):
            places = range(*key.indices(size))
            need(len(places) > 0, f"{key} of {size} elements is empty")
            if len(places) < size or places.step != 1:
                x = b.gather(x, dim, places)
            final.append(len(places))
        else:
            need(type(key) is int and -size <= key < size, f"index {key!r} of {size} elements")
            x = b.gather(x, dim, [key % size]) if size > 1 else x
        dim += 1
    return b.reshape(x, final)


def _pad(step: Step) -> Value:
    widths = _given(step, "pad_width", "paddings")
    mode = str(_given(step, "mode", at=2, default="constant")).lower()
    need(mode in ("constant", "reflect"), f"mode {mode!r}; allowed: constant, reflect")
    fill = _given(step, "constant_values", at=3, default=0) or 0
    pairs = [(int(before), int(behind)) for before, behind in widths]
    return step.b.pad(_x(step), pairs, mode, float(fill))


def _repeat(step: Step) -> Value:
    x = _x(step)
    count, axis = _given(step, "repeats"), _given(step, "axis", at=2, default=None)
    need(
        isinstance(count, int) and 0 < count <= plain.MAX_REPEATS and axis is not None,
        f"repeats {count} of axis {axis}",
    )
    dim = int(axis) % len(step.b.shape(x))
    return step.b.gather(x, dim, [k for k in range(step.b.shape(x)[dim]) for _ in range(count)])


def _flip(step: Step) -> Value:
    x = _x(step)
    for dim in _dims(_given(step, "axis"), len(step.b.shape(x))):
        x = step.b.gather(x, dim, [*range(step.b.shape(x)[dim])][::-1])
    return x


def _matmul(step: Step) -> Value:
    left, right = (_given(step, *names, at=at) for at, names in enumerate((("x1", *X), ("x2", "y", "b"))))
    need(isinstance(left, Value), "a product whose left matrix is a constant")
    b = step.b
    turned = bool(step.kwargs.get("transpose_b"))
    need(not step.kwargs.get("transpose_a"), "transpose_a")
    if not isinstance(right, Value):
        matrix = np.asarray(right, np.float32)
        return reductions.matmul(b, left, matrix.T if turned else matrix)
    if turned:
        rank = len(b.shape(right))
        right = b.transpose(right, [*range(rank - 2), rank - 1, rank - 2])
    return reductions.matmul(b, left, right)


def _resize(step: Step) -> Value:
    for key in ("antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio", "preserve_aspect_ratio"):
        need(not _given(step, key, at=99, default=False), f"{key}; without it is supported")
    height, width = (int(v) for v in _given(step, "size"))
    mode = str(_given(step, "interpolation", "method", at=2, default="bilinear"))
    x = step.inward(_x(step))
    return step.outward(plain.resized(step, x, (height, width), mode))


def _old_resize(step: Step, mode: str) -> Value:
    """Add a resize of TensorFlow 1, whose pixels lie as two options say."""
    height, width = (int(v) for v in _given(step, "size"))
    corners, half = (bool(step.kwargs.get(key, False)) for key in ("align_corners", "half_pixel_centers"))
    return layers.resize(step.b, _x(step), (height, width), mode, align_corners=corners, half_pixel=half)


def _depth_to_space(step: Step) -> Value:
    block = int(_given(step, "block_size"))
    need(_given(step, "data_format", at=2, default="NHWC") == "NHWC" and step.b.channels_last, "channels first")
    return layers.interleave(step.b, _x(step), (block, block))


def _space_to_depth(step: Step) -> Value:
    block = int(_given(step, "block_size"))
    need(_given(step, "data_format", at=2, default="NHWC") == "NHWC" and step.b.channels_last, "channels first")
    x = step.b.image(_x(step))
    return step.b.add("space_to_depth", x, axes=x.axes, block=block)


def _pool(step: Step, largest: bool) -> Value:
    need(len(step.b.shape(_x(step))) in (3, 4), "a pool of other than 1 or 2 dimensions")
    return plain.pool(step, largest)


def _named(op: str, **attrs: Any) -> Handler:
    return partial(_unary, lambda b, x: b.unary(op, x, **attrs))


def _of(name: str) -> Handler:
    return partial(_unary, activations.ACTIVATIONS[name])


_NEGATIVE: Handler = partial(_unary, lambda b, x: b.binary("mul", x, -1.0))
_SQUARE: Handler = partial(_unary, lambda b, x: b.binary("mul", x, x))
_SAME: Handler = partial(_unary, lambda b, x: x)
_ABS, _EXP, _LOG = _named("abs"), _named("exp"), _named("log")
_ROOT, _INVERSE_ROOT, _INVERSE = (_named("pow", exponent=p) for p in (0.5, -0.5, -1.0))
_ADD, _SUB, _MUL, _DIV, _MAX, _MIN = (
    partial(_binary, op=op) for op in ("add", "sub", "mul", "div", "maximum", "minimum")
)
_MEAN, _SUM, _LARGEST = (
    partial(_reduced, kind=kind) for kind in (reductions.mean, reductions.total, reductions.largest)
)

OPERATIONS: Mapping[str, Handler] = {
    "Add": _ADD, "Subtract": _SUB, "Multiply": _MUL, "Divide": _DIV, "TrueDivide": _DIV,
    "Maximum": _MAX, "Minimum": _MIN, "Power": _power, "Negative": _NEGATIVE, "Square": _SQUARE,
    "Abs": _ABS, "Absolute": _ABS, "Exp": _EXP, "Log": _LOG, "Sqrt": _ROOT, "Rsqrt": _INVERSE_ROOT,
    "Reciprocal": _INVERSE, "Clip": _clip, "Cast": _SAME, "StopGradient": _SAME, "Identity": _SAME, "Copy": _SAME,
    "Mean": _MEAN, "Sum": _SUM, "Max": _LARGEST, "Amax": _LARGEST,
    "Relu": _of("relu"), "Relu6": _of("relu6"), "LeakyRelu": _leaky, "Elu": _elu, "Selu": _of("selu"),
    "Gelu": _gelu, "Silu": _of("silu"), "Tanh": _of("tanh"), "Sigmoid": _of("sigmoid"), "Softplus": _of("softplus"),
    "Softsign": _of("softsign"), "HardSigmoid": _of("hard_sigmoid"), "HardSilu": _of("hard_silu"),
    "HardTanh": _of("hard_tanh"), "LogSigmoid": _of("log_sigmoid"), "TanhShrink": _of("tanh_shrink"),
    "SoftShrink": _of("soft_shrink"), "SparsePlus": _of("sparse_plus"), "Squareplus": _of("squareplus"),
    "SparseSigmoid": _of("sparse_sigmoid"), "Softmax": _softmax, "LogSoftmax": _log_softmax, "Normalize": _normalize,
    "Concatenate": _concatenate, "Stack": _stack, "Split": _split, "Reshape": _reshape, "Transpose": _transpose,
    "Swapaxes": _swap, "ExpandDims": _expand, "Squeeze": _squeeze, "GetItem": _take, "Pad": _pad,
    "Repeat": _repeat, "Flip": _flip, "Matmul": _matmul, "MatMul": _matmul, "Resize": _resize,
    "MaxPool": partial(_pool, largest=True), "AveragePool": partial(_pool, largest=False),
}  # fmt: skip
"""Class of ``keras.ops`` to what it adds."""

FUNCTIONS: Mapping[str, Handler] = {
    "math.add": _ADD, "__operators__.add": _ADD, "math.subtract": _SUB, "__operators__.sub": _SUB,
    "math.multiply": _MUL, "__operators__.mul": _MUL, "math.divide": _DIV, "math.truediv": _DIV, "divide": _DIV,
    "math.maximum": _MAX, "math.minimum": _MIN, "math.pow": _power, "math.negative": _NEGATIVE,
    "math.square": _SQUARE, "math.abs": _ABS, "math.exp": _EXP, "math.log": _LOG, "math.sqrt": _ROOT,
    "math.rsqrt": _INVERSE_ROOT, "math.reciprocal": _INVERSE, "clip_by_value": _clip, "cast": _SAME,
    "stop_gradient": _SAME, "identity": _SAME, "math.reduce_mean": _MEAN, "math.reduce_sum": _SUM,
    "math.reduce_max": _LARGEST, "nn.relu": _of("relu"), "nn.relu6": _of("relu6"), "nn.leaky_relu": _leaky,
    "nn.elu": _of("elu"), "nn.selu": _of("selu"), "nn.gelu": _tf_gelu, "nn.silu": _of("silu"), "nn.swish": _of("silu"),
    "math.tanh": _of("tanh"), "nn.tanh": _of("tanh"), "math.sigmoid": _of("sigmoid"), "nn.sigmoid": _of("sigmoid"),
    "math.softplus": _of("softplus"), "nn.softplus": _of("softplus"), "nn.softsign": _of("softsign"),
    "nn.softmax": _softmax, "nn.log_softmax": _log_softmax, "math.l2_normalize": _tf_normalize,
    "nn.l2_normalize": _tf_normalize, "concat": _concatenate, "stack": _stack, "split": _split, "reshape": _reshape,
    "transpose": _transpose, "expand_dims": _expand, "squeeze": _squeeze, "__operators__.getitem": _take,
    "pad": _pad, "repeat": _repeat, "reverse": _flip, "linalg.matmul": _matmul, "image.resize": _resize,
    "compat.v1.image.resize_bilinear": partial(_old_resize, mode="bilinear"),
    "compat.v1.image.resize_nearest_neighbor": partial(_old_resize, mode="nearest"),
    "compat.v1.transpose": _transpose, "compat.v1.pad": _pad, "nn.depth_to_space": _depth_to_space,
    "nn.space_to_depth": _space_to_depth,
}  # fmt: skip
"""Function of TensorFlow to what it adds."""
