"""Nodes and tensors of a graph in the making: values in the order of dimensions of the source, nodes in the graph's.

torch and ONNX put channels first, the graph puts them last. Each value notes which dimension of the source each of its
graph tensor is, so that a transpose of the source costs no node, and one is made only where an op needs another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Constant, Graph, Metadata, Node, Tensor
from edgecnn.graph.ops import make_node, need, output_shape

BATCH = -1  # in ``axes``: the graph's batch is no dimension of the source
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Value:
    """Hold what an op of the source made.

    Attributes:
        name: of the graph tensor that holds it.
        axes: for each dimension of the graph tensor, the dimension of the source that it is. The first is the batch,
            of size 1; it is ``BATCH`` where the source has merged or dropped it.
    """

    name: str
    axes: tuple[int, ...]


class NodeBuilder:
    """Gathers nodes and tensors.

    Attributes:
        channels_last: whether images of the source are NHWC; otherwise they are NCHW.
        scope: what the nodes being made belong to: their names begin with it, and it is their ``source``.
        named: whether the next node is what the scope names, so has its name.
        rows: images of one row, which only a reshape to three dimensions reads.
    """

    def __init__(self, *, channels_last: bool = False) -> None:
        self.channels_last, self.scope, self.named = channels_last, "", False
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        self.rows: set[str] = set()
        self.means: dict[Value, tuple[Value, tuple[int, ...], bool]] = {}  # what it is a mean of, over which dimensions

    def image_axes(self, rank: int) -> tuple[int, ...]:
        """Return the axes of a value whose channels are the last dimension in the graph."""
        return tuple(range(rank)) if self.channels_last else (0, *range(2, rank), 1)

    def input(self, name: str, shape: Sequence[int]) -> Value:
        """Add an input; ``shape`` is the source's. One of four dimensions is an image: NHWC in the graph."""
        need(
            len(shape) >= 2 and shape[0] == 1, f"input {name!r} of shape {tuple(shape)}; the first must be a batch of 1"
        )
        axes = self.image_axes(4) if len(shape) == 4 else tuple(range(len(shape)))
        name = self.unique(name)
        self.tensors[name] = Tensor(name=name, shape=tuple(int(shape[a]) for a in axes))
        self.inputs.append(name)
        return Value(name, axes)

    def graph(self, outputs: Sequence[Value], metadata: Metadata) -> Graph:
        """Return the graph. An output of four dimensions is NHWC, any other in the order of the source.

        One whose first dimension is not the batch has the graph's in front.
        """
        ends = []
        for value in outputs:
            shape = self.shape(value)
            order = self.image_axes(4) if len(shape) == 4 else tuple(range(len(shape)))
            if shape[:1] == (1,):
                ends.append(self.arranged(self.batched(value), order).name)
            else:
                ends.append(self.arranged(self.unbatched(value), (BATCH, *order)).name)
        need(len(set(ends)) == len(ends), "two outputs are one tensor; give it once")
        return Graph(
            nodes=tuple(self.nodes),
            tensors=self.tensors,
            inputs=tuple(self.inputs),
            outputs=tuple(ends),
            metadata=metadata,
        )

    # --- nodes and tensors ---

    def held(self, value: Value) -> tuple[int, ...]:
        """Return the shape of the graph tensor."""
        return self.tensors[value.name].shape

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the shape that the source has."""
        held = dict(zip(value.axes, self.held(value), strict=True))
        return tuple(held[k] for k in range(len(held) - (BATCH in held)))

    def add(self, op: str, *inputs: Value, axes: tuple[int, ...], name: str | None = None, **attrs: Any) -> Value:
        """Add a node; ``axes`` are those of its output, whose shape comes from the op table."""
        output = self.unique(name or self.name(op))
        node = make_node(op, tuple(i.name for i in inputs), output, self.scope, **attrs)
        shape = output_shape(node, [self.held(i) for i in inputs])
        self.nodes.append(node)
        self.tensors[output] = Tensor(name=output, shape=shape)
        return Value(output, axes)

    def unary(self, op: str, x: Value, **attrs: Any) -> Value:
        """Add an op of one tensor that keeps its shape."""
        return self.add(op, x, axes=x.axes, **attrs)

    def weighted(
        self, op: str, x: Value, weight: Array, bias: Array | None, axes: tuple[int, ...], **attrs: Any
    ) -> Value:
        """Add a conv2d (weight OHWI) or fully_connected node with its constants; a missing bias is zero."""
        name = self.unique(self.name(op))
        shift = np.zeros(weight.shape[0], np.float32) if bias is None else bias
        constants = (self.stored(self.unique(f"{name}.{k}"), v) for k, v in (("weight", weight), ("bias", shift)))
        return self.add(op, x, *constants, axes=axes, name=name, **attrs)

    def stored(self, name: str, value: NDArray[Any]) -> Value:
        """Add a constant as the graph has it."""
        held = np.ascontiguousarray(value, np.float32)
        self.tensors[name] = Constant(name=name, value=held if held.flags.writeable else held.copy())
        return Value(name, tuple(range(value.ndim)))

    def constant(self, value: NDArray[Any], suffix: str = "constant") -> Value:
        """Add a constant named after the scope, as the graph has it."""
        return self.stored(self.unique(".".join(filter(None, (self.scope, suffix)))), value)

    def name(self, op: str) -> str:
        """Return a name for a node; it may be taken."""
        return self.scope if self.named and self.scope else ".".join(filter(None, (self.scope, op)))

    def unique(self, name: str) -> str:
        """Return the name, with a number behind it where it is taken."""
        numbered = (f"{name}_{k}" for k in count(1))
        return next(candidate for candidate in chain([name], numbered) if candidate not in self.tensors)

    # --- layout ---

    def arranged(self, x: Value, axes: Sequence[int]) -> Value:
        """Return the value with its dimensions in another order; the batch stays first."""
        axes = tuple(axes)
        if axes == x.axes:
            return x
        need(sorted(axes) == sorted(x.axes) and axes[0] == x.axes[0], "the batch is merged with another dimension")
        perm = tuple(x.axes.index(a) for a in axes)
        held = self.held(x)
        shape = tuple(held[k] for k in perm)
        moved = [k for k in perm if held[k] > 1]
        if moved == sorted(moved):  # only dimensions of one element move
            return Value(x.name, axes) if shape == held else self.add("reshape", x, axes=axes, shape=shape)
        return self.add("transpose", x, axes=axes, perm=perm)

    def image(self, x: Value) -> Value:
        """Return a value of (N, channels, ...) with its channels last."""
        x = self.batched(x)
        return self.arranged(x, self.image_axes(len(x.axes)))

    def batched(self, x: Value) -> Value:
        """Return the value with the graph's batch as dimension 0 of the source.

        Raises:
            InputError: the source has made something else of it.
        """
        if x.axes[0] == 0:
            return x
        shape = self.shape(x)
        need(bool(shape) and shape[0] == 1, f"a tensor of shape {shape}, whose first dimension is not the batch")
        held = [(a, d) for a, d in zip(x.axes, self.held(x), strict=True) if a != 0][1:]
        if x.axes[0] != BATCH:  # a batch elsewhere is a dimension of one element there
            held.append((x.axes[0], 1))
        axes = (0, *(a for a, _ in held))
        return self.add("reshape", x, axes=axes, shape=(1, *(d for _, d in held)))

    def unbatched(self, x: Value) -> Value:
        """Return the value with every dimension of the source beside the graph's batch."""
        if x.axes[0] == BATCH:
            return x
        return self.add("reshape", x, axes=(BATCH, *x.axes), shape=(1, *self.held(x)))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Return what the source calls its transpose: no node."""
        places = [int(p) % len(perm) for p in perm]
        return Value(x.name, tuple(a if a == BATCH else places.index(a) for a in x.axes))

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return the value in another shape, elements in the order of the source."""
        old, new = self.shape(x), tuple(int(d) for d in shape)
        if new == old:
            return x
        batch = 0 if new and new[0] == 1 else BATCH
        groups = _groups(
            [k for k in range(len(old)) if k != x.axes[0]], old, [k for k in range(len(new)) if k != batch], new
        )
        large = [a for a in x.axes[1:] if old[a] > 1]
        groups.sort(key=lambda g: min(large.index(a) for a in g[0]))
        wanted = [a for group, _ in groups for a in group]
        if wanted != large:  # a transpose is due: to the order that images, or other shapes, have in the end
            final = self.image_axes(4) if len(new) == 4 and batch == 0 else tuple(range(len(new)))
            groups.sort(key=lambda g: min(final.index(a) for a in g[1]))
            wanted = [a for group, _ in groups for a in group]
            x = self.arranged(x, (x.axes[0], *wanted, *(a for a in x.axes[1:] if old[a] == 1)))
        order = self._with_ones([a for _, made in groups for a in made], new, batch)
        held = (1, *(new[a] for a in order))
        axes = (batch, *order)
        return Value(x.name, axes) if held == self.held(x) else self.add("reshape", x, axes=axes, shape=held)

    def _with_ones(self, large: list[int], shape: tuple[int, ...], batch: int) -> list[int]:
        """Return the dimensions in a common order, if those of more than one element are in it; else near them."""
        rank = len(shape)
        inside = tuple(k for k in range(rank) if k != batch)
        usual = [self.image_axes(rank)[1:]] if rank == 4 and batch == 0 else []
        for known in (*usual, inside):
            if [a for a in known if shape[a] > 1] == large:
                return list(known)
        order = list(large)
        for k in (k for k in inside if shape[k] == 1):
            order.insert(order.index(k - 1) + 1 if k - 1 in order else 0, k)
        return order


def _groups(
    left: list[int], old: tuple[int, ...], right: list[int], new: tuple[int, ...]
) -> list[tuple[list[int], list[int]]]:
    """Return which dimensions of more than one element become which, in the smallest groups of equal size."""
    a, b = [k for k in left if old[k] > 1], [k for k in right if new[k] > 1]
    need(np.prod([old[k] for k in a]) == np.prod([new[k] for k in b]), f"{old} to {new}: not as many elements")
    groups: list[tuple[list[int], list[int]]] = []
    while a:
        one, other = [a.pop(0)], [b.pop(0)]
        while (m := np.prod([old[k] for k in one])) != (n := np.prod([new[k] for k in other])):
            if m < n:
                one.append(a.pop(0))
            else:
                other.append(b.pop(0))
        groups.append((one, other))
    return groups
