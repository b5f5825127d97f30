"""Block-wise reconstruction: the integers of several layers, and their biases, are improved together.

The graph is cut where one activation alone is alive. When ``reconstruct`` has solved the last layer of a block, all of
the block's layers are looked at once more by the error of its output, with every activation inside on its grid. Aim and
input are as there: ``MENDED`` of the way to the float network, from what the quantized prefix makes of the images.

Every weight has one other integer to be, the other neighbour of its float value. A step takes the slope of the squared
error over a batch, straight through the roundings, and the curvature of single weights, from one more gradient of the
output times random signs (its square is what Gauss and Newton's matrix has on its diagonal). By both, each turn has a
gain. The turns that promise most are tried all at once, with a part of Newton's step of the biases, and stay where the
error of that batch falls; more are tried next time then, and fewer where it does not. There is no rate to choose, and
nothing to anneal. A block stays as it was if it is not nearer on images that it did not learn from.

Sources: Li et al. 2021, "BRECQ", section 3.2 (blocks); Nagel et al. 2020, "Up or Down?", section 3 (two neighbours);
Bengio et al. 2013 (straight through); Bekas et al. 2007, "An estimator for the diagonal of a matrix" (random signs).
The search is ours: Adam on latent weights, straight through or by rectified sigmoids, ended further away than it began.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Graph, Node, Tensor
from edgecnn.quant.cost import block_cost
from edgecnn.quant.qat import QatGraph
from edgecnn.quant.resume import Unfinished
from edgecnn.quant.simulate import SimulatedGraph, decoded, encoded

VALUES = 1 << 22  # of a block's activations that a step looks at
LARGEST_BATCH = 32  # images
JUDGES = 8  # one image of so many judges what was learned from the others
SHARE, LARGEST_SHARE = 0.002, 0.05  # of the weights that turn at once: at first, and at most
MORE, FEWER = 1.3, 0.7  # of them, after a step that was good, and one that was not
MEMORY_OF_SLOPES = 0.9  # of the steps before
OF_NEWTON = 0.1  # of the biases' step

Chunks = list[torch.Tensor]


def blocks(graph: Graph, layers: int) -> list[Graph]:
    """The graph in pieces, each a graph: one ends at the first cut after so many weighted layers.

    A cut is where a single activation is still to be read; a residual block has none inside.
    """
    last = {name: k for k, node in enumerate(graph) for name in node.inputs}
    last |= dict.fromkeys(graph.outputs, len(graph.nodes))
    alive, found, nodes, first = set(graph.inputs), list[Graph](), list[Node](), graph.inputs
    for k, node in enumerate(graph):
        nodes.append(node)
        alive = {name for name in (*alive, node.output) if last.get(name, -1) > k}
        enough = sum(n.op in WEIGHTED for n in nodes) >= layers
        if k + 1 == len(graph.nodes) or (enough and len(alive) == 1):
            names = {name for n in nodes for name in (*n.inputs, n.output)}
            tensors = {name: tensor for name, tensor in graph.tensors.items() if name in names}
            found.append(replace(graph, nodes=tuple(nodes), tensors=tensors, inputs=first, outputs=tuple(alive)))
            nodes, first = [], tuple(alive)
    return found


@dataclass(kw_only=True)
class Blocks:
    """Improves each block of a graph when ``reconstruct`` comes to its end.

    Attributes:
        layers: weighted layers of a block, at least.
        iterations: steps of each block.
    """

    layers: int
    iterations: int
    _parts: dict[str, Graph] = field(default_factory=dict, repr=False)
    _given: dict[str, Chunks] = field(default_factory=dict, repr=False)

    def begin(self, graph: Graph, images: int, kept: Unfinished) -> dict[str, float]:
        """What the blocks of a graph will cost, by the activation that each ends with."""
        self._parts = {p.outputs[0]: p for p in blocks(graph, self.layers) if any(n.op in WEIGHTED for n in p)}
        costs = {}
        for name, part in self._parts.items():
            left = 0 if _step(name) in kept else self.iterations
            costs[name] = block_cost(part, images, iterations=left, batch=_batch(part, images))
        return costs

    def after(
        self,
        node: Node,
        tensors: dict[str, Tensor],
        real: dict[str, Chunks],
        integers: dict[str, Chunks],
        *,
        limit: int,
        mended: float,
        kept: Unfinished,
    ) -> None:
        """One more node was solved; where a block ends, its tensors and its output's integers change, in place.

        Args:
            node: of the graph.
            tensors: of the graph, with all integers found so far.
            real: the float network's activations that are alive, NCHW (or NC) in chunks of equal numbers of images.
            integers: the quantized network's.
            limit: the largest weight integer.
            mended: how far from what the float block makes of the quantized prefix to the float network to aim.
            kept: where blocks are kept.
        """
        for part in self._parts.values():
            if part.nodes[0] is node:
                self._given = {part.outputs[0]: integers[part.inputs[0]]}
        if (given := self._given.get(node.output)) is None:
            return
        part = self._parts[node.output]
        part = replace(part, tensors={name: tensors[name] for name in part.tensors})
        solve = partial(_improved, part, given, real[node.output], self.iterations, limit, mended)
        changed = kept.step(_step(node.output), tensors, solve)
        tensors.update({t.name: t for t in changed})
        run, made = SimulatedGraph(part.with_tensors(*changed)), tensors[node.output].quant
        integers[node.output] = [encoded(_through(run, _decoded(part, chunk)), made) for chunk in given]
        self._given = {}


def parted(count: int) -> tuple[list[int], list[int]]:
    """The images to learn from, and those that judge what was learned; of a few, all are both."""
    judging = list(range(JUDGES - 1, count, JUDGES))
    return [i for i in range(count) if i % JUDGES != JUDGES - 1], judging or list(range(count))


def _step(name: str) -> str:
    return f"block {name}"


def _batch(part: Graph, images: int) -> int:
    """How many images a step looks at: fewer of large ones, which have many positions each."""
    return max(1, min(LARGEST_BATCH, images, VALUES // sum(math.prod(t.shape) for t in part.activations())))


def _through(run: TorchGraph | SimulatedGraph, x: torch.Tensor) -> torch.Tensor:
    """Channels first in and out."""
    made = run(x.permute(0, 2, 3, 1) if x.ndim == 4 else x)
    return made.permute(0, 3, 1, 2) if made.ndim == 4 else made


def _decoded(part: Graph, integers: torch.Tensor) -> torch.Tensor:
    """Real values of a block's input."""
    return decoded(integers, part.tensors[part.inputs[0]].quant)


