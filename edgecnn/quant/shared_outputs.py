"""Find outputs whose integers hold less than they seem to: parts of very different ranges at one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.scales.qparams import scale_groups
from edgecnn.quant.scales.separation import RESCALED

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import ActivationStatistics

FEWEST = 16.0
"""Steps of a scale. A part that spans fewer has lost four of its eight bits, and the SQNR hides it."""
MOVES = ("reshape", "transpose", "slice", "gather", "depth_to_space", "space_to_depth")


def crowded_outputs(graph: Graph, statistics: Mapping[str, ActivationStatistics]) -> Iterator[str]:
    """Yield a line where a part of an output, or one of several outputs, spans fewer than ``FEWEST`` integers.

    Args:
        graph: int8, or int16.
        statistics: what calibration saw of activations.
    """
    for group in scale_groups(graph):
        outputs = [name for name in graph.outputs if name in group]
        parts = _parts(graph, outputs[0]) if len(outputs) == 1 else outputs
        known = {part: found for part in parts if (found := _range(part, statistics)) is not None}
        if len(known) < 2:
            continue
        scale = float(graph.quant(outputs[0]).scale[0])
        spans = {part: (high - low) / scale for part, (low, high) in known.items()}
        small, large = min(spans, key=spans.__getitem__), max(spans, key=spans.__getitem__)
        if not spans[small] < FEWEST <= spans[large]:
            continue
        names = " and ".join(map(repr, outputs))
        shared = f"output {names} joins parts" if len(outputs) == 1 else f"outputs {names} are slices"
        yield (
            f"{shared} of very different ranges at one scale: {_said(small, known)} spans {max(spans[small], 1):.0f} "
            f"of the {spans[large]:.0f} integers of {_said(large, known)}, and the SQNR does not show it; let the "
            "network return them as two outputs of different layers, and each gets its own scale"
        )


def _said(part: str, ranges: Mapping[str, tuple[float, float]]) -> str:
    low, high = ranges[part]
    return f"{part.removesuffix(RESCALED)!r} ({low:.3g} to {high:.3g})"


def _parts(graph: Graph, name: str) -> list[str]:
    """Return the activations that concatenations join to a tensor; the tensor itself where there are none."""
    node = graph.producer(name)
    if node is None or not (node.op == "concat" or node.op in MOVES):
        return [name]
    return list(dict.fromkeys(part for source in _activations(graph, node) for part in _parts(graph, source)))


def _activations(graph: Graph, node: Node) -> list[str]:
    made = {tensor.name for tensor in graph.activations()}
    return [name for name in node.inputs if name in made]


def _range(name: str, statistics: Mapping[str, ActivationStatistics]) -> tuple[float, float] | None:
    """Return the smallest and the largest value of an activation and zero, or of what its copy was made of."""
    seen = statistics.get(name.removesuffix(RESCALED))
    return None if seen is None else (min(float(seen.low.min()), 0.0), max(float(seen.high.max()), 0.0))
