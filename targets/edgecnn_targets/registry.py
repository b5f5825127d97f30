"""One row per runtime and per kind of device. Their modules are imported on use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn_targets.devices import Device
from edgecnn_targets.session import Session

KINDS = {"host": "edgecnn_targets.host"}
"""Kind of device to the module that has ``open_session(device, runtime, artifact, *, threads, kernels) -> Session``
and ``missing(device, runtime) -> str | None``."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What executes a target's artifacts.

    Attributes:
        target: the format.
        suffix: of its main file.
        description: one line for ``edgecnn targets``.
        module: has ``open_session(path, *, threads, kernels) -> Session``.
        library: the import name it needs.
        extra: the extra of edgecnn that installs it.
    """

    target: str
    suffix: str
    description: str
    module: str
    library: str
    extra: str

    def missing(self) -> str | None:
        """The command that installs the library, or ``None`` when it is there."""
        return None if find_spec(self.library) else f"pip install 'edgecnn[{self.extra}]'"


RUNTIMES = {
    row.target: row
    for row in (
        Runtime(
            target="tflite",
            suffix=".tflite",
            description="TensorFlow Lite flatbuffer, run by LiteRT",
            module="edgecnn_targets.litert",
            library="ai_edge_litert",
            extra="tflite",
        ),
        Runtime(
            target="onnx",
            suffix=".onnx",
            description="ONNX with QuantizeLinear and DequantizeLinear, run by ONNX Runtime",
            module="edgecnn_targets.onnxruntime",
            library="onnxruntime",
            extra="onnx",
        ),
        Runtime(
            target="openvino",
            suffix=".xml",
            description="OpenVINO IR with FakeQuantize, run by the CPU plugin",
            module="edgecnn_targets.openvino",
            library="openvino",
            extra="openvino",
        ),
    )
}


def runtime(target: str) -> Runtime:
    """The runtime of a target.

    Raises:
        InputError: no such target.
    """
    if target not in RUNTIMES:
        raise InputError(unknown("target", target, RUNTIMES))
    return RUNTIMES[target]


def runtime_of(artifact: Path) -> Runtime:
    """The runtime that takes a file, by its suffix.

    Raises:
        InputError: the suffix is no target's.
    """
    found = next((row for row in RUNTIMES.values() if row.suffix == artifact.suffix), None)
    if found is None:
        known = ", ".join(row.suffix for row in RUNTIMES.values())
        raise InputError(f"{artifact} is no artifact, by its suffix; allowed: {known}")
    return found


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
    kind = import_module(KINDS[device.kind])
    session: Session = kind.open_session(device, row, artifact, threads=threads, kernels=kernels)
    return session


def missing(device: Device, target: str) -> str | None:
    """The command that installs what a device lacks to run a target, or ``None`` when it is ready."""
    command: str | None = import_module(KINDS[device.kind]).missing(device, runtime(target))
    return command
