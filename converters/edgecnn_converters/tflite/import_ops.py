"""Make graph nodes of TFLite operators that compute: one function per operator. Those that move: ``import_moves.py``.

Sources: TensorFlow Lite ``schema.fbs`` (options), and ``kernels/*.cc`` (what each operator computes).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from edgecnn.errors import InputError
from edgecnn.graph import layers, reductions
from edgecnn.graph.builder import Operand
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need, same_padding
from edgecnn_converters.names import part_of
from edgecnn_converters.tflite.format import ABOVE, BELOW, FUNCTIONS, OHWI_TO_1HWO, read_function
from edgecnn_converters.tflite.import_moves import MOVES, Handler, image, taps
from edgecnn_converters.tflite.reader import TfliteOp
from edgecnn_converters.tflite.translation import Translation

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
NO_PADDING: Padding = (0, 0, 0, 0)
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
L2_EPSILON = 1e-6  # kernels/internal/reference/l2normalization.h


def _pair(op: TfliteOp, height: str, width: str) -> Pair:
    found = int(op.options.get(height, 1)), int(op.options.get(width, 1))
    need(min(found) >= 1, f"its {height} and {width} are {found}; they must be at least 1")
    return found


def _padding(t: Translation, op: TfliteOp, x: Value, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Padding:
    if op.options.get("padding", 0) == t.schema.Padding.VALID:
        return NO_PADDING
    sides = zip(t.shape(x)[1:3], kernel, stride, dilation, strict=True)
    (top, bottom), (left, right) = (same_padding(*side) for side in sides)
    return (top, bottom, left, right)


# --- convolutions and linear layers ---


def _conv(t: Translation, op: TfliteOp) -> Value:
    return _convolved(t, op, image(t, op))


def _convolved(t: Translation, op: TfliteOp, x: Value, spread: Pair = (1, 1), around: Padding = NO_PADDING) -> Value:
    """Return a convolution whose pixels are ``spread`` apart, with that much padding (below 0: cropping) more."""
    first, depthwise = len(t.nodes), op.name == "DEPTHWISE_CONV_2D"
    weight, bias = t.floats(op, 1), t.floats(op, 2) if t.given(op, 2) else None
    need(weight.ndim == 4, f"its weight has the shape {weight.shape}; four dimensions are needed")
    order = OHWI_TO_1HWO if depthwise else (0, 1, 2, 3)
    weight = weight.transpose(order)
    channels, (made_of, height, width, inside) = t.shape(x)[3], weight.shape
    need(channels % inside == 0, f"its weight takes {inside} channels, its input has {channels}")
    groups = channels if depthwise else channels // inside
    need(made_of % groups == 0, f"its weight makes {made_of} channels in {groups} groups")
    stride, own = _pair(op, "strideH", "strideW"), _pair(op, "dilationHFactor", "dilationWFactor")
    inner = _padding(t, op, x, (height, width), stride, own)
    top, bottom, left, right = (p * spread[k // 2] + around[k] for k, p in enumerate(inner))
    x = t.pad(x, [(0, 0), (min(top, 0), min(bottom, 0)), (min(left, 0), min(right, 0)), (0, 0)])
    made = layers.conv(
        t, x, weight, bias, stride=stride, groups=groups,
        padding=(max(top, 0), max(bottom, 0), max(left, 0), max(right, 0)),
        dilation=(own[0] * spread[0], own[1] * spread[1]),
    )  # fmt: skip
    _note_weights(t, op, order)
    return t.activated(made, op, first)


def _note_weights(t: Translation, op: TfliteOp, order: tuple[int, ...]) -> None:
    """Note which tensors the weight and the bias of the last node are."""
    if t.nodes and t.nodes[-1].weighted:
        t.weights[t.nodes[-1].output] = (op.inputs[1], op.inputs[2] if t.given(op, 2) else None, order)


def _dilated(t: Translation, op: TfliteOp) -> list[Value]:
    """SPACE_TO_BATCH_ND, a convolution and BATCH_TO_SPACE_ND: the convolution with a dilation."""
    alone = "supported: around one convolution of stride 1, with BATCH_TO_SPACE_ND of the same blocks behind it"
    conv = t.alone(op.outputs[0])
    behind = t.alone(conv.outputs[0]) if conv is not None else None
    if conv is None or behind is None or conv.name not in CONVOLUTIONS or behind.name != "BATCH_TO_SPACE_ND":
        raise InputError(alone)
    x, block = image(t, op), t.ints(op, 1)
    before, after = t.ints(op, 2), t.ints(behind, 2)
    fits = len(block) == 2 and min(block) > 0 and t.ints(behind, 1) == block and len(before) == len(after) == 4
    need(fits and _pair(conv, "strideH", "strideW") == (1, 1), alone)
    top, bottom, left, right = (a - b for a, b in zip(before, after, strict=True))
    t.done.update((id(conv), id(behind)))
    t.finish(behind, [_convolved(t, conv, x, (block[0], block[1]), (top, bottom, left, right))])
    return []


def _transpose_conv(t: Translation, op: TfliteOp) -> Value:
    first, x, weight = len(t.nodes), image(t, op, 2), t.floats(op, 1)
    need(weight.ndim == 4, f"its weight has the shape {weight.shape}; four dimensions are needed")
    size, stride = t.ints(op, 0), _pair(op, "strideH", "strideW")
    need(len(size) == 4, f"its output is to have the shape {size}; four dimensions are needed")
    padding: list[int] = []
    extra: list[int] = []
    for have, want, kernel, step in zip(t.shape(x)[1:3], size[1:3], weight.shape[1:3], stride, strict=True):
        over = (have - 1) * step + kernel - want
        before = max(over, 0) // 2
        padding += [before, max(over - before, 0)]
        extra.append(max(-over, 0))
    top, bottom, left, right = padding
    bias = t.floats(op, 3) if t.given(op, 3) else None
    made = layers.conv_transpose(
        t, x, weight, bias, stride=stride, padding=(top, bottom, left, right), extra=(extra[0], extra[1])
    )
    return t.activated(made, op, first)


def _fully_connected(t: Translation, op: TfliteOp) -> Value:
    first, x, weight = len(t.nodes), t.value(op), t.floats(op, 1)
    need(op.options.get("weightsFormat", 0) == 0, "its weights are shuffled; convert without shuffling")
    need(weight.ndim == 2, f"its weight has the shape {weight.shape}; (outputs, inputs) is needed")
    shape, inside = t.shape(x), weight.shape[1]
    if not (op.options.get("keepNumDims") and shape[-1:] == (inside,)):
        need(np.prod(shape) % inside == 0, f"its weight takes {inside} features, its input has the shape {shape}")
        x = t.reshape(x, (int(np.prod(shape)) // inside, inside))
    made = layers.linear(t, x, weight, t.floats(op, 2) if t.given(op, 2) else None)
    if len(t.nodes) > first and t.nodes[-1].output == made.name:
        order = (0, 1) if t.nodes[-1].op == "fully_connected" else (0, -1, -1, 1)
        _note_weights(t, op, order)
    return t.activated(made, op, first)


def _batch_matmul(t: Translation, op: TfliteOp) -> Value:
    sides = [t.operand(op, place) for place in (0, 1)]
    for k, key in enumerate(("adjX", "adjY")):
        side = sides[k]
        if op.options.get(key):
            sides[k] = _turned(t, side) if isinstance(side, Value) else np.swapaxes(np.asarray(side), -1, -2)
    left, right = sides
    if isinstance(left, Value):
        return reductions.matmul(t, left, right if isinstance(right, Value) else np.asarray(right))
    assert isinstance(right, Value)
    return _turned(t, reductions.matmul(t, _turned(t, right), np.swapaxes(np.asarray(left), -1, -2)))


def _turned(t: Translation, x: Value) -> Value:
    rank = len(t.shape(x))
    return t.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


# --- pools and reductions ---


def _pool(t: Translation, op: TfliteOp) -> Value:
    first, largest = len(t.nodes), op.name == "MAX_POOL_2D"
    kernel, stride = _pair(op, "filterHeight", "filterWidth"), _pair(op, "strideH", "strideW")
    if op.inputs[0] in t.lowest:
        x, padding = t.lowest[op.inputs[0]]
    else:
        x = image(t, op)
        padding = _padding(t, op, x, kernel, stride)
    pool = layers.max_pool if largest else layers.avg_pool
    return t.activated(pool(t, x, kernel, stride, padding), op, first)


def _axes(t: Translation, op: TfliteOp, x: Value) -> list[int]:
    rank, given = len(t.shape(x)), t.ints(op, 1)
    need(all(-rank <= a < rank for a in given), f"its axes {given} are not in {t.shape(x)}")
    return sorted({a % rank for a in given})


def _reduced(kind: str, t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    axes, keep = _axes(t, op, x), bool(op.options.get("keepDims"))
    if kind == "smallest":
        turned = t.binary("mul", x, -1.0)
        return t.binary("mul", reductions.largest(t, turned, axes, keepdims=keep), -1.0)
    if t.integer and kind == "mean" and axes == [1, 2] and x.axes == (0, 1, 2, 3):  # onto its grid, even of one pixel
        return t.add("mean", x, axes=x.axes if keep else (0, 1), keepdims=keep)
    reduce = {"mean": reductions.mean, "sum": reductions.total, "largest": reductions.largest}[kind]
    return reduce(t, x, axes, keepdims=keep)


# --- arithmetic ---


def _binary(kind: str, t: Translation, op: TfliteOp) -> Value:
    first, left, right = len(t.nodes), t.operand(op, 0), t.operand(op, 1)
    made = t.binary(kind, left, right)
    for place, side in enumerate((left, right)):
        if not isinstance(side, Value) and kind in ("add", "mul") and len(t.nodes) > first:
            t.operands[t.nodes[-1].inputs[1]] = op.inputs[place]
    return t.activated(made, op, first)


def _squared_difference(t: Translation, op: TfliteOp) -> Value:
    first, apart = len(t.nodes), t.binary("sub", t.operand(op, 0), t.operand(op, 1))
    return t.activated(t.binary("mul", apart, apart), op, first)


def _add_n(t: Translation, op: TfliteOp) -> Value:
    made = t.operand(op, 0)
    for place in range(1, len(op.inputs)):
        made = t.binary("add", made, t.operand(op, place))
    assert isinstance(made, Value)
    return made


def _pow(t: Translation, op: TfliteOp) -> Value:
    exponent = t.floats(op, 1)
    need(exponent.size == 1, f"its exponent has the shape {exponent.shape}; one number is supported")
    x = t.value(op)
    if float(exponent.reshape(-1)[0]) == 2:
        return t.binary("mul", x, x)
    return t.unary("pow", x, exponent=float(exponent.reshape(-1)[0]))


def _select(t: Translation, op: TfliteOp) -> Value:
    """Select by a constant mask ``m``: ``a m + b (1 - m)``."""
    mask = t.constants.get(t.index(op, 0))
    if mask is None:
        raise InputError("its mask is computed while the network runs; supported: constants")
    wide = max(len(t.model.tensors[i].shape) for i in op.inputs)
    if op.name == "SELECT" and mask.ndim == 1 and wide > 1:  # of the first dimension, not of the last
        mask = mask.reshape(-1, *[1] * (wide - 1))
    parts: list[Operand] = []
    for place, kept in ((1, mask.astype(np.float32)), (2, 1 - mask.astype(np.float32))):
        side = t.operand(op, place)
        parts.append(t.binary("mul", side, kept) if isinstance(side, Value) else np.where(kept > 0, side, 0))
    return t.binary("add", parts[0], parts[1])


# --- functions ---


def _unary(kind: str, t: Translation, op: TfliteOp) -> Value:
    attrs: dict[str, Any] = {}
    if kind == "leaky_relu":
        attrs = {"alpha": float(op.options.get("alpha", 0))}
    elif kind == "gelu":
        attrs = {"approximate": bool(op.options.get("approximate"))}
    return t.unary(kind, t.value(op), **attrs)


def _clamp(low: float, high: float, t: Translation, op: TfliteOp) -> Value:
    return t.clamp(t.value(op), low, high)


def _power(exponent: float, t: Translation, op: TfliteOp) -> Value:
    return t.unary("pow", t.value(op), exponent=exponent)


def _square(t: Translation, op: TfliteOp) -> Value:
    return t.binary("mul", t.value(op), t.value(op))


def _negative(t: Translation, op: TfliteOp) -> Value:
    return t.binary("mul", t.value(op), -1.0)


def _mul(t: Translation, op: TfliteOp) -> Value | list[Value]:
    """Multiply, or take both products that edgecnn writes for a function of two slopes; its record names it."""
    owner, what = part_of(t.model.tensors[op.outputs[0]].name)
    known, last = (t.model.metadata or {}).get(FUNCTIONS, {}).get(owner), t.alone(op.outputs[0])
    if known is None or what not in (ABOVE, BELOW) or last is None or last.name not in ("MAXIMUM", "MINIMUM"):
        return _binary("mul", t, op)
    (name, attrs), x = read_function(known), t.value(op)
    products = {part_of(t.model.tensors[each.outputs[0]].name)[1]: each for each in t.model.ops if
                each.name == "MUL" and each.outputs[0] in last.inputs}  # fmt: skip
    need(BELOW in products, f"the product below zero of {owner!r} is not there")
    t.done.update(map(id, (*products.values(), last)))
    t.scope = t.names[last.outputs[0]]
    if name == "prelu":
        t.finish(last, [_slopes(t, x, products[BELOW])])
    else:
        t.finish(last, [t.unary(name, x, **attrs)])
    return []


def _slopes(t: Translation, x: Value, op: TfliteOp) -> Value:
    """Return a value with the slopes below zero that an op of integers has as its second input."""
    slope, channels = t.floats(op, 1), t.shape(x)[-1]
    need(slope.size == channels, f"{slope.size} slopes for {channels} channels")
    alpha = t.constant(slope.reshape(-1), "slope")
    t.operands[alpha.name] = op.inputs[1]
    return t.add("prelu", x, alpha, axes=x.axes)


def _prelu(t: Translation, op: TfliteOp) -> Value:
    """Apply slopes that are not one per channel: ``relu(x) - a relu(-x)``."""
    x, slope = t.value(op), t.floats(op, 1)
    shape = t.shape(x)
    if slope.size in (1, shape[-1]) and slope.shape[-1:] == (slope.size,):
        if not t.integer:
            return layers.prelu(t, x, np.broadcast_to(slope.reshape(-1), shape[-1:]), len(shape) - 1)
        return _slopes(t, x, op)
    below = t.binary("mul", t.unary("relu", _negative(t, op)), -slope)
    return t.binary("add", t.unary("relu", x), below)


def _softmax(t: Translation, op: TfliteOp) -> Value:
    x, beta = t.value(op), float(op.options.get("beta", 1.0))
    return reductions.softmax(t, t.binary("mul", x, beta), -1)


def _argmax(t: Translation, op: TfliteOp) -> Value | list[Value]:
    """Return places; between integers with the RESHAPE, ADD and CAST behind that edgecnn writes."""
    made = partial(reductions.argmax, t, t.value(op), t.ints(op, 1)[0])
    if not t.integer:
        return made(keepdims=False)
    chain = [op]
    for name in ("RESHAPE", "ADD", "CAST"):
        behind = t.alone(chain[-1].outputs[0])
        need(behind is not None and behind.name == name, "it makes int32 between integers; give the float file")
        assert behind is not None
        chain.append(behind)
    t.done.update(id(each) for each in chain[1:])
    t.scope = t.names[chain[-1].outputs[0]]
    t.finish(chain[-1], [made(keepdims=True)])
    return []


def _log_softmax(t: Translation, op: TfliteOp) -> Value:
    """``x - m - log(sum(exp(x - m)))``, ``m`` the largest."""
    x = t.value(op)
    last = [len(t.shape(x)) - 1]
    below = t.binary("sub", x, reductions.largest(t, x, last, keepdims=True))
    total = reductions.total(t, t.unary("exp", below), last, keepdims=True)
    return t.binary("sub", below, t.unary("log", total))


def _l2_norm(t: Translation, op: TfliteOp) -> Value:
    first, x = len(t.nodes), t.value(op)
    return t.activated(reductions.l2_normalize(t, x, [len(t.shape(x)) - 1], L2_EPSILON), op, first)


def _quantize(t: Translation, op: TfliteOp) -> Value:
    """An activation on another grid."""
    x, made = t.value(op), t.model.tensors[op.outputs[0]]
    if taps(t, op):
        return x
    return t.unary("requantize", x, to=made.dtype)


HANDLERS: Mapping[str, Handler] = {
    **MOVES,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "SPACE_TO_BATCH_ND": _dilated,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "MEAN": partial(_reduced, "mean"),
    "SUM": partial(_reduced, "sum"),
    "REDUCE_MAX": partial(_reduced, "largest"),
    "REDUCE_MIN": partial(_reduced, "smallest"),
    "ADD": partial(_binary, "add"),
    "SUB": partial(_binary, "sub"),
    "MUL": _mul,
    "DIV": partial(_binary, "div"),
    "MINIMUM": partial(_binary, "minimum"),
    "MAXIMUM": partial(_binary, "maximum"),
    "ADD_N": _add_n,
    "POW": _pow,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SELECT": _select,
    "SELECT_V2": _select,
    "NEG": _negative,
    "SQUARE": _square,
    "SQRT": partial(_power, 0.5),
    "RSQRT": partial(_power, -0.5),
    "ABS": partial(_unary, "abs"),
    "EXP": partial(_unary, "exp"),
    "LOG": partial(_unary, "log"),
    "RELU": partial(_unary, "relu"),
    "RELU6": partial(_unary, "relu6"),
    "RELU_N1_TO_1": partial(_clamp, -1.0, 1.0),
    "RELU_0_TO_1": partial(_clamp, 0.0, 1.0),
    "LEAKY_RELU": partial(_unary, "leaky_relu"),
    "PRELU": _prelu,
    "ELU": partial(_unary, "elu"),
    "TANH": partial(_unary, "tanh"),
    "LOGISTIC": partial(_unary, "sigmoid"),
    "HARD_SWISH": partial(_unary, "hard_swish"),
    "GELU": partial(_unary, "gelu"),
    "SOFTMAX": _softmax,
    "ARG_MAX": _argmax,
    "LOG_SOFTMAX": _log_softmax,
    "L2_NORMALIZATION": _l2_norm,
    "QUANTIZE": _quantize,
}
"""Operator to what makes nodes of it."""
