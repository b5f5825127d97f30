"""Cross-layer equalization: channels are scaled so that integers cost them less, and the network computes the same.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1: where
an activation is positively homogeneous, dividing channel ``c`` of its producers by ``s[c]`` and multiplying its
consumers' weights for that channel by it changes nothing. There ``s`` makes the ranges of both layers' weights equal,
because weights had one scale per tensor. Here it is chosen from a family that holds theirs, by the noise that int8
would make: of the activation (one scale per tensor) and of the weights (one scale per output channel, or per tensor).

A residual stream, whose tensors are joined by additions, is scaled as one.

A ReLU6 is homogeneous only where it does not clip. Its channels are scaled only for per-tensor weights, which need it,
and in large maps, where a few images show all that there is; of them only those that stay ``HEADROOM`` below 6 on the
images seen, and only so far that they still do.

A channel's scaling is no better known than its values are. One that ``RARE`` images or fewer made large keeps its scale
and takes no part in the choice of others. The scaling of any is at most its support (``ActivationStatistics``) and, but
for per-tensor weights, ``LARGEST``: images of another kind may excite other channels. The same holds for the inverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.step import Stage, Step, Work, setting

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import ActivationStatistics

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the family, for weights with one scale per output channel
COARSE = (0.0, 0.5, 1.0)  # for those with one, which depend on a third vector
ROUNDS = 2  # over all groups: a layer's noise depends on the scaling of both its sides
RARE = 3.0  # images: a channel that no more made large keeps its scale
LARGEST = 4.0  # of a channel's scaling, and its inverse; MobileNetV2 gains nothing by more
TINY = 1e-12
WELL_SEEN = 2000  # positions in a map, from which on a few images show how far a ReLU6's channels go
HEADROOM = 1.25  # between the largest value seen of a ReLU6's channel and its clip, before and after
FACTORS = (0.5, 1.0, 2.0, 4.0)  # tried on the whole vector where a clip fixes the unit

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Name activations whose channels are scaled by one vector.

    Attributes:
        tensors: their names.
        clipped: those of them that a relu6 makes.
        producers, consumers: the weighted layers around them.
    """

    tensors: tuple[str, ...]
    clipped: tuple[str, ...]
    producers: tuple[Node, ...]
    consumers: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class Equalization(Step):
    """Scale channels so that integers cost them less (cross-layer equalization, Nagel et al. 2019, section 4.1).

    Weights with one scale per tensor have the channels of ReLU6 layers scaled too.
    """

    before, after = Stage.CALIBRATED, Stage.CALIBRATED
    limitable = True

    strength: float = setting(1.0, "power that the scaling is raised to: 0.5 goes half of the way", low=0.0, high=1)

    def damped(self) -> Step:
        """Return the step that goes half of the way."""
        return replace(self, strength=self.strength / 2)

    def apply(self, work: Work) -> Work:
        graph, per_tensor = work.graph, work.recipe.per_tensor
        scaling = _Scaling(graph, work.statistics, per_tensor)
        groups = [g for g in scalable(graph) if all(map(self.selects, g.producers))]
        if not per_tensor:
            large = {t.name for t in graph.activations() if math.prod(t.shape[1:-1]) >= WELL_SEEN}
            groups = [g for g in groups if large.issuperset(g.clipped)]
        for _ in range(ROUNDS):
            for group in groups:
                scaling.improve(group)
        scaling.scaling = {name: vector**self.strength for name, vector in scaling.scaling.items()}
        seen = {name: each.divided(scaling.scaling[name]) for name, each in work.statistics.items()}
        return replace(work, graph=scaling.graph(), statistics=seen)


def scalable(graph: Graph) -> Iterator[Group]:
    """Yield the groups of activations that one vector may scale: between weighted layers, through homogeneous ops."""
    groups = {t.name: {t.name} for t in graph.activations()}
    fixed, clipped = {*graph.inputs, *graph.outputs}, set()
    for node in graph:
        names = {*node.inputs, node.output}
        if "relu6" in (node.op, node.attrs.get("activation")):
            clipped.add(node.output)
        if node.weighted:
            continue
        if node.spec.homogeneous and names <= groups.keys() and _keeps_channels(graph, node):
            merged = set().union(*(groups[n] for n in names))
            groups.update(dict.fromkeys(merged, merged))
        else:
            fixed |= names
    for group in {id(g): g for g in groups.values()}.values():
        producers = tuple(n for n in graph if n.weighted and n.output in group)
        consumers = tuple(n for n in graph if n.weighted and n.inputs[0] in group)
        if not group & fixed and producers and consumers:
            tensors, sixes = tuple(sorted(group)), tuple(sorted(group & clipped))
            yield Group(tensors=tensors, clipped=sixes, producers=producers, consumers=consumers)


def _keeps_channels(graph: Graph, node: Node) -> bool:
    """Tell whether the last dimension of what a node reads and makes is the same one, in the same order."""
    ranks = [len(graph.tensors[name].shape) for name in (*node.inputs, node.output)]
    attrs: Mapping[str, Any] = node.attrs
    if node.op == "gather" and attrs["axis"] == ranks[0] - 1:
        return False
    if node.op == "transpose" and attrs["perm"][-1] != ranks[0] - 1:
        return False
    return len({graph.tensors[name].shape[-1] for name in (*node.inputs, node.output)}) == 1


