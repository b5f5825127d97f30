"""VGG: Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", table 1."""

from __future__ import annotations

from functools import partial

from edgecnn.models.rows import SYMMETRIC, ConvRow, LinearRow, PoolRow, Row, make_divisible
from edgecnn.models.spec import Family, Table

STAGES = (64, 128, 256, 512, 512)  # channels; max pooling after each
# layers: 3x3 convolutions in each stage (columns A, B, D, E)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
HIDDEN = 4096


def rows(layers: int, norm: bool, width: float, depth: float) -> tuple[Row, ...]:
    """Return 3x3 convolutions (with a bias, also under batch norm) and pooling, two hidden layers with dropout."""
    stages: list[Row] = []
    for c, repeats in zip(STAGES, CONVOLUTIONS[layers], strict=True):
        channels = make_divisible(c * width)
        stages += [ConvRow(kernel=3, channels=channels, activation="relu", norm=norm, bias=True)] * repeats
        stages.append(PoolRow(kernel=2, stride=2))
    hidden = LinearRow(features=make_divisible(HIDDEN * width), activation="relu", dropout=0.5)
    return (*stages, hidden, hidden)


TABLE = Table(
    paper="arXiv:1409.1556",
    families=tuple(
        Family(
            name=f"vgg{layers}{'_bn' if norm else ''}", rows=partial(rows, layers, norm), resolution=224, dropout=0.0,
            padding=SYMMETRIC, bn_eps=1e-5, grid=7,
        )
        for layers in CONVOLUTIONS
        for norm in (False, True)
    ),
)  # fmt: skip
