"""Accuracy against MACs while depth, width or resolution grows alone, and while they grow together.

Source: Tan & Le 2019, section 3.2: figure 3 ("bigger networks with larger width, depth, or resolution tend to achieve
higher accuracy, but the accuracy gain quickly saturates") and figure 8 (the compound rule goes on).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecnn.errors import InputError
from edgecnn.lab.accuracy import Plan, Scored, margin, score
from edgecnn.lab.compound import grown
from edgecnn.models.scaling import Compound
from edgecnn.models.spec import ModelSpec
from edgecnn.report.plot import Panel, Series, line_chart

TOGETHER = "compound"
ALONE = {
    "depth": Compound(alpha=2, beta=1, gamma=1),
    "width": Compound(alpha=1, beta=math.sqrt(2), gamma=1),
    "resolution": Compound(alpha=1, beta=1, gamma=math.sqrt(2)),
}  # each doubles MACs when phi grows by 1 (section 3.1)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One way to grow.

    Attributes:
        axis: ``depth``, ``width``, ``resolution`` or ``compound``.
        points: from the base on, about twice the MACs from each to the next.
    """

    axis: str
    points: tuple[Scored, ...]

    def rises_to(self, least: float) -> int:
        """Return the last place at which more MACs brought more accuracy: that much above the place before that did."""
        place = 0
        for k, point in enumerate(self.points):
            if point.top1 - self.points[place].top1 > least:
                place = k
        return place


@dataclass(frozen=True, kw_only=True)
class Study:
    """Hold what the study found.

    Attributes:
        curves: three axes, and all together.
        margin: see ``accuracy.margin``.
    """

    curves: tuple[Curve, ...]
    margin: float | None


def models(base: ModelSpec, rule: Compound, doublings: int) -> dict[str, list[ModelSpec]]:
    """Return the models of each curve, the base first: so many times about twice the MACs.

    Raises:
        InputError: the rule grows nothing, fewer than two doublings, or a model that is impossible.
    """
    if rule.cost <= 1:
        raise InputError("alpha, beta and gamma are all 1: such a rule grows nothing")
    if not 2 <= doublings <= 8:
        raise InputError(f"--doublings {doublings}: allowed 2 to 8; of one nobody sees whether it flattens")
    return {
        axis: [base, *(grown(base, way, k * math.log(2) / math.log(way.cost)) for k in range(1, doublings + 1))]
        for axis, way in {**ALONE, TOGETHER: rule}.items()
    }


def study(curves: dict[str, list[ModelSpec]], plan: Plan, say: Callable[[str], None]) -> Study:
    """Train every model of the curves.

    Raises:
        InputError: as ``accuracy.score``.
    """
    unique = {spec.name: spec for specs in curves.values() for spec in specs}
    scored = dict(zip(unique, score(list(unique.values()), plan, say), strict=True))
    found = [Curve(axis=axis, points=tuple(scored[s.name] for s in specs)) for axis, specs in curves.items()]
    return Study(curves=tuple(found), margin=margin(scored.values()))


def verdict(found: Study) -> list[str]:
    """Tell whether single axes flatten early and the compound rule goes on: one line each, the last the answer."""
    if found.margin is None:
        return ["one seed says nothing of chance: no verdict; give --seeds 2 or more"]
    lines = [f"differences up to {found.margin:.2f} points may be chance"]
    ends = {}
    for curve in found.curves:
        place, last = curve.rises_to(found.margin), len(curve.points) - 1
        ends[curve.axis] = place == last
        gain = curve.points[-1].top1 - curve.points[0].top1
        factor, growth = (curve.points[k].macs / curve.points[0].macs for k in (place, last))
        until = "rises to the end" if place == last else f"rises to {factor:.1f} times" if place else "does not rise"
        lines.append(f"{curve.axis}: {until}; {gain:+.2f} points at {growth:.1f} times the MACs")
    return [*lines, _answer(found.curves, ends, found.margin)]


def _answer(curves: Sequence[Curve], goes_on: dict[str, bool], least: float) -> str:
    together = next(c for c in curves if c.axis == TOGETHER)
    best = max((c for c in curves if c.axis != TOGETHER), key=lambda c: c.points[-1].top1)
    lead = together.points[-1].top1 - best.points[-1].top1
    rising = [axis for axis, on in goes_on.items() if on and axis != TOGETHER]
    if lead < -least:
        return f"not so here: {best.axis} alone ends {-lead:.2f} points above the compound rule"
    if lead <= least:
        return f"undecided here: the compound rule and {best.axis} alone end {abs(lead):.2f} points apart"
    ahead = f"the compound rule ends {lead:.2f} points above {best.axis} alone"
    if not goes_on[TOGETHER]:
        return f"half so here: {ahead}, but flattens too"
    if rising:
        return f"half so here: {ahead}, but {' and '.join(rising)} alone did not flatten"
    return f"so it is here: single axes flatten, the compound rule goes on: {ahead}"


def chart(base: str, found: Study) -> str:
    """Draw the plot, SVG: a line per way to grow."""
    series = tuple(Series(name=c.axis, points=tuple((p.macs / 1e6, p.top1) for p in c.points)) for c in found.curves)
    return line_chart(Panel(title=base, x="million MACs", y="top-1, percent", series=series, log_x=True))
