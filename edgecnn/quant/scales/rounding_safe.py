"""Rounding-safe scales: every runtime rounds alike with them (``edgecnn.graph.rounding`` has the multipliers)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import FIXED_OF
from edgecnn.graph.ir import Graph, Node, QParams
from edgecnn.graph.rounding import BEYOND, EVEN, ODD, once_rounded, twice_rounded
from edgecnn.quant.scales.qparams import rescaled

FEWEST = 101  # units in the finest scale of an add: to the next odd number of them it is 2 % at most
TOLERATED = 0.2  # of a unit by which a scale may shrink


def weight_trials(node: Node, source: QParams, made: QParams, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weight scales with which a layer of int8 rounds alike everywhere, no smaller than given, less ``ROOM``.

    Returns:
        (trials, channels).
    """
    ratio = float(source.scale[0]) / float(made.scale[0])
    alike = twice_rounded if node.op == "conv2d" else once_rounded
    return np.atleast_2d(alike(scales.astype(np.float64) * ratio) / ratio).astype(np.float32)


def make_rounding_safe(graph: Graph, chosen: dict[str, QParams]) -> None:
    """Change the scales of activations a little, in place, so that adds, means and products round alike everywhere.

    Those of an add, and of all adds they lead to, become odd multiples of one unit. A mean's output gets an odd
    denominator: float kernels agree then; LiteRT's reference kernel, which rounds twice, is a step away in a few of
    100.

    Args:
        graph: float.
        chosen: parameters by activation; those that must share a scale are one object.
    """
    done: set[str] = set()
    for names in _added(graph, chosen):
        done |= names
        grids = {id(chosen[name]): chosen[name] for name in names}
        unit = min(float(quant.scale[0]) for quant in grids.values()) / FEWEST
        for quant in grids.values():
            units = 2 * math.ceil((float(quant.scale[0]) / unit - TOLERATED - 1) / 2) + 1
            _rescale(chosen, quant, units * unit)
    for node in graph:
        if node.op in ("mean", "mul") and node.output not in done and _free(graph, chosen, node.output):
            scale = (_mean_scale if node.op == "mean" else _product_scale)(graph, node, chosen)
            _rescale(chosen, chosen[node.output], scale)


def added(graph: Graph) -> set[str]:
    """Return the activations inside the network that adds read and make."""
    names = {name for node in graph if node.op == "add" for name in (*node.inputs, node.output)}
    return {name for name in names if graph.producer(name) is not None}


def share_scales(graph: Graph, chosen: dict[str, QParams], weights: Mapping[str, float]) -> None:
    """Give the activations that adds join one scale, in place, where that makes less noise: such an add rounds nothing.

    Of every stream the run of adds for which it pays most. Lower ends stay.

    Args:
        graph: float.
        chosen: as in ``make_rounding_safe``.
        weights: what a squared step of each of the activations that ``added`` names is worth.
    """
    for names in _added(graph, chosen):
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
            _rescale(chosen, quant, max(scale[name] for name in shared))


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


def _added(graph: Graph, chosen: dict[str, QParams]) -> list[set[str]]:
    """Return the activations whose scales adds tie together, where all of them are free."""
    parts = {name: {n for n in chosen if chosen[n] is quant} for name, quant in chosen.items()}
    linked = []
    for node in graph:
        if node.op == "add":
            merged = set().union(*(parts[n] for n in (*node.inputs, node.output) if n in parts))
            parts.update(dict.fromkeys(merged, merged))
            linked.append(node.output)
    unique = {id(parts[n]): parts[n] for n in linked}
    return [names for names in unique.values() if all(_free(graph, chosen, n) for n in names)]


def _free(graph: Graph, chosen: dict[str, QParams], name: str) -> bool:
    return name not in graph.inputs and chosen[name].dtype == "int8" and chosen[name] not in FIXED_OF.values()


def _rescale(chosen: dict[str, QParams], quant: QParams, scale: float) -> None:
    if np.float32(scale) != quant.scale[0]:
        chosen.update(dict.fromkeys([name for name in chosen if chosen[name] is quant], rescaled(quant, scale)))
