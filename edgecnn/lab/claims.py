"""Compare what theory says of residual learning with the figures of a study, and plot them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from edgecnn.lab.gradients import BATCH_NORM_GROWTH, Reach
from edgecnn.report.plot import Panel, Series, line_chart

NETWORKS = {"plain": "plain", "residual": "resnet"}  # a kind, and what the names of its families begin with
ERRORS = ("training_error", "test_error")
SIGMAS = 2.0  # standard errors that a difference must exceed


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Hold the errors that a network of so many layers reached.

    Attributes:
        layers: with weights, or that are the identity.
        training_error: in the last epoch, on images as augmented, in percent.
        test_error: on held-out images, in percent.
        curve: training error in each epoch.
    """

    layers: int
    training_error: float
    test_error: float
    curve: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DepthResult(Errors):
    """One network.

    Attributes:
        model: its name.
        kind: of ``NETWORKS``.
        gradients: at moments of the training, the first before any step.
    """

    model: str
    kind: str
    gradients: tuple[Reach, ...]

    def later(self) -> tuple[float, ...]:
        """Return the gradients' norms while it trains, stem first: medians over the later moments."""
        return tuple(median(column) for column in zip(*(r.norms for r in self.gradients[1:]), strict=True))


@dataclass(frozen=True, kw_only=True)
class Deepened(Errors):
    """The shallow plain network, made deeper and trained on.

    Attributes:
        added: ``identity``, ``plain`` or ``residual``, and errors of training on; ``nothing`` is the network before.
    """

    added: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """State what theory says, and whether the figures show it.

    Attributes:
        says: theory.
        shown: whether the figures are so. One error is above another where they differ by more than ``SIGMAS`` standard
            errors, which are those of so many images: what another seed would give is not in them.
        figures: that decide it.
    """

    says: str
    shown: bool
    figures: str


def exceeds(more: float, less: float, images: int) -> bool:
    """Tell whether one error is above another, both in percent, by more than chance in so many images makes of it."""
    return more - less > SIGMAS * math.sqrt(sum(e * (100 - e) for e in (more, less)) / images)


def claims_of_depth(networks: Sequence[DepthResult], images: int, guessing: float) -> list[Claim]:
    """Judge He et al. 2016, section 4.2, and what Yang et al. 2019 say of the gradient.

    Args:
        networks: of both kinds, each by depth.
        images: in an epoch.
        guessing: the error of always naming their most frequent class, in percent. Networks that learned nothing do not
            differ, and show nothing.
    """
    plain, residual = ([n for n in networks if n.kind == kind] for kind in NETWORKS)
    deep, short = plain[-1], residual[-1]
    before = {n.kind: n.gradients[0].change for n in (deep, short)}
    factor = max(before["plain"], 1 / before["plain"]) / max(before["residual"], 1 / before["residual"])
    return [
        Claim(
            says="plain networks degrade with depth",
            shown=exceeds(deep.training_error, plain[0].training_error, images),
            figures=_by_depth(plain),
        ),
        Claim(
            says="residual networks do not",
            shown=exceeds(guessing, residual[0].training_error, images)
            and not exceeds(short.training_error, residual[0].training_error, images),
            figures=f"{_by_depth(residual)}; guessing {guessing:.1f} %",
        ),
        Claim(
            says=f"at {deep.layers} layers the residual network is ahead",
            shown=exceeds(deep.training_error, short.training_error, images),
            figures=f"training error {short.training_error:.1f} % and {deep.training_error:.1f} %, test error "
            f"{short.test_error:.1f} % and {deep.test_error:.1f} %",
        ),
        Claim(
            says="the shortcut keeps the gradient alive: between the last stage and the stem its norm changes less",
            shown=factor > 1,
            figures=f"before the first step {_change(deep)}, {_change(short)}; with batch norm and without shortcuts "
            f"theory lets it grow by {BATCH_NORM_GROWTH:.2f} a layer{_in_training(deep, short)}",
        ),
    ]


