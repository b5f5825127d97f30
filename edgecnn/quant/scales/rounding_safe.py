"""Rounding-safe scales: every runtime rounds alike with them (``edgecnn.graph.rounding`` has the multipliers)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import CHOSEN
from edgecnn.graph.ir import Constant, Graph, Node, QParams
from edgecnn.graph.oracle.parameters import HIGH, LOW
from edgecnn.graph.rounding import MEANS, ODD, PRODUCTS, once_rounded, twice_rounded
from edgecnn.quant.scales.kernel_limits import operand_qparams
from edgecnn.quant.scales.qparams import parameters_of, rescaled
from edgecnn.quant.scales.rounding_counts import apart, called, is_elementwise, lost, mean_apart

FINE = 1 + np.arange(480) / 2**14  # enlargements of a scale that are tried where an op has ``FEW`` outputs
COARSE = 16  # one in so many of them is tried for slopes per channel
FEW = 1024
FEWEST_FACTORS = 4  # of more constants of a product, fewer scales are tried
COUNTED = {"prelu": lost, "mul": apart}  # ops whose constants' scale is chosen, and what is counted
SUMMED = ("mean", "batch_matmul")  # ops of sums, whose scales are chosen without a look at all of them
SHRUNK, ENLARGED = 0.99, 1.03  # limits of a scale's change where an op has more
STEPS_TO_THREE = 127  # the most steps of a hard swish's input to 3 with which ONNX Runtime holds ``x + 3`` in a byte
MEAN_ENLARGED = 1.2  # of a mean's output, whose multipliers lie further apart: it costs 0.1 dB at most
LOST = 1.5 * 2.0**-22  # of the sum of a mean's zero points: 1.5 times what OpenVINO was measured to lose
PIXELS = 256  # of a mean: of more, hardly any scale makes all runtimes alike
SHRINK, ENLARGE = 0.25, 1.25  # of a step to 3, by which there may be more; the most that a scale is enlarged


def weight_trials(node: Node, source: QParams, made: QParams, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weight scales with which a layer of int8 rounds alike everywhere, no smaller than given, less ``ROOM``.

    Returns:
        (trials, channels).
    """
    ratio = float(source.scale[0]) / float(made.scale[0])
    alike = twice_rounded if node.op == "conv2d" else once_rounded
    return np.atleast_2d(alike(scales.astype(np.float64) * ratio) / ratio).astype(np.float32)


def operand_parameters(graph: Graph, node: Node, operand: Constant) -> QParams:
    """Return parameters of a constant operand; of factors and slopes, those with which runtimes round alike.

    Where other ops tie the scales of the input and the output together, their ratio is given, and only the scale of the
    constant can move products off the halves. It is enlarged by 3 % at most. Of slopes, which runtimes compute in
    different ways, the products count that any of them may take across a half.

    Args:
        graph: its activations have final scales.
        node: not weighted.
        operand: float, an input of the node.
    """
    chosen = parameters_of(graph)
    others = (chosen[name] for name in node.inputs if name in chosen)
    plain = operand_qparams(node.op, operand.value, chosen[node.output], *others)
    if node.op not in COUNTED or not is_table(graph, chosen, node):
        return plain
    best, fewest = plain, math.inf
    step = COARSE if node.op == "mul" and operand.value.size > FEWEST_FACTORS else 1
    for factor in FINE[::step]:
        trial = rescaled(plain, float(plain.scale[0] * factor))
        count = COUNTED[node.op](node.op, called(graph, node, chosen, trial))
        if count < fewest:
            best, fewest = trial, count
        if not fewest:
            break
    return best


def streams(graph: Graph, chosen: dict[str, QParams], given: int = 0) -> list[set[str]]:
    """Return the activations whose scales adds of two activations tie together, where all but ``given`` are free."""
    parts = {name: {n for n in chosen if chosen[n] is quant} for name, quant in chosen.items()}
    linked = []
    for node in graph:
        if node.op == "add" and not _constants(graph, node):
            merged = set().union(*(parts[n] for n in (*node.inputs, node.output)))
            parts.update(dict.fromkeys(merged, merged))
            linked.append(node.output)
    unique = {id(parts[n]): parts[n] for n in linked}
    found = []
    for names in unique.values():
        fixed = {id(chosen[n]) for n in names if not is_free(graph, chosen, n)}
        if len(fixed) <= given and all(chosen[n].dtype == "int8" for n in names):
            found.append(names)
    return found


def is_free(graph: Graph, chosen: dict[str, QParams], name: str) -> bool:
    """Tell whether a step may choose the scale of an activation."""
    return name not in graph.inputs and chosen[name].dtype == "int8" and chosen[name] not in CHOSEN


def swish_scale(scale: float) -> float:
    """Return a scale of a hard swish's input near one: ``3 / k``, with which ``x + 3`` are integers of the same scale.

    ONNX Runtime then makes the hard swish of bytes, with one rounding. A scale that would change much stays.
    """
    steps = math.floor(3 / scale + SHRINK)
    if steps > STEPS_TO_THREE and scale * ENLARGE >= 3 / STEPS_TO_THREE:
        steps = STEPS_TO_THREE
    return 3 / steps if steps else scale


