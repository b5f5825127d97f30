"""Make graph nodes of ONNX ops that move elements: slices, reshapes, pads, resizing. One function per op."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph import layers
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn_converters.onnx.import_layers import Handler
from edgecnn_converters.onnx.import_ops import COMPUTING
from edgecnn_converters.onnx.model_file import Call
from edgecnn_converters.onnx.translation import Translation

REALS = ("FLOAT", "FLOAT16", "BFLOAT16")


def _axis(call: Call, rank: int, default: int) -> int:
    axis = int(call.attrs.get("axis", default))
    need(-rank <= axis < rank, f"axis {axis} of {rank} dimensions")
    return axis % rank


def _same(t: Translation, call: Call) -> Value:
    return t.value(call)


def _cast(t: Translation, call: Call) -> Value:
    """To float only: everything that is computed is float32 in the graph. The places of an argmax are whole numbers."""
    from onnx import TensorProto

    kind = TensorProto.DataType.Name(call.attrs.get("to", TensorProto.FLOAT))
    made = t.value(call)
    whole = any(node.op == "argmax" and node.output == made.name for node in t.nodes)
    need(kind in REALS or whole, f"a cast of an activation to {kind.lower()}")
    return made


def _dropout(t: Translation, call: Call) -> Value:
    if t.given(call, 2):
        need(not np.any(t.known(call, 2)), "dropout in training mode")
    return t.value(call)


def _concat(t: Translation, call: Call) -> Value:
    parts = [t.operand(call, k) for k in range(len(call.inputs))]
    rank = next(len(t.shape(part)) for part in parts if isinstance(part, Value))
    return t.side_by_side(parts, _axis(call, rank, 1))


def _split(t: Translation, call: Call) -> list[Value]:
    x = t.value(call)
    dim = _axis(call, len(t.shape(x)), 0)
    size, parts = t.shape(x)[dim], call.attrs.get("split")
    if parts is None and t.given(call, 1):
        parts = t.ints(call, 1, "the sizes of the parts")
    if parts is None:
        count = int(call.attrs.get("num_outputs", len(call.outputs)))
        each = -(-size // count)
        parts = [min(each, size - k * each) for k in range(count)]
    need(sum(parts) == size and min(parts) > 0, f"parts {tuple(parts)} of {size}")
    ends = np.cumsum([0, *parts])
    return [t.slice(x, dim, int(a), int(b)) for a, b in pairwise(ends)]


def _slice(t: Translation, call: Call) -> Value:
    x = t.value(call)
    shape = t.shape(x)
    if t.opset < 10:
        starts, ends = call.attrs["starts"], call.attrs["ends"]
        axes, steps = call.attrs.get("axes"), None
    else:
        starts, ends = t.ints(call, 1, "the starts"), t.ints(call, 2, "the ends")
        axes = t.ints(call, 3, "the axes") if t.given(call, 3) else None
        steps = t.ints(call, 4, "the steps") if t.given(call, 4) else None
    axes = range(len(starts)) if axes is None else axes
    for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
        dim = axis % len(shape)
        places = range(*slice(int(start), _end(int(end), shape[dim], int(step)), int(step)).indices(shape[dim]))
        need(len(places) > 0, f"slice {start}:{end}:{step} of dimension {dim} of {shape}, which is empty")
        if len(places) < shape[dim] or step < 0:
            x = t.slice(x, dim, places[0], places[-1] + 1, int(step)) if step > 0 else t.gather(x, dim, places)
    return x


def _end(end: int, size: int, step: int) -> int | None:
    """Return the end as Python has it: one far below 0 is before the first element where steps go down."""
    return None if step < 0 and end < -size else end


def _gather(t: Translation, call: Call) -> Value:
    x, indices = t.value(call), np.asarray(t.known(call, 1, "the indices"))
    shape = t.shape(x)
    dim = _axis(call, len(shape), 0)
    flat = [int(k) % shape[dim] for k in indices.reshape(-1)]
    if indices.ndim == 0:
        return t.select(x, dim, flat[0])
    made = x if flat == list(range(shape[dim])) else t.gather(x, dim, flat)
    return t.reshape(made, (*shape[:dim], *indices.shape, *shape[dim + 1 :]))


def _transpose(t: Translation, call: Call) -> Value:
    x = t.value(call)
    perm = call.attrs.get("perm") or range(len(t.shape(x)))[::-1]
    return t.transpose(x, perm)


def _reshape(t: Translation, call: Call) -> Value:
    """0 is the dimension as it is, unless ``allowzero``; -1 is what is left."""
    x, wanted = t.value(call), list(t.ints(call, 1, "the shape"))
    old = t.shape(x)
    if not call.attrs.get("allowzero"):
        need(all(d != 0 or k < len(old) for k, d in enumerate(wanted)), f"shape {wanted} of {old}")
        wanted = [old[k] if d == 0 else d for k, d in enumerate(wanted)]
    if -1 in wanted:
        rest = -math.prod(wanted)
        need(rest > 0 and math.prod(old) % rest == 0, f"shape {wanted} of {old}")
        wanted[wanted.index(-1)] = math.prod(old) // rest
    return t.reshape(x, wanted)


def _flatten(t: Translation, call: Call) -> Value:
    x = t.value(call)
    shape = t.shape(x)
    axis = int(call.attrs.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    return t.reshape(x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _axes(t: Translation, call: Call) -> tuple[int, ...] | None:
    axes = call.attrs.get("axes")
    return t.ints(call, 1, "the axes") if axes is None and t.given(call, 1) else axes


def _squeeze(t: Translation, call: Call) -> Value:
    x = t.value(call)
    shape, axes = t.shape(x), _axes(t, call)
    gone = {a % len(shape) for a in axes} if axes is not None else {k for k, d in enumerate(shape) if d == 1}
    need(all(shape[k] == 1 for k in gone), f"squeeze of dimensions {sorted(gone)} of {shape}")
    return t.reshape(x, [d for k, d in enumerate(shape) if k not in gone])


def _unsqueeze(t: Translation, call: Call) -> Value:
    x = t.value(call)
    shape, axes = list(t.shape(x)), _axes(t, call) or ()
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return t.reshape(x, shape)


def _expand(t: Translation, call: Call) -> Value:
    x, wanted = t.value(call), t.ints(call, 1, "the shape")
    shape = t.shape(x)
    rank = max(len(shape), len(wanted))
    x = t.reshape(x, (1,) * (rank - len(shape)) + shape)
    full = np.broadcast_shapes(t.shape(x), wanted)
    return _repeated(t, x, [big // small for big, small in zip(full, t.shape(x), strict=True)])


def _tile(t: Translation, call: Call) -> Value:
    return _repeated(t, t.value(call), t.ints(call, 1, "the repeats"))


def _repeated(t: Translation, x: Value, repeats: Sequence[int]) -> Value:
    for dim, times in enumerate(repeats):
        if times != 1:
            size = t.shape(x)[dim]
            x = t.unbatched(x) if x.axes[0] == dim else x
            x = t.gather(x, dim, [k % size for k in range(size * times)])
    return x


def _pad(t: Translation, call: Call) -> Value:
    x, mode = t.value(call), call.attrs.get("mode", "constant")
    rank = len(t.shape(x))
    if t.opset < 11:
        pads, fill, axes = call.attrs["pads"], float(call.attrs.get("value", 0)), None
    else:
        pads, fill = t.ints(call, 1, "the widths"), t.number(call, 2, "the value", 0.0)
        axes = t.ints(call, 3, "the axes") if t.given(call, 3) else None
    widths = [(0, 0)] * rank
    half = len(pads) // 2
    for place, axis in enumerate(range(rank) if axes is None else axes):
        widths[axis % rank] = (int(pads[place]), int(pads[place + half]))
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    need(mode in modes and math.isfinite(fill), f"padding of mode {mode!r} with {fill}")
    return t.pad(x, widths, modes[mode], fill)


def _depth_to_space(t: Translation, call: Call) -> Value:
    block, mode = int(call.attrs["blocksize"]), call.attrs.get("mode", "DCR")
    x = t.value(call)
    return layers.pixel_shuffle(t, x, block) if mode == "CRD" else layers.interleave(t, x, (block, block))


def _space_to_depth(t: Translation, call: Call) -> Value:
    x = t.image(t.value(call))
    return t.add("space_to_depth", x, axes=x.axes, block=int(call.attrs["blocksize"]))


# --- resizing ---

PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
Spot = NDArray[np.float32]
NEAREST: Mapping[str, Callable[[Spot], Spot]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _places(how: str, size: int, made: int, scale: float) -> Spot:
    """Return where, in elements of the source, each element of a resized side lies. Source: ONNX operator ``Resize``,
    ``coordinate_transformation_mode``; in float32, as ONNX Runtime computes it."""
    k, factor, half = np.arange(made, dtype=np.float32), np.float32(scale), np.float32(0.5)
    if how == "align_corners":
        return k * np.float32(size - 1) / np.float32(made - 1) if made > 1 else k * 0
    if how == "asymmetric":
        return k / factor
    if how == "pytorch_half_pixel" and made == 1:
        return k * 0
    middle = (k + half) / factor - half
    if how == "half_pixel_symmetric":
        middle = middle + np.float32(size / 2 * (1 - made / (scale * size)))
    return middle


def _matrix(places: Spot, size: int, cubic: float | None, outside: bool) -> NDArray[np.float64]:
    """Return the weights of a side's elements for each place, (places, size): linear, or cubic with that coefficient.

    Source of cubic: Keys 1981, "Cubic Convolution Interpolation for Digital Image Processing", eq. 4.
    """
    held = places.astype(np.float64)
    if cubic is None:
        held = held.clip(0, size - 1)
    base = np.floor(held)
    found = np.zeros((len(places), size))
    for step in range(-1, 3) if cubic is not None else (0, 1):
        gap = np.abs(held - base - step)
        if cubic is None:
            share = np.maximum(1 - gap, 0)
        else:
            near = (cubic + 2) * gap**3 - (cubic + 3) * gap**2 + 1
            far = cubic * gap**3 - 5 * cubic * gap**2 + 8 * cubic * gap - 4 * cubic
            share = np.where(gap <= 1, near, np.where(gap < 2, far, 0))
        index = (base + step).astype(int)
        if outside:
            share = np.where((index < 0) | (index >= size), 0, share)
        np.add.at(found, (np.arange(len(places)), index.clip(0, size - 1)), share)
    return found / found.sum(1, keepdims=True) if outside else found


def _resize(t: Translation, call: Call) -> Value:
    """By the op ``resize`` where a place of pixels is the same there; else by indices, or by a product per side."""
    x, a = t.value(call), call.attrs
    shape, mode = t.shape(x), a.get("mode", "nearest")
    how, rounding = a.get("coordinate_transformation_mode", "half_pixel"), a.get("nearest_mode", "round_prefer_floor")
    if call.op == "Upsample" or t.opset < 11:
        how, rounding = "asymmetric", "floor"
    need(how in PLACES, f"coordinate_transformation_mode {how!r}; read are: {', '.join(PLACES)}")
    need(mode in ("nearest", "linear", "cubic") and not a.get("antialias"), f"resize mode {mode!r}, or antialias")
    sizes, scales = _sides(t, call, shape)
    changed = [k for k in range(len(shape)) if sizes[k] != shape[k] or scales[k] != 1]
    where = {k: _places(how, shape[k], sizes[k], scales[k]) for k in changed}
    if mode == "nearest":
        indices = {k: NEAREST[rounding](p).astype(int).clip(0, shape[k] - 1) for k, p in where.items()}
        wanted = {k: np.eye(shape[k])[found] for k, found in indices.items()}
    else:
        cubic = float(a.get("cubic_coeff_a", -0.75)) if mode == "cubic" else None
        outside = bool(a.get("exclude_outside"))
        wanted = {k: _matrix(p, shape[k], cubic, outside) for k, p in where.items()}
    moved = [k for k in changed if sizes[k] != shape[k] or not np.array_equal(wanted[k], np.eye(shape[k]))]
    made = _as_op(t, x, {k: wanted[k] for k in moved}, sizes, mode)
    if made is not None:
        return made
    for k in moved:
        if mode == "nearest":
            x = t.gather(x, k, indices[k].tolist())
            continue
        order = (*(d for d in range(len(shape)) if d != k), k)
        turned = layers.linear(t, t.transpose(x, order), wanted[k].astype(np.float32), None)
        x = t.transpose(turned, np.argsort(order).tolist())
    return x


def _sides(t: Translation, call: Call, shape: tuple[int, ...]) -> tuple[list[int], list[float]]:
    """Return the size of each dimension of the result, and its scale."""
    a, given = call.attrs, None
    if call.op == "Upsample" or t.opset < 11:
        given = a["scales"] if "scales" in a else t.known(call, 1, "the scales").reshape(-1)
    elif t.given(call, 2) and np.size(t.known(call, 2, "the scales")):
        given = t.known(call, 2).reshape(-1)
    axes = [int(k) % len(shape) for k in a.get("axes") or range(len(shape))]
    sizes, scales = list(shape), [1.0] * len(shape)
    if given is not None:
        for axis, scale in zip(axes, given, strict=True):
            sizes[axis], scales[axis] = math.floor(shape[axis] * float(scale)), float(scale)
        return sizes, scales
    need(a.get("keep_aspect_ratio_policy", "stretch") == "stretch", "a resize that keeps the aspect ratio")
    for axis, size in zip(axes, t.ints(call, 3, "the sizes"), strict=True):
        sizes[axis], scales[axis] = size, size / shape[axis]
    return sizes, scales


def _as_op(t: Translation, x: Value, wanted: Mapping[int, NDArray[Any]], sizes: list[int], mode: str) -> Value | None:
    """Return the value resized by the op, if it computes the same, or ``None``."""
    shape = t.shape(x)
    if len(shape) not in (3, 4) or mode == "cubic" or not set(wanted) <= set(range(2, len(shape))):
        return None
    for align, half in ((False, False), (False, True), (True, False)):
        if all(np.allclose(_of_op(shape[k], sizes[k], mode, align, half), m, atol=1e-5) for k, m in wanted.items()):
            size = (1, sizes[2]) if len(shape) == 3 else (sizes[2], sizes[3])
            name = "nearest" if mode == "nearest" else "bilinear"
            return layers.resize(t, x, size, name, align_corners=align, half_pixel=half)
    return None


def _of_op(size: int, made: int, mode: str, align: bool, half: bool) -> NDArray[np.float64]:
    """Return the weights that the op ``resize`` has for a side. Source: its kernel in ``graph.interpreter``."""
    k = np.arange(made, dtype=np.float32)
    scale = np.float32((size - 1) / (made - 1) if align and made > 1 else size / made)
    places = (k + np.float32(0.5)) * scale if half else k * scale
    if mode == "nearest":
        found = np.floor(places + np.float32(0.5)) if align else np.floor(places)
        return np.asarray(np.eye(size)[found.astype(int).clip(0, size - 1)])
    return _matrix(places - np.float32(0.5) if half else places, size, None, False)


HANDLERS: Mapping[str, Handler] = {
    **COMPUTING,
    **dict.fromkeys(("Identity", "CastLike"), _same),
    "Cast": _cast,
    "Dropout": _dropout,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    **dict.fromkeys(("Resize", "Upsample"), _resize),
}
"""Op to what makes nodes of it."""
