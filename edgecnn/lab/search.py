"""The grid search for alpha, beta and gamma: what to spend a doubling of the cost on (Tan & Le 2019, section 3.3).

At phi = 1, under ``alpha * beta**2 * gamma**2`` near 2, each point of a grid makes one model of the base; short
trainings say which is best. Multipliers are rounded to whole blocks, to multiples of 8 channels and of 4 pixels, so
small bases cost other than the product says: what is counted must be near 2 as well, or nothing would be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecnn.errors import InputError
from edgecnn.lab.accuracy import Plan, Scored, margin, score
from edgecnn.lab.compound import grown
from edgecnn.models.count import size_of
from edgecnn.models.scaling import Compound
from edgecnn.models.spec import ModelSpec
from edgecnn.report.plot import Panel, Series, line_chart

COST = 2.0
TOLERANCE = 0.05  # of the product, as a share of 2
COUNTED = 0.15  # of the MACs that are counted, as a share of twice the base's


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the grid.

    Attributes:
        rule: its coefficients.
        spec: the model at phi = 1.
        growth: its MACs, counted, as a multiple of the base's.
    """

    rule: Compound
    spec: ModelSpec
    growth: float


@dataclass(frozen=True, kw_only=True)
class Grid:
    """List what is compared, and what is not.

    Attributes:
        points: different models of about equal cost.
        unequal: multiples of the base's MACs of those whose cost rounding puts too far from 2.
    """

    points: tuple[Point, ...]
    unequal: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Hold what the search found.

    Attributes:
        base: the model at phi = 0.
        ranked: the points with what they reached, the best first.
        margin: see ``accuracy.margin``.
    """

    base: Scored
    ranked: tuple[tuple[Point, Scored], ...]
    margin: float | None


def grid(base: ModelSpec, step: float, tolerance: float = TOLERANCE) -> Grid:
    """Return the points of a grid in steps from 1, and the published coefficients, that cost about twice the base.

    Args:
        base: a model of a family that has a compound rule.
        step: of each coefficient, 0.02 to 0.5.
        tolerance: of ``alpha * beta**2 * gamma**2``, as a share of 2.

    Raises:
        InputError: the step or the tolerance is not allowed, or fewer than two points are left.
    """
    if not 0.02 <= step <= 0.5:
        raise InputError(f"--step {step:g}: allowed 0.02 to 0.5")
    if not 0 < tolerance <= 0.25:
        raise InputError(f"--tolerance {tolerance:g}: allowed above 0, to 0.25")
    most = COST * (1 + tolerance)
    ways = [round(1 + k * step, 6) for k in range(math.floor((most - 1) / step) + 1)]
    rules = [Compound(alpha=a, beta=b, gamma=c) for a in ways for b in ways for c in ways]
    rules = [rule for rule in (*rules, Compound()) if abs(rule.cost / COST - 1) <= tolerance]
    macs = size_of(base).macs
    points: dict[object, Point] = {}
    unequal = []
    for rule in sorted(rules, key=lambda r: abs(r.cost - COST)):
        spec = grown(base, rule, 1)
        key = (spec.rows, spec.resolution)
        growth = size_of(spec).macs / macs
        if abs(growth / COST - 1) <= COUNTED:
            points.setdefault(key, Point(rule=rule, spec=spec, growth=growth))
        else:
            unequal.append(growth)
    if len(points) < 2:
        raise InputError(
            f"{base.name}: {len(points)} of {len(rules)} grid points cost twice the base to {COUNTED:.0%}; "
            "take a smaller --step or a wider or larger --base, which rounding changes less"
        )
    ordered = sorted(points.values(), key=lambda p: (p.rule.alpha, p.rule.beta, p.rule.gamma))
    return Grid(points=tuple(ordered), unequal=tuple(sorted(unequal)))


def search(base: ModelSpec, points: Sequence[Point], plan: Plan, say: Callable[[str], None]) -> Search:
    """Train the base and every point.

    Raises:
        InputError: as ``accuracy.score``.
    """
    first, *rest = score([base, *(p.spec for p in points)], plan, say)
    ranked = sorted(zip(points, rest, strict=True), key=lambda pair: -pair[1].top1)
    return Search(base=first, ranked=tuple(ranked), margin=margin([first, *rest]))


def verdict(found: Search) -> list[str]:
    """Say what the search found, and whether it can say it: one line each."""
    (best, reached), *others = found.ranked
    rule = best.rule
    lines = [
        f"best: alpha {rule.alpha:.4g}, beta {rule.beta:.4g}, gamma {rule.gamma:.4g}: {reached.top1:.2f} %; "
        f"the base has {found.base.top1:.2f} %"
    ]
    if found.margin is None:
        return [*lines, "one seed says nothing of chance: no difference here is certain; give --seeds 2 or more"]
    known = f"differences up to {found.margin:.2f} points may be chance ({len(reached.runs)} seeds)"
    near = [other for _, other in others if reached.top1 - other.top1 <= found.margin]
    if not near:
        return [*lines, f"{known}; the next is {reached.top1 - others[0][1].top1:.2f} points behind: more than that"]
    return [*lines, f"{known}: {len(near)} of the {len(others)} others are as near as that, so they may be as good"]


def chart(base: str, found: Search) -> str:
    """Draw the plot, SVG: top-1 over alpha and over gamma, a line for each value of the other."""
    return line_chart(
        _panel(f"{base}, cost 2: depth", "alpha", "gamma", found), _panel("resolution", "gamma", "alpha", found)
    )


def _panel(title: str, x: str, line: str, found: Search) -> Panel:
    lines: dict[float, list[tuple[float, float]]] = {}
    for point, scored in found.ranked:
        lines.setdefault(getattr(point.rule, line), []).append((getattr(point.rule, x), scored.top1))
    series = tuple(Series(name=f"{line} {v:.4g}", points=tuple(sorted(at))) for v, at in sorted(lines.items()))
    return Panel(title=title, x=f"{x} (beta follows)", y="top-1, percent", series=series)