def _improved(
    part: Graph, given: Chunks, real: Chunks, iterations: int, limit: int, mended: float
) -> tuple[Tensor, ...]:
    """The weights and biases of a block, other ones where they are better on the images that judge."""
    exact = TorchGraph(part)
    count, size = sum(map(len, given)), len(given[0])
    aims = [
        torch.lerp(_through(exact, _decoded(part, x)), y.float(), mended).half()
        for x, y in zip(given, real, strict=True)
    ]

    def picked(chunks: Chunks, chosen: Sequence[int]) -> torch.Tensor:
        return torch.stack([chunks[i // size][i % size] for i in chosen]).float()

    learning, judging = parted(count)
    with torch.inference_mode(False), torch.enable_grad():
        search = _Search(part, limit)

        def judged() -> float:
            """Squared error beside the float network."""
            rows = (picked(real, [i]).flatten(1) - search.made(_decoded(part, picked(given, [i]))) for i in judging)
            return sum(float(row.square().mean()) for row in rows)

        with torch.no_grad():
            before = judged()
        picks = torch.Generator().manual_seed(0)
        for _ in range(iterations):
            turns = torch.randint(len(learning), (_batch(part, len(learning)),), generator=picks).tolist()
            chosen = [learning[turn] for turn in turns]
            search.step(_decoded(part, picked(given, chosen)), picked(aims, chosen).flatten(1), picks)
        with torch.no_grad():
            nearer = judged() < before
    found = search.module.quantized() if nearer else part
    return tuple(found.tensors[i] for node in part if node.op in WEIGHTED for i in node.inputs[1:])


class _Search:
    """A block, its weights at integers: each may turn to the other neighbour of its float value, and biases move."""

    def __init__(self, part: Graph, limit: int) -> None:
        self.module = QatGraph(part, weight_limit=limit, learn_steps=False)
        self._weights, self._biases = list(self.module.weights), list(self.module.biases)
        found = [part.tensors[node.inputs[1]] for node in part if node.op in WEIGHTED]
        self._ends = [_neighbours(weight, limit) for weight in found]
        with torch.no_grad():
            for parameter, weight in zip(self._weights, found, strict=True):
                parameter.copy_(torch.from_numpy(np.asarray(weight.integers, np.float64) / limit))
        made = part.tensors[part.outputs[0]].quant
        assert made is not None
        self._unit = float(made.scale[0])
        self._slopes = [torch.zeros_like(p) for p in self._all()]
        self._curvatures = [torch.zeros_like(p) for p in self._all()]
        self._seen = self._taken = 0.0
        self._share = SHARE

    def _all(self) -> list[torch.Tensor]:
        return [*self._weights, *self._biases]

    def made(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output, flat."""
        out: torch.Tensor = self.module(x)
        return out

    def step(self, x: torch.Tensor, aim: torch.Tensor, signs: torch.Generator) -> None:
        """Turn what promises most, and keep it where it is better."""
        out = self.made(x)
        error = ((out - aim) / self._unit).square().mean()
        slopes = torch.autograd.grad(error, self._all(), retain_graph=True)
        random = torch.randint(0, 2, out.shape, generator=signs) * 2 - 1
        roots = torch.autograd.grad((out / self._unit * random).sum(), self._all())
        self._seen, self._taken = MEMORY_OF_SLOPES * self._seen + 1, self._taken + 1
        for kept, new in zip(self._slopes, slopes, strict=True):
            kept.mul_(MEMORY_OF_SLOPES).add_(new)
        for kept, root in zip(self._curvatures, roots, strict=True):
            kept.add_(2 / out.numel() * root.square())
        with torch.no_grad():
            moves = self._moves()
            before = [p.clone() for p in self._all()]
            for parameter, move in zip(self._all(), moves, strict=True):
                parameter.add_(move)
            if float(((self.made(x) - aim) / self._unit).square().mean()) < float(error):
                self._share = min(self._share * MORE, LARGEST_SHARE)
                for kept, curvature, move in zip(self._slopes, self._curvatures, moves, strict=True):
                    kept.add_(self._seen / self._taken * curvature * move)
            else:
                self._share *= FEWER
                for parameter, old in zip(self._all(), before, strict=True):
                    parameter.copy_(old)

    def _moves(self) -> list[torch.Tensor]:
        """Of all weights, then all biases."""
        slopes = [kept / self._seen for kept in self._slopes]
        curvatures = [kept / self._taken for kept in self._curvatures]
        turns = [low + high - now for now, (low, high) in zip(self._weights, self._ends, strict=True)]
        turns = [turn - now for turn, now in zip(turns, self._weights, strict=True)]
        gains = [-s * t - c * t * t / 2 for s, c, t in zip(slopes, curvatures, turns, strict=False)]
        flat = torch.cat([gain.flatten() for gain in gains])
        least = torch.topk(flat, max(1, int(self._share * len(flat)))).values[-1].clamp(min=0)
        moves = [turn * ((gain >= least) & (gain > 0)) for turn, gain in zip(turns, gains, strict=True)]
        for slope, curvature in zip(slopes[len(turns) :], curvatures[len(turns) :], strict=True):
            moves.append(torch.where(curvature > 0, -OF_NEWTON * slope / curvature, 0.0))
        return moves


def _neighbours(weight: Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both integers next to a float weight, as shares of the largest."""
    assert weight.value is not None
    assert weight.quant is not None
    scale: NDArray[np.float64] = weight.quant.scale.astype(np.float64).reshape(-1, *[1] * (weight.value.ndim - 1))
    steps = torch.from_numpy(weight.value.astype(np.float64) / scale)
    return torch.floor(steps).clamp_(-limit, limit) / limit, torch.ceil(steps).clamp_(-limit, limit) / limit
