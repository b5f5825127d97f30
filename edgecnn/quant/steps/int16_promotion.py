"""int16 promotion: some activations in 16 bits, which ops then compute in 16 bits, and what stands at the borders."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from edgecnn.errors import InputError, unknown
from edgecnn.graph.ir import Constant, Graph, Node, Tensor
from edgecnn.graph.ops import make_node
from edgecnn.graph.passes import drop_dead
from edgecnn.quant.scales.qparams import groups_inside
from edgecnn.quant.step import Stage, Step, Work, setting

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import ActivationStatistics

SUFFIX = ".int16"  # of the 16-bit twin of an 8-bit activation


@dataclass(frozen=True, kw_only=True)
class Int16Promotion(Step):
    """Keep some activations of an int8 network in 16 bits; all of them where the network is to be int16x8.

    Source: the "16x8" kernels of the LiteRT 8-bit quantization specification. Targets without them compute in float.
    """

    before, after = Stage.CALIBRATED, Stage.CALIBRATED

    keep: tuple[str, ...] = setting((), "names of activations, or patterns of them")

    def plain(self) -> Step:
        """Return the step: it changes no accuracy for the worse."""
        return self

    def apply(self, work: Work) -> Work:
        """Add requantizes where 8 and 16 bits meet.

        LiteRT's kernels take all activations of an op in one type, so an op that reads or makes a wide activation
        computes in 16 bits; a requantize goes to its other inputs and after its other output. Hard swish has no 16-bit
        kernel: it becomes ``x * (relu6(x + 3) / 6)``. What must share its scale is kept together.

        Raises:
            InputError: a name or pattern is of no activation inside the graph.
        """
        graph = work.graph
        if work.precision == "int16x8":
            wide = {t.name for t in graph.activations()}
        else:
            groups, named = groups_inside(graph), set[str]()
            inside: set[str] = set().union(*groups)
            for pattern in self.keep:
                found = {name for name in inside if name == pattern or fnmatchcase(name, pattern)}
                if not found:
                    raise InputError(unknown("activation to keep in 16 bits", pattern, sorted(inside)))
                named |= found
            wide = set().union(*(group for group in groups if group & named))
        if not wide:
            return work
        promotion = _Promotion(graph, work.statistics, wide)
        for node in graph:
            promotion.add(node)
        made = replace(graph, nodes=tuple(promotion.nodes), tensors=promotion.tensors)
        return replace(work, graph=drop_dead(made), statistics=promotion.statistics)


class _Promotion:
    def __init__(self, graph: Graph, statistics: Mapping[str, ActivationStatistics], wide: Set[str]) -> None:
        self.wide = wide
        self.nodes: list[Node] = []
        self.tensors = dict(graph.tensors)
        self.statistics = dict(statistics)
        self._twins: dict[str, str] = {}

    def add(self, node: Node) -> None:
        """Add the node, in 16 bits where it touches a wide activation."""
        if not self.wide & {*node.inputs, node.output}:
            self.nodes.append(node)
            return
        node = replace(node, inputs=tuple(map(self._wide_twin, node.inputs)))
        if node.output in self.wide:
            self._compute(node)
            return
        twin = self._twins[node.output] = self._twin(node.output)
        self._compute(replace(node, output=twin))
        self.nodes.append(make_node("requantize", (twin,), node.output, node.source, to="int8"))

    def _wide_twin(self, name: str) -> str:
        """Return an input in 16 bits; it is made when it is asked for first."""
        if name in self.wide or isinstance(self.tensors[name], Constant):
            return name
        if name not in self._twins:
            self._twins[name] = self._twin(name)
            self.nodes.append(make_node("requantize", (name,), self._twins[name], to="int16"))
        return self._twins[name]

    def _twin(self, name: str) -> str:
        return self._activation(f"{name}{SUFFIX}", self.tensors[name].shape, self.statistics[name])

    def _activation(self, name: str, shape: tuple[int, ...], seen: ActivationStatistics) -> str:
        self.tensors[name] = Tensor(name=name, shape=shape)
        self.statistics[name] = seen
        return name

    def _constant(self, name: str, value: float) -> str:
        self.tensors[name] = Constant(name=name, value=np.array([value], np.float32))
        return name

    def _compute(self, node: Node) -> None:
        if node.op != "hard_swish":
            self.nodes.append(node)
            return
        (x,), out = node.inputs, node.output
        shape, seen = self.tensors[x].shape, self.statistics[x]
        ends = (np.zeros_like(seen.low), np.ones_like(seen.high))
        shifted, sixths = (replace(seen, low=ends[0], high=ends[1] * top) for top in (6, 1))  # all that 16 bits look at
        sum_ = self._activation(f"{out}.shifted", shape, shifted)
        gate = self._activation(f"{out}.gate", shape, sixths)
        three, sixth = self._constant(f"{out}.three", 3.0), self._constant(f"{out}.sixth", 1 / 6)
        self.nodes += [
            make_node("add", (x, three), sum_, node.source, activation="relu6"),
            make_node("mul", (sum_, sixth), gate, node.source),
            make_node("mul", (x, gate), out, node.source),
        ]
