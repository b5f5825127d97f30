"""ResNet: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1 and, for CIFAR, section 4.2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edgecnn.models.rows import SYMMETRIC, BasicRow, BottleneckRow, ConvRow, PoolRow, Row, make_divisible
from edgecnn.models.scaling import COMPOUND, deepened
from edgecnn.models.spec import Family, Table

STAGES = (64, 128, 256, 512)  # channels of the 3x3 convolutions
EXPANSION = 4  # a bottleneck's output channels, as a multiple
# layers: blocks in each stage, bottlenecks
IMAGENET = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
CIFAR_STAGES = (16, 32, 64)
CIFAR = (20, 32, 44, 56, 110)  # 6n + 2 layers, n blocks in each stage
PLAIN = (20, 32, 44, 56)  # the paper's plain networks: the same layers without shortcuts


def imagenet_rows(layers: int, width: float, depth: float) -> tuple[Row, ...]:
    """Return the stages: 7x7 stem and max pooling, then four that halve the map and double the channels."""
    repeats, bottleneck = IMAGENET[layers]
    stages: list[Row] = []
    for place, (base, n) in enumerate(zip(STAGES, repeats, strict=True)):
        inner, stride, blocks = make_divisible(base * width), 1 if place == 0 else 2, deepened(n, depth)
        if bottleneck:
            stages.append(BottleneckRow(inner=inner, channels=EXPANSION * inner, repeats=blocks, stride=stride))
        else:
            stages.append(BasicRow(channels=inner, repeats=blocks, stride=stride))
    stem = ConvRow(kernel=7, stride=2, channels=make_divisible(STAGES[0] * width), activation="relu", padding=3)
    return (stem, PoolRow(kernel=3, stride=2, padding=1), *stages)


def cifar_rows(layers: int, shortcut: str, width: float, depth: float) -> tuple[Row, ...]:
    """Return the stages: 3x3 stem, then three of n blocks; with shortcuts without weights (option A), or with none."""
    blocks = deepened((layers - 2) // 6, depth)
    channels = [make_divisible(c * width) for c in CIFAR_STAGES]
    return (
        ConvRow(kernel=3, channels=channels[0], activation="relu"),
        *(
            BasicRow(channels=c, repeats=blocks, stride=1 if place == 0 else 2, shortcut=shortcut)
            for place, c in enumerate(channels)
        ),
    )


def _family(name: str, rows: Callable[[float, float], tuple[Row, ...]], resolution: int, classes: int) -> Family:
    return Family(
        name=name, rows=rows, resolution=resolution, num_classes=classes, dropout=0.0, padding=SYMMETRIC, bn_eps=1e-5,
        scaling=COMPOUND,
    )  # fmt: skip


TABLE = Table(
    paper="arXiv:1512.03385",
    families=(
        *(_family(f"resnet{layers}", partial(imagenet_rows, layers), 224, 1000) for layers in IMAGENET),
        *(
            _family(f"{kind}{layers}", partial(cifar_rows, layers, shortcut), 32, 10)
            for kind, shortcut, depths in (("resnet", "pad", CIFAR), ("plain", "none", PLAIN))
            for layers in depths
        ),
    ),
)
