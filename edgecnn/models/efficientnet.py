"""EfficientNet B0-B7: Tan & Le 2019, table 1 and section 3.3; Lite0-Lite4: the reference implementation.

Both are one table: Lite has no squeeze and excitation, ReLU6 for swish, and a stem, a head, and first and last stages
that do not grow (tensorflow/tpu, ``efficientnet_lite_builder.py``: ``fix_head_stem``).
"""

from __future__ import annotations

from edgecnn.models.rows import ConvRow, InvertedRow, Row, Squeeze, make_divisible
from edgecnn.models.scaling import COMPOUND, EFFICIENTNET, EFFICIENTNET_LITE, Member, deepened
from edgecnn.models.spec import Family, Table

STEM, HEAD = 32, 1280
# kernel, expand, channels, repeats, stride
BLOCKS = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
SQUEEZE = Squeeze(channels=lambda inputs, hidden: max(1, inputs // 4), activation="silu", gate="sigmoid")


def rows(width: float, depth: float, *, lite: bool = False) -> tuple[Row, ...]:
    """Return the stages at a width and a depth."""
    act, fixed = ("relu6", min(1.0, width)) if lite else ("silu", width)
    squeeze = None if lite else SQUEEZE
    stages = [
        InvertedRow(
            kernel=k, expand=t, channels=make_divisible(c * width), stride=s, activation=act, squeeze=squeeze,
            repeats=n if lite and place in (0, len(BLOCKS) - 1) else deepened(n, depth),
        )
        for place, (k, t, c, n, s) in enumerate(BLOCKS)
    ]  # fmt: skip
    return (
        ConvRow(kernel=3, stride=2, channels=make_divisible(STEM * fixed), activation=act),
        *stages,
        ConvRow(kernel=1, channels=make_divisible(HEAD * fixed), activation=act),
    )


def _family(name: str, member: Member, lite: bool) -> Family:
    return Family(
        name=f"efficientnet_{name}",
        rows=lambda width, depth: rows(member.width * width, member.depth * depth, lite=lite),
        resolution=member.resolution, dropout=member.dropout, drop_connect=0.2, scaling=COMPOUND,
    )  # fmt: skip


TABLE = Table(
    paper="arXiv:1905.11946",
    families=tuple(
        _family(name, member, members is EFFICIENTNET_LITE)
        for members in (EFFICIENTNET, EFFICIENTNET_LITE)
        for name, member in members.items()
    ),
)
