"""Compound scaling, counted (Tan & Le 2019, arXiv:1905.11946, sections 3.1 to 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgecnn.allocator import require_memory
from edgecnn.errors import InputError, unknown
from edgecnn.models import families
from edgecnn.models.count import size_of
from edgecnn.models.scaling import EFFICIENTNET, EFFICIENTNET_LITE, Compound
from edgecnn.models.spec import RESOLUTIONS, ModelSpec, named, resolve
from edgecnn.report.plot import Panel, Series, line_chart

THEORY = {"depth": 1.0, "width": 2.0, "resolution": 2.0}  # exponents of MACs (section 3.1)
FACTORS = (1, 2, 3, 4)  # whole, so that neither channels nor blocks are rounded
PUBLISHED = (EFFICIENTNET, EFFICIENTNET_LITE)  # the first of each is the one that was made larger
MEMBER = "efficientnet_"
COPIES = 2  # of float32 weights, at least, in an export: the module's and the graph's
DIGITS = 3  # of the multipliers in a name


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """A model that the rule makes.

    Attributes:
        model: its name, for every command that takes one.
        phi: the exponent.
        depth, width: multipliers; resolution: pixels.
        predicted_macs: the base's times ``cost**phi``.
        macs: counted.
        parameters: counted.
    """

    model: str
    phi: float
    depth: float
    width: float
    resolution: int
    predicted_macs: int
    macs: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A published member beside what the rule makes at the nearest phi.

    Attributes:
        member: the model's name.
        phi: least squares of the logarithms of its three multipliers.
        rule_depth, rule_width, rule_resolution: of the rule, unrounded but for the pixels.
        depth, width, resolution: published, rounded by hand by the paper's authors.
        predicted_macs: the base's times ``cost**phi``.
        macs: counted, of the published member.
        off: how far the published multiplier that is farthest from the rule's is, as a share of the rule's.
    """

    member: str
    phi: float
    rule_depth: float
    depth: float
    rule_width: float
    width: float
    rule_resolution: int
    resolution: int
    predicted_macs: int
    macs: int

    @property
    def off(self) -> float:
        """Return the largest distance of a multiplier from the rule's."""
        ours = (self.rule_depth, self.rule_width, self.rule_resolution)
        theirs = (self.depth, self.width, self.resolution)
        return max(abs(b / a - 1) for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How MACs grow along one axis.

    Attributes:
        axis: ``depth``, ``width`` or ``resolution``.
        exponent: fitted, least squares of the logarithms.
        theory: 1, 2, 2.
        points: factor and MACs.
    """

    axis: str
    exponent: float
    theory: float
    points: tuple[tuple[float, int], ...]


def scalable(family: str) -> None:
    """Check that a family has a compound rule.

    Raises:
        InputError: there is no such family, or it has no rule.
    """
    able = [f.name for f in families().values() if f.scaling is not None]
    if family not in families():
        raise InputError(unknown("family", family, able))
    if families()[family].scaling is None:
        raise InputError(f"{family} has no scaling rules; families that have: {', '.join(able)}")


def model_at(family: str, rule: Compound, phi: float, classes: int | None = None) -> ModelSpec:
    """Return the model of a family at ``phi``, of so many classes or as many as the family has.

    Raises:
        InputError: the family has no rule, or a multiplier or the resolution is impossible.
    """
    scalable(family)
    return grown(resolve(family, classes), rule, phi)


def grown(base: ModelSpec, rule: Compound, phi: float) -> ModelSpec:
    """Return a model of a scalable family, made larger (below 0: smaller) by the rule at ``phi``.

    Raises:
        InputError: phi is no number, or a multiplier or the resolution becomes impossible.
    """
    if not math.isfinite(phi):
        raise InputError(f"phi {phi:g}: give a number, such as 1; the published models are at 0 to 7")
    try:
        made = rule.at(phi, base.resolution)
    except OverflowError:
        raise InputError(f"phi {phi:g} makes a model that no machine holds; the published ones are 0 to 7") from None
    width, depth = (round(m, DIGITS) for m in (base.width * made.width, base.depth * made.depth))
    return named(base.family, width, depth, made.resolution, base.num_classes)


def require_room(spec: ModelSpec) -> None:
    """Check that this machine could export a model; UnsupportedError: its memory does not hold the weights' copies."""
    require_memory(spec.name, COPIES * 4 * size_of(spec).parameters)


def scaled(family: str, rule: Compound, phi: float) -> Scaled:
    """Return the model of a family at ``phi``, its MACs predicted and counted.

    Raises:
        InputError: as ``model_at`` and ``require_room``.
    """
    spec = model_at(family, rule, phi)
    require_room(spec)
    size, base = size_of(spec), size_of(resolve(family))
    return Scaled(
        model=spec.name, phi=phi, depth=spec.depth, width=spec.width, resolution=spec.resolution,
        predicted_macs=round(base.macs * rule.cost**phi), macs=size.macs, parameters=size.parameters,
    )  # fmt: skip


def published(family: str, rule: Compound) -> list[Beside]:
    """Return the published members beside the rule on the smallest; none for a family that has no published ones."""
    members = next((line for line in PUBLISHED if family.removeprefix(MEMBER) in line), {})
    base = next(iter(members.values())).resolution if members else 0
    found, base_macs = [], 0
    for name, member in members.items():
        phi = rule.phi_of(member, base)
        at = rule.at(phi, base)
        model = f"{MEMBER}{name}"
        macs = size_of(resolve(model)).macs
        base_macs = base_macs or macs
        found.append(
            Beside(
                member=model, phi=phi, rule_depth=at.depth, depth=member.depth, rule_width=at.width, width=member.width,
                rule_resolution=at.resolution, resolution=member.resolution,
                predicted_macs=round(base_macs * rule.cost**phi), macs=macs,
            )
        )  # fmt: skip
    return found


def law(family: str) -> list[Growth]:
    """Count MACs while depth, width or resolution alone grows by ``FACTORS``, and the fitted exponents.

    Raises:
        InputError: the family has no scaling rules, or it cannot grow so far.
    """
    scalable(family)
    resolution = families()[family].resolution
    base = size_of(resolve(family)).macs
    found = []
    for axis, theory in THEORY.items():
        points = [(1.0, base)]
        for factor in FACTORS[1:]:
            width, depth = (float(factor) if axis == a else 1.0 for a in ("width", "depth"))
            side = resolution * factor if axis == "resolution" else resolution
            if side <= RESOLUTIONS[1]:
                points.append((float(factor), size_of(named(family, width, depth, side)).macs))
        if len(points) < 2:
            raise InputError(f"{family} starts at {resolution} pixels and cannot double; take a smaller member")
        factors, macs = np.log(np.array(points, np.float64)).T
        exponent = float(np.polyfit(factors, macs, 1)[0])
        found.append(Growth(axis=axis, exponent=exponent, theory=theory, points=tuple(points)))
    return found


def law_chart(family: str, growths: list[Growth]) -> str:
    """Draw the plot, SVG: a line per axis, dashed what theory says."""
    counted = [
        Series(name=f"{g.axis}: {g.exponent:.2f}", points=tuple((f, m / 1e6) for f, m in g.points)) for g in growths
    ]
    base = growths[0].points[0][1] / 1e6
    ideal = [
        Series(name=f"theory: {power:g}", points=tuple((float(f), base * f**power) for f in FACTORS), dashed=True)
        for power in sorted({g.theory for g in growths})
    ]
    title, series = f"{family}: one axis alone", (*counted, *ideal)
    return line_chart(Panel(title=title, x="factor", y="million MACs", series=series, log_x=True, log_y=True))
