"""A graph in the making from a ``.onnx`` file: which tensor of the file became which value, or is known already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.builder import Builder, Operand
from edgecnn.graph.ir import Constant, Node, QParams
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need
from edgecnn_converters.names import SEPARATOR
from edgecnn_converters.onnx.model_file import Call

Known = NDArray[Any]  # what is known before the network runs, of any type


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """Hold a constant behind a DequantizeLinear: its integers, scales and zero points, and their dimension."""

    integers: NDArray[Any]
    scale: NDArray[Any]
    zeros: NDArray[Any]
    axis: int


def graph_name(name: str) -> str:
    """Return the name of a graph tensor for one of the file; see ``names.SEPARATOR``."""
    return name.strip(SEPARATOR).replace(SEPARATOR, ".") or "tensor"


class Translation(Builder):
    """The builder of a file's graph.

    Attributes:
        opset: of the file.
        values: tensor of the file to its value in the graph, or to what is known of it.
        origin: graph tensor to (tensor of the file, its dimension for each one of the graph tensor).
        grids: graph tensor to the grid that a QuantizeLinear puts it on.
        integers: tensor of the file to the integers that it was made of.
        weights: node to its weight in the file with its dimension of output channels, and its bias.
        reads: node to the tensors that the file's node reads.
        readers: how many nodes and outputs read a tensor of the file.
    """

    def __init__(self, opset: int) -> None:
        super().__init__()
        self.opset = opset
        self.values: dict[str, Value | Known] = {}
        self.origin: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.grids: dict[str, QParams] = {}
        self.integers: dict[str, Stored] = {}
        self.weights: dict[str, tuple[tuple[str, int], str | None]] = {}
        self.reads: dict[str, tuple[str, ...]] = {}
        self.readers: Counter[str] = Counter()

    def enter(self, name: str, shape: Sequence[int], *, channels_last: bool) -> None:
        """Add an input of the file; ``channels_last``: one of four dimensions is (N, H, W, C) there."""
        before, self.channels_last = self.channels_last, channels_last
        value = self.input(graph_name(name), shape)
        self.channels_last = before
        self.values[name] = value
        self.origin[value.name] = (name, value.axes)

    def begin(self, call: Call) -> int:
        """Name what is added from here on after a node; return how many nodes there are."""
        self.scope, self.named = graph_name(call.outputs[0] or call.name), False
        return len(self.nodes)

    def finish(self, call: Call, made: Sequence[Value | Known], first: int) -> None:
        """Note the outputs of a node, whose own nodes begin at ``first``; the last one gets the output's name."""
        self.reads.update({node.output: call.inputs for node in self.nodes[first:]})
        for name, value in zip(call.outputs, made, strict=False):
            if not name:
                continue
            if isinstance(value, Value):
                fresh = {n.output for n in self.nodes[first:]}
                wanted = graph_name(name)
                if value.name in fresh and wanted not in self.tensors:
                    value = Value(self.rename(value.name, wanted, first, call.outputs), value.axes)
                if value.name not in self.inputs:
                    self.origin[value.name] = (name, value.axes)
            self.values[name] = value

    def rename(self, old: str, new: str, first: int = 0, files: Iterable[str] | None = None) -> str:
        """Give a node and its constants another name, which must be free; return it.

        Args:
            first: no node before this one makes or reads them.
            files: tensors of the file, of which one may have the value; ``None``: any.
        """
        held = self.producer(old)
        need(held is not None and new not in self.tensors, f"no name {new!r} for {old!r}")
        assert held is not None
        names = {old: new}
        for constant in held.inputs[1:]:
            if constant.startswith(f"{old}.") and isinstance(self.tensors[constant], Constant):
                names[constant] = self.unique(new + constant.removeprefix(old))
        for before, after in names.items():
            self.tensors[after] = replace(self.tensors.pop(before), name=after)
        for k in range(first, len(self.nodes)):
            node = self.nodes[k]
            if names.keys() & {node.output, *node.inputs}:
                inputs = tuple(names.get(i, i) for i in node.inputs)
                self.nodes[k] = replace(node, inputs=inputs, output=names.get(node.output, node.output))
        by_name: tuple[dict[str, Any], ...] = (self.origin, self.grids, self.weights, self.reads)
        for facts in by_name:
            if old in facts:
                facts[new] = facts.pop(old)
        for name in list(self.values) if files is None else files:
            value = self.values.get(name)
            if isinstance(value, Value) and value.name == old:
                self.values[name] = Value(new, value.axes)
        return new

    def producer(self, name: str) -> Node | None:
        """Return the node that makes a tensor of the graph."""
        return next((node for node in reversed(self.nodes) if node.output == name), None)

    def note_weights(self, call: Call, channels: int) -> None:
        """Note what the layer that was just made has for weights: inputs 1 and 2 of a node of the file."""
        made = next(node for node in reversed(self.nodes) if node.weighted)
        bias = call.inputs[2] if self.given(call, 2) else None
        self.weights[made.output] = ((call.inputs[1], channels), bias)

    # --- what a node reads ---

    def given(self, call: Call, place: int) -> bool:
        """Tell whether a node has an input at that place."""
        return place < len(call.inputs) and bool(call.inputs[place])

    def value(self, call: Call, place: int = 0) -> Value:
        """Return an input that is an activation; a constant becomes one."""
        found = self.values[call.inputs[place]]
        if isinstance(found, Value):
            return found
        array = self.real(found, call.inputs[place])
        need(array.ndim > 1 and array.shape[0] == 1, f"a constant of shape {array.shape} where an activation is needed")
        return replace(self.constant(array), axes=tuple(range(array.ndim)))

    def known(self, call: Call, place: int, what: str = "an input") -> Known:
        """Return an input that is known before the network runs, as the file has it."""
        found = self.values[call.inputs[place]]
        if isinstance(found, Value):
            need(False, f"{what} ({call.inputs[place]!r}) is computed while the network runs; it must be a constant")
        assert not isinstance(found, Value)
        return found

    def array(self, call: Call, place: int, what: str = "an input") -> Array:
        """Return a weight: known, finite."""
        return self.real(self.known(call, place, what), call.inputs[place])

    def real(self, found: Known, name: str) -> Array:
        """Return a finite array in float32."""
        array = np.array(found, np.float32)
        need(bool(np.isfinite(array).all()), f"constant {name!r} holds NaN or infinity")
        return array

    def ints(self, call: Call, place: int, what: str) -> tuple[int, ...]:
        """Return an input of integers that is known."""
        return tuple(int(k) for k in np.asarray(self.known(call, place, what)).reshape(-1))

    def number(self, call: Call, place: int, what: str, default: float) -> float:
        """Return an input of one number that is known, or the default where it is not given."""
        if not self.given(call, place):
            return default
        found = np.asarray(self.known(call, place, what))
        need(found.size == 1, f"{what} has {found.size} elements; one is supported")
        return float(found.reshape(()))

    def operand(self, call: Call, place: int) -> Operand:
        """Return an input that is an activation or a constant."""
        found = self.values[call.inputs[place]]
        return found if isinstance(found, Value) else self.real(found, call.inputs[place])

    def alone(self, call: Call, place: int = 0) -> bool:
        """Tell whether this node alone reads an input, and the graph tensor that it is."""
        found = self.values[call.inputs[place]]
        if not isinstance(found, Value):
            return False
        same = [name for name, v in self.values.items() if isinstance(v, Value) and v.name == found.name]
        return all(self.readers[name] == 1 for name in same)
