"""Lower resizing. Of integers, bilinear sums are LiteRT's: of all four pixels, rounded once, halves away from zero.

ONNX Runtime's own ``Resize`` of integers truncates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle.moving import FRACTION, lines, nearest
from edgecnn.graph.oracle.parameters import LOW
from edgecnn_converters.layout import NCHW_TO_NHWC, NHWC_TO_NCHW, nchw
from edgecnn_converters.names import part
from edgecnn_converters.onnx.emitter import Emitter
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL
from edgecnn_converters.onnx.moves import picked

PAST_HALVES = 2.0**-18  # of a sum: takes halves a little away from zero
FEW_TAPS = 2  # the largest factor of a side by which ONNX Runtime's convolution is faster than sums of int32
ONE = 1 << FRACTION
ROUNDING = {
    ("asymmetric", "floor"): lambda k, size, made: np.floor(k / (made / size)),
    ("half_pixel", "round_prefer_ceil"): lambda k, size, made: np.floor((k + 0.5) / (made / size) - 0.5 + 0.5),
    ("align_corners", "round_prefer_ceil"): lambda k, size, made: np.floor(k * (size - 1) / max(made - 1, 1) + 0.5),
}
"""(coordinates, rounding) of ``Resize`` to the pixel that it takes, in float32."""


REPEATING = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def resize(e: Emitter, node: Node) -> None:
    """Copy the nearest pixel, or weigh four."""
    a: Mapping[str, Any] = node.attrs
    if a["mode"] == "nearest":
        _nearest(e, node)
    elif not e.on_grid(node.output):
        places = "align_corners" if a["align_corners"] else "half_pixel" if a["half_pixel"] else "asymmetric"
        _resize(e, node, *e.moved(node), mode="linear", coordinate_transformation_mode=places)
    elif _is_summed(e, node):
        _summed(e, node)
    else:
        _weighted(e, node)


def _sides(e: Emitter, node: Node) -> list[tuple[int, int]]:
    """Return (pixels, pixels wanted) of height and width."""
    size: Any = node.attrs["size"]
    return list(zip(e.graph.tensors[node.inputs[0]].shape[1:3], size, strict=True))


def _resize(e: Emitter, node: Node, source: str, made: str, **attrs: str) -> None:
    sizes = e.counts(part(node.output, "sizes"), *nchw(e.graph.tensors[node.output].shape))
    empty = e.initializer(part("constant", "none"), np.zeros(0, np.float32))  # no region, no factors
    e.node("Resize", [source, empty, empty, sizes], made, **attrs)


def _nearest(e: Emitter, node: Node) -> None:
    """By ``Resize``, where its pixels are LiteRT's; else by their indices."""
    sides = _sides(e, node)
    wanted = [nearest(size, made, node.attrs) for size, made in sides]
    for (places, rounding), pixels in ROUNDING.items():
        found = [_found(pixels, *side) for side in sides]
        if all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True)):
            source, made = e.moved(node)
            _resize(e, node, source, made, mode="nearest", coordinate_transformation_mode=places, nearest_mode=rounding)
            if e.on_grid(node.output):
                e.real_values(node.output)
            return
    rows, columns = wanted
    e.move(node, *picked(e, node, 2, 4, rows, "rows"), *picked(e, node, 3, 4, columns, "columns"))


def _found(pixels: Any, size: int, made: int) -> NDArray[np.int64]:
    places = pixels(np.arange(made, dtype=np.float32), np.float32(size), np.float32(made))
    return np.asarray(np.clip(places, 0, size - 1), np.int64)


def _is_summed(e: Emitter, node: Node) -> bool:
    """Tell whether the sums are a convolution's of pixels that stand ``factor`` times: of twice as many pixels."""
    whole = all(made in (size, FEW_TAPS * size) for size, made in _sides(e, node))
    return whole and not node.attrs["align_corners"]


