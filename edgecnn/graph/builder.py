"""A graph in the making, by an importer: slices, padding and arithmetic of values as the source has them.

Whatever is not an op of the graph is made of several: here, in ``layers.py`` and in ``reductions.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from edgecnn.graph.node_builder import BATCH, Array, NodeBuilder, Value
from edgecnn.graph.ops import need

PAD_MODES: Mapping[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # numpy's names
Operand = Value | Array | float


class Builder(NodeBuilder):
    """Adds the ops that importers share; operands are in the order of dimensions of the source."""

    # --- ops that only move ---

    def slice(self, x: Value, dim: int, start: int, stop: int, step: int = 1) -> Value:
        """Return ``start:stop:step`` of one dimension of the source; step above 0, the bounds in the tensor."""
        return self.slices(x, {dim: (start, stop, step)})

    def slices(self, x: Value, parts: Mapping[int, tuple[int, int, int]]) -> Value:
        """Return ``start:stop:step`` of some dimensions of the source, in one node; see ``slice``."""
        shape, held = self.shape(x), self.held(x)
        bounds = [(0, d, 1) for d in held]
        for dim, (start, stop, step) in parts.items():
            place, stop = x.axes.index(dim), min(stop, shape[dim])
            inside = 0 <= start < stop and step > 0 and (place > 0 or (start, stop, step) == (0, shape[dim], 1))
            need(inside, f"slice {start}:{stop}:{step} of dimension {dim} of {shape}")
            bounds[place] = (start, stop, step)
        if bounds == [(0, d, 1) for d in held]:
            return x
        begin, end, steps = zip(*bounds[1:], strict=True)
        return self.add("slice", x, axes=x.axes, begin=begin, end=end, step=steps)

    def select(self, x: Value, dim: int, index: int) -> Value:
        """Return one element of a dimension of the source, without that dimension."""
        shape = self.shape(x)
        index %= shape[dim]
        return self.reshape(self.slice(x, dim, index, index + 1), (*shape[:dim], *shape[dim + 1 :]))

    def gather(self, x: Value, dim: int, indices: Sequence[int]) -> Value:
        """Return the elements of one dimension of the source at indices."""
        size, places = self.shape(x)[dim], [int(k) for k in indices]
        steps = {b - a for a, b in pairwise(places)} or {1}
        if len(steps) == 1 and min(steps) > 0:
            return self.slice(x, dim, places[0], places[-1] + 1, steps.pop())
        need(x.axes.index(dim) > 0 and size > 0, f"indices of dimension {dim}, the batch")
        return self.add("gather", x, axes=x.axes, axis=x.axes.index(dim), indices=tuple(places))

    def concat(self, values: Sequence[Value], dim: int) -> Value:
        """Return the values side by side along a dimension of the source."""
        if any(v.axes[0] == dim for v in values):
            values = [self.unbatched(v) for v in values]
        first, *others = values
        alike = [first, *(self._like(v, first) for v in others)]
        return self.add("concat", *alike, axes=first.axes, axis=first.axes.index(dim))

    def side_by_side(self, parts: Sequence[Operand], dim: int) -> Value:
        """Return values and constants side by side; constants are added where they stand, to the zeros of a pad.

        A constant belongs to the value before it; at the beginning, to the first one.
        """
        groups: list[tuple[list[Array], list[Value], list[Array]]] = [([], [], [])]
        for part in parts:
            before, values, behind = groups[-1]
            if not isinstance(part, Value):
                (behind if values else before).append(np.asarray(part, np.float32))
            elif values:
                groups.append(([], [part], []))
            else:
                values.append(part)
        made = [self._filled(before, values[0], behind, dim) for before, values, behind in groups]
        return made[0] if len(made) == 1 else self.concat(made, dim)

    def _filled(self, before: list[Array], value: Value, behind: list[Array], dim: int) -> Value:
        """Return a value with the constants before and behind it."""
        if not before and not behind:
            return value
        shape = self.shape(value)
        widths = [(0, 0)] * len(shape)
        widths[dim] = sum(p.shape[dim] for p in before), sum(p.shape[dim] for p in behind)
        added = np.concatenate([*before, np.zeros(shape, np.float32), *behind], dim)
        return self.binary("add", self.pad(value, widths), added)

    def _like(self, x: Value, other: Value) -> Value:
        if x.axes[0] != other.axes[0]:
            x = self.unbatched(x) if other.axes[0] == BATCH else self.batched(x)
        return self.arranged(x, other.axes)

    def pad(self, x: Value, widths: Sequence[tuple[int, int]], mode: str = "constant", fill: float = 0.0) -> Value:
        """Return the value with (before, after) elements more in each dimension of the source; fewer where negative.

        Args:
            mode: ``constant``, ``reflect``, ``replicate`` or ``circular``.
        """
        shape = self.shape(x)
        if x.axes[0] != BATCH and any(widths[x.axes[0]]):
            x = self.unbatched(x)
        for dim, (before, after) in enumerate(widths):
            if before < 0 or after < 0:
                x = self.slice(x, dim, max(-before, 0), shape[dim] + min(after, 0))
            elif mode != "constant" and (before or after):
                source = np.pad(np.arange(shape[dim]), (before, after), PAD_MODES[mode])
                x = self.gather(x, dim, source.tolist())
        added = [(max(before, 0), max(after, 0)) for before, after in widths]
        if mode != "constant" or not any(map(any, added)):
            return x
        if fill:
            return self.binary("add", self.pad(self.binary("add", x, -fill), added), fill)
        held, by_graph = self.held(x), [added[a] if a != BATCH else (0, 0) for a in x.axes]
        need(by_graph[0] == (0, 0), f"padding {list(widths)} of {shape}: the batch")
        sizes, sides = [held[0]], [(0, 0)]
        for size, each in zip(held[1:], by_graph[1:], strict=True):
            if len(held) > 4 and len(sides) > 1 and not any(each) and not any(sides[-1]):
                sizes[-1] *= size  # neighbours that are not padded are one dimension
            else:
                sizes.append(size)
                sides.append(each)
        need(len(sizes) <= 4, f"padding {list(widths)} of {shape}: more than 4 dimensions")
        for _ in range(4 - len(sizes)):
            sizes.insert(1, 1)
            sides.insert(1, (0, 0))
        plain = tuple(sizes) == held
        lifted = x if plain else self.add("reshape", x, axes=tuple(range(4)), shape=tuple(sizes))
        made = self.add("pad", lifted, axes=lifted.axes, padding=(*sides[1], *sides[2]), channels=sides[3])
        out = tuple(size + sum(each) for size, each in zip(held, by_graph, strict=True))
        return made if plain else self.add("reshape", made, axes=x.axes, shape=out)

    # --- arithmetic of two ---

    def binary(self, op: str, left: Operand, right: Operand) -> Value:
        """Return ``add``, ``sub``, ``mul``, ``div``, ``minimum`` or ``maximum`` of two operands, one of them a value.

        Shapes broadcast as numpy's do. Constants are in the order of the source.
        """
        if op == "sub":
            return self.binary("add", left, self.negative(right))
        if op == "div":
            return self.binary("mul", left, self.inverse(right))
        if op in ("minimum", "maximum"):
            return self._extreme(op, left, right)
        if not isinstance(left, Value):
            left, right = right, left
        assert isinstance(left, Value)
        if not isinstance(right, Value):
            return self._with_constant(op, left, np.asarray(right, np.float32))
        rank = max(len(self.shape(left)), len(self.shape(right)))
        left, right = (self._ranked(v, rank) for v in (left, right))
        if left.axes[0] != right.axes[0]:
            left, right = self.unbatched(left), self.unbatched(right)
        size = [np.prod(self.held(v)) for v in (left, right)]
        if size[0] >= size[1]:
            right = self.arranged(right, left.axes)
        else:
            left = self.arranged(left, right.axes)
        return self.add(op, left, right, axes=left.axes)

    def _ranked(self, x: Value, rank: int) -> Value:
        shape = self.shape(x)
        return self.reshape(x, (1,) * (rank - len(shape)) + shape) if len(shape) < rank else x

    def _with_constant(self, op: str, x: Value, value: Array) -> Value:
        if np.all(value == (0 if op == "add" else 1)) and np.broadcast_shapes(value.shape, self.shape(x)) == self.shape(
            x
        ):
            return x
        rank = max(value.ndim, len(self.shape(x)))
        x = self._ranked(x, rank)
        if value.size == 1:
            return self.add(op, x, self.constant(value.reshape(1)), axes=x.axes)
        full = value.reshape((1,) * (rank - value.ndim) + value.shape)
        places = [a for a in x.axes if a != BATCH]
        full = full.transpose(places)
        if x.axes[0] == BATCH:
            full = full[None]
        need(full.shape[0] == 1, f"a constant of shape {value.shape}, which has a batch of its own")
        return self.add(op, x, self.constant(full), axes=x.axes)

    def negative(self, x: Operand) -> Operand:
        """Return the operand times -1."""
        return self.binary("mul", x, -1.0) if isinstance(x, Value) else -np.asarray(x, np.float32)

    def inverse(self, x: Operand) -> Operand:
        """Return one over the operand."""
        if isinstance(x, Value):
            return self.unary("pow", x, exponent=-1.0)
        with np.errstate(divide="ignore"):
            return np.asarray(1 / np.asarray(x, np.float64), np.float32)

    def _extreme(self, op: str, left: Operand, right: Operand) -> Value:
        """Clamp by a number; else return ``b + relu(a - b)``, which is the larger, or ``a - relu(a - b)``."""
        if not isinstance(left, Value):
            left, right = right, left
        assert isinstance(left, Value)
        if not isinstance(right, Value) and np.size(right) == 1:
            bound = float(np.asarray(right).item())
            low, high = (bound, float("inf")) if op == "maximum" else (float("-inf"), bound)
            return self.clamp(left, low, high)
        over = self.unary("relu", self.binary("sub", left, right))
        return self.binary("add", over, right) if op == "maximum" else self.binary("sub", left, over)

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """Return the value held in bounds, which may be infinite."""
        named = {(0.0, float("inf")): "relu", (0.0, 6.0): "relu6"}
        if (low, high) in named:
            return self.unary(named[low, high], x)
        if (low, high) == (float("-inf"), float("inf")):
            return x
        return self.unary("clamp", x, low=low, high=high)
