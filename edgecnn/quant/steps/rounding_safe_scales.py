"""Rounding-safe scales: scales of activations are final after this step, and every runtime rounds alike with them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgecnn.graph.ir import Node, QParams
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

FEWEST = 101  # units in the finest scale of an add: to the next odd number of them it is 2 % at most
TOLERATED = 0.2  # of a unit by which a scale may shrink


@dataclass(frozen=True, kw_only=True)
class RoundingSafeScales(Step):
    """Move the scales of additions, products, means and tables a little, so that runtimes round their outputs alike.

    Runtimes round ties differently, so scales are picked that produce none (docs/numerics.md). Those of an add, and of
    all adds they lead to, become odd multiples of one unit. Each other scale then takes the first value with which the
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
            trials = _streams(chosen, names, held, [name for name in swishes if name in names])
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
    chosen: dict[str, QParams], names: set[str], held: list[str], swishes: list[str]
) -> Iterator[dict[str, QParams]]:
    """Yield parameters of what adds tie together: scales that are odd multiples of one unit, which has some choice.

    Args:
        chosen: parameters so far.
        names: tied activations.
        held: those whose scale must stay.
        swishes: those that a hard swish reads; the first has its way.
    """
    grids = {id(chosen[name]): chosen[name] for name in names}
    least = min(float(quant.scale[0]) for quant in grids.values())
    anchor = float(chosen[held[0]].scale[0]) if held else least
    unit = anchor / _odd(anchor / least * FEWEST)
    units = {key: _odd(float(quant.scale[0]) / unit - TOLERATED) for key, quant in grids.items()}
    if held:
        units[id(chosen[held[0]])] = round(anchor / unit)
    elif swishes:
        count = units[id(chosen[swishes[0]])]
        unit = swish_scale(count * unit) / count
    for factor in FINE[:1] if held or swishes else FINE:
        made = {key: rescaled(quant, units[key] * unit * float(factor)) for key, quant in grids.items()}
        yield {name: chosen[name] if name in held else made[id(chosen[name])] for name in names}


def _sharing(chosen: dict[str, QParams], quant: QParams) -> set[str]:
    return {name for name in chosen if chosen[name] is quant}


def _decided_by(node: Node, names: set[str], chosen: dict[str, QParams], final: set[str]) -> bool:
    """Tell whether some activations are the last whose scale a node waited for."""
    activations = {name for name in (*node.inputs, node.output) if name in chosen}
    return activations <= final and not activations.isdisjoint(names)


def _odd(least: float) -> int:
    return 2 * math.ceil((least - 1) / 2) + 1
