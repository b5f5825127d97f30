"""The report: one entry per artifact and device, its figures, and the checks made of them. Knows no runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.report.document import OWN_DIGITS, document, now, rounded, significant, this_machine
from edgecnn.report.evidence import Evidence
from edgecnn.sbom import library_versions

SEVERITIES = ("info", "warning", "error")
STEPS = ("capture", "calibrate", "quantize", "convert", "validate")
SQNR_CEILING_DB = 300.0
"""Reported where artifact and reference are equal: JSON has no infinity, and arrays that differ stay below it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a user should know about an artifact or how it ran.

    Attributes:
        code: names the kind of finding, for programs.
        text: one line for a person.
        severity: one of ``SEVERITIES``; an ``error`` fails the report.
        images: names of the images at fault, some of them.
    """

    code: str
    text: str
    severity: str = "warning"
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise InputError(unknown("severity", self.severity, SEVERITIES))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """An artifact's classes beside the labels and beside fp32's, on the same images. An absent figure is ``None``.

    Attributes:
        n: images.
        fp32_top1: percent of images whose label is the fp32 reference's first class.
        top1: the same of the artifact.
        drop: ``fp32_top1 - top1``, in points.
        drop_ci95: 95 % confidence interval on the drop, ``(low, high)`` in points; it uses the pairing of the images.
        fp32_top5: percent of images whose label is among the fp32 reference's first five classes.
        top5: the same of the artifact.
        agreement: percent of images on which artifact and fp32 pick the same class, where the output is one vector.
        sqnr_db: signal to quantization noise over all values of an output, in dB; at most ``SQNR_CEILING_DB``. Of
            several outputs, the lowest: what a limit must hold for each of them.
        metrics: figures of registered metrics by name; in JSON they stand beside the others.
    """

    n: int = 0
    fp32_top1: float | None = None
    top1: float | None = None
    drop: float | None = None
    drop_ci95: tuple[float, float] | None = None
    fp32_top5: float | None = None
    top5: float | None = None
    agreement: float | None = None
    sqnr_db: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """Return every figure by name, metrics among them."""
        return {**{k: v for k, v in asdict(self).items() if k != "metrics"}, **self.metrics}

    def to_json(self) -> dict[str, Any]:
        """Return the figures, rounded."""
        near = {name: significant(value, OWN_DIGITS) for name, value in self.metrics.items()}
        return {**{name: rounded(value, name) for name, value in self.figures.items()}, **near}


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of one inference at batch 1.

    Attributes:
        median_ms: in milliseconds.
        p90_ms: nine of ten inferences are at most this long, in milliseconds.
        threads: the runtime's threads.
        instructions: counted on an emulated device, else ``None``.
        runs: how many inferences were timed, after the warm-up.
    """

    median_ms: float | None = None
    p90_ms: float | None = None
    threads: int | None = None
    instructions: int | None = None
    runs: int | None = None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the artifact's output integers are from the integer oracle's, in steps of the output's grid (LSB).

    Of several outputs, ``max_lsb`` is the largest and ``mean_lsb`` is over all values. ``arithmetic`` is whose
    rounding the oracle had, a key of ``edgecnn.graph.oracle.ARITHMETICS``.
    """

    max_lsb: int | None = None
    mean_lsb: float | None = None
    arithmetic: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutputFigures:
    """Hold figures of one output; an absent one is ``None``.

    Attributes:
        name: of the output.
        sqnr_db: as ``Accuracy.sqnr_db``, of this output.
        max_lsb, mean_lsb: as in ``Parity``, of this output.
    """

    name: str
    sqnr_db: float | None = None
    max_lsb: int | None = None
    mean_lsb: float | None = None


@dataclass(frozen=True, kw_only=True)
class BesideHost:
    """How far an emulated or remote device's outputs are from the same artifact's on this machine.

    Attributes:
        n: images.
        max_lsb: largest distance, in steps of the output's grid; ``None`` where the outputs are not integers.
        agreement: percent of images on which both pick the same class.
    """

    n: int = 0
    max_lsb: int | None = None
    agreement: float | None = None


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Hold what one inference takes of a device, counted or computed by its emulator or compiler; else ``None``.

    Attributes:
        cycles: of the core or the NPU.
        sram_kib: memory for activations and the runtime's state, in KiB.
        flash_kib: memory for weights and code, in KiB.
        arena_bytes: of the runtime's tensor arena.
        heap_kib: of memory that a network takes in a runtime with an operating system, in KiB, beside the file itself:
            weights as the runtime packs them, activations.
        npu_coverage: percent of the ops that the NPU runs.
        estimated_ms: milliseconds by a model whose constants stand in the device's file: an estimate, no measurement.
        instruction_mix: class of instruction to how many.
        cache_misses: cache (``l1d``, ``l2``) to misses, as simulated.
    """

    cycles: int | None = None
    sram_kib: float | None = None
    flash_kib: float | None = None
    arena_bytes: int | None = None
    heap_kib: float | None = None
    npu_coverage: float | None = None
    estimated_ms: float | None = None
    instruction_mix: Mapping[str, int] | None = None
    cache_misses: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Check:
    """A named figure with a limit. A figure that is missing or not finite fails: nothing passes unmeasured.

    Attributes:
        name: of the figure, as the report has it (``drop``).
        value: the figure, or ``None`` where there is none.
        limit: the largest (``bound`` ``max``) or smallest (``min``) value that passes.
        unit: of both.
        bound: ``max`` or ``min``.
    """

    name: str
    value: float | None
    limit: float
    unit: str
    bound: str

    def __post_init__(self) -> None:
        if self.bound not in ("max", "min"):
            raise InputError(f"check {self.name!r} has bound {self.bound!r}; allowed: max, min")
        if not math.isfinite(self.limit):
            raise InputError(f"the limit of {self.name} is {self.limit}; give a finite number of {self.unit}")
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "value", None)

    @classmethod
    def at_most(cls, name: str, value: float | None, limit: float, unit: str) -> Check:
        """Passes where ``value <= limit``."""
        return cls(name=name, value=value, limit=limit, unit=unit, bound="max")

    @classmethod
    def at_least(cls, name: str, value: float | None, limit: float, unit: str) -> Check:
        """Passes where ``value >= limit``."""
        return cls(name=name, value=value, limit=limit, unit=unit, bound="min")

    @property
    def passed(self) -> bool:
        """Whether the figure is there and within the limit."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.bound == "max" else self.value >= self.limit

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; the figure is rounded, unless it would then be on the other side of the limit."""
        near = replace(self, value=rounded(self.value, self.unit))
        return {**asdict(near if near.passed == self.passed else self), "passed": self.passed}

    def __str__(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:.4g} {self.unit}"
        return f"{self.name}: {value}, limit at {'most' if self.bound == 'max' else 'least'} {self.limit:g} {self.unit}"


