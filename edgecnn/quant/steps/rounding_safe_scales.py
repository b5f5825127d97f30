"""Rounding-safe scales: scales of activations are final after this step, and every runtime rounds alike with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from edgecnn.graph.ir import Graph, Node, QParams
from edgecnn.quant.scales.qparams import parameters_of, rescale, rescaled, with_parameters
from edgecnn.quant.scales.rounding_safe import (
    FINE,
    best_parameters,
    fewest_apart,
    is_free,
    is_table,
    streams,
    swish_scale,
)
from edgecnn.quant.step import Stage, Step, Work

UNITS = 2001  # in the largest scale of an add: no sum is nearer to a half than 1 / 4,002 of a step
TOLERATED = 0.2  # of a unit by which a scale may shrink


@dataclass(frozen=True, kw_only=True)
class RoundingSafeScales(Step):
    """Move the scales of additions, products, means and tables a little, so that runtimes round their outputs alike.

    Runtimes round ties differently, so scales are picked that produce none (docs/numerics.md). Those of an add, and of
    all adds they lead to, become odd multiples of a unit. Each other scale then takes the first value with which the
    products and tables (hard swish, sigmoid, operands that are constants) between final scales are alike everywhere.
    """

    before, after = Stage.SCALED, Stage.FINAL

    def apply(self, work: Work) -> Work:
        graph, chosen = work.graph, parameters_of(work.graph)
        final = {name for name in chosen if not is_free(graph, chosen, name)}
        tables = [node for node in graph if is_table(graph, chosen, node)]
        tied = streams(graph, chosen, given=1)
        swishes = [node.inputs[0] for node in tables if node.op == "hard_swish" and node.inputs[0] not in final]
        for name in swishes:
            if not any(name in names for names in tied):
                rescale(chosen, chosen[name], swish_scale(float(chosen[name].scale[0])))
                final |= _sharing(chosen, chosen[name])
        for names in tied:
            held = [name for name in sorted(names) if name in final]
            final |= names
            nodes = [node for node in tables if _decided_by(node, names, chosen, final)]
            nodes = [node for node in nodes if sum(name in chosen for name in node.inputs) == 1]
            trials = _streams(graph, chosen, names, held, [name for name in swishes if name in names])
            chosen.update(fewest_apart(graph, chosen, nodes, trials))
        made = [node.output for node in graph]
        for place, name in enumerate(made):
            names = _sharing(chosen, chosen[name])
            if name in final or not names.isdisjoint(made[place + 1 :]):  # the last of them decides
                continue
            final |= names
            nodes = [node for node in tables if _decided_by(node, names, chosen, final)]
            if nodes:
                chosen.update(dict.fromkeys(names, best_parameters(graph, chosen, chosen[name], nodes)))
        return replace(work, graph=with_parameters(graph, chosen))


def _streams(
    graph: Graph, chosen: dict[str, QParams], names: set[str], held: list[str], swishes: list[str]
) -> Iterator[dict[str, QParams]]:
    """Yield parameters of what adds tie together: the scales of each add are odd multiples of a unit of its own.

    Args:
        graph: whose adds they are.
        chosen: parameters so far.
        names: tied activations.
        held: those whose scale must stay.
        swishes: those that a hard swish reads; the first has its way.
    """
    adds = [
        {id(chosen[name]): float(chosen[name].scale[0]) for name in (*node.inputs, node.output)}
        for node in graph
        if node.op == "add" and node.output in names and chosen.keys() >= set(node.inputs)
    ]
    grids = {id(chosen[name]): chosen[name] for name in names}
    first = id(chosen[held[0]]) if held else id(chosen[swishes[0]]) if swishes else next(iter(adds[0]))
    anchor = float(grids[first].scale[0])
    shares = _shares(adds, first, anchor)
    anchor = swish_scale(anchor) if swishes and not held else anchor
    for factor in FINE[:1] if held or swishes else FINE:
        made = {key: rescaled(grids[key], float(share) * anchor * float(factor)) for key, share in shares.items()}
        yield {name: chosen[name] if name in held else made[id(chosen[name])] for name in names}


def _shares(adds: list[dict[int, float]], first: int, anchor: float) -> dict[int, Fraction]:
    """Return ratios of scales, in which no add of two activations has a tie: odd numbers over odd numbers.

    The sums of an add are then at least ``1 / 2 n`` from a half, where the output's scale is ``n`` of its units.
    Runtimes compute them in float32, or with multipliers of 21 bits that lose ``255 / 2**20`` at most. A scale far
    below the largest gets few units: its steps are far below that of the sum, so it may well be coarser.

    Args:
        adds: of each, the keys of its scales, and these.
        first: the key of a scale that stays.
        anchor: that scale.
    """
    shares, left = {first: Fraction(1)}, list(adds)
    while left:
        add = max(left, key=lambda each: any(key in shares for key in each))
        left.remove(add)
        known = [shares[key] for key in add if key in shares]
        whole = Fraction(math.gcd(*(k.numerator for k in known)), math.lcm(*(k.denominator for k in known)))
        unit = whole / _odd(float(whole) * anchor / max(add.values()) * UNITS)
        for key, scale in add.items():
            if key not in shares:
                shares[key] = unit * _odd(scale / (float(unit) * anchor) - TOLERATED)
    return shares


def _sharing(chosen: dict[str, QParams], quant: QParams) -> set[str]:
    return {name for name in chosen if chosen[name] is quant}


def _decided_by(node: Node, names: set[str], chosen: dict[str, QParams], final: set[str]) -> bool:
    """Tell whether some activations are the last whose scale a node waited for."""
    activations = {name for name in (*node.inputs, node.output) if name in chosen}
    return activations <= final and not activations.isdisjoint(names)


def _odd(least: float) -> int:
    return 2 * math.ceil((least - 1) / 2) + 1
