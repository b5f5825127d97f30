"""Rules that leave fewer nodes which only move elements: cancel, merge, and recognize what several of them do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Constant, Node
from edgecnn.graph.rewriting import Draft, Rule

Places = NDArray[np.int64]
PERMUTING = ("reshape", "transpose")
POINTWISE = ("relu", "relu6", "hard_swish", "sigmoid")
MOST = 6  # dimensions that few kernels of a slice take
LARGEST = 1 << 20  # elements of a tensor whose moves are followed one by one


def drop_nothing(d: Draft, node: Node) -> bool:
    """Drop a node that changes nothing."""
    if len(node.inputs) == 0 or node.attrs.get("activation", "none") != "none":
        return False
    source, a = node.inputs[0], node.attrs
    if d.shape(source) != d.shape(node.output):
        return False
    match node.op:
        case "reshape" | "slice" | "resize":
            idle = True
        case "transpose":
            idle = a["perm"] == tuple(range(len(d.shape(source))))
        case "pad":
            idle = not any(a["padding"]) and not any(a["channels"])  # type: ignore[arg-type]
        case "gather":
            idle = a["indices"] == tuple(range(d.shape(source)[a["axis"]]))  # type: ignore[index]
        case "concat":
            idle = len(node.inputs) == 1
        case "add" | "mul":
            value = d.value(node.inputs[1])
            idle = value is not None and bool(np.all(value == (0 if node.op == "add" else 1)))
        case _:
            idle = False
    return bool(idle) and d.value(source) is None and d.bypass(node.output, source)


def merge_moves(d: Draft, second: Node) -> bool:
    """Merge two reshapes, transposes, slices, gathers or pads, of which the second alone reads the first."""
    first = d.producer(second.inputs[0]) if second.inputs else None
    if first is None or first.op != second.op or first.op not in MERGED:
        return False
    if d.only_reader(first.output) is None and second.op not in PERMUTING:
        return False
    attrs = MERGED[first.op](first.attrs, second.attrs)
    if attrs is None:
        return False
    d.put(second.op, first.inputs, second.output, second, **attrs)
    return True


def _slices(a: Any, b: Any) -> dict[str, Any]:
    begin = tuple(f + k * s for f, k, s in zip(a["begin"], b["begin"], a["step"], strict=True))
    end = tuple(f + (k - 1) * s + 1 for f, k, s in zip(a["begin"], b["end"], a["step"], strict=True))
    return {"begin": begin, "end": end, "step": tuple(s * t for s, t in zip(a["step"], b["step"], strict=True))}


def _gathers(a: Any, b: Any) -> dict[str, Any] | None:
    if a["axis"] != b["axis"]:
        return None
    return {"axis": a["axis"], "indices": tuple(a["indices"][k] for k in b["indices"])}


def _pads(a: Any, b: Any) -> dict[str, Any]:
    return {key: tuple(m + n for m, n in zip(a[key], b[key], strict=True)) for key in ("padding", "channels")}


MERGED: dict[str, Any] = {
    "reshape": lambda a, b: {"shape": b["shape"]},
    "transpose": lambda a, b: {"perm": tuple(a["perm"][k] for k in b["perm"])},
    "slice": _slices,
    "gather": _gathers,
    "pad": _pads,
}


def fold_moved_constants(d: Draft, node: Node) -> bool:
    """Make a constant of what moves the elements of one."""
    value = d.value(node.inputs[0]) if node.op in ("reshape", "transpose", "slice") else None
    if value is None:
        return False
    a: Any = node.attrs
    if node.op == "reshape":
        value = value.reshape(a["shape"])
    elif node.op == "transpose":
        value = value.transpose(a["perm"])
    else:
        bounds = zip(a["begin"], a["end"], a["step"], strict=True)
        value = value[(slice(None), *(slice(*each) for each in bounds))]
    return d.bypass(node.output, d.constant(value, node.output))


def functions_first(d: Draft, node: Node) -> bool:
    """Let a function of one number come before the reshapes and transposes that it alone reads.

    Behind a layer it is fused, as the ReLU of a convolution over time, and moves that undo each other meet.
    """
    if len(node.inputs) != 1 or not (node.op in POINTWISE or node.spec.function):
        return False
    move = d.producer(node.inputs[0])
    if move is None or move.op not in PERMUTING or d.only_reader(move.output) is None:
        return False
    made = d.add(node.op, move.inputs, node, **node.attrs)
    d.put(move.op, [made], node.output, move, **move.attrs)
    return True


def pad_vectors_last(d: Draft, node: Node) -> bool:
    """Let a vector be padded behind the reshape that lays it along another dimension: a layer there has the padding.

    The samples of a sound of one channel, which a convolution over time reads, are laid so.
    """
    first = d.producer(node.inputs[0], "pad") if node.op == "reshape" else None
    if first is None or d.only_reader(first.output) is None:
        return False
    source, padded, made = (d.shape(name) for name in (first.inputs[0], first.output, node.output))
    before, after = ([k for k, size in enumerate(shape) if size > 1] for shape in (padded, made))
    if len(made) != 4 or len(before) != 1 or len(after) != 1 or before == after:
        return False
    a: Any = first.attrs
    widths = [(0, 0), a["padding"][:2], a["padding"][2:], a["channels"]]
    moved = [(0, 0)] * 4
    moved[after[0]] = widths[before[0]]
    shape = tuple(source[before[0]] if k in after else 1 for k in range(4))
    laid = d.add("reshape", first.inputs, node, shape=shape)
    d.put("pad", [laid], node.output, first, padding=(*moved[1], *moved[2]), channels=moved[3])
    return True


def drop_broadcasts(d: Draft, node: Node) -> bool:
    """Drop what repeats a tensor of one element along an axis before a sum or product that broadcasts it anyway."""
    if node.op not in ("add", "mul"):
        return False
    for k, name in enumerate(node.inputs):
        maker, other = d.producer(name, "gather"), node.inputs[1 - k]
        if maker is None or any(maker.attrs["indices"]):  # type: ignore[arg-type]
            continue
        axis: Any = maker.attrs["axis"]
        source, shape = d.shape(maker.inputs[0]), d.shape(other)
        if source[axis] == 1 and len(source) == len(shape) and shape[axis] == d.shape(name)[axis]:
            inputs = [maker.inputs[0] if j == k else i for j, i in enumerate(node.inputs)]
            d.put(node.op, inputs, node.output, node, **node.attrs)
            return True
    return False


def recognize_permutation(d: Draft, last: Node) -> bool:
    """Replace reshapes and transposes in a row, which only the next reads, by one node that does the same.

    It is a transpose, a gather along one axis (a channel shuffle), or depth_to_space and space_to_depth with a gather
    of the channels (a pixel shuffle).
    """
    reader = d.only_reader(last.output)
    if last.op not in PERMUTING or (reader is not None and reader.op in PERMUTING):
        return False
    chain = [last]
    while (before := d.producer(chain[0].inputs[0])) and before.op in PERMUTING and d.only_reader(before.output):
        chain.insert(0, before)
    for first in range(len(chain) - 1):
        row = chain[first:]
        source = row[0].inputs[0]
        if all(n.op == "reshape" for n in row) or math.prod(d.shape(source)) > LARGEST:
            continue
        places = np.arange(math.prod(d.shape(source))).reshape(d.shape(source))
        for node in row:
            perm, shape = node.attrs.get("perm"), node.attrs.get("shape")
            places = places.reshape(shape) if node.op == "reshape" else places.transpose(perm)  # type: ignore[arg-type]
        if _replaced(d, source, last, places):
            return True
    return False


def _replaced(d: Draft, source: str, last: Node, places: Places) -> bool:
    """Tell whether one node, or two, are put in the place of ``last``; ``places``: where each element comes from."""
    old, new = d.shape(source), places.shape
    if np.array_equal(places.reshape(-1), np.arange(places.size)):
        if old == new:
            return d.bypass(last.output, source)
        d.put("reshape", [source], last.output, last, shape=new)
        return True
    if (perm := _transposed(old, places)) is not None:
        if last.op == "transpose" and last.inputs[0] == source:
            return False
        d.put("transpose", [source], last.output, last, perm=perm)
        return True
    for axis in range(1, len(old)) if old == new else ():
        moved = np.moveaxis(places, axis, 0)
        indices = np.unravel_index(moved.reshape(len(moved), -1)[:, 0], old)[axis]
        if np.array_equal(np.take(np.arange(places.size).reshape(old), indices, axis), places):
            d.put("gather", [source], last.output, last, axis=axis, indices=tuple(map(int, indices)))
            return True
    return len(old) == len(new) == 4 and (_shuffled(d, source, last, places) or _unshuffled(d, source, last, places))


def _transposed(old: Sequence[int], places: Places) -> tuple[int, ...] | None:
    if len(old) != places.ndim or len(old) > 5:
        return None
    everything = np.arange(places.size).reshape(old)
    for rest in permutations(range(1, len(old))):
        perm = (0, *rest)
        if tuple(old[k] for k in perm) == places.shape and np.array_equal(everything.transpose(perm), places):
            return perm
    return None


def _shuffled(d: Draft, source: str, last: Node, places: Places) -> bool:
    """depth_to_space of channels in some order."""
    (_, h, w, c), (_, height, width, channels) = d.shape(source), places.shape
    block = height // h
    if block < 2 or (height, width, channels * block * block) != (h * block, w * block, c):
        return False
    order = places[0, :block, :block].reshape(-1)  # of the first pixel, whose elements are the channels
    if order.max() >= c:
        return False
    given = np.arange(places.size).reshape(h, w, c)[:, :, order].reshape(h, w, block, block, channels)
    if not np.array_equal(given.transpose(0, 2, 1, 3, 4).reshape(places.shape), places):
        return False
    if list(order) != list(range(c)):
        source = d.add("gather", [source], last, axis=3, indices=tuple(map(int, order)))
    d.put("depth_to_space", [source], last.output, last, block=block)
    return True


def _unshuffled(d: Draft, source: str, last: Node, places: Places) -> bool:
    """space_to_depth, its channels in some order."""
    (_, height, width, channels), (_, h, w, c) = d.shape(source), places.shape
    block = height // h
    if block < 2 or (height, width, channels * block * block) != (h * block, w * block, c):
        return False
    given = np.arange(places.size).reshape(h, block, w, block, channels).transpose(0, 2, 1, 3, 4).reshape(1, h, w, c)
    where = {int(k): n for n, k in enumerate(given[0, 0, 0])}
    if any(int(k) not in where for k in places[0, 0, 0]):
        return False
    order = [where[int(k)] for k in places[0, 0, 0]]
    if not np.array_equal(given[..., order], places):
        return False
    if order == list(range(c)):
        d.put("space_to_depth", [source], last.output, last, block=block)
    else:
        made = d.add("space_to_depth", [source], last, block=block)
        d.put("gather", [made], last.output, last, axis=3, indices=tuple(order))
    return True


def flatten_slices(d: Draft, node: Node) -> bool:
    """Slice what has 6 dimensions, which not every format can hold, in fewer: those side by side that stay are one."""
    shape = d.shape(node.inputs[0]) if node.op == "slice" else ()
    if len(shape) < MOST:
        return False
    bounds = list(zip(*(node.attrs[key] for key in ("begin", "end", "step")), strict=True))
    sizes: list[int] = []
    kept: list[tuple[int, int, int]] = []
    whole = False
    for size, bound in zip(shape[1:], bounds, strict=True):
        if bound == (0, size, 1) and whole:
            sizes[-1] *= size
            kept[-1] = (0, sizes[-1], 1)
        else:
            sizes.append(size)
            kept.append(bound)
        whole = bound == (0, size, 1)
    if len(sizes) + 1 >= MOST:
        return False
    made = d.shape(node.output)
    flat = d.add("reshape", [node.inputs[0]], node, shape=(shape[0], *sizes))
    begin, end, step = (tuple(each) for each in zip(*kept, strict=True))
    part = d.add("slice", [flat], node, begin=begin, end=end, step=step)
    d.put("reshape", [part], node.output, node, shape=made)
    return True


def unite_twins(d: Draft, node: Node) -> bool:
    """Compute once what two nodes compute alike; those with weights stay apart, each has its own."""
    if node.weighted or not node.inputs:
        return False
    for twin in d.readers(node.inputs[0]):
        if twin.output == node.output or twin.op != node.op or dict(twin.attrs) != dict(node.attrs):
            continue
        if all(_equal(d, a, b) for a, b in zip(node.inputs, twin.inputs, strict=False)) and len(node.inputs) == len(
            twin.inputs
        ):
            return d.bypass(twin.output, node.output)
    return False


def _equal(d: Draft, a: str, b: str) -> bool:
    if a == b:
        return True
    one, other = d.tensors[a], d.tensors[b]
    return isinstance(one, Constant) and isinstance(other, Constant) and np.array_equal(one.value, other.value)


RULES: tuple[Rule, ...] = (
    drop_nothing,
    merge_moves,
    fold_moved_constants,
    functions_first,
    pad_vectors_last,
    drop_broadcasts,
    recognize_permutation,
    flatten_slices,
    unite_twins,
)
