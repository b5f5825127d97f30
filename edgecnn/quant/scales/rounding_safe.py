"""Rounding-safe scales: every runtime rounds alike with them (``edgecnn.graph.rounding`` has the multipliers)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.contract import FIXED_OF
from edgecnn.graph.ir import Graph, Node, QParams
from edgecnn.graph.rounding import once_rounded, twice_rounded


def weight_trials(node: Node, source: QParams, made: QParams, scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weight scales with which a layer of int8 rounds alike everywhere, no smaller than given, less ``ROOM``.

    Returns:
        (trials, channels).
    """
    ratio = float(source.scale[0]) / float(made.scale[0])
    alike = twice_rounded if node.op == "conv2d" else once_rounded
    return np.atleast_2d(alike(scales.astype(np.float64) * ratio) / ratio).astype(np.float32)


def streams(graph: Graph, chosen: dict[str, QParams]) -> list[set[str]]:
    """Return the activations whose scales adds tie together, where all of them are free."""
    parts = {name: {n for n in chosen if chosen[n] is quant} for name, quant in chosen.items()}
    linked = []
    for node in graph:
        if node.op == "add":
            merged = set().union(*(parts[n] for n in (*node.inputs, node.output) if n in parts))
            parts.update(dict.fromkeys(merged, merged))
            linked.append(node.output)
    unique = {id(parts[n]): parts[n] for n in linked}
    return [names for names in unique.values() if all(is_free(graph, chosen, n) for n in names)]


def is_free(graph: Graph, chosen: dict[str, QParams], name: str) -> bool:
    """Tell whether a step may choose the scale of an activation."""
    return name not in graph.inputs and chosen[name].dtype == "int8" and chosen[name] not in FIXED_OF.values()
