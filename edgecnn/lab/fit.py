"""The largest member of a family that fits a budget: the compound rule applied to what a device measures.

The paper scales to a budget of FLOPs (Tan & Le 2019, arXiv:1905.11946, equation 3). Here the budget is MACs, or what a
device finds out: instructions, milliseconds, memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn.evaluation.limits import Limits
from edgecnn.exporting import export
from edgecnn.files import scratch
from edgecnn.lab.compound import model_at, require_room, scalable
from edgecnn.models import families
from edgecnn.models.count import size_of
from edgecnn.models.scaling import Compound
from edgecnn.models.spec import MULTIPLIERS, RESOLUTIONS, ModelSpec
from edgecnn.progress import Progress
from edgecnn.report.record import ReportEntry
from edgecnn_targets.devices import device
from edgecnn_targets.registry import kind_of

UNLIMITED = 1e18  # instructions, where the budget is the estimate of time that is made of them
STEP = 0.25  # of phi between neighbouring candidates: MACs differ by a fifth
CALIBRATION_IMAGES = 4  # enough for the ranges of random weights
AXES = {"compound": "alpha beta gamma", "depth": "alpha", "width": "beta", "resolution": "gamma"}

Measure = Callable[[ModelSpec], float]
"""The figure of a model; raises ``UnsupportedError`` or ``DeviceFault`` where it cannot run there at all."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Set the figure that may not be exceeded.

    Attributes:
        figure: ``macs``, ``instructions``, ``ms``, ``sram_kib`` or ``flash_kib``. Milliseconds are measured where the
            device has a clock, and its estimate where it counts instructions.
        most: in the figure's unit.
        device: the name of the device that finds it out; ``None`` for MACs alone.

    Raises:
        InputError: the budget is not above 0, or the device does not find the figure out.
    """

    figure: str
    most: float
    device: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.most) and self.most > 0):
            raise InputError(f"a budget of {self.most:g} {self.figure}: give a number above 0")
        if self.figure != "macs" and self.device is None:
            raise InputError(f"a budget of {self.figure} needs --device NAME; without one there is --max-macs")
        _ = self.limits  # raises

    @property
    def limits(self) -> Limits:
        """Return the budget as limits of a check, none for MACs."""
        if self.figure == "macs":
            return Limits()
        known = kind_of(device(self.device or "")).figures
        asked: dict[str, Any] = {f"max_{self.figure}": self.most} if self.figure in known else {}
        if self.figure == "ms" and "latency" in known:
            asked = {"max_latency_ms": self.most}
        elif self.figure == "ms" and "instructions" in known:
            asked = {"max_instructions": UNLIMITED}
        if not asked:
            raise InputError(f"{self.device} does not find out {self.figure}; it finds out: {', '.join(known)}")
        return Limits(**asked)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A member that was measured.

    Attributes:
        model: its name.
        phi: the exponent.
        macs: counted.
        value: of the budget's figure; ``None`` where the model cannot run there at all.
        fits: whether it is within the budget.
        reason: why it cannot run there.
    """

    model: str
    phi: float
    macs: int
    value: float | None
    fits: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Hold the member that was chosen, and what was measured.

    Attributes:
        chosen: the largest that fits.
        frontier: every member that was measured, by phi.
        largest: whether ``chosen`` is the family's largest possible, so that the budget leaves room.
    """

    chosen: Candidate
    frontier: tuple[Candidate, ...]
    largest: bool


def along(rule: Compound, axis: str) -> Compound:
    """Return the rule along one axis alone; ``compound`` is the whole rule."""
    kept = AXES[axis].split()
    return replace(rule, **{name: 1.0 for name in AXES["compound"].split() if name not in kept})


def candidates(family: str, rule: Compound, classes: int | None = None) -> list[tuple[float, ModelSpec]]:
    """Return the members that can be built, ``STEP`` of phi apart, from the smallest; each but once.

    Raises:
        InputError: the family has no rule, or the rule grows nothing.
    """
    scalable(family)
    resolution = families()[family].resolution
    sides = (r / resolution for r in RESOLUTIONS)
    ranges = ((rule.alpha, *MULTIPLIERS), (rule.beta, *MULTIPLIERS), (rule.gamma, *sides))
    grows = [(math.log(low, c), math.log(high, c)) for c, low, high in ranges if c > 1]
    if not grows:
        raise InputError("alpha, beta and gamma are all 1: such a rule grows nothing")
    first, last = max(low for low, _ in grows), min(high for _, high in grows)
    found: list[tuple[float, ModelSpec]] = []
    for k in range(math.ceil(first / STEP), math.floor(last / STEP) + 1):
        try:
            spec = model_at(family, rule, k * STEP, classes)
        except InputError:  # a resolution that this family's strides do not take
            continue
        if not found or (spec.rows, spec.resolution) != (found[-1][1].rows, found[-1][1].resolution):
            found.append((k * STEP, spec))
    return found


def fit(
    family: str, rule: Compound, budget: Budget, measure: Measure, say: Callable[[str], None],
    classes: int | None = None,
) -> Fit:  # fmt: skip
    """Bisect phi, with which the figure grows but for rounding.

    The first guess is where the rule says it should lie, the next ones where what was measured says so.

    Args:
        measure: finds the budget's figure out.
        say: gets a line for each model that was measured.
        classes: logits; ``None`` is as many as the family has.

    Raises:
        InputError: nothing fits; says by how much the smallest misses it.
    """
    members = candidates(family, rule, classes)
    seen: dict[int, Candidate] = {}

    def look(place: int) -> Candidate:
        phi, spec = members[place]
        value, reason = None, ""
        try:
            value = measure(spec)
        except (UnsupportedError, DeviceFault) as error:
            reason = str(error)
        fits = value is not None and value <= budget.most
        found = Candidate(model=spec.name, phi=phi, macs=size_of(spec).macs, value=value, fits=fits, reason=reason)
        said = reason if value is None else f"{written(value)} {budget.figure}"
        say(f"{found.model}: {said}: {'fits' if fits else 'does not fit'}")
        seen[place] = found
        return found

    smallest = look(0)
    if not smallest.fits:
        if smallest.value is None:
            raise InputError(f"nothing fits: not even the smallest, {smallest.model}: {smallest.reason}")
        raise InputError(
            f"nothing fits: the smallest, {smallest.model}, takes {written(smallest.value)} {budget.figure}, "
            f"{smallest.value / budget.most:.2f} times the budget of {written(budget.most)}"
        )
    low, high = 0, len(members)  # the largest known to fit, the smallest known not to
    while high - low > 1:
        if high == len(members):
            place = min(low + max(1, round(_ahead(seen, low, budget.most, rule))), high - 1)
        else:
            place = (low + high) // 2
        low, high = (place, high) if look(place).fits else (low, place)
    frontier = tuple(seen[place] for place in sorted(seen))
    return Fit(chosen=seen[low], frontier=frontier, largest=low == len(members) - 1)


def _ahead(seen: Mapping[int, Candidate], low: int, most: float, rule: Compound) -> float:
    """Guess how many candidates further the budget ends, by the growth between the two that were measured last.

    At most twice as far as by the growth of MACs, as larger models take longer to measure.
    """
    best, before = seen[low].value, max((place for place in seen if place < low), default=None)
    if not best:
        return 1
    room, by_rule = math.log(most / best), math.log(rule.cost) * STEP
    last = None if before is None else seen[before].value
    growth = by_rule if not last or before is None else math.log(best / last) / (low - before)
    return room / max(growth, by_rule / 2)


def written(value: float) -> str:
    """Return a figure for a person: whole where it is large."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def measured(spec: ModelSpec, budget: Budget, target: str) -> float:
    """Return the budget's figure of a model; raises as ``figure_of``.

    MACs are counted; on a device the int8 model runs, with random weights, on which neither counts nor memory depend.
    """
    if budget.device is None or budget.figure == "macs":
        return size_of(spec).macs
    require_room(spec)
    with scratch() as folder:
        report = export(
            spec.name, weights="random", classes=spec.num_classes, target=target, calibration="none",
            calibration_images=CALIBRATION_IMAGES, devices=budget.device, limits=budget.limits, output=folder,
            progress=Progress(),
        )  # fmt: skip
    return figure_of(report.entries[0], budget)


