"""Layer sensitivity: every layer quantized alone, the running network layer by layer, and known reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.batch import Batch, Fed
from edgecnn.graph.interpreter import run_node
from edgecnn.graph.ir import Graph, Node, QuantizedConstant
from edgecnn.quant.executor import CHUNK, SideBySide, fake_quantize
from edgecnn.quant.observers.histogram import ActivationStatistics, calibrate

WIDE = 100.0  # a channel's range beside the median one's
CLIPPED = 0.001  # share of an activation's values outside its grid


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Describe one layer.

    Attributes:
        name: of the tensor it makes, or of an input.
        op: of the node, or ``input``.
        alone_db: SQNR of the network's output when only this layer's weights and output are on their grids; of several
            outputs, the lowest.
        running_db: SQNR of this layer's output in the network that is quantized as a whole.
        reasons: what is known to make it so.

    SQNR in dB; ``None`` where nothing differs.
    """

    name: str
    op: str
    alone_db: float | None
    running_db: float | None
    reasons: tuple[str, ...]


def sensitivity(graph: Graph, images: Fed) -> list[Sensitivity]:
    """Return every layer, the most harmful alone first.

    Args:
        graph: integer, by the numerics contract.
        images: float32 network inputs; some 16 show the order.

    Raises:
        InputError: the graph is not quantized, or there are no images.
    """
    if graph.precision in ("fp32", "w8"):
        raise InputError(f"the graph is {graph.precision}; sensitivity is of an integer one (export --quantize int8)")
    batch = Batch.of(graph.inputs, images)
    if not len(batch):
        raise InputError("there are no images to measure on; give a folder with some")
    names = [t.name for t in graph.activations()]
    alone = {name: {output: _Error() for output in graph.outputs} for name in names}
    running = {name: _Error() for name in names}
    outside = dict.fromkeys(names, 0)
    with torch.inference_mode():
        for chunk in batch.chunks(CHUNK):
            _measure(graph, chunk, alone, running, outside)
    seen = calibrate(graph, batch.chunks(CHUNK)).statistics
    ops = {node.output: node for node in graph}
    rows = []
    for name in names:
        node, share = ops.get(name), outside[name] / (len(batch) * math.prod(graph.tensors[name].shape))
        rows.append(
            Sensitivity(
                name=name,
                op=node.op if node is not None else "input",
                alone_db=min((e.db for e in alone[name].values() if e.db is not None), default=None),
                running_db=running[name].db,
                reasons=tuple(_reasons(graph, name, node, seen[name], share)),
            )
        )
    return sorted(rows, key=lambda row: math.inf if row.alone_db is None else row.alone_db)


def running_errors(graph: Graph, images: Fed) -> dict[str, float | None]:
    """Return ``Sensitivity.running_db`` of every activation, in order: one pass of both networks.

    Args:
        graph: integer, by the numerics contract.
        images: float32 network inputs.
    """
    found = {t.name: _Error() for t in graph.activations()}
    with torch.inference_mode():
        for chunk in Batch.of(graph.inputs, images).chunks(CHUNK):
            _running(SideBySide(graph, chunk), found)
    return {name: error.db for name, error in found.items()}


def _running(both: SideBySide, found: Mapping[str, _Error]) -> None:
    both.run(after=lambda name: found[name].update(both.real(name, 0), both.coarse(name, 0)))


class _Error:
    """Sum signal and error over batches."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def update(self, exact: torch.Tensor, got: torch.Tensor) -> None:
        self.signal += float(exact.square().sum(dtype=torch.float64))
        self.noise += float((exact - got).square().sum(dtype=torch.float64))

    @property
    def db(self) -> float | None:
        if self.noise == 0:
            return None
        return 10 * math.log10(max(self.signal, 1e-30) / self.noise)


def _measure(
    graph: Graph,
    images: Batch,
    alone: Mapping[str, Mapping[str, _Error]],
    running: Mapping[str, _Error],
    outside: dict[str, int],
) -> None:
    """Add what a chunk of images shows: errors of each layer alone and running, and values outside its grid.

    A layer alone has quantized constants and reads the float network's activations. Its bias stays float: a corrected
    one also makes up for the layers before, which are not quantized here.
    """
    both, values = SideBySide(graph, images), dict[str, torch.Tensor]()
    grids = {t.name: graph.quant(t.name) for t in graph.activations()}

    def measure(name: str) -> None:
        value, quant = both.real(name, 0), grids[name]
        low, high = (
            (end - int(quant.zero_point[0])) * float(quant.scale[0])
            for end in (quant.limits[0] - 0.5, quant.limits[1] + 0.5)
        )
        values[name] = value
        outside[name] += int(((value < low) | (value > high)).sum())
        running[name].update(value, both.coarse(name, 0))

    both.run(after=measure)
    for position, name in enumerate(alone):
        made = values[name]
        first = max(position - len(graph.inputs), 0)
        if position >= len(graph.inputs):
            node = graph.nodes[first]
            given = [values[i] if i in values else both.coarse(i, 0) for i in node.inputs]
            if node.weighted:
                given[2] = both.exact[node.inputs[2]]
            made = run_node(node, given)
        changed = {name: fake_quantize(made.clone(), grids[name])}
        for node in graph.nodes[first + (position >= len(graph.inputs)) :]:
            if any(i in changed for i in node.inputs):
                at_hand = {**both.exact, **values, **changed}
                changed[node.output] = run_node(node, [at_hand[i] for i in node.inputs])
        for output, error in alone[name].items():
            error.update(values[output], changed.get(output, values[output]))


def _reasons(graph: Graph, name: str, node: Node | None, seen: ActivationStatistics, outside: float) -> list[str]:
    found = []
    reach = np.maximum(np.abs(seen.low), np.abs(seen.high))
    if (ratio := _unevenness(reach)) >= WIDE:
        found.append(f"channel {int(reach.argmax())} reaches {ratio:.0f} times as far as the median one, on one scale")
    if dead := int((reach == 0).sum()):
        found.append(f"{dead} of {reach.size} channels are dead (always 0)")
    if outside >= CLIPPED:
        found.append(f"{100 * outside:.1f} % of its values are clipped by its range")
    if node is not None and node.weighted:
        weight = QuantizedConstant.of(graph.tensors[node.inputs[1]])
        value, one_scale = np.abs(weight.value), weight.quant.axis is None
        peaks = value.reshape(weight.shape[0], -1).max(axis=1)
        if one_scale and (ratio := _unevenness(peaks)) >= WIDE:
            where = f"the weights of channel {int(peaks.argmax())}"
            found.append(f"{where} are {ratio:.0f} times the median's, on one scale")
        if not one_scale and node.op == "conv2d" and (ratio := _unevenness(value.max(axis=(0, 1, 2)))) >= WIDE:
            found.append(f"the weights of one input channel are {ratio:.0f} times the median's")
    return found


def _unevenness(peaks: NDArray[Any]) -> float:
    """Return the largest over the median of those that are not 0."""
    lively = peaks[peaks > 0]
    return float(lively.max() / np.median(lively)) if lively.size else 0.0