def _summed(e: Emitter, node: Node) -> None:
    """Repeat pixels, and weigh neighbours by a convolution of the integers as they are.

    With ``half_pixel``, pixels ``a a b b`` weighed 1 2 1 are ``(3 a + b) / 4`` and ``(a + 3 b) / 4``; without, weighed
    1 1 from each on, they are ``a`` and ``(a + b) / 2``.
    """
    name, source = node.output, node.inputs[0]
    repeated, border, plain, weight = (part(name, what) for what in ("repeated", "border", "plain", "weight"))
    kernel, before, after = np.ones((1, 1), np.int64), [], []
    for size, made in _sides(e, node):
        taps = [1] if made == size else [1, 2, 1] if node.attrs["half_pixel"] else [1, 1]
        kernel = np.multiply.outer(kernel, taps)
        before.append((len(taps) - 1) // 2)
        after.append(len(taps) // 2)
    kernel = kernel.reshape(kernel.shape[-2:])
    channels = e.graph.tensors[name].shape[3]
    _resize(e, node, e.stored(source), repeated, **REPEATING)
    e.node("Pad", [repeated, e.counts(part(name, "pads"), 0, 0, *before, 0, 0, *after)], border, mode="edge")
    grid = e.own_grid(plain, e.graph.quant(source).scale[0], 0)
    e.node(TO_REAL, [border, *grid], plain)
    stored = np.broadcast_to(kernel, (channels, 1, *kernel.shape)).astype(np.int8)
    scale = np.array((1 + PAST_HALVES) / kernel.sum(), np.float32)
    parts: list[tuple[str, NDArray[Any]]] = [(INTEGERS, stored), ("scale", scale), ("zero_point", np.array(0, np.int8))]
    e.node(TO_REAL, [e.initializer(part(weight, what), array) for what, array in parts], weight)
    e.node("Conv", [plain, weight], part(name, "raw"), kernel_shape=list(kernel.shape), group=channels)
    e.node(TO_INTEGERS, [part(name, "raw"), *grid], part(name, "sum"))
    e.node("Identity", [part(name, "sum")], part(name, INTEGERS))
    e.real_values(name)


def _weighted(e: Emitter, node: Node) -> None:
    """Weigh columns, then rows, in int32 and with the channels last; divide once.

    A pixel between ``a`` and ``b`` is ``a + (b - a) t``. Sums are multiples of 2**-20; halves are 2**19 of them. So
    that a division that truncates takes them away from zero, 2**19 is added, and 1 less below zero. What is divided is
    above zero: 2**7 is added too. Half of all that comes with ``a``, where there are few rows, half with the sign.
    """
    name, p = node.output, partial(part, node.output)
    half, offset = 1 << (2 * FRACTION - 1), -LOW << (2 * FRACTION)
    last = e.turn(e.stored(node.inputs[0]), NCHW_TO_NHWC, p("last"), named=False)
    e.node("Cast", [last], p("pixels"), to=TensorProto.INT32)
    source = p("pixels")
    if e.shift:
        e.node("Add", [source, _int32(e, -e.shift)], p("signed"))
        source = p("signed")
    rows, columns = _sides(e, node)
    risen = (half + offset) // 2
    source = _between(e, node, _between(e, node, source, 2, *columns), 1, *rows, plus=risen)
    e.node("Clip", [source, _int32(e, risen - 1), _int32(e, risen)], p("sign"))
    e.node("Add", [source, p("sign")], p("risen"))
    e.node("Div", [p("risen"), _int32(e, ONE * ONE)], p("whole"))
    source = p("whole")
    if not e.shift:
        e.node("Add", [source, _int32(e, LOW)], p("lowered"))
        source = p("lowered")
    e.node("Cast", [source], p("bytes"), to=getattr(TensorProto, e.activations.upper()))
    e.turn(p("bytes"), NHWC_TO_NCHW, part(name, INTEGERS))
    e.real_values(name)


def _between(e: Emitter, node: Node, source: str, axis: int, size: int, made: int, plus: int = 0) -> str:
    """Return, of each pixel of a resized side, ``a 2**10 + (b - a) t + plus`` with ``t`` of 10 bits."""

    def p(what: str) -> str:
        return part(node.output, f"{what}_{axis}")

    low, high, share = lines(size, made, node.attrs)
    rest = e.counts(p("next"), *np.minimum(np.arange(size) + 1, size - 1))
    places, count = e.counts(p("low"), *low), [made if k == axis else 1 for k in range(4)]
    shares = e.initializer(p("share"), np.where(low == high, 0, share).astype(np.int32).reshape(count))
    e.node("Gather", [source, rest], p("behind"), axis=axis)
    e.node("Sub", [p("behind"), source], p("step"))
    e.node("Mul", [source, _int32(e, ONE)], p("scaled"))
    scaled = p("scaled")
    if plus:
        scaled = p("risen")
        e.node("Add", [p("scaled"), _int32(e, plus)], scaled)
    e.node("Gather", [scaled, places], p("before"), axis=axis)
    e.node("Gather", [p("step"), places], p("rise"), axis=axis)
    e.node("Mul", [p("rise"), shares], p("part"))
    e.node("Add", [p("before"), p("part")], p("between"))
    return p("between")


def _int32(e: Emitter, value: int) -> str:
    return e.initializer(part("constant", f"int32_{value}"), np.array(value, np.int32))