def is_table(graph: Graph, chosen: Mapping[str, QParams], node: Node) -> bool:
    """Tell whether ``best_parameters`` can choose scales for a node: of 8 bits, and no sum of two activations."""
    known = is_elementwise(node.op) or node.op in SUMMED
    narrow = all(chosen[name].dtype == "int8" for name in (*node.inputs, node.output) if name in chosen)
    return known and narrow and (node.op != "add" or _constants(graph, node))


def best_parameters(graph: Graph, chosen: dict[str, QParams], quant: QParams, nodes: list[Node]) -> QParams:
    """Return parameters of some activations with which runtimes round the fewest outputs of nodes apart.

    The scale is about as large as it was; of equals the smallest.

    Args:
        graph: constants are float.
        chosen: parameters of all activations.
        quant: of those activations.
        nodes: tables that read or make them; all their other activations have final scales.
    """
    names = {name for name in chosen if chosen[name] is quant}
    trials = (dict.fromkeys(names, trial) for trial in _trials(graph, chosen, nodes, names, quant))
    return fewest_apart(graph, chosen, nodes, trials)[min(names)]


def fewest_apart(
    graph: Graph, chosen: dict[str, QParams], nodes: list[Node], trials: Iterable[dict[str, QParams]]
) -> dict[str, QParams]:
    """Return the first of several choices of parameters with which runtimes round the fewest outputs apart.

    Args:
        graph: constants are float.
        chosen: parameters of all activations.
        nodes: tables to look at; sums are left out.
        trials: other parameters of some activations, the same ones each time.
    """
    before = [(node, called(graph, node, chosen)) for node in nodes if node.op not in SUMMED]
    best, fewest = dict[str, QParams](), math.inf
    for trial in trials:
        count = 0
        for node, call in before:
            if trial.keys().isdisjoint(node.inputs):
                call = replace(call, output=replace(call.output, quant=trial[node.output]))
            else:
                call = called(graph, node, chosen | trial)
            count += apart(node.op, call)
        if count < fewest:
            best, fewest = trial, count
        if not fewest:
            break
    return best


def _trials(
    graph: Graph, chosen: dict[str, QParams], nodes: list[Node], names: set[str], quant: QParams
) -> Iterator[QParams]:
    """Yield the parameters to choose from, the best first where nothing else decides."""
    scale = float(quant.scale[0])
    trials = scale * FINE
    for node in nodes:
        if node.op == "mean" and node.output in names:
            yield from _mean_parameters(graph, node, chosen)
            return
        if node.op == "prelu":  # one of 256 slopes is apart with any scale
            trials = scale * FINE[::COARSE]
        power = sum(name in names for name in node.inputs) - (node.output in names)
        if power and (multiplier := _multiplier(graph, node, chosen)) is not None:
            every = np.sort(scale * (PRODUCTS / multiplier) ** (1 / power))
            near = every[(every >= scale * SHRUNK) & (every <= scale * ENLARGED)]
            above = every[(every >= scale) & (every <= scale * ENLARGE)][:1]
            trials = next((some for some in (near, above) if some.size), trials)
            break
    for trial in trials:
        yield rescaled(quant, float(trial))


def _multiplier(graph: Graph, node: Node, chosen: dict[str, QParams]) -> float | None:
    """Return the multiplier of a product that has more outputs than can be looked at for each scale; else ``None``."""
    if node.op == "batch_matmul":
        first, second, made = (float(chosen[name].scale[0]) for name in (*node.inputs, node.output))
        return first * second / made
    if node.op != "mul" or len((call := called(graph, node, chosen)).values[0]) <= FEW:
        return None
    return float(call.scale(0)) * float(call.scale(1)) / float(call.scale(-1))


def _mean_parameters(graph: Graph, node: Node, chosen: dict[str, QParams]) -> Iterator[QParams]:
    """Yield parameters of a mean's output: those that all runtimes round alike with, or all but one.

    XNNPACK adds zero points in float32. That may take a sum back across a half which lies beyond it by little: the
    first half, if any, and it goes the right way where it lies below an even integer: with an odd zero point.

    Where there are none, the multiplier gets an odd denominator. LiteRT's reference kernel, which rounds twice, is then
    apart from all others.
    """
    quant, shape = chosen[node.output], graph.tensors[node.inputs[0]].shape
    made, count = float(quant.scale[0]), math.prod(shape[1:3])
    pixel = float(chosen[node.inputs[0]].scale[0]) / count
    numerator = math.ceil(pixel / made * ODD)
    odd = 2 * math.ceil((numerator * made / pixel - 1) / 2) + 1
    once = pixel * (odd + 2 * np.arange(8)) / numerator
    before, twice = called(graph, node, chosen), 1 / MEANS
    twice = twice[np.rint(twice) - twice >= LOST * count * (before.zero(0) - LOW)]
    steps = np.concatenate([twice, once / pixel]) if count <= PIXELS else once[:0]
    for step in np.sort(steps[(steps * pixel >= SHRUNK * made) & (steps * pixel <= MEAN_ENLARGED * made)]):
        plain = rescaled(quant, pixel * step)
        for trial in (plain, replace(plain, zero_point=plain.zero_point + (plain.zero_point < HIGH))):
            if not mean_apart(replace(before, output=replace(before.output, quant=trial)), step):
                yield trial
    for trial in once:
        yield rescaled(quant, float(trial))


def _constants(graph: Graph, node: Node) -> bool:
    return any(isinstance(graph.tensors[name], Constant) for name in node.inputs)
