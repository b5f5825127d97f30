"""Learned step sizes of activations: the grids' scales learn, with exact weights, what the float network answers.

The whole network runs over batches of the images, its activations on their grids, and Adam lowers the squared error of
its output. A grid's zero point stays, so that its lower and upper end move together; so do the grids that the contract
fixes, the network's input, whose pixels are integers already, and its output, whose largest value is what matters.

The rate falls to 0 along a cosine. All scales stay as they were if the output is not nearer on images that they did not
learn from: started from ranges of least squared error, that is what often happens.

Sources: Esser et al. 2020, "Learned Step Size Quantization", eq. 3 (the gradient); Jain et al. 2020, "Trained
Quantization Thresholds", section 4.1 (the scale's logarithm is what learns); Loshchilov and Hutter 2017, "SGDR" (the
cosine).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.checkpoint import checkpoint

from edgecnn.graph.interpreter import TorchGraph, laid_out, run_node
from edgecnn.graph.ir import Graph, is_wide
from edgecnn.graph.ops import OPS
from edgecnn.progress import track
from edgecnn.quant.blocks import blocks, parted
from edgecnn.quant.qat import rounded, scaled
from edgecnn.quant.scheme import scale_groups

BATCH = 4
RATE = 5e-3  # of the first step: a share of the scale


def learn_steps(graph: Graph, images: NDArray[np.float32], *, epochs: int) -> Graph:
    """The graph with other scales of activations.

    Args:
        graph: with parameters of every activation; its float values are used.
        images: (N, H, W, C) network inputs. Only what is alive between blocks is kept for the gradient.
        epochs: how often each image is looked at.
    """
    network = _Network(graph)
    real, x = TorchGraph(graph), torch.from_numpy(images)
    wanted = torch.cat([real(chunk).clone() for chunk in torch.split(x, BATCH)])
    learning, judging = (torch.tensor(part) for part in parted(len(images)))

    def error(chosen: torch.Tensor) -> torch.Tensor:
        return (network(_first(x[chosen])) - _first(wanted[chosen])).square().mean() / wanted.square().mean()

    @torch.no_grad()
    def judged() -> float:
        return sum(float(error(chosen)) * len(chosen) for chosen in torch.split(judging, BATCH))

    before = judged()
    optimizer = torch.optim.Adam([network.steps], lr=RATE)
    turns = torch.Generator().manual_seed(0)
    order = [learning[torch.randperm(len(learning), generator=turns)] for _ in range(epochs)]
    batches = torch.split(torch.cat(order), BATCH)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for chosen in track(batches, "steps"):
        optimizer.zero_grad()
        error(chosen).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        slower.step()
    return network.learned() if judged() < before else graph


def _first(x: torch.Tensor) -> torch.Tensor:
    """Channels first."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


class _Network:
    """The graph with exact constants and activations on grids whose scales learn."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._parts = graph, blocks(graph, 1)
        self._constants = {t.name: laid_out(t.value) for t in graph.tensors.values() if t.value is not None}
        groups = scale_groups(graph)
        self._group = {name: k for k, group in enumerate(groups) for name in group}
        still = {*graph.inputs, *graph.outputs, *(n.output for n in graph if OPS[n.op].scale == "fixed")}
        still |= {t.name for t in graph.activations() if is_wide(t)}
        self._learns = [not group & still for group in groups]
        quants = [graph.tensors[min(group)].quant for group in groups]
        self._scales = torch.tensor([float(q.scale[0]) for q in quants if q is not None])
        self.steps = torch.zeros(len(groups), requires_grad=True)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW images to outputs; of a block only what it reads is kept, and it is run again for its gradient."""
        scales = self._now()
        x = self._on_grid(self._graph.inputs[0], x, scales)
        for part in self._parts:
            x = checkpoint(self._run, part, x, scales, use_reentrant=False)
        return x

    def _run(self, part: Graph, x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        values = {part.inputs[0]: x}
        for node in part:
            made = run_node(node, [values[i] if i in values else self._constants[i] for i in node.inputs])
            values[node.output] = self._on_grid(node.output, made, scales)
        return values[part.outputs[0]]

    def _now(self) -> torch.Tensor:
        return self._scales * torch.exp(self.steps * torch.tensor(self._learns))

    def _on_grid(self, name: str, x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        quant = self._graph.tensors[name].quant
        assert quant is not None
        (low, high), zero = quant.limits, int(quant.zero_point[0])
        return rounded(x, scales[self._group[name]], low - zero, high - zero)

    @torch.no_grad()
    def learned(self) -> Graph:
        """The graph with the scales as they are now."""
        scales = self._now().numpy()
        made = []
        for tensor in self._graph.activations():
            group = self._group[tensor.name]
            if self._learns[group]:
                assert tensor.quant is not None
                made.append(replace(tensor, quant=scaled(tensor.quant, scales[group])))
        return self._graph.with_tensors(*made)
