"""GoogLeNet: Szegedy et al. 2015, "Going Deeper with Convolutions", table 1.

With batch norm, and 3x3 for 5x5, as the weights that people have (torchvision's, ported from TensorFlow's).
"""

from __future__ import annotations

from edgecnn.models.rows import SYMMETRIC, ConvRow, InceptionRow, PoolRow, Row, make_divisible
from edgecnn.models.spec import Family, Table

# 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection; an auxiliary classifier on the input; or max pooling
INCEPTIONS = (
    (64, 96, 128, 16, 32, 32, False),
    (128, 128, 192, 32, 96, 64, False),
    PoolRow(kernel=3, stride=2, ceil=True),
    (192, 96, 208, 16, 48, 64, False),
    (160, 112, 224, 24, 64, 64, True),
    (128, 128, 256, 24, 64, 64, False),
    (112, 144, 288, 32, 64, 64, False),
    (256, 160, 320, 32, 128, 128, True),
    PoolRow(kernel=2, stride=2, ceil=True),
    (256, 160, 320, 32, 128, 128, False),
    (384, 192, 384, 48, 128, 128, False),
)


def rows(width: float, depth: float) -> tuple[Row, ...]:
    """Return three convolutions, nine inception modules, pooling between."""

    def scaled(channels: int) -> int:
        return make_divisible(channels * width)

    def conv(kernel: int, channels: int, stride: int = 1) -> ConvRow:
        return ConvRow(kernel=kernel, stride=stride, channels=scaled(channels), activation="relu")

    pool = PoolRow(kernel=3, stride=2, ceil=True)
    stages: list[Row] = []
    for row in INCEPTIONS:
        if isinstance(row, PoolRow):
            stages.append(row)
            continue
        one, three_reduce, three, five_reduce, five, projected, auxiliary = row
        stages.append(
            InceptionRow(
                one=scaled(one), three_reduce=scaled(three_reduce), three=scaled(three),
                five_reduce=scaled(five_reduce), five=scaled(five), pool=scaled(projected), auxiliary=auxiliary,
            )
        )  # fmt: skip
    return (conv(7, 64, stride=2), pool, conv(1, 64), conv(3, 192), pool, *stages)


TABLE = Table(
    paper="arXiv:1409.4842",
    families=(Family(name="googlenet", rows=rows, resolution=224, dropout=0.2, padding=SYMMETRIC),),
)
