"""Lower the ops that move elements: of integers in an int8 file, and never a float op between them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Node
from edgecnn_converters.layout import (
    NCHW_TO_NHWC,
    NHWC_TO_NCHW,
    concat_axis,
    nchw,
    order_matters,
    pads,
    placed_axis,
    placed_order,
)
from edgecnn_converters.names import part
from edgecnn_converters.onnx.emitter import Emitter, Row, Step
from edgecnn_converters.onnx.format import INTEGERS


def _turned(order: tuple[int, ...]) -> Step:
    return "Transpose", [], {"perm": order}


def _concat(e: Emitter, node: Node) -> None:
    """Join integers: all are on one grid, constants too."""
    axis, rank = concat_axis(e.graph, node), len(e.graph.tensors[node.output].shape)
    if not e.on_grid(node.output):
        e.node("Concat", [e.operand(name, rank) for name in node.inputs], node.output, axis=axis)
        return
    e.node("Concat", [e.integers_of(name, rank) for name in node.inputs], part(node.output, INTEGERS), axis=axis)
    e.real_values(node.output)


def _pad(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    (before, after), (front, back) = pads(a), a["channels"]
    amounts = e.counts(part(node.output, "pads"), 0, front, *before, 0, back, *after)
    e.move(node, ("Pad", [amounts, *e.grid(node.output)[1:]] if e.on_grid(node.output) else [amounts], {}))


def _reshape(e: Emitter, node: Node) -> None:
    made = e.graph.tensors[node.output].shape
    source = e.graph.tensors[node.inputs[0]].shape
    into = order_matters(source) or (len(source) == 4 and e.moved(node)[0] in e.turned)  # that transpose is undone
    back = order_matters(made)
    wanted = e.counts(part(node.output, "shape"), -1, *(made if back else nchw(made))[1:])
    reshape: Step = ("Reshape", [wanted], {})
    steps = [_turned(NCHW_TO_NHWC)] * into, [reshape], [_turned(NHWC_TO_NCHW)] * back
    e.move(node, *chain.from_iterable(steps))


def _transpose(e: Emitter, node: Node) -> None:
    order: Any = node.attrs["perm"]
    e.move(node, _turned(placed_order(order)))


def _slice(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    shape = e.graph.tensors[node.inputs[0]].shape
    places = list(zip(a["begin"], a["end"], a["step"], shape[1:], strict=True))
    cut = [k for k, (begin, end, step, size) in enumerate(places) if (begin, end, step) != (0, size, 1)]
    rows = [
        e.counts(part(node.output, what), *(places[k][column] for k in cut))
        for column, what in enumerate(("starts", "ends", "steps"))
    ]
    axes = e.counts(part(node.output, "axes"), *(placed_axis(k + 1, len(shape)) for k in cut))
    e.move(node, ("Slice", [*rows[:2], axes, rows[2]], {}) if cut else ("Identity", [], {}))


def _gather(e: Emitter, node: Node) -> None:
    """Reflect or repeat the border, where that is what the indices do; else pick."""
    a: Mapping[str, Any] = node.attrs
    shape, indices = nchw(e.graph.tensors[node.inputs[0]].shape), np.array(a["indices"])
    axis = placed_axis(a["axis"], len(shape))
    if (border := _border(shape[axis], indices)) is not None:
        before, after, mode = border
        sides = [side if k == axis else 0 for side in (before, after) for k in range(len(shape))]
        e.move(node, ("Pad", [e.counts(part(node.output, "pads"), *sides)], {"mode": mode}))
    else:
        e.move(node, *picked(e, node, axis, len(shape), indices))


def _border(size: int, indices: NDArray[np.int64]) -> tuple[int, int, str] | None:
    """Return what is added before and after a dimension, and how, where that is what its indices do."""
    rising = np.flatnonzero(np.diff(indices) == 1)
    if not rising.size:
        return None
    before = int(rising[0] - indices[rising[0]])
    after = len(indices) - size - before
    if min(before, after) < 0 or max(before, after) >= size:
        return None
    modes: tuple[Literal["edge", "reflect"], ...] = ("edge", "reflect")
    fitting = (m for m in modes if np.array_equal(np.pad(np.arange(size), (before, after), m), indices))
    return next(((before, after, mode) for mode in fitting), None)


def picked(
    e: Emitter, node: Node, axis: int, rank: int, indices: NDArray[np.int64], name: str = "indices"
) -> list[Step]:
    """Return the steps that pick slices of a dimension of the file's; of the last one, before which others are put.

    ``Gather`` copies each slice by itself: of the last dimension that is each element.
    """
    held = e.counts(part(node.output, name), *(int(k) for k in indices))
    if axis < rank - 1:
        return [("Gather", [held], {"axis": axis})]
    into = (0, rank - 1, *range(1, rank - 1)) if rank != 4 else NCHW_TO_NHWC
    back = tuple(int(k) for k in np.argsort(into))
    return [_turned(into), ("Gather", [held], {"axis": into.index(axis)}), _turned(back)]


def _depth_to_space(e: Emitter, node: Node) -> None:
    """Put channels between pixels; in integers by two transposes, of which ONNX Runtime is fastest."""
    block: Any = node.attrs["block"]
    _, channels, height, width = nchw(e.graph.tensors[node.output].shape)
    if not e.on_grid(node.output):
        e.move(node, ("DepthToSpace", [], {"blocksize": block}))
        return
    pixels = channels * height * width // block**2
    e.move(
        node,
        _shaped(e, node, "columns", block, block, pixels),
        _turned((0, 1, 3, 2)),
        _shaped(e, node, "rows", block, pixels * block // width, width),
        _turned((0, 2, 1, 3)),
        _shaped(e, node, "shape", channels, height, width),
    )


def _space_to_depth(e: Emitter, node: Node) -> None:
    """Undo ``_depth_to_space``."""
    block: Any = node.attrs["block"]
    _, channels, height, width = nchw(e.graph.tensors[node.inputs[0]].shape)
    if not e.on_grid(node.output):
        e.move(node, ("SpaceToDepth", [], {"blocksize": block}))
        return
    pixels = channels * height * width // block**2
    e.move(
        node,
        _shaped(e, node, "rows", channels * height // block, block, width),
        _turned((0, 2, 1, 3)),
        _shaped(e, node, "columns", block, pixels, block),
        _turned((0, 1, 3, 2)),
        _shaped(e, node, "shape", channels * block**2, height // block, width // block),
    )


def _shaped(e: Emitter, node: Node, name: str, *shape: int) -> Step:
    return "Reshape", [e.counts(part(node.output, name), -1, *shape)], {}


ROWS: Mapping[str, Row] = {
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "gather": _gather,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
}
