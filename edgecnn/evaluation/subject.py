"""Say what is checked: an artifact, where it runs, and against which limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.own_metric import OwnMetric
from edgecnn.graph.ir import Metadata
from edgecnn.network import KEPT, Artifact
from edgecnn.report.record import ReportEntry
from edgecnn_targets.devices import select
from edgecnn_targets.interface import Device, Op
from edgecnn_targets.registry import kind_of, require


@dataclass(frozen=True, kw_only=True)
class Checking:
    """Where and against which limits artifacts are checked; the fields are arguments of ``edgecnn.validate``."""

    devices: tuple[str, ...] = ("host",)
    threads: int = 1
    limits: Limits = field(default_factory=Limits)
    allow_float: bool = False
    allow_loss: bool = False
    exact_kernels: bool = False
    metrics: tuple[tuple[str, OwnMetric], ...] = ()  # name and function
    evidence: bool = False

    def need(self, data: object) -> None:
        """Check that there are images where a limit compares on them.

        Raises:
            InputError: there are none.
        """
        if data is None and self.metrics:
            raise InputError(f"metric {self.metrics[0][0]} needs images; pass --data")
        if data is None and self.limits.on_images:
            raise InputError(f"{' and '.join(self.limits.on_images)} needs labelled images to compare on; pass --data")

    @property
    def runs_anything(self) -> bool:
        """Whether there is something to find out without images: a limit, or a device that needs none."""
        return bool(self.limits.measuring) or not all(map(executes, select(self.devices)))

    def places(self, targets: Sequence[str], precision: str) -> list[tuple[str, Device]]:
        """Each target with each device that takes it.

        Raises:
            InputError: no such device, none of them takes a target or finds out a figure that has a limit, or one does
                not run the precision.
            MissingDependencyError: a device lacks a library or a tool; the message installs it.
        """
        known = {figure for device in select(self.devices) for figure in kind_of(device).figures}
        for row in (row for row, _ in self.limits.given if row.figure not in known):
            raise InputError(
                f"{row.option} needs a device that finds out {row.figure}; {', '.join(self.devices)} finds out: "
                f"{', '.join(sorted(known))}; see `edgecnn devices`"
            )
        found = []
        for target in targets:
            takes = [device for device in select(self.devices) if target in device.targets]
            if not takes:
                raise InputError(f"--device {','.join(self.devices)} does not run {target}; see `edgecnn devices`")
            found += [(target, device) for device in takes]
        for target, place in found:
            if precision not in place.limits.precisions:
                allowed = ", ".join(place.limits.precisions)
                raise UnsupportedError(f"device {place.name!r} does not run {precision} artifacts; it runs: {allowed}")
            require(place, target)
        return found


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One artifact to check.

    Attributes:
        path: its main file.
        target: its format.
        precision: one of ``artifact.PRECISIONS``.
        size_bytes: of all its files.
        metadata: how it is fed, and what of it is kept out of 8 bits.
    """

    path: Path
    target: str
    precision: str
    size_bytes: int
    metadata: Metadata

    @classmethod
    def of(cls, artifact: Artifact) -> Subject:
        """Return the subject that an artifact on disk is."""
        assert artifact.path is not None
        return cls(
            path=artifact.path,
            target=artifact.target,
            precision=artifact.precision,
            size_bytes=artifact.size_bytes,
            metadata=artifact.network.graph.metadata,
        )

    def declared(self, op: Op) -> bool:
        """Whether the quantization says that the op stays out of 8 bits; ops are named after what they make."""
        return op.name.split("/")[0] in self.kept

    @property
    def kept(self) -> Sequence[str]:
        """Return the activations that the quantization keeps out of 8 bits."""
        names: Sequence[str] = (self.metadata.quantization or {}).get(KEPT, ())
        return names

    def entry(self, device: str | None) -> ReportEntry:
        """Return a report entry without figures; on no device, of an artifact that was written and not run."""
        return ReportEntry(
            model=self.metadata.model,
            target=self.target,
            device=device,
            artifact=str(self.path),
            size_bytes=self.size_bytes,
            precision=self.precision,
        )


def executes(device: Device) -> bool:
    """Whether the device runs artifacts on images."""
    return "accuracy" in kind_of(device).figures
