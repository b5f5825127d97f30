"""The executor: runs a graph over images in float, on its quantization grids, or both networks side by side.

Activations are torch tensors inside, NCHW (channels last in memory) where they have 4 dimensions; outside, arrays that
are NHWC there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from edgecnn.graph.batch import Batch, Fed
from edgecnn.graph.execution import released
from edgecnn.graph.interpreter import TorchGraph, activated, laid_out, run_node, without_activation
from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized, QuantizedConstant, Tensor

ROUNDING = 64  # multiply-accumulates, which take as long as to round a value of an activation
CHUNK = 4  # images that go through a layer together: few enough to stay in the caches
Chunks = list[torch.Tensor]


def fake_quantize(x: torch.Tensor, quant: QParams) -> torch.Tensor:
    """Round values to the grid of a per-tensor activation, in place: what an integer kernel would hand on."""
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
    low, high = quant.limits
    return x.div_(scale).round_().clamp_(low - zero, high - zero).mul_(scale)


def encode(real: torch.Tensor, quant: QParams) -> torch.Tensor:
    """Return the integers of real values on the grid of a per-tensor activation."""
    low, high = quant.limits
    shifted = (real / float(quant.scale[0])).round_().add_(float(quant.zero_point[0]))
    return shifted.clamp_(low, high).to(getattr(torch, quant.dtype))


def decode(integers: torch.Tensor, quant: QParams) -> torch.Tensor:
    """Return the real values of such integers."""
    return integers.float().sub_(float(quant.zero_point[0])).mul_(float(quant.scale[0]))


class FakeQuantizedGraph:
    """Run a quantized graph in torch: real values, rounded to their grids where an integer kernel rounds.

    It is fast and near; the integer oracle and a runtime differ from it by their own roundings.
    Real values in, (N, ...) float32, and out, as ``TorchGraph`` takes and returns them.
    """

    def __init__(self, graph: Graph) -> None:
        self._run = TorchGraph(graph, integers=True)
        self._grids = {t.name: graph.quant(t.name) for t in graph.activations()}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Run a batch through a graph of one input and one output."""
        return self._run(x, self._rounded)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run a batch."""
        return self._run.run(inputs, self._rounded)

    def _rounded(self, name: str, value: torch.Tensor) -> torch.Tensor:
        return fake_quantize(value.clone(), self._grids[name])


class SideBySide:
    """Run the float network and the quantized one, layer after layer over the same images, in chunks.

    Args:
        graph: all integers, float values beside them.
        images: network inputs, all in memory.
        compact: hold the float activations in float16, where it can hold them, and the others as integers.

    Attributes:
        tensors: of the graph; ``before`` may replace those of the layer that comes.
        exact: the float constants, laid out for torch.
        floats, quantized: chunks of every activation that is still to be read, as they are held.
    """

    def __init__(self, graph: Graph, images: Fed, *, compact: bool = False) -> None:
        self.graph, self.tensors, self._compact = graph, dict(graph.tensors), compact
        self.exact = {t.name: laid_out(t.value) for t in graph.constants()}
        self.floats: dict[str, Chunks] = {}
        self.quantized: dict[str, Chunks] = {}
        chunks = list(Batch.of(graph.inputs, images).chunks(CHUNK))
        for name in graph.inputs:
            given = [laid_out(chunk.arrays[name]) for chunk in chunks]
            self.floats[name] = [self._held(c) for c in given]
            self.quantized[name] = [self._held_quantized(name, c.clone()) for c in given]

    def real(self, name: str, chunk: int, rows: slice | None = None) -> torch.Tensor:
        """Return a chunk of the float network's activation, or some rows of it, or a float constant."""
        return self.exact[name] if name in self.exact else _rows(self.floats[name][chunk], rows).float()

    def coarse(self, name: str, chunk: int, rows: slice | None = None) -> torch.Tensor:
        """Return a chunk of the quantized network's activation as real values, or some rows of it, or a constant's."""
        if name in self.exact:
            return _dequantized(Constant.of(self.tensors[name]))
        held = _rows(self.quantized[name][chunk], rows)
        return decode(held, Quantized.of(self.tensors[name]).quant) if self._compact else held

    def run(
        self,
        *,
        before: Callable[[Node], None] = lambda node: None,
        sums: Callable[[Node, Chunks, Chunks], None] | None = None,
        summed: Callable[[Node], bool] = lambda node: True,
        after: Callable[[str], None] = lambda name: None,
    ) -> Graph:
        """Run both networks and return the graph with the tensors as hooks left them.

        Args:
            before: told of each node before it runs, when its inputs are at hand.
            sums: given the outputs of each weighted layer before its activation, of the float network and of the
                quantized one, all chunks; it may change them in place.
            summed: the weighted layers of which it is.
            after: told of each activation when it is made, the inputs first.
        """
        for name in self.graph.inputs:
            after(name)
        for node, expired in zip(self.graph, released(self.graph), strict=True):
            before(node)
            self._advance(node, sums if node.weighted and summed(node) else None)
            after(node.output)
            for name in expired:
                del self.floats[name], self.quantized[name]
        return replace(self.graph, tensors=self.tensors)

    def _advance(self, node: Node, sums: Callable[[Node, Chunks, Chunks], None] | None) -> None:
        chunks = range(len(next(iter(self.floats.values()))))
        name, activation = node.output, node.attrs.get("activation")
        constants = {i: self.coarse(i, 0) for i in node.inputs if i in self.exact}
        for_chunk = ([constants[i] if i in constants else self.coarse(i, j) for i in node.inputs] for j in chunks)
        if sums is None:
            self.floats[name] = [self._held(_made(node, [self.real(i, j) for i in node.inputs])) for j in chunks]
            self.quantized[name] = [self._held_quantized(name, _made(node, given)) for given in for_chunk]
            return
        bare = without_activation(node)
        exact = [_made(bare, [self.real(i, j) for i in node.inputs]) for j in chunks]
        got = [_made(bare, given) for given in for_chunk]
        sums(node, exact, got)
        self.floats[name] = [self._held(activated(chunk, activation)) for chunk in exact]
        self.quantized[name] = [self._held_quantized(name, activated(chunk, activation)) for chunk in got]

    def _held(self, real: torch.Tensor) -> torch.Tensor:
        """Return what is held: half the bytes where it is compact, since float16 rounds far finer than the integers."""
        if not self._compact:
            return real
        half = real.half()
        return half if bool(torch.isfinite(half).all()) else real.clone()

    def _held_quantized(self, name: str, real: torch.Tensor) -> torch.Tensor:
        quant = Quantized.of(self.tensors[name]).quant
        return encode(real, quant) if self._compact else fake_quantize(real, quant)


