"""Architectures as typed rows. No torch here: names, rows and errors answer at once.

A name is ``FAMILY``, then, each only if wanted, ``_WIDTH`` or ``_WIDTHxDEPTH`` (with a point) and ``_RESOLUTION``
(without): ``mobilenet_v2``, ``mobilenet_v2_0.35_96``, ``resnet18_64``, ``efficientnet_b0_0.5x0.5_96``. They multiply
the channels of the named family and the blocks in its stages: ``efficientnet_b0_1.2x1.4_300`` is ``efficientnet_b3``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from edgecnn.errors import InputError, unknown
from edgecnn.models.rows import SAME, SYMMETRIC, InceptionRow, LinearRow, Row
from edgecnn.models.scaling import Compound
from edgecnn.plugins import registry

PADDINGS = (SAME, SYMMETRIC)
STRIDE_PLACES = ("3x3", "1x1")
MULTIPLIERS = (0.05, 8.0)
RESOLUTIONS = (32, 1024)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A line of models that differ in width, depth and resolution.

    Attributes:
        name: as in model names.
        rows: the rows at a width and a depth, channels and repeats already rounded.
        resolution: default input side in pixels.
        dropout: before the classifier, in training.
        listed: names that ``edgecnn models`` shows beside it; any other width and resolution works too.
        padding: of strided convolutions, unless the weights say otherwise.
        bn_eps: batch norm's epsilon, unless the weights say otherwise.
        grid: side of the pooled map that the head reads; a smaller map is read as it is.
        drop_connect: probability that the last residual branch is dropped in training; the others in proportion to
            their place (Huang et al. 2016, equation 4).
        scaling: the compound rule, or ``None`` for a family whose stages have no repeated blocks to add.
        num_classes: logits, unless the data or the weights say otherwise.
    """

    name: str
    rows: Callable[[float, float], tuple[Row, ...]]
    resolution: int
    dropout: float
    listed: tuple[str, ...] = ()
    padding: str = SAME
    bn_eps: float = 1e-3
    grid: int = 1
    drop_connect: float = 0.0
    scaling: Compound | None = None
    num_classes: int = 1000


@dataclass(frozen=True, kw_only=True)
class Table:
    """The families of one paper: what an entry point of ``edgecnn.models`` names.

    Attributes:
        paper: the source of the rows, as ``arXiv:NUMBER`` or a citation.
        families: one or more, whose names no other table has.
    """

    paper: str
    families: tuple[Family, ...]


