"""MobileNetV3: Howard et al. 2019, "Searching for MobileNetV3", tables 1 (large) and 2 (small)."""

from __future__ import annotations

from functools import partial

from edgecnn.models.rows import ConvRow, InvertedRow, LinearRow, Row, Squeeze, make_divisible
from edgecnn.models.spec import Family, Table

STEM = 16
SQUEEZE = Squeeze(channels=lambda inputs, hidden: make_divisible(hidden / 4), activation="relu", gate="hard_sigmoid")
RE, HS = "relu", "hard_swish"
# kernel, expanded channels, channels, squeeze and excitation, activation, stride: exp size, #out, SE, NL, s there
LARGE = (
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)
SMALL = (
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2),
    (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2),
    (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1),
    (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2),
    (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1),
)
Blocks = tuple[tuple[int, int, int, bool, str, int], ...]


def rows(blocks: Blocks, hidden: int, width: float, depth: float) -> tuple[Row, ...]:
    """Return the stages at a width; the hidden layer grows with it but does not shrink (reference implementation)."""
    stages: list[InvertedRow] = []
    before = STEM
    for k, expanded, c, squeeze, act, s in blocks:
        stages.append(
            InvertedRow(
                kernel=k, expand=expanded / before, channels=make_divisible(c * width), stride=s, activation=act,
                squeeze=SQUEEZE if squeeze else None,
            )
        )  # fmt: skip
        before = c
    last = blocks[-1][1]  # the last convolution is as wide as the last block inside
    return (
        ConvRow(kernel=3, stride=2, channels=make_divisible(STEM * width), activation=HS),
        *stages,
        ConvRow(kernel=1, channels=make_divisible(last * width), activation=HS),
        LinearRow(features=make_divisible(hidden * max(1.0, width)), activation=HS),
    )


TABLE = Table(
    paper="arXiv:1905.02244",
    families=tuple(
        Family(name=f"mobilenet_v3_{size}", rows=partial(rows, blocks, hidden), resolution=224, dropout=0.2)
        for size, blocks, hidden in (("small", SMALL, 1024), ("large", LARGE, 1280))
    ),
)