def _rows(held: torch.Tensor, rows: slice | None) -> torch.Tensor:
    return held if rows is None or held.ndim == 2 else held[:, :, rows]


def _made(node: Node, arguments: list[torch.Tensor]) -> torch.Tensor:
    """Run a node; what it makes is not a view of what it read."""
    out = run_node(node, arguments)
    return out.clone() if any(out.data_ptr() == x.data_ptr() for x in arguments) else out


def _dequantized(tensor: Constant) -> torch.Tensor:
    if not isinstance(tensor, QuantizedConstant):
        return laid_out(tensor.value)
    return laid_out(tensor.quant.dequantize(tensor.integers))


def cost(graph: Graph) -> int:
    """Return what one image takes in a run, in multiply-accumulates: ``ROUNDING`` to round a value of an activation."""
    values = sum(math.prod(tensor.shape) for tensor in graph.activations())
    return sum(graph.macs(node) for node in graph) + ROUNDING * values


def affordable(graph: Graph, images: int, each: Callable[[Tensor], int], memory: int) -> int:
    """Return how many of the images fit into some memory when every activation is held until it was read last.

    Args:
        graph: of either network.
        images: that there are.
        each: bytes that one value of an activation takes in both networks.
        memory: bytes that the activations of both networks may take.
    """
    size: Mapping[str, int] = {t.name: math.prod(t.shape) * each(t) for t in graph.activations()}
    live, most = set(graph.inputs), 0
    for node, expired in zip(graph, released(graph), strict=True):
        live.add(node.output)
        most = max(most, sum(size[name] for name in live))
        live -= set(expired)
    return max(1, min(images, memory // most))


def pieces(graph: Graph, layers: int) -> list[Graph]:
    """Cut the graph in pieces, each a graph: one ends at the first cut after so many weighted layers.

    A cut is where a single activation is still to be read; a residual block has none inside. Nor is there one after the
    first of several outputs.
    """
    read = {name for node in graph for name in node.inputs}
    alive = {name for name in graph.inputs if name in read or name in graph.outputs}
    found, nodes, first = list[Graph](), list[Node](), graph.inputs
    for node, expired in zip(graph, released(graph), strict=True):
        nodes.append(node)
        alive = {*alive, node.output} - set(expired)
        enough = sum(n.weighted for n in nodes) >= layers
        if node is graph.nodes[-1] or (enough and len(alive) == 1):
            names = {name for n in nodes for name in (*n.inputs, n.output)}
            tensors = {name: tensor for name, tensor in graph.tensors.items() if name in names}
            last = graph.outputs if node is graph.nodes[-1] else tuple(alive)
            tensors |= {name: graph.tensors[name] for name in (*first, *last)}
            found.append(replace(graph, nodes=tuple(nodes), tensors=tensors, inputs=first, outputs=last))
            nodes, first = [], last
    return found
