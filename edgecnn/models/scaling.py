"""Compound scaling: depth, width and resolution grow together by one exponent.

Source: Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (arXiv:1905.11946):
equation 3, the coefficients of section 3.3, found by a grid search on B0, and the members as the reference code
has them (tensorflow/tpu, ``efficientnet_builder.py`` and ``efficientnet_lite_builder.py``). Its authors rounded the
members' multipliers by hand: the rule gives them to about a tenth (``Compound.phi_of``), the table exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn.errors import InputError

STEP = 4  # the rule's resolutions are multiples of so many pixels, as the published ones are


@dataclass(frozen=True, kw_only=True)
class Multipliers:
    """Factors by which a model is made larger: channels, blocks in a stage, and the side of the image in pixels."""

    width: float
    depth: float
    resolution: int


@dataclass(frozen=True, kw_only=True)
class Compound:
    """The rule: depth ``alpha**phi``, width ``beta**phi``, resolution ``gamma**phi``.

    Raises:
        InputError: a coefficient is below 1, or no number.
    """

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15

    def __post_init__(self) -> None:
        if not all(1 <= c < math.inf for c in (self.alpha, self.beta, self.gamma)):
            raise InputError(f"alpha {self.alpha}, beta {self.beta}, gamma {self.gamma}: each must be at least 1")

    @property
    def cost(self) -> float:
        """Return the factor by which MACs grow when phi grows by 1: ``alpha * beta**2 * gamma**2``, about 2."""
        return self.alpha * self.beta**2 * self.gamma**2

    def at(self, phi: float, resolution: int) -> Multipliers:
        """Return the multipliers at ``phi`` for a base of that resolution (pixels, made a multiple of ``STEP``)."""
        side = STEP * round(resolution * self.gamma**phi / STEP)
        return Multipliers(width=self.beta**phi, depth=self.alpha**phi, resolution=side)

    def phi_of(self, made: Multipliers, resolution: int) -> float:
        """Return the phi at which the rule is nearest to given multipliers: least squares of their logarithms."""
        rule = [math.log(c) for c in (self.alpha, self.beta, self.gamma)]
        seen = [math.log(m) for m in (made.depth, made.width, made.resolution / resolution)]
        return sum(a * b for a, b in zip(rule, seen, strict=True)) / sum(a * a for a in rule)


COMPOUND = Compound()


@dataclass(frozen=True, kw_only=True)
class Member(Multipliers):
    """A published model of a compound family; ``dropout`` is before the classifier, in training."""

    dropout: float


def _members(name: str, *rows: tuple[float, float, int, float]) -> Mapping[str, Member]:
    """Name the members by their phi; a row is width, depth, resolution and dropout."""
    return {f"{name}{k}": Member(width=w, depth=d, resolution=r, dropout=p) for k, (w, d, r, p) in enumerate(rows)}


EFFICIENTNET = _members(
    "b", (1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3), (1.2, 1.4, 300, 0.3),
    (1.4, 1.8, 380, 0.4), (1.6, 2.2, 456, 0.4), (1.8, 2.6, 528, 0.5), (2.0, 3.1, 600, 0.5),
)  # fmt: skip
EFFICIENTNET_LITE = _members(
    "lite", (1.0, 1.0, 224, 0.2), (1.0, 1.1, 240, 0.2), (1.1, 1.2, 260, 0.3), (1.2, 1.4, 280, 0.3),
    (1.4, 1.8, 300, 0.3),
)  # fmt: skip


def deepened(repeats: int, depth: float) -> int:
    """Return the blocks of a stage at a depth multiplier, rounded up (reference implementation, ``round_repeats``)."""
    return math.ceil(depth * repeats)
