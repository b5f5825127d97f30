"""Limits on an artifact's figures: a row each, which is an option of the command line too."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.report.record import Accuracy, Check, ReportEntry


@dataclass(frozen=True)
class Row:
    """One limit.

    Attributes:
        field: of ``Limits``; one that begins with ``max`` is the largest value that passes, any other the smallest.
        place: of the figure in a report entry.
        unit: of the figure.
        help: for the option.
    """

    field: str
    place: tuple[str, str]
    unit: str
    help: str

    @property
    def option(self) -> str:
        """``--max-drop``."""
        return f"--{self.field.replace('_', '-')}"

    @property
    def name(self) -> str:
        """The name of the check."""
        return "latency" if self.place[1] == "median_ms" else self.place[1]

    @property
    def figure(self) -> str:
        """Return the figure that a device must measure for it, of ``edgecnn_targets.interface.FIGURES``."""
        return "accuracy" if self.place[0] in ("accuracy", "parity") else self.name

    def check(self, entry: ReportEntry, limit: float) -> Check:
        """Return the entry's figure beside a limit."""
        value = getattr(getattr(entry, self.place[0]), self.place[1])
        bound = "max" if self.field.startswith("max") else "min"
        return Check(name=self.name, value=value, limit=limit, unit=self.unit, bound=bound)


ROWS = (
    Row("max_drop", ("accuracy", "drop"), "points", "fp32 top-1 minus artifact top-1"),
    Row("min_top1", ("accuracy", "top1"), "percent", "images whose label is the artifact's first class"),
    Row("min_agreement", ("accuracy", "agreement"), "percent", "images on which artifact and fp32 agree"),
    Row("min_sqnr", ("accuracy", "sqnr_db"), "dB", "signal to quantization noise over the outputs, beside fp32"),
    Row("max_lsb", ("parity", "max_lsb"), "LSB", "largest distance from the integer oracle"),
    Row("max_latency_ms", ("latency", "median_ms"), "ms", "median of one inference, measured"),
    Row("max_instructions", ("latency", "instructions"), "instructions", "of one inference, counted by an emulator"),
    Row("max_cycles", ("resources", "cycles"), "cycles", "of one inference, of a microcontroller or an NPU"),
    Row("max_sram_kib", ("resources", "sram_kib"), "KiB", "memory for activations"),
    Row("max_flash_kib", ("resources", "flash_kib"), "KiB", "memory for weights and code"),
    Row("npu_coverage", ("resources", "npu_coverage"), "percent", "ops that the NPU runs, at least"),
)


def _required(text: str) -> tuple[str, str, float]:
    """Name, bound and limit of ``NAME>=VALUE`` or ``NAME<=VALUE``."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
    try:
        if match is not None and math.isfinite(limit := float(match[3])):
            return match[1], "min" if match[2] == ">=" else "max", limit
    except ValueError:
        pass
    raise InputError(f"--require {text!r}: give NAME>=VALUE or NAME<=VALUE, for example cosine>=0.99")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hold limits on figures; ``None`` is no limit. The fields are those of ``ROWS``, which say what each means.

    ``require`` holds limits of any figure of accuracy, also of a registered metric: ``cosine>=0.99``.

    Raises:
        InputError: a limit is not finite, or ``require`` is not NAME>=VALUE or NAME<=VALUE.

    Example:
        >>> edgecnn.Limits(max_drop=1, min_agreement=97, max_latency_ms=20)
    """

    max_drop: float | None = None
    min_top1: float | None = None
    min_agreement: float | None = None
    min_sqnr: float | None = None
    max_lsb: float | None = None
    max_latency_ms: float | None = None
    max_instructions: float | None = None
    max_cycles: float | None = None
    max_sram_kib: float | None = None
    max_flash_kib: float | None = None
    npu_coverage: float | None = None
    require: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "require", tuple(self.require))
        for text in self.require:
            _required(text)
        for row, value in self.given:
            if not math.isfinite(value):
                raise InputError(f"{row.option} {value}: give a finite number")

    @property
    def given(self) -> list[tuple[Row, float]]:
        """The limits that demand something."""
        values = ((row, getattr(self, row.field)) for row in ROWS)
        return [(row, value) for row, value in values if value is not None]

    @property
    def split(self) -> tuple[Limits, Limits]:
        """Return the limits on other figures than accuracy, and those on accuracy."""
        costs: dict[str, Any] = {row.field: value for row, value in self.given if row.place[0] != "accuracy"}
        accuracy: dict[str, Any] = {row.field: value for row, value in self.given if row.place[0] == "accuracy"}
        return Limits(**costs), Limits(**accuracy, require=self.require)

    @property
    def on_images(self) -> list[str]:
        """The options given that need images."""
        options = [row.option for row, _ in self.given if row.place[0] == "accuracy"]
        return [*options, *(f"--require '{text}'" for text in self.require)]

    @property
    def comparing(self) -> list[str]:
        """The options given that compare with fp32, and so need images and a reference."""
        return [option for option in self.on_images if option != "--min-top1"]

    @property
    def labelled(self) -> bool:
        """Whether one of the limits given needs labels."""
        return self.max_drop is not None or self.min_top1 is not None

    @property
    def measuring(self) -> list[str]:
        """The options given that need the artifact run or counted, and no images."""
        return [row.option for row, _ in self.given if row.place[0] != "accuracy"]

    def lost(self, accuracy: Accuracy, total: int) -> str | None:
        """The option of a limit that cannot hold any more, whatever the images that are left give; or ``None``.

        Args:
            accuracy: of the images so far.
            total: images in the set.
        """
        left = 100 * (total - accuracy.n)
        if self.max_drop is not None and accuracy.drop is not None:
            least = (accuracy.drop * accuracy.n - left) / total
            if least > self.max_drop:
                return f"--max-drop {self.max_drop:g}"
        if self.min_agreement is not None and accuracy.agreement is not None:
            most = (accuracy.agreement * accuracy.n + left) / total
            if most < self.min_agreement:
                return f"--min-agreement {self.min_agreement:g}"
        return None

    def checks(self, entry: ReportEntry, figures: Collection[str]) -> Iterator[Check]:
        """The limits given, beside the entry's figures; those whose figure the device does not find out are not there,
        ``left_out`` says so."""
        yield from (row.check(entry, value) for row, value in self.given if row.figure in figures)
        known = entry.accuracy.figures
        for text in self.require if "accuracy" in figures else ():
            name, bound, limit = _required(text)
            if name not in known:
                raise InputError(f"--require '{text}': {unknown('figure', name, known)}")
            yield Check(name=name, value=known[name], limit=limit, unit="", bound=bound)

    def left_out(self, figures: Collection[str]) -> tuple[str, ...]:
        """A line per limit that a device with these figures cannot be held to."""
        return tuple(
            f"{row.option} is not checked here: this device has no figure for it"
            for row, _ in self.given
            if row.figure not in figures
        )
