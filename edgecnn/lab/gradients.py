"""Measure how much of the loss' gradient reaches each stage of a network.

He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.1, ask whether it vanishes in plain networks.
With batch norm and no shortcuts its norm grows instead, from layer to layer on its way back, by ``BATCH_NORM_GROWTH``
while the weights are random: Yang et al. 2019, "A Mean Field Theory of Batch Normalization" (arXiv:1902.08129).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from edgecnn.models.classifier import Classifier
from edgecnn.models.rows import BasicRow

BATCH_NORM_GROWTH = math.sqrt(math.pi / (math.pi - 1))  # of the norm, a layer with ReLU; its square is the paper's


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The gradient at one moment.

    Attributes:
        step: steps taken before.
        norms: of the stem, then of each stage of blocks: root mean square, over images, of the norm of the gradient of
            an image's loss by the output of the stage.
    """

    step: int
    norms: tuple[float, ...]

    @property
    def change(self) -> float:
        """Return the stem's norm over the last stage's: above 1 it grows on its way back, below 1 it fades."""
        return self.norms[0] / self.norms[-1]


def stages(network: Classifier) -> list[nn.Sequential]:
    """Return the modules of each row, shared with the network, which is of convolutions and basic blocks."""
    blocks = list(network.features)
    counts = [row.repeats if isinstance(row, BasicRow) else 1 for row in network.spec.rows]
    ends = [sum(counts[: k + 1]) for k in range(len(counts))]
    return [nn.Sequential(*blocks[end - count : end]) for end, count in zip(ends, counts, strict=True)]


def reach(network: Classifier, x: torch.Tensor, targets: torch.Tensor, step: int) -> Reach:
    """Return the gradient of the cross entropy, in training mode; the network stays as it is.

    Args:
        network: as of ``stages``.
        x: (N, 3, R, R) network inputs.
        targets: (N,) classes.
        step: to remember.
    """
    network = copy.deepcopy(network).train()
    outputs = [x]
    for part in stages(network):
        outputs.append(part(outputs[-1]))
    loss = nn.functional.cross_entropy(network.classifier(outputs[-1].mean(dim=(2, 3))), targets)
    gradients = torch.autograd.grad(loss, outputs[1:])  # of a mean over N images: an image's own is N times as large
    return Reach(step=step, norms=tuple(math.sqrt(len(x)) * float(g.norm()) for g in gradients))
