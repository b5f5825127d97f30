"""Lower the ops that move elements: of integers in an int8 file, and never a float op between them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

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
    a: Mapping[str, Any] = node.attrs
    axis = placed_axis(a["axis"], len(e.graph.tensors[node.output].shape))
    e.move(node, ("Gather", [e.counts(part(node.output, "indices"), *a["indices"])], {"axis": axis}))


def _blocks(kind: str, split: tuple[str, ...], order: tuple[int, ...]) -> Row:
    """Return the row of a move between pixels and channels.

    ONNX Runtime before 1.23 has no such op of integers: a reshape, a transpose and a reshape are the same there.

    Args:
        kind: the op of real values.
        split: what the dimensions of the input are split into: ``b``, and what stays of ``n``, ``c``, ``h``, ``w``.
        order: of these dimensions in the output.
    """

    def row(e: Emitter, node: Node) -> None:
        block: Any = node.attrs["block"]
        if not e.on_grid(node.output):
            e.move(node, (kind, [], {"blocksize": block}))
            return
        shape, made = (nchw(e.graph.tensors[name].shape) for name in (node.inputs[0], node.output))
        kept = {"c": min(shape[1], made[1]), "h": min(shape[2], made[2]), "w": min(shape[3], made[3]), "b": block}
        first = e.counts(part(node.output, "split"), -1, *(kept[name] for name in split[1:]))
        last = e.counts(part(node.output, "shape"), -1, *made[1:])
        e.move(node, ("Reshape", [first], {}), _turned(order), ("Reshape", [last], {}))

    return row


ROWS: Mapping[str, Row] = {
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "gather": _gather,
    "depth_to_space": _blocks("DepthToSpace", ("n", "b", "b", "c", "h", "w"), (0, 3, 4, 1, 5, 2)),
    "space_to_depth": _blocks("SpaceToDepth", ("n", "c", "h", "b", "w", "b"), (0, 3, 5, 1, 2, 4)),
}
