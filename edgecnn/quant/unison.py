"""Scales with which every runtime rounds alike: no sum falls where two arithmetics may part.

A sum ``a`` of integers becomes an output integer as ``a * m`` rounded, ``m = s_in s_w / s_out``. Kernels differ in how
they round: once in float32, halves to even (XNNPACK, ONNX Runtime, OpenVINO), or twice in fixed point, halves away from
zero (LiteRT's reference kernels, TFLite Micro, CMSIS-NN, Ethos-U): to a multiple of ``2**-s`` first, where
``m = m0 * 2**-s`` and ``0.5 <= m0 < 1``, then to an integer. They part where ``a * m`` is a half to seven digits, and
where the first rounding makes it one: at up to ``2**-(s+1)`` below. With

    m = (1 + e) / q,    q even,    0 < e < (2**s / q - 1/2) / (2**s * 255.5)

neither happens within the 256 integers there are. The sums next to a half, ``a = q (n + 1/2)``, lie ``(n + 1/2) e``
beyond it, more than float32 loses, so all round them away from zero; and the next sum before it, ``m`` further down, is
far enough from it that the first of two roundings leaves it there. Where a kernel rounds once in any arithmetic (linear
layers, and every layer with ``m >= 1/2``) ``m = p / q`` with an odd ``q`` is enough, and so it is for the
``a s_a + b s_b`` of an add: no multiple of ``1 / q`` is a half.

Sources: gemmlowp ``fixedpoint.h`` (the two roundings); Jacob et al. 2018, section 2.2 (``m``). The choice is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import FIXED_OF
from edgecnn.graph.ir import Graph, Node, QParams
from edgecnn.quant.scheme import rescaled

REACH = 255.5  # the half furthest from zero between two of 256 integers
LEAST = 2.0**-22  # of e: three roundings in float32 lose up to 3 * 2**-24 of a value
CHOICES = 16  # multipliers to choose from: with one of them, the largest weight lies near an integer again
ODD = 2047  # the finest odd denominator, where the multiplier leaves a choice
FEWEST = 101  # units in the finest scale of an add: to the next odd number of them it is 2 % at most
TOLERATED = 0.2  # of a unit by which a scale may shrink
ROOM = 127.5 / 127  # a weight that much beyond the largest integer still rounds to it
HALF = 0.5 * (1 + 2**-12)  # the largest multiplier of the kind above: it is rounded once

Reals = NDArray[np.float64]


def _table() -> tuple[NDArray[np.int64], Reals]:
    """The even ``q`` there are, ascending, and the ``e`` of each: the geometric mean of what bounds it."""
    q = np.arange(2, 4096, 2)
    power = 2.0 ** np.floor(np.log2(q))
    most = (power / q - 0.5) / (power * REACH)
    fits = (most > 1.5 * LEAST) & (power < q)
    return q[fits], np.sqrt(most[fits] * LEAST)


EVEN, BEYOND = _table()


# --- multipliers of weighted layers ---


def twice_rounded(wanted: Reals) -> Reals:
    """Multipliers of convolutions that are no smaller than wanted, less ``ROOM``: the ``CHOICES`` next ones, ascending.

    Args:
        wanted: (channels,), positive. Those beyond 1 / 6, of layers that read few integers, become 1 / 2 or as
            ``once_rounded`` says.

    Returns:
        (CHOICES, channels).
    """
    place = np.searchsorted(EVEN, ROOM / wanted, side="right") - 1
    places = np.maximum(place - np.arange(CHOICES)[:, None], 0)
    large = np.where(wanted <= HALF, HALF, once_rounded(wanted))
    chosen: Reals = np.where(place >= 0, (1 + BEYOND[places]) / EVEN[places], large)
    return chosen


def once_rounded(wanted: Reals) -> Reals:
    """Fractions with an odd denominator, no smaller than wanted, less ``ROOM``."""
    wanted = wanted / ROOM
    numerator = np.ceil(wanted * ODD)
    chosen: Reals = numerator / (2 * np.floor((numerator / wanted + 1) / 2) - 1)
    return chosen


def weight_trials(node: Node, source: QParams, made: QParams, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weight scales with which a layer of int8 rounds alike everywhere, no smaller than given, less ``ROOM``.

    Returns:
        (trials, channels).
    """
    ratio = float(source.scale[0]) / float(made.scale[0])
    alike = twice_rounded if node.op == "conv2d" else once_rounded
    return np.atleast_2d(alike(scales.astype(np.float64) * ratio) / ratio).astype(np.float32)


def past_halves(multiplier: Reals) -> NDArray[np.bool_]:
    """Which multipliers are ``(1 + e) / q`` with an even ``q``, so that sums come to lie next to halves, beyond them.

    A part of a sum's unit may be added to all sums of such a layer: none of them crosses a half, and those next to one
    are as far from it as they can be.
    """
    q = 2 * np.rint(0.5 / multiplier)
    beyond = multiplier * q - 1
    found: NDArray[np.bool_] = (q >= 2) & (beyond > 0) & (beyond < 2.0**-11)
    return found


# --- scales of activations ---


def in_unison(graph: Graph, chosen: dict[str, QParams]) -> None:
    """Change the scales of activations a little, in place, so that adds, means and products round alike everywhere.

    Those of an add, and of all adds they lead to, become odd multiples of one unit. A mean's output gets an odd
    denominator: float kernels agree then; LiteRT's reference kernel, which rounds twice, is a step away in a few of
    100.

    Args:
        graph: float.
        chosen: parameters by activation; those that must share a scale are one object.
    """
    settled: set[str] = set()
    for names in _added(graph, chosen):
        settled |= names
        grids = {id(chosen[name]): chosen[name] for name in names}
        unit = min(float(quant.scale[0]) for quant in grids.values()) / FEWEST
        for quant in grids.values():
            units = 2 * math.ceil((float(quant.scale[0]) / unit - TOLERATED - 1) / 2) + 1
            _rescale(chosen, quant, units * unit)
    for node in graph:
        if node.op in ("mean", "mul") and node.output not in settled and _free(graph, chosen, node.output):
            scale = (_mean_scale if node.op == "mean" else _product_scale)(graph, node, chosen)
            _rescale(chosen, chosen[node.output], scale)


def added(graph: Graph) -> set[str]:
    """The activations inside the network that adds read and make."""
    names = {name for node in graph if node.op == "add" for name in (*node.inputs, node.output)}
    return {name for name in names if graph.producer(name) is not None}


def share_scales(graph: Graph, chosen: dict[str, QParams], weights: Mapping[str, float]) -> None:
    """Give the activations that adds join one scale, in place, where that makes less noise: such an add rounds nothing.

    Of every stream the run of adds for which it pays most. Lower ends stay.

    Args:
        graph: float.
        chosen: as above.
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
    """The activations whose scales adds tie together, where all of them are free."""
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
