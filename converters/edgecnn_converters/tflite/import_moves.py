"""Make graph nodes of TFLite operators that only move elements: one function per operator.

Sources: TensorFlow Lite ``schema.fbs`` (options), and ``kernels/*.cc`` (what each operator computes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgecnn.errors import InputError
from edgecnn.graph import layers
from edgecnn.graph.builder import Operand
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn.graph.oracle.table_kernels import table as lookup_table
from edgecnn_converters.tflite.format import read_function
from edgecnn_converters.tflite.reader import TfliteOp
from edgecnn_converters.tflite.translation import Translation, dequantized, grid

MOST = 2**28  # elements of a tensor; the numbers of a damaged file can be anything
Handler = Callable[[Translation, TfliteOp], Value | Sequence[Value]]


def image(t: Translation, op: TfliteOp, place: int = 0) -> Value:
    """Return an activation that must be (1, height, width, channels)."""
    x = t.value(op, place)
    need(len(t.shape(x)) == 4, f"its input has the shape {t.shape(x)}; (1, height, width, channels) is supported")
    return x


def _axis(given: int, rank: int, shape: Sequence[int]) -> int:
    need(-rank <= given < rank, f"its axis {given} is not in {tuple(shape)}")
    return given % rank


def _bounded(shape: Sequence[int]) -> None:
    need(math.prod(shape) <= MOST, f"it makes {tuple(shape)}; at most {MOST} elements are supported")


# --- shapes ---


def _reshape(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    wanted = t.ints(op, 1) if t.given(op, 1) else [int(d) for d in op.options.get("newShape", ())]
    return t.reshape(x, _filled(wanted, t.shape(x)))


def _filled(wanted: list[int], old: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with its one -1 filled in."""
    known = math.prod(d for d in wanted if d != -1)
    fits = wanted.count(-1) <= 1 and min(wanted, default=1) >= -1 and known > 0
    if fits and -1 in wanted:
        wanted = [math.prod(old) // known if d == -1 else d for d in wanted]
    need(fits and math.prod(wanted) == math.prod(old), f"it cannot make {wanted} of {old}")
    return tuple(wanted)


def _squeeze(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    shape = t.shape(x)
    dims = {_axis(int(d), len(shape), shape) for d in op.options.get("squeezeDims", ())}
    dims = dims or {k for k, d in enumerate(shape) if d == 1}
    need(all(shape[d] == 1 for d in dims), f"it drops the dimensions {sorted(dims)} of {shape}")
    return t.reshape(x, [d for k, d in enumerate(shape) if k not in dims])


def _expand_dims(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    shape, given = t.shape(x), t.ints(op, 1)
    need(len(given) == 1, f"its axis is {given}; one is needed")
    place = _axis(given[0], len(shape) + 1, shape)
    return t.reshape(x, (*shape[:place], 1, *shape[place:]))


def _transpose(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    rank, perm = len(t.shape(x)), t.ints(op, 1)
    need(sorted(perm) == list(range(rank)), f"its order {perm} is none of {t.shape(x)}")
    return t.transpose(x, perm)


# --- parts ---


def _slice(t: Translation, op: TfliteOp) -> Value:
    x, begin, size = t.value(op), t.ints(op, 1), t.ints(op, 2)
    shape = t.shape(x)
    need(len(begin) == len(size) == len(shape), f"its begin {begin} and size {size} are not of {shape}")
    ends = [shape[k] if n == -1 else begin[k] + n for k, n in enumerate(size)]
    fits = all(0 <= a < b <= d for a, b, d in zip(begin, ends, shape, strict=True))
    need(fits, f"its begin {begin} and size {size} are not in {shape}")
    return t.slices(x, {k: (a, b, 1) for k, (a, b) in enumerate(zip(begin, ends, strict=True))})


def _strided_slice(t: Translation, op: TfliteOp) -> Value:
    """numpy's index of the same masks says what it makes. Source: ``kernels/strided_slice.cc``."""
    x, o = t.value(op), op.options
    begin, end, step = (t.ints(op, place) for place in (1, 2, 3))
    need(len(begin) == len(end) == len(step) and 0 not in step, f"its begin {begin}, end {end} and stride {step}")
    index: list[Any] = []
    for k in range(len(begin)):
        bit = 1 << k
        if o.get("ellipsisMask", 0) & bit:
            index.append(Ellipsis)
        elif o.get("newAxisMask", 0) & bit:
            index.append(None)
        elif o.get("shrinkAxisMask", 0) & bit:
            index.append(begin[k])
        else:
            first = None if o.get("beginMask", 0) & bit else begin[k]
            last = None if o.get("endMask", 0) & bit else begin[k] + end[k] if o.get("offset") else end[k]
            index.append(slice(first, last, step[k]))
    shape = t.shape(x)
    used = sum(i is not None and i is not Ellipsis for i in index)
    need(used <= len(shape) and index.count(Ellipsis) <= 1, f"it has {used} indices for {shape}")
    try:
        final = np.broadcast_to(np.int8(0), shape)[tuple(index)].shape
    except IndexError:
        need(False, f"its index {begin} is not in {shape}")
    rest = len(shape) - used
    places = [i for i in index if i is not None]
    where = places.index(Ellipsis) if Ellipsis in places else len(places)
    whole = [slice(None)] * rest
    full = [*places[:where], *whole, *(i for i in places[where:] if i is not Ellipsis)]
    parts: dict[int, tuple[int, int, int]] = {}
    for dim, place in enumerate(full):
        kept = range(shape[dim])[place if isinstance(place, slice) else slice(place, place + 1 or None)]
        need(len(kept) > 0, f"it takes nothing of dimension {dim} of {shape}")
        if kept.step > 0 or len(kept) == 1:
            parts[dim] = (kept[0], kept[-1] + 1, max(kept.step, 1))
        else:
            x = t.gather(x, dim, list(kept))
    x = t.slices(x, parts)
    return t.reshape(x, final)


def _split(t: Translation, op: TfliteOp) -> list[Value]:
    """SPLIT(axis, x) and SPLIT_V(x, sizes, axis)."""
    if op.name == "SPLIT":
        x, axis = t.value(op, 1), t.ints(op, 0)
    else:
        x, axis = t.value(op), t.ints(op, 2)
    shape, count = t.shape(x), len(op.outputs)
    need(len(axis) == 1, f"its axis is {axis}; one is needed")
    dim = _axis(axis[0], len(shape), shape)
    sizes = [shape[dim] // count] * count if op.name == "SPLIT" else t.ints(op, 1)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = shape[dim] - sum(s for s in sizes if s != -1)
    need(sum(sizes) == shape[dim] and len(sizes) == count and min(sizes) > 0, f"it makes {sizes} of {shape}")
    ends = np.cumsum(sizes).tolist()
    return [t.slice(x, dim, end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _unpack(t: Translation, op: TfliteOp) -> list[Value]:
    x = t.value(op)
    shape = t.shape(x)
    dim = _axis(int(op.options.get("axis", 0)), len(shape), shape)
    need(len(op.outputs) == shape[dim], f"it makes {len(op.outputs)} parts of dimension {dim} of {shape}")
    return [t.select(x, dim, k) for k in range(shape[dim])]


def _gather(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    shape = t.shape(x)
    need(not op.options.get("batchDims"), "batch_dims; 0 is supported")
    dim, indices = _axis(int(op.options.get("axis", 0)), len(shape), shape), t.ints(op, 1)
    need(bool(indices) and all(0 <= k < shape[dim] for k in indices), f"its indices are not in {shape[dim]}")
    form = t.constants[op.inputs[1]].shape
    return t.reshape(t.gather(x, dim, indices), (*shape[:dim], *form, *shape[dim + 1 :]))


def _reverse(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    shape = t.shape(x)
    for axis in t.ints(op, 1):
        dim = _axis(axis, len(shape), shape)
        x = t.gather(x, dim, list(range(shape[dim]))[::-1])
    return x


# --- several in one ---


def _concat(t: Translation, op: TfliteOp) -> Value:
    first, parts = len(t.nodes), [t.operand(op, k) for k in range(len(op.inputs))]
    shape = _shape(t, parts[0])
    return t.activated(t.side_by_side(parts, _axis(int(op.options.get("axis", 0)), len(shape), shape)), op, first)


def _pack(t: Translation, op: TfliteOp) -> Value:
    parts = [t.operand(op, k) for k in range(len(op.inputs))]
    shape = _shape(t, parts[0])
    dim = _axis(int(op.options.get("axis", 0)), len(shape) + 1, shape)
    wide = (*shape[:dim], 1, *shape[dim:])
    return t.side_by_side([t.reshape(p, wide) if isinstance(p, Value) else np.reshape(p, wide) for p in parts], dim)


def _shape(t: Translation, x: Operand) -> tuple[int, ...]:
    return t.shape(x) if isinstance(x, Value) else np.shape(x)


def _tile(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    shape, times = t.shape(x), t.ints(op, 1)
    need(len(times) == len(shape) and min(times) > 0, f"it repeats {shape} {times} times")
    _bounded([d * n for d, n in zip(shape, times, strict=True)])
    for dim, count in enumerate(times):
        if count > 1:
            x = t.gather(x, dim, list(range(shape[dim])) * count)
    return x


def _broadcast_to(t: Translation, op: TfliteOp) -> Value:
    x, wanted = t.value(op), t.ints(op, 1)
    shape = (1,) * (len(wanted) - len(t.shape(x))) + t.shape(x)
    fits = len(shape) == len(wanted) and all(have in (1, want) for have, want in zip(shape, wanted, strict=True))
    need(fits, f"it cannot make {wanted} of {t.shape(x)}")
    _bounded(wanted)
    x = t.reshape(x, shape)
    for dim, (have, want) in enumerate(zip(shape, wanted, strict=True)):
        if have != want:
            x = t.gather(x, dim, [0] * want)
    return x


# --- borders ---


def _widths(t: Translation, op: TfliteOp, x: Value) -> list[tuple[int, int]]:
    flat, rank = t.ints(op, 1), len(t.shape(x))
    need(len(flat) == 2 * rank and min(flat, default=0) >= 0, f"its padding {flat} is none of {t.shape(x)}")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _pad(t: Translation, op: TfliteOp) -> Value | list[Value]:
    """PAD and PADV2. What is below every number, around max pools, is their padding."""
    x = t.value(op)
    widths, fill = _widths(t, op, x), 0.0
    if t.given(op, 2):
        given = t.constants.get(op.inputs[2])
        if given is None or given.size != 1:
            raise InputError("what it pads with is not one constant")
        fill = float(t.floats(op, 2).reshape(-1)[0])
    if len(widths) == 4 and widths[0] == widths[3] == (0, 0) and fill <= _lowest(t, op) and _feeds_pools(t, op):
        t.lowest[op.outputs[0]] = (x, (*widths[1], *widths[2]))
        return []
    return t.pad(x, widths, fill=fill)


def _lowest(t: Translation, op: TfliteOp) -> float:
    """Return the lowest number that an activation can be."""
    x = t.tensor(op, 0)
    if not t.integer:
        return float(np.finfo(np.float32).min)
    return float(dequantized(x, np.array([np.iinfo(x.dtype).min]))[0])


def _feeds_pools(t: Translation, op: TfliteOp) -> bool:
    valid = t.schema.Padding.VALID
    readers = t.readers.get(op.outputs[0], ())
    return all(r is not None and r.name == "MAX_POOL_2D" and r.options.get("padding", 0) == valid for r in readers)


def _mirror_pad(t: Translation, op: TfliteOp) -> Value:
    x = t.value(op)
    shape, widths = t.shape(x), _widths(t, op, x)
    reflect = op.options.get("mode", 0) == t.schema.MirrorPadMode.REFLECT
    most = [d - 1 if reflect else d for d in shape]
    need(all(max(w) <= m for w, m in zip(widths, most, strict=True)), f"its padding {widths} exceeds {shape}")
    _bounded([d + sum(w) for d, w in zip(shape, widths, strict=True)])
    for dim, width in enumerate(widths):
        if any(width):
            places = np.pad(np.arange(shape[dim]), width, "reflect" if reflect else "symmetric")
            x = t.gather(x, dim, places.tolist())
    return x


# --- images ---


def _resize(t: Translation, op: TfliteOp) -> Value:
    x, size = image(t, op), t.ints(op, 1)
    need(len(size) == 2 and min(size) > 0, f"its size is {size}; height and width are needed")
    mode = "bilinear" if op.name == "RESIZE_BILINEAR" else "nearest"
    aligned, half = bool(op.options.get("alignCorners")), bool(op.options.get("halfPixelCenters"))
    return layers.resize(t, x, (size[0], size[1]), mode, align_corners=aligned, half_pixel=half)


def _blocks(t: Translation, op: TfliteOp) -> Value:
    x, block = t.image(image(t, op)), int(op.options.get("blockSize", 0))
    need(block >= 1, f"its block is {block}; it must be at least 1")
    return t.add(op.name.lower(), x, axes=x.axes, block=block)


# --- what changes nothing in a graph ---


def taps(t: Translation, op: TfliteOp) -> bool:
    """Whether an operator gives an activation to the outside in another type, or in the grid that it has."""
    x, made = t.tensor(op, 0), t.model.tensors[op.outputs[0]]
    at_end = op.outputs[0] in t.model.outputs and t.readers.get(op.outputs[0]) == [None]
    if at_end and made.dtype in ("float32", "uint8"):
        return True
    return x.dtype == made.dtype and grid(x).same_as(grid(made))


def _dequantize(t: Translation, op: TfliteOp) -> Value:
    x, name = t.value(op), t.model.tensors[op.outputs[0]].name
    need(taps(t, op), f"it makes {name!r} float inside an integer network; supported: as an output")
    return x


def _cast(t: Translation, op: TfliteOp) -> Value | list[Value]:
    x, made = t.tensor(op, 0), t.model.tensors[op.outputs[0]]
    if t.integer and (x.dtype, made.dtype) == ("int8", "int32"):
        return _table(t, op)
    alike = x.dtype == made.dtype or op.inputs[0] in t.places
    need(alike, f"it turns {x.dtype} to {made.dtype}; supported: constants, and what ARG_MAX makes")
    return t.value(op)


def _table(t: Translation, op: TfliteOp) -> list[Value]:
    """CAST, ADD of 128 and GATHER from 256 integers, as edgecnn writes a function; its record names it."""
    plus = t.alone(op.outputs[0])
    last = t.alone(plus.outputs[0]) if plus is not None and plus.name == "ADD" else None
    offset = [t.constants[i].reshape(-1).tolist() for i in plus.inputs if i in t.constants] if plus is not None else []
    table = t.constants.get(last.inputs[0]) if last is not None and last.name == "GATHER" else None
    if plus is None or last is None or table is None or table.shape != (256,) or offset != [[128]]:
        raise InputError("it turns int8 to int32; supported: constants")
    made = t.model.tensors[last.outputs[0]]
    known = (t.model.metadata or {}).get("functions", {}).get(made.name)
    need(known is not None, f"a table makes {made.name!r}, of a function that the file does not name")
    name, attrs = read_function(known)
    same = np.array_equal(lookup_table(name, grid(t.tensor(op, 0)), grid(made), attrs), table)
    need(same, f"the table of {made.name!r} is not that of {name}, which the file names")
    t.done.update((id(plus), id(last)))
    t.scope = t.names[last.outputs[0]]
    t.finish(last, [t.unary(name, t.value(op), **attrs)])
    return []


MOVES: Mapping[str, Handler] = {
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "TRANSPOSE": _transpose,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "UNPACK": _unpack,
    "GATHER": _gather,
    "REVERSE_V2": _reverse,
    "CONCATENATION": _concat,
    "PACK": _pack,
    "TILE": _tile,
    "BROADCAST_TO": _broadcast_to,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _mirror_pad,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "DEPTH_TO_SPACE": _blocks,
    "SPACE_TO_DEPTH": _blocks,
    "DEQUANTIZE": _dequantize,
    "CAST": _cast,
}
"""Operator to what makes nodes of it."""