@cache
def families() -> Mapping[str, Family]:
    """Return the families of all installed tables by their names, those that ship with edgecnn first.

    Raises:
        InputError: two tables have a family of one name, or a table cannot be used (see ``plugins.registry``).
    """
    found: dict[str, Family] = {}
    for table, models in registry("models", Table).items():
        for family in models.families:
            if family.name in found:
                raise InputError(f"models {table!r}: {family.name!r} is a family of another table; rename one of them")
            found[family.name] = family
    return found


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One architecture, ready to build.

    Attributes:
        name: ``FAMILY_WIDTH_RESOLUTION``, or ``FAMILY_WIDTHxDEPTH_RESOLUTION``.
        family: a key of ``families()``.
        width: multiplier of the channels.
        resolution: input side in pixels.
        num_classes: logits.
        padding: ``same`` (TensorFlow) or ``symmetric`` (torchvision): they differ where the stride is 2.
        folded: convolutions have a bias and there is no batch norm, as in weights that were folded already.
        bn_eps: batch norm's epsilon.
        depth: multiplier of the blocks in a stage.
        stride_in: which convolution of a bottleneck has the stride: ``3x3`` (torchvision), or the first ``1x1`` as in
            the paper (Keras).

    Raises:
        InputError: a value that is not allowed, or a resolution that the strides leave nothing of.
    """

    name: str
    family: str
    width: float
    resolution: int
    num_classes: int = 1000
    padding: str = SAME
    folded: bool = False
    bn_eps: float = 1e-3
    depth: float = 1.0
    stride_in: str = "3x3"

    def __post_init__(self) -> None:
        family = family_of(self.family)
        if self.padding not in PADDINGS:
            raise InputError(unknown("padding", self.padding, PADDINGS))
        if self.stride_in not in STRIDE_PLACES:
            raise InputError(unknown("place of a bottleneck's stride", self.stride_in, STRIDE_PLACES))
        if self.num_classes < 1:
            raise InputError(f"{self.name}: {self.num_classes} classes; a classifier has at least 1")
        low, high = MULTIPLIERS
        for what in ("width", "depth"):
            if not low <= getattr(self, what) <= high:
                raise InputError(f"{self.name}: {what} {getattr(self, what)}; allowed: {low} to {high}")
        if self.depth != 1 and family.scaling is None:
            able = ", ".join(f.name for f in families().values() if f.scaling)
            raise InputError(f"{self.name}: {self.family} has no depth to scale; families that have: {able}")
        smallest, largest = RESOLUTIONS
        if not smallest <= self.resolution <= largest:
            raise InputError(f"{self.name}: resolution {self.resolution}; allowed: {smallest} to {largest} pixels")
        fault = self._misfit(self.resolution)
        if fault:
            fitting = [r for r in range(smallest, largest + 1) if not self._misfit(r)]
            near = sorted(sorted(fitting, key=lambda r: abs(r - self.resolution))[:2])
            raise InputError(
                f"{self.name}: resolution {self.resolution} is impossible: {fault}; the nearest that are possible: "
                + ", ".join(map(str, near))
            )

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Return the stages, of the family."""
        return families()[self.family].rows(self.width, self.depth)

    @cached_property
    def sides(self) -> tuple[int, ...]:
        """Return the side of the map that each row but the head's reads, and of the last one's output, in pixels."""
        return self._sides(self.resolution)

    def _sides(self, resolution: int) -> tuple[int, ...]:
        sides = [resolution]
        for row in self.rows:
            if not isinstance(row, LinearRow):
                sides.append(row.side_after(sides[-1], self.padding))
        return tuple(sides)

    def _misfit(self, resolution: int) -> str | None:
        """Say why the rows cannot work at a resolution."""
        sides, grid = self._sides(resolution), families()[self.family].grid
        for number, (row, before, after) in enumerate(zip(self.rows, sides[:-1], sides[1:], strict=False), start=1):
            stride = 1 if isinstance(row, InceptionRow | LinearRow) else row.stride
            if before < stride or after < 1:
                return f"stage {number}, of stride {stride}, would get a map of {max(before, 0)}x{max(before, 0)}"
        if sides[-1] > grid and sides[-1] % grid:
            return f"the last map is {sides[-1]}x{sides[-1]}, which does not divide into the classifier's {grid}x{grid}"
        return None

    @property
    def grid(self) -> int:
        """Return the side of the pooled map that the head reads."""
        return min(families()[self.family].grid, self.sides[-1])


def family_of(name: str) -> Family:
    """Return the family of that name.

    Raises:
        InputError: there is none.
    """
    if name not in families():
        raise InputError(unknown("family", name, families()))
    return families()[name]


def resolve(name: str, num_classes: int | None = None) -> ModelSpec:
    """Return the spec of a name.

    Raises:
        InputError: no such family, or an impossible width, depth or resolution.
    """
    for family in families().values():
        match = re.fullmatch(rf"{family.name}(?:_(\d+\.\d+)(?:x(\d+\.\d+))?)?(?:_(\d+))?", name)
        if match:
            width, depth = float(match[1] or 1), float(match[2] or 1)
            return named(family.name, width, depth, int(match[3] or family.resolution), num_classes)
    listed = [n for f in families().values() for n in (f.name, *f.listed)]
    raise InputError(
        f"{unknown('model', name, listed)}; `edgecnn models` lists all; FAMILY_WIDTH_RESOLUTION "
        "and package.module:factory serve too"
    )


def named(family: str, width: float, depth: float, resolution: int, num_classes: int | None = None) -> ModelSpec:
    """Return the spec of a family at a width, depth and resolution; its name is one that ``resolve`` reads.

    Raises:
        InputError: no such family, or an impossible width, depth or resolution.
    """
    line = family_of(family)
    multipliers = f"{float(width)}" if depth == 1 else f"{float(width)}x{float(depth)}"
    return ModelSpec(
        name=f"{family}_{multipliers}_{resolution}", family=family, width=width, depth=depth, resolution=resolution,
        num_classes=line.num_classes if num_classes is None else num_classes, padding=line.padding, bn_eps=line.bn_eps,
    )  # fmt: skip
