"""The search for int16 promotion: the fewest of the most harmful activations such that a limit holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgecnn.graph.batch import Fed
from edgecnn.graph.ir import Graph
from edgecnn.quant.scales.qparams import groups_inside
from edgecnn.quant.sensitivity import sensitivity

Names = tuple[str, ...]


def ranked(graph: Graph, images: Fed) -> Names:
    """Return one activation of each group that shares a scale, the most harmful alone first.

    The network's ends are left out.

    Args:
        graph: full int8.
        images: float32 network inputs; some 16 show the order.
    """
    order = [layer.name for layer in sensitivity(graph, images)]
    firsts = {min(group, key=order.index) for group in groups_inside(graph)}
    return tuple(name for name in order if name in firsts)


def fewest(order: Sequence[str], holds: Callable[[Names], bool]) -> Names | None:
    """Return the fewest of the names such that ``holds``; ``None`` where it does not hold of all either.

    So many of the first as are needed, found by doubling and halving, and then without each that is not needed after
    all. It takes for granted that what holds of some holds of more.
    """
    high = 1
    while high < len(order) and not holds(tuple(order[:high])):
        high *= 2
    low, high = high // 2, min(high, len(order))
    if high == len(order) and not holds(tuple(order)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(tuple(order[:middle])) else (middle, high)
    kept = tuple(order[:high])
    for name in kept[-2::-1]:  # the last one is needed: without it the limit does not hold
        rest = tuple(other for other in kept if other != name)
        kept = rest if holds(rest) else kept
    return kept
