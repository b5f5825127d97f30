"""Lower average pools of integers to convolutions of ones, which ONNX Runtime rounds as LiteRT does.

Its own kernel, ``QLinearAveragePool``, rounds halves to even, and took 4 to 40 times as long on four padded 3x3 pools
(`benchmarks/RESULTS.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn.graph.ir import Node
from edgecnn_converters.layout import kernel_of, pads
from edgecnn_converters.names import part
from edgecnn_converters.onnx.emitter import Emitter
from edgecnn_converters.onnx.format import INTEGERS, TO_INTEGERS, TO_REAL

PAST_HALVES = 2.0**-18  # of an average: takes halves a little away from zero, and nothing else across one


@dataclass(frozen=True)
class Run:
    """``count`` windows along one side that hold equally many pixels: from ``begin`` to ``end``, ``size`` each."""

    begin: int
    end: int
    size: int
    count: int

    def is_all(self, side: int, stride: int) -> bool:
        """Tell whether a convolution of the whole side makes just these windows."""
        return self.begin == 0 and (side - self.size) // stride + 1 == self.count


def runs(side: int, made: int, kernel: int, stride: int, before: int) -> list[Run]:
    """Return the windows along a side in order: whole ones together, each that reaches over the border by itself."""
    found: list[Run] = []
    for k in range(made):
        first = k * stride - before
        begin, end = max(first, 0), min(first + kernel, side)
        last = found[-1] if found else None
        if last and last.size == end - begin == kernel:
            found[-1] = Run(last.begin, end, kernel, last.count + 1)
        else:
            found.append(Run(begin, end, end - begin, 1))
    return found


def average(e: Emitter, node: Node) -> None:
    """Convolve each part of the image whose windows hold equally many pixels, and join the parts.

    Integers are summed as they are: their zero point is taken as 0, so that halves go away from the integer 0.
    """
    source, name = node.inputs[0], node.output
    (_, height, width, _), (_, rows, columns, _) = (e.graph.tensors[n].shape for n in (source, name))
    kernel, ((top, left), _) = kernel_of(e.graph, node), pads(node.attrs)
    stride: Any = node.attrs["stride"]
    down = runs(height, rows, kernel[0], stride[0], top)
    across = runs(width, columns, kernel[1], stride[1], left)
    bands = []
    for k, row in enumerate(down):
        band = [_part(e, node, row, column, f"part_{k}_{j}") for j, column in enumerate(across)]
        bands.append(_joined(e, band, part(name, f"band_{k}"), 3))
    e.node("Identity", [_joined(e, bands, part(name, "joined"), 2)], part(name, INTEGERS))
    e.real_values(name)


def _joined(e: Emitter, parts: list[str], name: str, axis: int) -> str:
    if len(parts) == 1:
        return parts[0]
    e.node("Concat", parts, name, axis=axis)
    return name


def _part(e: Emitter, node: Node, row: Run, column: Run, what: str) -> str:
    """Add the averages of a part of the image, and return the tensor of their integers."""
    source, name, made = node.inputs[0], node.output, part(node.output, what)
    (_, height, width, channels), pixels = e.graph.tensors[source].shape, e.stored(source)
    stride: Any = node.attrs["stride"]
    if not (row.is_all(height, stride[0]) and column.is_all(width, stride[1])):
        bounds = ((row.begin, column.begin), (row.end, column.end))
        starts, ends = (e.counts(part(made, s), *b) for s, b in zip(("starts", "ends"), bounds, strict=True))
        e.node("Slice", [pixels, starts, ends, e.counts(part(name, "axes"), 2, 3)], part(made, "pixels"))
        pixels = part(made, "pixels")
    grid = e.own_grid(part(name, "plain"), e.graph.quant(source).scale[0], 0)
    e.node(TO_REAL, [pixels, *grid], part(made, "plain"))
    shape, ones = (row.size, column.size), part(made, "ones")
    weight = e.initializer(part(ones, INTEGERS), np.ones((channels, 1, *shape), np.int8))
    scale = e.initializer(part(ones, "scale"), np.array((1 + PAST_HALVES) / np.prod(shape), np.float32))
    zero = e.initializer(part(ones, "zero_point"), np.array(0, np.int8))
    e.node(TO_REAL, [weight, scale, zero], ones)
    window = {"kernel_shape": list(shape), "strides": list(stride), "group": channels}
    e.node("Conv", [part(made, "plain"), ones], part(made, "raw"), **window)
    e.node(TO_INTEGERS, [part(made, "raw"), *grid], part(made, INTEGERS))
    return part(made, INTEGERS)
