"""A spec as one torch module: its rows in order, pooling, hidden layers, a classifier."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from edgecnn.models import modules, rows
from edgecnn.models.spec import ModelSpec, families

AUXILIARY = "auxiliary."  # in the names of tensors that only training needs
AUXILIARY_WEIGHT = 0.3  # of each auxiliary loss (Szegedy et al. 2015, section 5)


class Hidden(nn.Sequential):
    """A linear layer of the head, its activation, and dropout before or after. (N, inputs) to (N, row.features)."""

    def __init__(self, inputs: int, row: rows.LinearRow) -> None:
        super().__init__()
        self.before = nn.Dropout(row.dropout if row.dropout_first else 0.0)
        self.linear = nn.Linear(inputs, row.features)
        self.act = modules.ACTIVATIONS[row.activation]()
        self.after = nn.Dropout(0.0 if row.dropout_first else row.dropout)


class Classifier(nn.Module):
    """Rows, average pooling, hidden layers, dropout, one linear layer. (N, 3, R, R) to logits (N, num_classes).

    Built with ``auxiliary``, and in training, it returns a tuple: the logits, then those of each auxiliary classifier,
    whose losses count ``AUXILIARY_WEIGHT``.
    """

    def __init__(self, spec: ModelSpec, *, auxiliary: bool = False) -> None:
        super().__init__()
        self.spec = spec
        blocks: list[nn.Module] = []
        readers: dict[str, nn.Module] = {}
        channels = 3
        for row, size in zip(spec.rows, spec.sides, strict=False):
            if isinstance(row, rows.LinearRow):
                break
            if auxiliary and isinstance(row, rows.InceptionRow) and row.auxiliary:
                readers[str(len(blocks))] = modules.Auxiliary(spec, size, channels)
            blocks += _blocks(spec, row, size, channels)
            channels = channels if isinstance(row, rows.PoolRow) else row.channels
        self.features = nn.Sequential(*blocks)
        self.auxiliary = nn.ModuleDict(readers)  # by the place of the block whose input it reads
        features = channels * spec.grid**2
        hidden: list[nn.Module] = []
        for row in spec.rows:
            if isinstance(row, rows.LinearRow):
                hidden.append(Hidden(features, row))
                features = row.features
        self.hidden = nn.Sequential(*hidden)
        self.dropout = nn.Dropout(families()[spec.family].dropout)
        self.classifier = nn.Linear(features, spec.num_classes)
        modules.set_drop_connect(self, families()[spec.family].drop_connect)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Map (N, 3, R, R) to logits (N, num_classes); see the class for training."""
        extra: list[torch.Tensor] = []
        for place, block in enumerate(self.features):
            if self.training and str(place) in self.auxiliary:
                extra.append(self.auxiliary[str(place)](x))
            x = block(x)
        grid = self.spec.grid
        pooled = x.mean(dim=(2, 3)) if grid == 1 else F.adaptive_avg_pool2d(x, grid).flatten(1)
        out: torch.Tensor = self.classifier(self.dropout(self.hidden(pooled)))
        return (out, *extra) if extra else out


def _blocks(spec: ModelSpec, row: rows.Stage, size: int, channels: int) -> list[nn.Module]:
    """Return the blocks of one row on a map of ``size`` pixels a side."""
    match row:
        case rows.ConvRow():
            return [
                modules.ConvBlock(
                    spec, size, channels, row.channels, kernel=row.kernel, stride=row.stride, norm=row.norm,
                    activation=row.activation, padding=row.padding, bias=row.bias,
                )
            ]  # fmt: skip
        case rows.PoolRow():
            return [nn.MaxPool2d(row.kernel, row.stride, row.padding, ceil_mode=row.ceil)]
        case rows.SeparableRow():
            return [modules.Separable(spec, size, channels, row.channels, row.stride)]
        case rows.InceptionRow():
            return [modules.Inception(spec, size, channels, row)]
        case rows.InvertedRow():
            first = modules.InvertedResidual(spec, size, channels, row, row.stride)
            rest = [modules.InvertedResidual(spec, first.size, row.channels, row, 1) for _ in range(row.repeats - 1)]
            return [first, *rest]
        case rows.BasicRow() | rows.BottleneckRow():
            head = modules.Residual(spec, size, channels, row, row.stride)
            return [head, *(modules.Residual(spec, head.size, row.channels, row, 1) for _ in range(row.repeats - 1))]


def build(spec: ModelSpec, *, auxiliary: bool = False) -> Classifier:
    """Return the module of a spec, in evaluation mode, with torch's present random state.

    Args:
        auxiliary: with the auxiliary classifiers that the rows ask for, for training.
    """
    model = Classifier(spec, auxiliary=auxiliary)
    initialise(model)
    return model.eval()


def initialise(model: nn.Module) -> None:
    """Initialise by fan out (He et al. 2015, section 2.2), with torch's present random state.

    It is counted within a group: torch's own counts a depthwise kernel's outputs over all groups, and activations would
    vanish.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels / module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