def target_on(budget: Budget) -> str:
    """Return the format that the device takes first; tflite without a device."""
    return "tflite" if budget.device is None else device(budget.device).targets[0]


def export_command(model: str, target: str, budget: Budget) -> str:
    """Return the command that exports a model and holds it to the budget; ``FILE`` and ``DIR`` are the user's."""
    words = ["edgecnn", "export", model, "--target", target, "--quantize", "int8", "--weights", "FILE"]
    words += ["--calibration", "DIR"]
    if budget.device is not None:
        words += ["--device", budget.device]
        words += [f"{row.option} {value:.12g}" for row, value in budget.limits.given if value == budget.most]
    return " ".join(words)


def figure_of(entry: ReportEntry, budget: Budget) -> float:
    """Return the budget's figure in a report.

    Raises:
        DeviceFault: the device broke.
        UnsupportedError: the model is more than the device has, whatever the budget.
        InputError: the device did not find the figure out.
    """
    own = {row.name for row, _ in budget.limits.given}
    failed = [check for check in entry.checks if not check.passed and check.name not in own]
    if any(check.name == "device_faults" for check in failed):
        raise DeviceFault("; ".join(map(str, entry.findings)))
    if failed:
        raise UnsupportedError("; ".join(map(str, failed)))
    ms = entry.latency.median_ms
    value = {
        "instructions": entry.latency.instructions,
        "ms": entry.resources.estimated_ms if ms is None else ms,
        "sram_kib": entry.resources.sram_kib,
        "flash_kib": entry.resources.flash_kib,
    }[budget.figure]
    if value is None:
        raise InputError(f"{budget.device} did not find out {budget.figure}; see `edgecnn devices`")
    return float(value)
