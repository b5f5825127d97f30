"""MobileNetV1: Howard et al. 2017, "MobileNets: Efficient CNNs for Mobile Vision Applications", table 1."""

from __future__ import annotations

from edgecnn.models.rows import ConvRow, Row, SeparableRow
from edgecnn.models.spec import Family, Table

# (stride, channels) of each depthwise separable block at width 1
BLOCKS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *((1, 512),) * 5, (2, 1024), (1, 1024))


def rows(width: float, depth: float) -> tuple[Row, ...]:
    """Return the stages at a width: channels are truncated, not rounded to 8, as in the reference implementation."""
    stem = ConvRow(kernel=3, stride=2, channels=max(1, int(32 * width)))
    return (stem, *(SeparableRow(stride=s, channels=max(1, int(c * width))) for s, c in BLOCKS))


TABLE = Table(
    paper="arXiv:1704.04861",
    families=(
        Family(
            name="mobilenet_v1", rows=rows, resolution=224, dropout=0.001,
            listed=tuple(f"mobilenet_v1_{w}_224" for w in ("1.0", "0.75", "0.5", "0.25")),
        ),
    ),
)  # fmt: skip
