"""Devices of kind ``host``: the runtime is a library in this process, or in a child for what others have written."""

from __future__ import annotations

from pathlib import Path

from edgecnn.errors import UnsupportedError
from edgecnn.report.evidence import LayerCost
from edgecnn_targets.evaluate import latency
from edgecnn_targets.interface import Device, Kind, Runtime, Session, Usage
from edgecnn_targets.kinds import foreign


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> Session:
    """Open an artifact on this machine."""
    return foreign.open_session(runtime, artifact, threads=threads, kernels=kernels)


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs the runtime, or ``None`` when it is ready."""
    return runtime.missing() or (runtime.needs() if runtime.needs is not None else None)


def measure(device: Device, session: Session) -> Usage:
    """Return wall-clock time."""
    return Usage(latency=session.time() if isinstance(session, foreign.ForeignSession) else latency(session))


def layers(device: Device, runtime: Runtime, artifact: Path) -> list[LayerCost]:
    """Return the time of each op, where the runtime says it.

    Raises:
        UnsupportedError: it does not.
    """
    if runtime.profile is None:
        raise UnsupportedError(
            f"device {device.name!r} does not say what each op of {artifact} costs: {runtime.target} has no profile, "
            "tflite, onnx and openvino do"
        )
    return foreign.profile(runtime, artifact)


KIND = Kind(
    figures=("accuracy", "latency"),
    open_session=open_session,
    missing=missing,
    measure=measure,
    layers=layers,
    start_s=0.5,
    slowdown=1.0,
)