@dataclass(frozen=True, kw_only=True)
class ReportEntry:
    """Hold what was found about one artifact on one device.

    Attributes:
        model: the model's name.
        target: format of the artifact.
        device: where it ran, or ``None`` where it was written and not run.
        artifact: path of its main file, or ``None`` where the format could not be written; a finding says why.
        size_bytes: of all its files.
        precision: one of ``artifact.PRECISIONS``.
        accuracy: on labelled images.
        latency: of one inference.
        parity: with the integer oracle.
        beside_host: with the same artifact on this machine.
        resources: what one inference takes of the device.
        checks: the limits that were given, and whether they hold.
        seconds: step to seconds spent; the steps are ``STEPS``.
        float_ops: ops of an integer artifact that compute in float.
        findings: what to know about this artifact and how it ran.
        task: ``classification`` where there are class labels and one vector of logits, else ``custom``.
        outputs: figures of each output.
        evidence: what was collected for a page, on request.
    """

    model: str
    target: str
    device: str | None
    artifact: str | None
    size_bytes: int
    precision: str
    accuracy: Accuracy = Accuracy()
    latency: Latency = Latency()
    parity: Parity = Parity()
    beside_host: BesideHost = BesideHost()
    resources: Resources = Resources()
    checks: tuple[Check, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    float_ops: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    task: str = "custom"
    outputs: tuple[OutputFigures, ...] = ()
    evidence: Evidence | None = None

    @property
    def place(self) -> str:
        """The artifact, and the device that it ran on; of a format that could not be written, its name."""
        artifact = self.artifact or self.target
        return f"{artifact} on {self.device}" if self.device else artifact

    @property
    def failures(self) -> tuple[str, ...]:
        """Return a line per failed check, then one per finding that is an error."""
        checks = (str(check) for check in self.checks if not check.passed)
        return (*checks, *(finding.text for finding in self.findings if finding.severity == "error"))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded; every key is there, an absent figure is null."""
        return {
            **rounded(asdict(replace(self, evidence=None))),
            "accuracy": self.accuracy.to_json(),
            "checks": [check.to_json() for check in self.checks],
            "seconds": {step: self.seconds.get(step) for step in STEPS},
            "evidence": None if self.evidence is None else self.evidence.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """Hold what a command found: an entry per artifact and device.

    A terminal shows it as a table and a notebook as HTML.

    Attributes:
        command: ``export``, ``validate`` …
        entries: in the order of artifacts, then of devices.
        date: when it was made, ISO 8601, UTC.
        host: the machine that made it: system, machine, cpu, cores, python.
        versions: of the libraries that made it; for people, JSON has edgecnn's alone.
        invocation: the command line that makes it again; ``None`` where there was none. It is not in JSON.

    Example:
        >>> report = edgecnn.validate("out/net.tflite", data="val/", limits=edgecnn.Limits(max_drop=1))
        >>> if not report.passed:
        ...     print(*report.failures, sep="\\n")
    """

    command: str
    entries: tuple[ReportEntry, ...]
    date: str = field(default_factory=now)
    host: Mapping[str, Any] = field(default_factory=this_machine)
    versions: Mapping[str, str] = field(default_factory=library_versions)
    invocation: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every check of every entry passed and no finding is an error; decides the exit status."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per failed check or error: where, and the figure with its limit or what was found."""
        return tuple(f"{entry.place}: {failure}" for entry in self.entries for failure in entry.failures)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``report.json`` holds and ``--json`` prints; ``docs/reference/report.md`` has every field."""
        entries = [entry.to_json() for entry in self.entries]
        return document(self.command, {"date": self.date, "host": dict(self.host), "entries": entries})

    def save(self, path: str | Path) -> None:
        """Write the report, whole or not at all, in the form that the file's ending asks for.

        ``.html`` is a page of its own, ``.md`` is for a job summary or a comment, ``.xml`` is JUnit, ``.csv`` has a row
        per artifact and device, and ``.json`` is what ``to_dict`` returns.

        Raises:
            InputError: the ending has no form, or the place cannot be written.
        """
        from edgecnn.report.contents import forms

        forms(self).save(Path(path))

    def __repr__(self) -> str:
        from edgecnn.report.table import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from edgecnn.report.table import as_html

        return as_html(self)
