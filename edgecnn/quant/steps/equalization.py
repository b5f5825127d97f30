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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node
from edgecnn.graph.ops import OPS
from edgecnn.quant.step import Stage, Step, Work, setting

if TYPE_CHECKING:
    from edgecnn.quant.observers.channels import Channels

HOMOGENEOUS = tuple(op for op, spec in OPS.items() if spec.homogeneous)
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the family, for weights with one scale per output channel
COARSE = (0.0, 0.5, 1.0)  # for those with one, which depend on a third vector
ROUNDS = 2  # over all groups: a layer's noise depends on the scaling of both its sides
LARGEST = 1e3  # of a channel's scaling, and its inverse: dead channels stay finite
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

    before, after = Stage.FLOAT, Stage.FLOAT
    limitable = True

    images: int = setting(48, "calibration images whose channel statistics decide", low=1)

    def apply(self, work: Work) -> Work:
        """Scale the groups of activations whose producers may all be changed."""
        from edgecnn.quant.observers.channels import channel_statistics

        if not len(work.images):
            return work
        seen = channel_statistics(work.graph, work.images[: self.images])
        graph = equalize(work.graph, seen, per_tensor=work.recipe.per_tensor, selects=self.selects)
        return replace(work, graph=graph)


def equalize(
    graph: Graph,
    statistics: Mapping[str, Channels],
    *,
    per_tensor: bool = False,
    selects: Callable[[Node], bool] = lambda node: True,
) -> Graph:
    """Return a float graph that computes the same, up to float rounding, and suffers less from int8.

    Where a ReLU6 is scaled, it computes the same on inputs like those of the statistics: see the module's docstring.

    Args:
        graph: float.
        statistics: of its activations.
        per_tensor: weights will have one scale per tensor.
        selects: layers whose outputs may be scaled.
    """
    work = _Scaling(graph, statistics, per_tensor)
    groups = [g for g in scalable(graph) if per_tensor or not g.clipped or _well_seen(graph, g)]
    groups = [g for g in groups if all(map(selects, g.producers))]
    for _ in range(ROUNDS):
        for group in groups:
            work.improve(group)
    return work.graph()


def _well_seen(graph: Graph, group: Group) -> bool:
    shapes = [graph.tensors[name].shape for name in group.clipped]
    return all(len(shape) == 4 and shape[1] * shape[2] >= WELL_SEEN for shape in shapes)


def scalable(graph: Graph) -> Iterator[Group]:
    """Yield the groups of activations that one vector may scale: between weighted layers, through homogeneous ops."""
    groups = {t.name: {t.name} for t in graph.activations()}
    fixed, clipped = {*graph.inputs, *graph.outputs}, set()
    for node in graph:
        names = [i for i in node.inputs if i in groups]
        if "relu6" in (node.op, node.attrs.get("activation")):
            clipped.add(node.output)
        if node.weighted:
            continue
        if node.op in HOMOGENEOUS and _keeps_channels(graph, node):
            merged = set().union(*(groups[n] for n in (*names, node.output)))
            groups.update(dict.fromkeys(merged, merged))
        else:
            fixed |= {*names, node.output}
    for group in {id(g): g for g in groups.values()}.values():
        producers = tuple(n for n in graph if n.weighted and n.output in group)
        consumers = tuple(n for n in graph if n.weighted and n.inputs[0] in group)
        if not group & fixed and producers and consumers:
            yield Group(
                tensors=tuple(sorted(group)),
                clipped=tuple(sorted(group & clipped)),
                producers=producers,
                consumers=consumers,
            )


def _keeps_channels(graph: Graph, node: Node) -> bool:
    channels = {graph.tensors[name].shape[-1] for name in (*node.inputs, node.output)}
    return len(channels) == 1 and not any(graph.tensors[name].is_constant for name in node.inputs)


