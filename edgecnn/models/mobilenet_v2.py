"""MobileNetV2: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2."""

from __future__ import annotations

from edgecnn.models.rows import ConvRow, InvertedRow, Row, make_divisible
from edgecnn.models.scaling import COMPOUND, deepened
from edgecnn.models.spec import Family, Table

STEM, HEAD = 32, 1280
# expand, channels, repeats, stride: t, c, n, s of table 2
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def rows(width: float, depth: float) -> tuple[Row, ...]:
    """Return the stages at a width and a depth; the last convolution never shrinks (sec. 6.1)."""
    return (
        ConvRow(kernel=3, stride=2, channels=make_divisible(STEM * width)),
        *(
            InvertedRow(expand=t, channels=make_divisible(c * width), repeats=deepened(n, depth), stride=s)
            for t, c, n, s in BLOCKS
        ),
        ConvRow(kernel=1, stride=1, channels=make_divisible(HEAD * max(1.0, width))),
    )


TABLE = Table(
    paper="arXiv:1801.04381",
    families=(
        Family(
            name="mobilenet_v2", rows=rows, resolution=224, dropout=0.2, scaling=COMPOUND,
            listed=(*(f"mobilenet_v2_{w}_224" for w in ("1.4", "1.0", "0.75", "0.5", "0.35")), "mobilenet_v2_0.35_96"),
        ),
    ),
)  # fmt: skip
