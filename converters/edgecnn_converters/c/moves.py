"""Writers of the ops that move integers, or take the nearest of them; see ``lowering.Row``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle import moving

if TYPE_CHECKING:
    from edgecnn_converters.c.lowering import Emitter

DIMENSIONS = 6  # of the kernel ``move``


def concat(e: Emitter, node: Node) -> None:
    axis: Any = node.attrs["axis"]
    step, begin = math.prod(e.graph.tensors[node.output].shape[axis:]), 0
    for name in node.inputs:
        shape = e.graph.tensors[name].shape
        size = math.prod(shape[axis:])
        e.call("copy", math.prod(shape[:axis]), size, step, e.operand(name), f"{e.places[node.output]} + {begin}")
        begin += size


def reshape(e: Emitter, node: Node) -> None:
    """Copy, unless both lie in one place."""
    x, y = e.operand(node.inputs[0]), e.places[node.output]
    if x != y:
        size = math.prod(e.graph.tensors[node.output].shape)
        e.call("copy", 1, size, size, x, y)


def _strides(shape: Sequence[int]) -> list[int]:
    return [math.prod(shape[d + 1 :]) for d in range(len(shape))]


def _move(e: Emitter, node: Node, size: Sequence[int], step: Sequence[int], start: int = 0) -> None:
    missing = DIMENSIONS - len(size)
    fields = {"size": [1] * missing + list(size), "step": [0] * missing + list(step), "start": start}
    e.call("move", e.struct("move", fields), e.operand(node.inputs[0]), e.places[node.output])


def transpose(e: Emitter, node: Node) -> None:
    perm: Any = node.attrs["perm"]
    strides = _strides(e.graph.tensors[node.inputs[0]].shape)
    _move(e, node, e.graph.tensors[node.output].shape, [strides[d] for d in perm])


def slice_(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    strides = _strides(e.graph.tensors[node.inputs[0]].shape)
    step = [stride * k for stride, k in zip(strides, (1, *a["step"]), strict=True)]
    start = sum(stride * b for stride, b in zip(strides, (0, *a["begin"]), strict=True))
    _move(e, node, e.graph.tensors[node.output].shape, step, start)


def depth_to_space(e: Emitter, node: Node) -> None:
    block: Any = node.attrs["block"]
    n, height, width, channels = e.graph.tensors[node.inputs[0]].shape
    split = (n, height, width, block, block, channels // block**2)
    _blocks(e, node, split)


def space_to_depth(e: Emitter, node: Node) -> None:
    block: Any = node.attrs["block"]
    n, height, width, channels = e.graph.tensors[node.inputs[0]].shape
    _blocks(e, node, (n, height // block, block, width // block, block, channels))


def _blocks(e: Emitter, node: Node, split: Sequence[int]) -> None:
    """Swap dimensions 2 and 3."""
    order, strides = (0, 1, 3, 2, 4, 5), _strides(split)
    _move(e, node, [split[d] for d in order], [strides[d] for d in order])


def gather(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    axis, shape = a["axis"], e.graph.tensors[node.inputs[0]].shape
    indices = e.constant("indices", "int32_t", np.array(a["indices"], np.int64))
    fields = {"blocks": math.prod(shape[:axis]), "length": shape[axis], "count": len(a["indices"])}
    fields |= {"size": math.prod(shape[axis + 1 :]), "indices": indices}
    e.call("gather", e.struct("gather", fields), e.operand(node.inputs[0]), e.places[node.output])


def resize(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    _, height, width, channels = e.graph.tensors[node.inputs[0]].shape
    sides = zip(("rows", "columns"), (height, width), a["size"], strict=True)
    fields: dict[str, Any] = {"in_width": width, "channels": channels}
    fields |= {"out_height": a["size"][0], "out_width": a["size"][1]}
    for side, size, made in sides:
        if a["mode"] == "nearest":
            fields[side] = e.constant(side, "int32_t", moving.nearest(size, made, a))
            continue
        parts = zip(("before", "behind", "share"), moving.lines(size, made, a), strict=True)
        fields[side] = {part: e.constant(f"{side}_{part}", "int32_t", values) for part, values in parts}
    kernel = f"resize_{a['mode']}"
    e.call(kernel, e.struct(kernel, fields), e.operand(node.inputs[0]), e.places[node.output])