def claims_of_identity(rows: Sequence[Deepened], images: int, guessing: float) -> list[Claim]:
    """Judge He et al. 2016, sections 1 and 3.1.

    Args:
        rows: before, and with each kind of layers.
        images, guessing: as of ``claims_of_depth``.
    """
    before, *after = rows
    by = {row.added: row for row in after}
    identity, plain, residual = by["identity"], by["plain"], by["residual"]

    def pair(row: Deepened) -> str:
        return (
            f"training error {before.training_error:.1f} % before, {row.training_error:.1f} % after, test error "
            f"{before.test_error:.1f} % and {row.test_error:.1f} %"
        )

    return [
        Claim(
            says="made deeper by identity layers, a trained network gets no worse",
            shown=exceeds(guessing, before.training_error, images)
            and not exceeds(identity.training_error, before.training_error, images),
            figures=f"{pair(identity)}; guessing {guessing:.1f} %",
        ),
        Claim(
            says="by plain layers it gets worse",
            shown=exceeds(plain.training_error, before.training_error, images),
            figures=pair(plain),
        ),
        Claim(
            says="by residual blocks it gains, and more than by training on alone",
            shown=exceeds(before.training_error, residual.training_error, images)
            and exceeds(identity.training_error, residual.training_error, images),
            figures=pair(residual),
        ),
    ]


def _by_depth(row: Sequence[DepthResult]) -> str:
    layers = ", ".join(str(n.layers) for n in row)
    trained, tested = (", ".join(f"{v:.1f}" for v in (getattr(n, e) for n in row)) for e in ERRORS)
    return f"training error {trained} % at {layers} layers, test error {tested} %"


def _change(network: DepthResult) -> str:
    """Say how the gradient's norm changes on its way from the last stage's output to the stem's."""
    change, layers = network.gradients[0].change, network.layers - 2  # all but the stem and the classifier
    how = "grows" if change > 1 else "fades"
    by = max(change, 1 / change)
    return f"in {network.model} it {how} {by:,.3g} times on its way back ({by ** (1 / layers):.2f} a layer)"


def _in_training(plain: DepthResult, residual: DepthResult) -> str:
    if not (plain.later() and residual.later()):
        return ""
    shares = [f"{norms[0] / norms[-1]:.2g}" for norms in (plain.later(), residual.later())]
    return f". While they train the stem gets {' and '.join(shares)} times what the last stage gets"


def chart(networks: Sequence[DepthResult], deepened: Sequence[Deepened]) -> str:
    """Draw the plot, SVG: errors by depth, the gradient by stage, training error by epoch, the networks made deeper."""
    kinds = {kind: [n for n in networks if n.kind == kind] for kind in NETWORKS}
    ends = [n for row in kinds.values() for n in (row[0], row[-1])]
    errors = [
        Series(
            name=f"{kind}, {error.removesuffix('_error')}", dashed=error == "test_error",
            points=tuple((n.layers, getattr(n, error)) for n in row),
        )
        for error in ERRORS
        for kind, row in kinds.items()
    ]  # fmt: skip
    first = tuple(_on_its_way(n, n.gradients[0].norms) for n in ends)
    way = "stages on its way back (0: the last, 3: the stem)"
    before, *after = deepened
    last = max(len(row.curve) for row in after)
    level = Series(name="before", points=((1.0, before.training_error), (last, before.training_error)), dashed=True)
    gradients = [Panel(title="gradient before training", x=way, y="norm", series=first, log_y=True)]
    if all(n.later() for n in ends):
        later = tuple(_on_its_way(n, n.later()) for n in ends)
        gradients.append(Panel(title="gradient in training", x=way, y="norm (median)", series=later, log_y=True))
    return line_chart(
        Panel(title="error by depth", x="layers", y="percent", series=tuple(errors)),
        *gradients,
        Panel(
            title="training", x="epoch", y="training error, percent",
            series=tuple(_curve(f"{n.kind} {n.layers}", n.curve) for n in ends),
        ),
        Panel(
            title=f"{before.layers} layers made deeper", x="epoch of training on", y="training error, percent",
            series=(*(_curve(row.added, row.curve) for row in after), level),
        ),
    )  # fmt: skip


def _on_its_way(network: DepthResult, norms: Sequence[float]) -> Series:
    """Order them from the last stage to the stem; where nothing arrives there is no point on a logarithmic axis."""
    points = tuple((float(k), v) for k, v in enumerate(reversed(norms)) if v > 0)
    return Series(name=f"{network.kind} {network.layers}", points=points)


def _curve(name: str, errors: Sequence[float]) -> Series:
    return Series(name=name, points=tuple((float(k), e) for k, e in enumerate(errors, start=1)))
