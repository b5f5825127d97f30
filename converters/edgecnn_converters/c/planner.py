"""Plan one static arena by liveness, and by how far an output may overlap an input.

Buffers are placed one by one where the arena grows least, largest first (the greedy-by-size strategy of Pisarchyk and
Lee 2020, "Efficient Memory Management for Deep Neural Net Inference"). An op that writes its output in order behind
what it has still to read may write over its input: Blacker, Bridges and Hadfield 2020, "Diagonal Memory Optimisation
for Machine Learning on Micro-controllers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """Bytes that must be kept from one step to another."""

    name: str  # unique
    size: int  # in bytes
    first: int  # the step that writes it
    last: int  # the last step that reads it


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Buffer name to its first byte in the arena, and the arena's size in bytes."""

    offsets: Mapping[str, int]
    size: int


def plan(buffers: Sequence[Buffer], leads: Mapping[tuple[str, str], int]) -> Plan:
    """Place the buffers so that none overwrites what is still needed.

    Args:
        buffers: in the order in which they are written.
        leads: (output, input) of one step, the input's last, to how many bytes before the input the output must start
            at least, so that the step may write one over the other (0: in place). Other pairs of one time are apart.

    Returns:
        The smaller of two plans: the largest buffer first, and in the order of the steps.
    """
    largest_first = sorted(buffers, key=lambda b: (-b.size, b.first, b.name))
    return min((_placed(order, leads) for order in (largest_first, buffers)), key=lambda made: made.size)


def _placed(order: Sequence[Buffer], leads: Mapping[tuple[str, str], int]) -> Plan:
    starts: dict[str, int] = {}
    placed: list[Buffer] = []
    low, high = 0, 0
    for buffer in order:
        beside = [other for other in placed if buffer.first <= other.last and other.first <= buffer.last]
        barred = [_barred(buffer, other, starts[other.name], leads) for other in beside]
        candidates = {0, *(end for span in barred for end in span)}
        free = [c for c in candidates if not any(begin < c < end for begin, end in barred)]
        best = min(free, key=lambda c: (max(high, c + buffer.size) - min(low, c), abs(c), c))
        starts[buffer.name] = best
        low, high = min(low, best), max(high, best + buffer.size)
        placed.append(buffer)
    return Plan(offsets={b.name: starts[b.name] - low for b in order}, size=high - low)


def _barred(buffer: Buffer, other: Buffer, start: int, leads: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    """Return the two starts between which ``buffer`` may not start beside one that lies at ``start``."""
    before = min(buffer.size, leads.get((buffer.name, other.name), buffer.size))
    after = min(other.size, leads.get((other.name, buffer.name), other.size))
    return start - before, start + after


def window_lead(
    in_shape: Shape, out_shape: Shape, *, kernel: tuple[int, int], stride: tuple[int, int], padding: Shape
) -> int:
    """Return how many bytes an op that moves a window over an NHWC image must keep its output before its input.

    At each output pixel the bytes written so far, its own included, must end before the first byte that this pixel or
    a later one reads.
    """
    _, height, width, channels = in_shape
    _, out_height, out_width, out_channels = out_shape
    top, left = padding[0], padding[2]
    y0, x0 = np.arange(out_height) * stride[0] - top, np.arange(out_width) * stride[1] - left
    sees = ((y0 < height) & (y0 + kernel[0] > 0))[:, None] & ((x0 < width) & (x0 + kernel[1] > 0))
    first = np.maximum(y0, 0)[:, None] * width + np.maximum(x0, 0)
    reads = np.where(sees, first, height * width).ravel() * channels
    unread = np.minimum.accumulate(reads[::-1])[::-1]
    written = np.arange(1, out_height * out_width + 1) * out_channels
    return int((written - unread).max())
