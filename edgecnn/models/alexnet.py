"""AlexNet: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks" (arXiv:1404.5997).

It is the one-column form of Krizhevsky et al. 2012, which torchvision has too.
"""

from __future__ import annotations

from edgecnn.models.rows import SYMMETRIC, ConvRow, LinearRow, PoolRow, Row, make_divisible
from edgecnn.models.spec import Family, Table

# kernel, stride, padding, channels, max pooling after
CONVOLUTIONS = (
    (11, 4, 2, 64, True),
    (5, 1, 2, 192, True),
    (3, 1, 1, 384, False),
    (3, 1, 1, 256, False),
    (3, 1, 1, 256, True),
)
HIDDEN = 4096


def rows(width: float, depth: float) -> tuple[Row, ...]:
    """Return five convolutions, overlapping pooling, two hidden layers behind dropout."""
    stages: list[Row] = []
    for k, s, p, c, pooled in CONVOLUTIONS:
        channels = make_divisible(c * width)
        stages.append(ConvRow(kernel=k, stride=s, padding=p, channels=channels, activation="relu", norm=False))
        stages += [PoolRow(kernel=3, stride=2)] * pooled
    hidden = LinearRow(features=make_divisible(HIDDEN * width), activation="relu", dropout=0.5, dropout_first=True)
    return (*stages, hidden, hidden)


TABLE = Table(
    paper="arXiv:1404.5997",
    families=(Family(name="alexnet", rows=rows, resolution=224, dropout=0.0, padding=SYMMETRIC, grid=6),),
)