class _Scaling:
    """Hold weights under way, float64, and the vector that each tensor is divided by so far."""

    def __init__(self, graph: Graph, statistics: Mapping[str, Channels], per_tensor: bool) -> None:
        self.source, self.statistics, self.per_tensor = graph, statistics, per_tensor
        self.scaling = {t.name: np.ones(t.shape[-1]) for t in graph.activations()}
        self.weights: dict[str, NDArray[np.float64]] = {}  # magnitudes (out, in / groups): the largest of a kernel's
        self.energy: dict[str, float] = {}
        for node in graph:
            if node.weighted:
                value = graph.tensors[node.inputs[1]].constant
                taps = np.abs(value.astype(np.float64)).reshape(value.shape[0], -1, value.shape[-1])
                self.weights[node.output] = taps.max(axis=1)
                self.energy[node.output] = float(statistics[node.output].square.sum()) + TINY

    def improve(self, group: Group) -> None:
        """Choose the best of the family for this group, given the others' present scaling."""
        name = group.tensors[0]
        reach = np.max([np.maximum(s.high, -s.low) for s in map(self.statistics.__getitem__, group.tensors)], axis=0)
        columns = _peaks([self._columns(n) for n in group.consumers])
        rows = _peaks([self._rows(n) for n in group.producers])
        high = np.max([np.zeros(reach.size), *(self.statistics[t].high for t in group.clipped)], axis=0)
        free, lowest = high * HEADROOM <= 6, high * HEADROOM / 6
        importance = self._importance(group)
        best, least = self.scaling[name], self._noise(group, self.scaling[name], importance)
        exponents = (COARSE, COARSE, COARSE) if self.per_tensor else (EXPONENTS, EXPONENTS, (0.0,))
        for a, w, r in product(*exponents):
            trial = (reach + TINY) ** a * (rows + TINY) ** r / (columns + TINY) ** w
            trial = np.clip(trial / np.exp(np.mean(np.log(trial))), 1 / LARGEST, LARGEST)
            for factor in FACTORS if group.clipped else (1.0,):
                bound = np.where(free, np.maximum(trial * factor, lowest), 1.0) if group.clipped else trial
                noise = self._noise(group, bound, importance)
                if noise < least:
                    best, least = bound, noise
        self.scaling.update(dict.fromkeys(group.tensors, best))

    def _columns(self, node: Node) -> Vector:
        """Return the largest weight that reads each input channel, beside the layer's largest output."""
        peaks: Vector = np.zeros(self.scaling[node.inputs[0]].size)
        np.maximum.at(peaks, _input_channels(self.source, node), self.weights[node.output])
        return peaks

    def _rows(self, node: Node) -> Vector:
        rows: Vector = self.weights[node.output] * self.scaling[node.inputs[0]][_input_channels(self.source, node)]
        largest: Vector = rows.max(axis=1)
        return largest

    def _importance(self, group: Group) -> Vector:
        """Return what a squared error of each channel becomes at the layers that read it, relatively."""
        importance = np.zeros(self.scaling[group.tensors[0]].size)
        for node in group.consumers:
            value = np.square(self.weights[node.output]) / self.energy[node.output]
            np.add.at(importance, _input_channels(self.source, node), value)
        return importance

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

    def _weight_noise(self, node: Node, before: Vector, after: Vector) -> float:
        channels = _input_channels(self.source, node)
        weights = self.weights[node.output] * before[channels] / after[:, None]
        steps = weights.max(axis=1) / 127
        if self.per_tensor:
            steps = np.full_like(steps, steps.max())
        power = (self.statistics[node.inputs[0]].square / np.square(before))[channels].sum(axis=1)
        return float((np.square(steps * after) * power).sum()) / 12 / self.energy[node.output]

    def graph(self) -> Graph:
        """Return the source with its weights and biases scaled."""
        changed = []
        for node in self.source:
            if not node.weighted:
                continue
            weight, bias = (self.source.tensors[i] for i in node.inputs[1:])
            before, after = self.scaling[node.inputs[0]], self.scaling[node.output]
            columns = before[_input_channels(self.source, node)]
            columns = columns.reshape(columns.shape[0], *[1] * (len(weight.shape) - 2), -1)
            scaled = weight.constant * columns / after.reshape(-1, *[1] * (len(weight.shape) - 1))
            changed.append(replace(weight, value=scaled.astype(np.float32)))
            changed.append(replace(bias, value=(bias.constant / after).astype(np.float32)))
        return self.source.with_tensors(*changed)


def _peaks(vectors: list[Vector]) -> Vector:
    """Return the largest of several layers' magnitudes, each beside its own largest."""
    peaks: Vector = np.max([v / max(float(v.max()), TINY) for v in vectors], axis=0)
    return peaks


def _input_channels(graph: Graph, node: Node) -> NDArray[np.int64]:
    """Return which input channel each weight reads: (out, in / groups)."""
    shape = graph.tensors[node.inputs[1]].shape
    groups = node.attrs.get("groups", 1)
    assert isinstance(groups, int)
    group = np.arange(shape[0]) // (shape[0] // groups)
    return group[:, None] * shape[-1] + np.arange(shape[-1])
