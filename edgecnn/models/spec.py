"""Architectures as typed rows. No torch here: names, rows and errors answer at once.

A name is ``FAMILY``, ``FAMILY_WIDTH`` or ``FAMILY_WIDTH_RESOLUTION``: ``mobilenet_v2``, ``mobilenet_v2_0.35_96``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgecnn.errors import InputError, unknown

PADDINGS = ("same", "symmetric")
WIDTHS = (0.05, 8.0)
RESOLUTIONS = (32, 1024)


@dataclass(frozen=True, kw_only=True)
class ConvRow:
    """A convolution, batch norm and ReLU6."""

    kernel: int
    stride: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class SeparableRow:
    """A depthwise 3x3 convolution and a pointwise one, each with batch norm and ReLU6 (MobileNetV1, fig. 3)."""

    stride: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class InvertedRow:
    """``repeats`` inverted residuals; the first has ``stride``, the others 1 (MobileNetV2, table 1).

    Attributes:
        expand: channels inside, as a multiple of the input's.
        channels: output channels.
        repeats: blocks in the row.
        stride: of the first block.
    """

    expand: int
    channels: int
    repeats: int
    stride: int


Row = ConvRow | SeparableRow | InvertedRow


@dataclass(frozen=True, kw_only=True)
class Family:
    """A line of models that differ in width and resolution.

    Attributes:
        name: as in model names.
        rows: the rows at a width, channels already rounded.
        resolution: default input side in pixels.
        dropout: before the classifier, in training.
        listed: names that ``edgecnn models`` shows; any other width and resolution works too.
        paper: the source of the rows.
    """

    name: str
    rows: Callable[[float], tuple[Row, ...]]
    resolution: int
    dropout: float
    listed: tuple[str, ...]
    paper: str


FAMILIES: dict[str, Family] = {}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One architecture, ready to build.

    Attributes:
        name: ``FAMILY_WIDTH_RESOLUTION``.
        family: a key of ``FAMILIES``.
        width: multiplier of the channels.
        resolution: input side in pixels.
        num_classes: logits.
        padding: ``same`` (TensorFlow) or ``symmetric`` (torchvision): they differ where the stride is 2.
        folded: convolutions have a bias and there is no batch norm, as in weights that were folded already.
        bn_eps: batch norm's epsilon.
        rows: the stages, filled in from the family.
    """

    name: str
    family: str
    width: float
    resolution: int
    num_classes: int = 1000
    padding: str = "same"
    folded: bool = False
    bn_eps: float = 1e-3
    rows: tuple[Row, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise InputError(unknown("padding", self.padding, PADDINGS))
        if self.num_classes < 1:
            raise InputError(f"{self.name}: {self.num_classes} classes; a classifier has at least 1")
        low, high = WIDTHS
        if not low <= self.width <= high:
            raise InputError(f"{self.name}: width {self.width}; allowed: {low} to {high}")
        smallest, largest = RESOLUTIONS
        if not smallest <= self.resolution <= largest:
            raise InputError(f"{self.name}: resolution {self.resolution}; allowed: {smallest} to {largest} pixels")
        object.__setattr__(self, "rows", FAMILIES[self.family].rows(self.width))

    def to_json(self) -> dict[str, object]:
        """What ``from_json`` needs to make the same spec."""
        names = ("name", "family", "width", "resolution", "num_classes", "padding", "folded", "bn_eps")
        return {k: getattr(self, k) for k in names}

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> ModelSpec:
        """The inverse of ``to_json``.

        Raises:
            InputError: a key is missing or not known.
        """
        try:
            return cls(**fields)  # type: ignore[arg-type]  # checked by the constructor
        except (TypeError, KeyError) as error:
            raise InputError(f"model record does not describe a model ({error})") from None


def resolve(name: str, num_classes: int = 1000) -> ModelSpec:
    """The spec of a name.

    Raises:
        InputError: no such family, or an impossible width or resolution.
    """
    for family in sorted(FAMILIES.values(), key=lambda f: -len(f.name)):
        match = re.fullmatch(rf"{family.name}(?:_(\d+(?:\.\d+)?))?(?:_(\d+))?", name)
        if match:
            width = float(match[1] or 1.0)
            resolution = int(match[2] or family.resolution)
            full = f"{family.name}_{match[1] or '1.0'}_{resolution}"
            return ModelSpec(name=full, family=family.name, width=width, resolution=resolution, num_classes=num_classes)
    listed = [n for f in FAMILIES.values() for n in (f.name, *f.listed)]
    raise InputError(
        unknown("model", name, listed) + "; any FAMILY_WIDTH_RESOLUTION, or package.module:factory for your own"
    )


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor``, at least one, and never more than 10 % below.

    Source: the channel rounding of the MobileNetV2 reference implementation (TensorFlow models, slim).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
