"""Runtimes and kinds of device, by entry points, and what each device does through its kind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgecnn.errors import InputError, MissingDependencyError, UnsupportedError, unknown
from edgecnn.plugins import registry
from edgecnn.report.evidence import LayerCost
from edgecnn_targets.interface import Activations, Arrays, Device, Kind, Parameters, Runtime, Session
from edgecnn_targets.kinds import foreign


@runtime_checkable
class Format(Protocol):
    """The part of a converter, an entry point of ``edgecnn.converters``, that names files: the main one first."""

    suffixes: tuple[str, ...]


def runtimes() -> Mapping[str, Runtime]:
    """Return all runtimes by target: the entry points of ``edgecnn.runtimes``.

    Raises:
        InputError: a plugin is broken.
    """
    rows = registry("runtimes", Runtime)
    for name, row in rows.items():
        if name != row.target:
            raise InputError(f"plugin {name!r} of edgecnn.runtimes executes {row.target!r}; name it after its target")
    return rows


def kinds() -> Mapping[str, Kind]:
    """Return all kinds of device by name: the entry points of ``edgecnn.device_kinds``; raises as ``registry``."""
    return registry("device_kinds", Kind)


def runtime(target: str) -> Runtime:
    """Return the runtime of a target.

    Raises:
        InputError: no such target.
    """
    if target not in runtimes():
        raise InputError(unknown("target", target, runtimes()))
    return runtimes()[target]


def runtime_of(artifact: Path) -> Runtime:
    """Return the runtime that takes a file, by the suffix that the format's converter gives its main file.

    Raises:
        InputError: the suffix is no target's, or that of two.
    """
    formats = registry("converters", Format)  # type: ignore[type-abstract]  # structural: targets import no converter
    suffixes = {target: row.suffixes[0] for target, row in formats.items() if target in runtimes()}
    found = [target for target, suffix in suffixes.items() if suffix == artifact.suffix]
    if not found:
        inside = [file for suffix in suffixes.values() for file in sorted(artifact.glob(f"*{suffix}"))]
        remedy = f"; give the file in it: {inside[0]}" if inside else ""
        raise InputError(f"{artifact} is no artifact, by its suffix; allowed: {', '.join(suffixes.values())}{remedy}")
    if len(found) > 1:
        raise InputError(f"{artifact} may be {' or '.join(found)}, by its suffix; uninstall the plugin of one of them")
    return runtimes()[found[0]]


def kind_of(device: Device) -> Kind:
    """Return the device's kind.

    Raises:
        InputError: no such kind.
    """
    if device.kind not in kinds():
        raise InputError(f"device {device.name}: {unknown('kind', device.kind, kinds())}")
    return kinds()[device.kind]


def open_session(device: Device, artifact: Path, *, threads: int = 1, kernels: str | None = None) -> Session:
    """Open an artifact on a device.

    Args:
        device: from ``devices.device``.
        artifact: its main file.
        threads: of the runtime.
        kernels: which of the runtime's kernels; ``None`` is what an application would get, the fastest.

    Raises:
        InputError: the artifact is missing, corrupt, or of no known target.
        UnsupportedError: the device does not take the target, or cannot run the artifact.
        MissingDependencyError: the runtime is not installed.
    """
    row = runtime_of(artifact)
    if row.target not in device.targets:
        taken = ", ".join(device.targets)
        raise UnsupportedError(f"device {device.name!r} does not run {row.target} artifacts; it takes: {taken}")
    session = kind_of(device).open_session(device, row, artifact, threads=threads, kernels=kernels)
    strange = [str(op) for op in session.ops if device.limits.ops and op.kind not in device.limits.ops]
    if strange:
        taken = ", ".join(device.limits.ops)
        raise UnsupportedError(f"device {device.name!r} does not run {', '.join(strange)}; its ops: {taken}")
    return session


def missing(device: Device, target: str) -> str | None:
    """Return the command that installs what a device lacks to run a target, or ``None`` when it is ready."""
    return kind_of(device).missing(device, runtime(target))


def require(device: Device, target: str) -> None:
    """Check that a device is ready to run a target.

    Raises:
        MissingDependencyError: it is not; says what installs it.
    """
    command = missing(device, target)
    if command is not None:
        raise MissingDependencyError(f"{device.name} cannot run {target} here; install what it needs: {command}")


def layers(device: Device, artifact: Path) -> list[LayerCost]:
    """Return what each op of an artifact costs on a device, in execution order.

    Raises:
        UnsupportedError: the device does not take the artifact, or does not say.
    """
    row, tell = runtime_of(artifact), kind_of(device).layers
    if row.target not in device.targets or tell is None:
        raise UnsupportedError(f"device {device.name!r} does not say what each op of {artifact} costs")
    return tell(device, row, artifact)


def activations(
    target: str, path: Path, sample: Arrays, parameters: Parameters, *, kernels: str | None = None
) -> Activations:
    """Return the real values that an int8 artifact of ours computes inside, in the graph's layout, by its tensor names.

    Asking for them keeps a runtime from fusing across them, so a fused pair of ops is seen one by one here.

    Args:
        target: the format.
        path: its main file, int8 with the type of input and output that the format has unless chosen.
        sample: of each input (1, ...) float32, preprocessed, in the graph's layout.
        parameters: scale and int8 zero point of each activation wanted.
        kernels: as for ``open_session``.

    Raises:
        InputError: the format's runtime does not tell, or the file has none of them.
    """
    row = runtime(target)
    if row.activations is None:
        telling = [row.target for row in runtimes().values() if row.activations is not None]
        raise InputError(unknown("target", target, telling))
    found = foreign.activations(row, path, sample, parameters, kernels)
    if not found:
        raise InputError(
            f"{path} holds none of the other's tensors by name; only artifacts of one export have layers in common"
        )
    return found