class _Scaling:
    """Hold weights under way, float64, and the vector that each tensor is divided by so far."""

    def __init__(self, graph: Graph, statistics: Mapping[str, ActivationStatistics], per_tensor: bool) -> None:
        self.source, self.statistics, self.per_tensor = graph, statistics, per_tensor
        self.square = {name: seen.square for name, seen in statistics.items()}
        self.scaling = {t.name: np.ones(t.shape[-1]) for t in graph.activations()}
        self.weights: dict[str, NDArray[np.float64]] = {}  # largest of a kernel (groups, out / groups, in / groups)
        self.energy: dict[str, float] = {}
        for node in graph:
            if node.weighted:
                value = graph.constant(node.inputs[1]).value
                attrs: Mapping[str, Any] = node.attrs
                groups = attrs.get("groups", 1)
                taps = np.abs(value.astype(np.float64)).reshape(groups, len(value) // groups, -1, value.shape[-1])
                self.weights[node.output] = taps.max(axis=2)
                self.energy[node.output] = float(self.square[node.output].sum()) + TINY

    def improve(self, group: Group) -> None:
        """Choose the best of the family for this group, given the others' present scaling."""
        name = group.tensors[0]
        reach = np.max([self.statistics[t].reach for t in group.tensors], axis=0)
        support = np.max([self.statistics[t].support for t in group.tensors], axis=0)
        known, most = support > RARE, np.clip(support, 1, None if self.per_tensor else LARGEST)
        if not known.any():
            return
        columns, importance = np.zeros(reach.size), np.zeros(reach.size)
        for node in group.consumers:
            weights = self.weights[node.output]
            columns = np.maximum(columns, weights.max(axis=1).reshape(-1) / max(float(weights.max()), TINY))
            importance += np.square(weights).sum(axis=1).reshape(-1) / self.energy[node.output]
        rows = np.zeros(reach.size)
        for node in group.producers:
            peaks = self._peaks(node, self.scaling[node.inputs[0]]).reshape(-1)
            rows = np.maximum(rows, peaks / max(float(peaks.max()), TINY))
        high = np.max([np.zeros(reach.size), *(self.statistics[t].high for t in group.clipped)], axis=0)
        free, lowest = high * HEADROOM <= 6, high * HEADROOM / 6
        best, least = self.scaling[name], self._noise(group, self.scaling[name], importance)
        exponents = (COARSE, COARSE, COARSE) if self.per_tensor else (EXPONENTS, EXPONENTS, (0.0,))
        for a, w, r in product(*exponents):
            trial = (reach + TINY) ** a * (rows + TINY) ** r / (columns + TINY) ** w
            trial = np.where(known, trial / np.exp(np.mean(np.log(trial[known]))), 1.0)
            for factor in FACTORS if group.clipped else (1.0,):
                bound = np.clip(trial * factor, 1 / most, most)
                if group.clipped:
                    bound = np.where(free & known, np.maximum(bound, lowest), 1.0)
                noise = self._noise(group, bound, importance)
                if noise < least:
                    best, least = bound, noise
        self.scaling.update(dict.fromkeys(group.tensors, best))

    def _noise(self, group: Group, scaling: Vector, importance: Vector) -> float:
        """Return the expected relative squared error at the group's weighted layers, if it were scaled so."""
        total = sum(self._weight_noise(node, scaling, self.scaling[node.output]) for node in group.consumers)
        if self.per_tensor:
            total += sum(self._weight_noise(n, self.scaling[n.inputs[0]], scaling) for n in group.producers)
        for name in group.tensors:
            seen = self.statistics[name]
            step = (max((seen.high / scaling).max(), 0) - min((seen.low / scaling).min(), 0)) / 255
            total += step**2 / 12 * float((np.square(scaling) * importance).sum())
        return float(total)

    def _peaks(self, node: Node, before: Vector) -> NDArray[np.float64]:
        """Return the largest weight of each output channel, ``(groups, out / groups)``, of an input scaled so."""
        weights = self.weights[node.output]
        return np.asarray((weights * before.reshape(len(weights), 1, -1)).max(axis=2))

    def _weight_noise(self, node: Node, before: Vector, after: Vector) -> float:
        peaks = self._peaks(node, before)
        if self.per_tensor:
            peaks = (peaks.reshape(-1) / after).max() * after.reshape(peaks.shape)
        power = (self.square[node.inputs[0]] / np.square(before)).reshape(len(peaks), -1).sum(axis=1)
        steps = np.square(peaks / 127).sum(axis=1)
        return float((steps * power).sum()) / 12 / self.energy[node.output]

    def graph(self) -> Graph:
        """Return the source with its weights and biases scaled."""
        changed = []
        for node in self.source:
            if not node.weighted:
                continue
            weight, bias = (self.source.constant(i) for i in node.inputs[1:])
            before, after = self.scaling[node.inputs[0]], self.scaling[node.output]
            groups, _, depth = self.weights[node.output].shape
            columns = np.repeat(before.reshape(groups, depth), len(weight.value) // groups, axis=0)
            columns = columns.reshape(len(columns), *[1] * (len(weight.shape) - 2), depth)
            scaled = weight.value * columns / after.reshape(-1, *[1] * (len(weight.shape) - 1))
            changed.append(replace(weight, value=scaled.astype(np.float32)))
            changed.append(replace(bias, value=(bias.value / after).astype(np.float32)))
        return self.source.with_tensors(*changed)
