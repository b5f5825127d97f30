"""Shared scales: what additions join gets one scale, where rounding once makes less noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecnn.graph.ir import Graph
from edgecnn.quant.scales.qparams import parameters_of, rescale, with_parameters
from edgecnn.quant.scales.rounding_safe import streams
from edgecnn.quant.step import Stage, Step, Work, setting


@dataclass(frozen=True, kw_only=True)
class SharedScales(Step):
    """Give the inputs and outputs of additions one scale where that pays: such an addition rounds nothing.

    Of each residual stream that run of additions shares a scale for which it pays most, by gradient sensitivity.
    """

    before, after = Stage.SCALED, Stage.SCALED

    images: int = setting(16, "calibration images on which gradients are taken", low=1)

    def apply(self, work: Work) -> Work:
        from edgecnn.quant.observers.gradient_sensitivity import gradient_sensitivity

        graph, chosen = work.graph, parameters_of(work.graph)
        found = gradient_sensitivity(graph, added(graph), work.images[: self.images])
        weights = {name: float(each.sum()) for name, each in found.items()}
        for names in streams(graph, chosen):
            scale = {name: float(chosen[name].scale[0]) for name in sorted(names)}
            adds = [node for node in graph if node.op == "add" and {*node.inputs, node.output} <= names]
            shared, least = set[str](), 0.0
            for first in range(len(adds)):
                joined, exact = set[str](), set[str]()
                for node in adds[first:]:
                    joined |= {*node.inputs, node.output}
                    exact.add(node.output)
                    largest = max(scale[name] for name in joined)
                    rounded = sum(weights[name] for name in scale if name in joined - exact) * largest**2
                    more = rounded - sum(weights[name] * scale[name] ** 2 for name in scale if name in joined)
                    if more < least:
                        shared, least = set(joined), more
            for quant in {id(chosen[name]): chosen[name] for name in sorted(shared)}.values():
                rescale(chosen, quant, max(scale[name] for name in shared))
        return replace(work, graph=with_parameters(graph, chosen))


def added(graph: Graph) -> set[str]:
    """Return the activations inside the network that adds read and make."""
    names = {name for node in graph if node.op == "add" for name in (*node.inputs, node.output)}
    return {name for name in names if graph.producer(name) is not None}
