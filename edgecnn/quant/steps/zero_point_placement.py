"""Zero-point placement: all integers of a signed tensor lie on one side of its zero point.

Away from zero, as kernels round halves, is one direction where all integers of a tensor lie on one side of its zero
point, and a runtime that adds in float, OpenVINO, can then be led in it. So a signed output ``t`` becomes ``t + c``:
its integers stay what they are, its zero point becomes the lowest or the highest of them, its layer's bias grows by
``c``, and the layers that read it take back what that adds. Adds pass ``c`` on; which of the two ends is taken keeps
the sum of what was passed on small, so that an add's grid still reaches what it has to.

The network computes what it did, but for sums next to halves, which may go the other way now, and for adds, whose grids
move by less than half a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecnn.graph.ir import Graph, Node, Quantized, QuantizedConstant
from edgecnn.quant.scales.kernel_limits import BIAS_LIMIT
from edgecnn.quant.step import Stage, Step, Work

LOWEST, HIGHEST = -128, 127
UNPADDED = (0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class ZeroPointPlacement(Step):
    """Move the zero points of signed outputs of convolutions to an end, so that runtimes round their sums alike.

    It moves scales of additions by less than half a step, so it comes before what corrects biases.
    """

    before, after = Stage.INTEGER, Stage.INTEGER
    limitable = True

    def plain(self) -> Step:
        """Return the step: it changes no accuracy for the worse."""
        return self

    def apply(self, work: Work) -> Work:
        """Move zero points of selected layers, wherever all consumers of the output can take its offset back."""
        graph = work.graph
        fixed = {node.output for node in graph if not self.selects(node)}
        while True:
            walk = _Walk(graph=graph, fixed=fixed)
            strange = next((node for node in graph if not walk.advance(node)), None)
            if strange is None:
                return replace(work, graph=graph.with_tensors(*walk.changed.values()))
            fixed |= {i for i in strange.inputs if i in walk.offsets} - fixed


@dataclass(kw_only=True)
class _Walk:
    """Walk through the graph.

    Attributes:
        graph: as it was.
        fixed: outputs that stay as they are.
        offsets: real, of each activation that has one.
        changed: tensors, by name.
    """

    graph: Graph
    fixed: set[str]
    offsets: dict[str, float] = field(default_factory=dict)
    changed: dict[str, Quantized] = field(default_factory=dict)

    def advance(self, node: Node) -> bool:
        """Take one more node; return false where an add's grid cannot reach what it has to."""
        if node.weighted and node.inputs[0] in self.offsets:
            self._take_back(node)
        if node.op == "add" and (passed := sum(self.offsets.get(i, 0.0) for i in node.inputs)):
            quant = self.graph.quant(node.output)
            zero = int(quant.zero_point[0]) - round(passed / float(quant.scale[0]))
            if not LOWEST <= zero <= HIGHEST:
                return False
            self._place(node.output, passed, zero)
        if node.op == "conv2d" and node.attrs["activation"] == "none" and node.output not in self.fixed:
            self._move(node)
        return True

    def _move(self, node: Node) -> None:
        """Move a zero point to the end that leaves the adds which read it the smaller offset."""
        quant = self.graph.quant(node.output)
        scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
        if quant.dtype != "int8" or not LOWEST < zero < HIGHEST or not _bears(self.graph, node.output):
            return
        others = [i for n in self.graph.consumers(node.output) for i in n.inputs if n.op == "add"]
        before = sum(self.offsets.get(i, 0.0) for i in others)
        end = min((LOWEST, HIGHEST), key=lambda e: abs(before + (zero - e) * scale))
        offset = (zero - end) * scale
        bias = QuantizedConstant.of(self._now(node.inputs[2]))
        steps = np.rint(offset / bias.quant.scale.astype(np.float64)).astype(np.int64)
        grown = bias.integers.astype(np.int64) + steps
        if np.abs(grown).max() < BIAS_LIMIT["int8"]:
            self._set_bias(bias, grown, bias.value + np.float32(offset))
            self._place(node.output, offset, end)

    def _take_back(self, node: Node) -> None:
        """Take from a layer's bias what the offset of its input adds to each of its outputs."""
        source = self._now(node.inputs[0])
        weight, bias = (QuantizedConstant.of(self._now(i)) for i in node.inputs[1:])
        steps = int(self.graph.quant(source.name).zero_point[0]) - int(source.quant.zero_point[0])
        both = (weight.integers.astype(np.int64), weight.value.astype(np.float64))
        integers, reals = (array.reshape(len(array), -1).sum(axis=1) for array in both)
        self._set_bias(bias, bias.integers - steps * integers, bias.value - self.offsets[source.name] * reals)

    def _set_bias(self, bias: QuantizedConstant, integers: Any, value: Any) -> None:
        kind = bias.quant.dtype
        self.changed[bias.name] = replace(bias, integers=integers.astype(kind), value=value.astype(np.float32))

    def _place(self, name: str, offset: float, zero: int) -> None:
        tensor = self._now(name)
        self.offsets[name] = offset
        self.changed[name] = replace(tensor, quant=replace(tensor.quant, zero_point=np.array([zero])))

    def _now(self, name: str) -> Quantized:
        return self.changed.get(name) or Quantized.of(self.graph.tensors[name])


def _bears(graph: Graph, name: str) -> bool:
    """Tell whether all that read an activation can take an offset back, or pass it on to what can."""
    return name not in graph.outputs and all(_takes(graph, node, name) for node in graph.consumers(name))


def _takes(graph: Graph, node: Node, name: str) -> bool:
    if graph.quant(node.output).dtype != "int8":
        return False
    if node.op == "add":
        return node.attrs["activation"] == "none" and _bears(graph, node.output)
    return node.weighted and node.inputs[0] == name and node.attrs.get("padding", UNPADDED) == UNPADDED
