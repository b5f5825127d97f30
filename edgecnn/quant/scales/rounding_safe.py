"""Rounding-safe scales: every runtime rounds alike with them (``edgecnn.graph.rounding`` has the multipliers)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import FIXED_OF
from edgecnn.graph.ir import Constant, Graph, Node, QParams
from edgecnn.graph.rounding import EVEN, FURTHEST, ODD, PRODUCTS, once_rounded, twice_rounded
from edgecnn.quant.scales.qparams import rescaled
from edgecnn.quant.scales.tables import COUNT, FUNCTIONS, apart, called, mean_apart

FINE = 1 + np.arange(480) / 2**14  # enlargements of a scale to choose from, up to 2.9 %, where many would do
SHRUNK, ENLARGED = 0.99, 1.03  # limits of a change, where few would do
FEW = 1024  # outputs of an op, of which the most scales of ``FINE`` or some lose none
STEPS_TO_THREE = 127  # the most steps of a hard swish's input to 3 with which ONNX Runtime holds ``x + 3`` in a byte
PARTS = np.linspace(0.95, 0.35, 7)  # of the largest ``e`` of a multiplier, of which a mean tries some
SHRINK, ENLARGE = 0.25, 1.25  # of a step by which those to 3 may be more; the most that a finer input is enlarged


def weight_trials(node: Node, source: QParams, made: QParams, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weight scales with which a layer of int8 rounds alike everywhere, no smaller than given, less ``ROOM``.

    Returns:
        (trials, channels).
    """
    ratio = float(source.scale[0]) / float(made.scale[0])
    alike = twice_rounded if node.op == "conv2d" else once_rounded
    return np.atleast_2d(alike(scales.astype(np.float64) * ratio) / ratio).astype(np.float32)


def streams(graph: Graph, chosen: dict[str, QParams]) -> list[set[str]]:
    """Return the activations whose scales adds of two activations tie together, where all of them are free."""
    parts = {name: {n for n in chosen if chosen[n] is quant} for name, quant in chosen.items()}
    linked = []
    for node in graph:
        if node.op == "add" and not _constants(graph, node):
            merged = set().union(*(parts[n] for n in (*node.inputs, node.output)))
            parts.update(dict.fromkeys(merged, merged))
            linked.append(node.output)
    unique = {id(parts[n]): parts[n] for n in linked}
    return [names for names in unique.values() if all(is_free(graph, chosen, n) for n in names)]


def is_free(graph: Graph, chosen: dict[str, QParams], name: str) -> bool:
    """Tell whether a step may choose the scale of an activation."""
    return name not in graph.inputs and chosen[name].dtype == "int8" and chosen[name] not in FIXED_OF.values()


def swish_scale(scale: float) -> float:
    """Return a scale of a hard swish's input near one: ``3 / k``, with which ``x + 3`` are integers of the same scale.

    ONNX Runtime then makes the hard swish of bytes, with one rounding. A scale that would change much stays.
    """
    steps = math.floor(3 / scale + SHRINK)
    if steps > STEPS_TO_THREE and 3 / STEPS_TO_THREE <= scale * ENLARGE:
        steps = STEPS_TO_THREE
    return 3 / steps if steps else scale


def is_table(graph: Graph, chosen: Mapping[str, QParams], node: Node) -> bool:
    """Tell whether ``best_scale`` can choose scales for a node: of 8 bits, and no sum of two activations."""
    known = node.op in FUNCTIONS or node.op == "mean"
    narrow = all(chosen[name].dtype == "int8" for name in (*node.inputs, node.output) if name in chosen)
    return known and narrow and (node.op != "add" or _constants(graph, node))


def best_scale(graph: Graph, chosen: dict[str, QParams], quant: QParams, nodes: list[Node]) -> float:
    """Return the scale of some activations with which runtimes round the fewest outputs of nodes apart.

    It is about as large as it was; of equals the smallest.

    Args:
        graph: constants are float.
        chosen: parameters of all activations.
        quant: of those activations.
        nodes: tables that read or make them; all their other activations have final scales.
    """
    scale = best = float(quant.scale[0])
    names = {name for name in chosen if chosen[name] is quant}
    counts = [_counter(graph, chosen, node, names) for node in nodes if node.op != "mean"]
    fewest = math.inf
    for trial in _trials(graph, chosen, nodes, names, scale):
        count = sum(each(rescaled(quant, trial)) for each in counts)
        if count < fewest:
            best, fewest = trial, count
        if not fewest:
            break
    return best


def _counter(graph: Graph, chosen: dict[str, QParams], node: Node, names: set[str]) -> Callable[[QParams], int]:
    """Return a function that counts what is apart in a node, from the parameters of some activations."""
    before = called(graph, node, chosen)

    def count(quant: QParams) -> int:
        if names.isdisjoint(node.inputs):
            return apart(node.op, replace(before, output=replace(before.output, quant=quant)))
        return apart(node.op, called(graph, node, {**chosen, **dict.fromkeys(names, quant)}))

    return count


def _trials(
    graph: Graph, chosen: dict[str, QParams], nodes: list[Node], names: set[str], scale: float
) -> NDArray[np.float64]:
    """Return the scales to choose from, the best first where nothing else decides."""
    for node in nodes:
        if node.op == "mean" and node.output in names:
            return _mean_scales(graph, node, chosen)
        power = sum(name in names for name in node.inputs) - (node.output in names)
        if node.op == "mul" and power and called(graph, node, chosen).values[0].size > FEW:
            operands = called(graph, node, chosen)
            multiplier = float(operands.scale(0)) * float(operands.scale(1)) / float(operands.scale(-1))
            trials = np.sort(scale * (PRODUCTS / multiplier) ** (1 / power))
            near = trials[(trials >= scale * SHRUNK) & (trials <= scale * ENLARGED)]
            return near if near.size else trials[trials >= scale][:1] if trials[-1] >= scale else scale * FINE[:1]
    return scale * FINE


def _mean_scales(graph: Graph, node: Node, chosen: dict[str, QParams]) -> NDArray[np.float64]:
    """Return scales of a mean's output: those that all runtimes round alike with, if there are any, or all but one.

    The latter give the multiplier an odd denominator. LiteRT's reference kernel, which rounds twice, is then apart.
    """
    made, count = float(chosen[node.output].scale[0]), math.prod(graph.tensors[node.inputs[0]].shape[1:3])
    pixel = float(chosen[node.inputs[0]].scale[0]) / count
    numerator = math.ceil(pixel / made * ODD)
    odd = 2 * math.ceil((numerator * made / pixel - 1) / 2) + 1
    once = pixel * (odd + 2 * np.arange(8)) / numerator
    if count > COUNT:
        return once
    before, found = called(graph, node, chosen), []
    for q, most in zip(EVEN, FURTHEST, strict=True):
        for step in q / (1 + PARTS * most):
            if SHRUNK * made <= pixel * step <= ENLARGED * made:
                quant = rescaled(chosen[node.output], pixel * step)
                if not mean_apart(replace(before, output=replace(before.output, quant=quant)), step):
                    found.append(pixel * step)
    return np.array(found) if found else once


def _constants(graph: Graph, node: Node) -> bool:
    return any(isinstance(graph.tensors[name], Constant) for name in node.inputs)
