"""How hard the identity is: a trained network, made deeper in three ways, and trained on.

He et al. 2016, "Deep Residual Learning for Image Recognition", section 1: a deeper network can be built from a trained
one by layers that are the identity, so it need not be worse; section 3.1: layers that learn F(x) = H(x) - x have the
identity at F = 0. That a block starts there, by a last scale of 0, is of Goyal et al. 2017 (arXiv:1706.02677, 5.1).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecnn.lab.gradients import stages
from edgecnn.lab.trials import OUTPUT, Result, epochs_of
from edgecnn.models.classifier import Classifier, initialise
from edgecnn.models.modules import Residual
from edgecnn.models.rows import BasicRow
from edgecnn.train import TrainConfig, train
from edgecnn.train.trainable import FloatTrainable, Trainable, channels_last, open_trainable

KINDS = ("identity", "plain", "residual")


@dataclass(frozen=True, kw_only=True)
class Deepening:
    """A trial: a network learns, is made deeper in each of three ways, and each of them learns on.

    Attributes:
        config: the first run, and with other epochs the others too.
        blocks: added at the end of each stage, of two convolutions each.
        epochs: of learning on.
    """

    config: TrainConfig
    blocks: int
    epochs: int

    @property
    def name(self) -> str:
        """Return the network that is made deeper."""
        return f"{self.config.model} and {self.blocks} more blocks in each stage"

    def settings(self) -> dict[str, Any]:
        """Return those of the runs and of what happens between them."""
        return {**self.config.identity(), "blocks": self.blocks, "epochs_on": self.epochs}

    def run(self, scratch: Path) -> Result:
        """Train all four; goes on from the checkpoints in the scratch folder.

        Returns:
            A row for each epoch, under ``before`` and under each of ``KINDS``.
        """
        shallow = replace(self.config, output=scratch / OUTPUT)
        train(shallow)
        rows = {"before": epochs_of(shallow)}
        for kind in KINDS:
            config = replace(
                shallow, epochs=self.epochs, weights=str(shallow.output), output=scratch / f"{kind}{OUTPUT.suffix}"
            )
            train(config, opener=partial(_open_deeper, kind, self.blocks))
            rows[kind] = epochs_of(config)
        return rows


def deepened(network: Classifier, kind: str, blocks: int) -> Classifier:
    """Return a copy with more basic blocks at the end of each stage, of weights from torch's present random state.

    Args:
        network: as of ``stages``.
        kind: ``identity`` layers; ``plain`` blocks of two convolutions; ``residual`` blocks, which are the identity
            until they have learned something else.
        blocks: in each stage.
    """
    deeper = copy.deepcopy(network)
    features: list[nn.Module] = []
    for row, size, stage in zip(deeper.spec.rows, deeper.spec.sides[1:], stages(deeper), strict=True):
        features += stage
        if isinstance(row, BasicRow):
            features += [_added(kind, deeper, row.channels, size) for _ in range(blocks)]
    deeper.features = nn.Sequential(*features)
    return deeper


def _added(kind: str, network: Classifier, channels: int, size: int) -> nn.Module:
    if kind == "identity":
        return nn.Identity()
    row = BasicRow(channels=channels, repeats=1, stride=1, shortcut="none" if kind == "plain" else "pad")
    block = Residual(network.spec, size, channels, row, row.stride)
    initialise(block)
    if kind == "residual":
        last = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
        nn.init.zeros_(last.weight)
    return block.train(network.training)


class _Deeper(FloatTrainable):
    """Figures are wanted of it, not weights."""

    def write(self, average: nn.Module) -> None:
        """Write nothing."""


def _open_deeper(kind: str, blocks: int, config: TrainConfig, device: torch.device) -> Trainable:
    trainable = open_trainable(config, device)
    assert isinstance(trainable.module, Classifier)
    return _Deeper(**{**vars(trainable), "module": channels_last(deepened(trainable.module, kind, blocks))})
