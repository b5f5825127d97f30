"""Lower resizes of images.

In 8 bits the integers are those of LiteRT's reference kernels, which place pixels at multiples of 1 / 1024. Where these
places are exact and sums of four pixels have few bits, OpenVINO's Interpolate computes them, and a FakeQuantize takes
halves away from zero; but it computes in float unless a convolution reads it. Everything else is computed as LiteRT
does, in float32 that holds every number exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset8 as ops
from openvino import opset11

from edgecnn.graph.ir import Node
from edgecnn.graph.oracle.moving import FRACTION, Lines, lines, nearest
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino.emitter import Emitter, rounded
from edgecnn_converters.openvino.moves import moved, order_of, taken

ONE = 1 << FRACTION  # pixel
HALF_BITS = FRACTION // 2
FEW_BITS = 4  # below the point of a sum: halves are then told from what is next to them
PAST_HALVES = 2.4e-4  # of a sum: more than float32 loses at 1/2, and at 127 1/2 less than half of 2**-FEW_BITS


def resize(e: Emitter, node: Node) -> Any:
    """Return a resized image, on the grid of the output."""
    a: Mapping[str, Any] = node.attrs
    if a["mode"] == "nearest":
        return _nearest(e, node)
    name = part(node.output, "op")
    if e.precision != "int8" or not facts.is_narrow(e.graph, node):
        return e.on_grid(node.output, _interpolated(e, node, "linear_onnx", name))
    sizes = e.graph.tensors[node.inputs[0]].shape[1:3]
    sides = [lines(size, made, a) for size, made in zip(sizes, a["size"], strict=True)]
    exact = all(_is_exact(size, made, a) for size, made in zip(sizes, a["size"], strict=True))
    weighted = node.output not in e.graph.outputs and all(n.weighted for n in e.graph.consumers(node.output))
    if exact and weighted and sum(_bits(share) for _, _, share in sides) <= FEW_BITS:
        return e.on_grid(node.output, _interpolated(e, node, "linear_onnx", name), past_halves=PAST_HALVES)
    return e.on_grid(node.output, _sums(e, node, sides), in_steps=True)


def _nearest(e: Emitter, node: Node) -> Any:
    """Return the nearest pixels: of whole factors by Interpolate, else at indices of rows and columns."""
    a: Mapping[str, Any] = node.attrs
    shape, made = e.graph.tensors[node.inputs[0]].shape, moved(node, order_of(e, node))
    indices = [nearest(shape[1 + k], size, a) for k, size in enumerate(a["size"])]
    repeats = zip(indices, shape[1:3], strict=True)
    if all(np.array_equal(k, np.repeat(np.arange(size), k.size // size)) for k, size in repeats):
        return _interpolated(e, node, "nearest", made)
    rows = taken(e, e.value(node.inputs[0]), indices[0], 2, part(node.output, "rows"))
    return taken(e, rows, indices[1], 3, made)


def _interpolated(e: Emitter, node: Node, mode: str, name: str) -> Any:
    """Return an Interpolate of height and width; of the nearest pixels, which are repeated."""
    a: Mapping[str, Any] = node.attrs
    sizes = e.plain(np.array(a["size"], np.int64), part(node.output, "size"))
    axes = e.plain(np.array([2, 3], np.int64), part(node.output, "axes"))
    place = "align_corners" if a["align_corners"] else "half_pixel" if a["half_pixel"] else "asymmetric"
    place = place if mode != "nearest" else "asymmetric"
    value = e.value(node.inputs[0])
    return opset11.interpolate(value, sizes, mode, "sizes", None, None, place, "floor", False, axes=axes, name=name)


def _is_exact(size: int, made: int, attrs: Mapping[str, Any]) -> bool:
    """Tell whether the pixels of a resized side lie at multiples of 1 / 1024."""
    if attrs["align_corners"] and made > 1:
        return ONE * (size - 1) % (made - 1) == 0
    return ONE * size % (made * (2 if attrs["half_pixel"] else 1)) == 0


def _bits(shares: NDArray[np.int64]) -> int:
    """Return the bits below the point of shares in 1 / 1024."""
    return FRACTION - min(FRACTION, *(int(share & -share).bit_length() - 1 for share in shares if share), FRACTION)


def _sums(e: Emitter, node: Node, sides: list[Lines]) -> Any:
    """Return sums of four pixels each, in whole steps of the grid above its zero point.

    A row's sum of two pixels has 18 bits, that of two rows 28. So the product of a difference of rows with its share is
    taken in two parts of 23 bits, of which the lower is rounded down to the unit of the upper. Raised for halves, and
    lowered below zero by less than a part's unit, the sum is rounded down to whole steps.
    """
    quant, name = e.graph.quant(node.output), node.output
    zero = int(quant.zero_point[0])
    (above, below, down), (left, right, across) = sides
    down, across = down[:, None], across[None]  # over NCHW

    def number(value: float, what: str) -> Any:
        return e.plain(np.float32(value), part(name, what))

    unit, offset = number(ONE / quant.scale[0], "unit"), number(ONE * zero, "offset")
    first, second = (
        e.plain((k / ONE).astype(np.float32), part(name, f"share_{s}")) for s, k in enumerate((ONE - across, across))
    )

    def row(indices: NDArray[np.int64], which: str) -> Any:
        """Return sums of two pixels of a row, in 1 / 1024 of a step, from the integer 0."""
        source = taken(e, e.value(node.inputs[0]), indices, 2, part(name, which))
        pixels = [taken(e, source, at, 3, part(name, f"{which}_{s}")) for s, at in (("left", left), ("right", right))]
        products = [
            ops.multiply(pixel, share, name=part(name, f"{which}_product_{k}"))
            for k, (pixel, share) in enumerate(zip(pixels, (first, second), strict=True))
        ]
        real = ops.multiply(
            ops.add(*products, name=part(name, f"{which}_sum")), unit, name=part(name, f"{which}_scaled")
        )
        return ops.add(rounded(real, part(name, f"{which}_whole")), offset, name=part(name, f"{which}_row"))

    upper, lower = row(above, "above"), row(below, "below")
    difference = ops.subtract(lower, upper, name=part(name, "difference"))
    one = 1 << HALF_BITS
    high, low = (down // one).astype(np.float32), (down % one / one).astype(np.float32)
    high_part = ops.multiply(difference, e.plain(high, part(name, "high")), name=part(name, "high_part"))
    large = ops.multiply(upper, number(one, "one"), name=part(name, "large"))
    large = ops.add(large, high_part, name=part(name, "large_sum"))
    small = ops.multiply(difference, e.plain(low, part(name, "low")), name=part(name, "low_part"))
    least = 1 / (2 * one)  # half of the unit of the lower part
    about = ops.add(large, small, name=part(name, "about"))
    held = ops.maximum(about, number(-least, "least"), name=part(name, "held"))
    sign = ops.minimum(held, number(least, "most"), name=part(name, "sign"))
    small = ops.floor(ops.add(small, sign, name=part(name, "nudged")), name=part(name, "low_whole"))
    total = ops.add(large, small, name=part(name, "total"))
    step = ONE * one
    steps = ops.multiply(total, number(1 / step, "step"), name=part(name, "in_steps"))
    raised = ops.add(steps, number(0.5, "half"), name=part(name, "raised"))
    whole = ops.floor(raised, name=part(name, "rounded_half_away"))
    return ops.subtract(whole, number(zero, "zero"), name=part(name, "steps"))
