"""Rounding-safe scales: scales of activations are final after this step, and every runtime rounds alike with them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgecnn.graph.ir import Graph, Node, QParams
from edgecnn.graph.rounding import BEYOND, EVEN, ODD
from edgecnn.quant.scales.qparams import parameters_of, rescale, with_parameters
from edgecnn.quant.scales.rounding_safe import is_free, streams
from edgecnn.quant.step import Stage, Step, Work

FEWEST = 101  # units in the finest scale of an add: to the next odd number of them it is 2 % at most
TOLERATED = 0.2  # of a unit by which a scale may shrink


@dataclass(frozen=True, kw_only=True)
class RoundingSafeScales(Step):
    """Move the scales of additions, means and products a little, so that no sum lies where two runtimes part.

    Runtimes round ties differently, so scales are picked that produce none (docs/numerics.md). Those of an add, and of
    all adds they lead to, become odd multiples of one unit. A mean's output gets an odd denominator: float kernels
    agree then; LiteRT's reference kernel, which rounds twice, is a step away in a few of 100.
    """

    before, after = Stage.SCALED, Stage.FINAL

    def apply(self, work: Work) -> Work:
        graph, chosen, done = work.graph, parameters_of(work.graph), set[str]()
        for names in streams(graph, chosen):
            done |= names
            grids = {id(chosen[name]): chosen[name] for name in names}
            unit = min(float(quant.scale[0]) for quant in grids.values()) / FEWEST
            for quant in grids.values():
                units = 2 * math.ceil((float(quant.scale[0]) / unit - TOLERATED - 1) / 2) + 1
                rescale(chosen, quant, units * unit)
        for node in graph:
            if node.op in ("mean", "mul") and node.output not in done and is_free(graph, chosen, node.output):
                scale = (_mean_scale if node.op == "mean" else _product_scale)(graph, node, chosen)
                rescale(chosen, chosen[node.output], scale)
        return replace(work, graph=with_parameters(graph, chosen))


def _mean_scale(graph: Graph, node: Node, chosen: dict[str, QParams]) -> float:
    made, (source, *_) = float(chosen[node.output].scale[0]), node.inputs
    pixel = float(chosen[source].scale[0]) / math.prod(graph.tensors[source].shape[1:3])
    numerator = math.ceil(pixel / made * ODD)
    return pixel * (2 * math.ceil((numerator * made / pixel - 1) / 2) + 1) / numerator


def _product_scale(graph: Graph, node: Node, chosen: dict[str, QParams]) -> float:
    made = float(chosen[node.output].scale[0])
    step = math.prod(float(chosen[name].scale[0]) for name in node.inputs if name in chosen)
    place = int(np.searchsorted(EVEN, made / step))
    if any(name not in chosen for name in node.inputs) or place == len(EVEN):
        return made
    return step * float(EVEN[place] / (1 + BEYOND[place]))
