"""Devices of kind ``host``: the runtime is a library in this process."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgecnn_targets.devices import Device
from edgecnn_targets.evaluate import latency
from edgecnn_targets.registry import Runtime, Say
from edgecnn_targets.session import Session, Usage


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> Session:
    """Open an artifact in this process."""
    session: Session = import_module(runtime.module).open_session(artifact, threads=threads, kernels=kernels)
    return session


def missing(device: Device, runtime: Runtime) -> str | None:
    """The command that installs what this device lacks to run that target, or ``None`` when it is ready."""
    if runtime.library is not None:
        return runtime.missing()
    command: str | None = import_module(runtime.module).missing()
    return command


def setup(device: Device, say: Say) -> bool:
    """Nothing: libraries are installed with this package."""
    return False


def measure(device: Device, session: Session) -> Usage:
    """Wall-clock time."""
    return Usage(latency=latency(session))
