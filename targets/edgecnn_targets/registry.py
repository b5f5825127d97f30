"""One row per runtime and per kind of device. Their modules are imported on use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn_targets.devices import Device
from edgecnn_targets.session import LayerCost, Session, Usage

Say = Callable[[str], None]
"""Tells the person at the terminal one line of progress."""

FIGURES = ("accuracy", "latency", "instructions", "cycles", "sram_kib", "flash_kib", "npu_coverage")
"""What a kind of device can find out: ``accuracy`` by executing artifacts, ``latency`` by a clock on the wall, the rest
by counting."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How devices run artifacts.

    Attributes:
        module: a ``KindModule``, imported on use.
        figures: of ``FIGURES``. Without ``accuracy``, its sessions are never run. With ``latency``, nothing else runs
            here while it measures.
        elsewhere: it runs on another machine, whose clock measures: others may run here meanwhile.
    """

    module: str
    figures: tuple[str, ...]
    elsewhere: bool = False

    def __post_init__(self) -> None:
        for figure in self.figures:
            if figure not in FIGURES:
                raise InputError(unknown("figure", figure, FIGURES))


KINDS = {
    "host": Kind(module="edgecnn_targets.host", figures=("accuracy", "latency")),
    "ssh": Kind(module="edgecnn_targets.ssh", figures=("accuracy", "latency"), elsewhere=True),
    "wasm": Kind(module="edgecnn_targets.wasm", figures=("accuracy", "latency")),
    "cortex-m": Kind(module="edgecnn_targets.cortex_m", figures=("accuracy", "instructions", "sram_kib", "flash_kib")),
    "tflm": Kind(module="edgecnn_targets.tflm", figures=("accuracy", "sram_kib", "flash_kib")),
    "vela": Kind(module="edgecnn_targets.vela", figures=("cycles", "sram_kib", "flash_kib", "npu_coverage")),
    "qemu": Kind(module="edgecnn_targets.qemu", figures=("accuracy", "instructions")),
}


class KindModule(Protocol):
    """What the module of a kind has. Any function may raise ``DeviceFault``: the device broke.

    A kind that has settings has ``Settings``, a frozen dataclass that validates them (``devices.settings_of``).
    A kind that knows what each op costs has ``layers(device, runtime, artifact) -> list[LayerCost]``.
    """

    def open_session(
        self, device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None
    ) -> Session:
        """Open an artifact there. A session that holds a process has ``close()``."""

    def missing(self, device: Device, runtime: Runtime) -> str | None:
        """The command that installs what the device lacks to run that target, or ``None`` when it is ready."""

    def setup(self, device: Device, say: Say) -> bool:
        """Install what the device lacks, in ``cache.cache_dir()``; whether anything was done. A second call does
        nothing."""

    def measure(self, device: Device, session: Session) -> Usage:
        """What one inference costs there, after a warm-up; ``session`` is one that ``open_session`` made."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """What executes a target's artifacts.

    Attributes:
        target: the format.
        suffix: of its main file.
        description: one line for ``edgecnn targets``.
        module: has ``open_session(path, *, threads, kernels) -> Session``; without a library also ``missing()``, how
            to get what it needs to run artifacts here.
        library: the import name that writing and running artifacts needs, or ``None``.
        extra: the extra of edgecnn that installs it.
        exact: its kernels whose sums are exact on every CPU, a name that its ``open_session`` takes.
    """

    target: str
    suffix: str
    description: str
    module: str
    library: str | None = None
    extra: str | None = None
    exact: str = "exact"

    def missing(self) -> str | None:
        """The command that installs the library, or ``None`` when it is there."""
        present = self.library is None or find_spec(self.library)
        return None if present else f"pip install 'edgecnn[{self.extra}]'"


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
            exact="xnnpack",
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
        Runtime(
            target="c",
            suffix=".c",
            description="C99 for microcontrollers, compiled for where it runs",
            module="edgecnn_targets.c.host",
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
    session = kind_module(device).open_session(device, row, artifact, threads=threads, kernels=kernels)
    strange = [str(op) for op in session.ops if device.limits.ops and op.kind not in device.limits.ops]
    if strange:
        taken = ", ".join(device.limits.ops)
        raise UnsupportedError(f"device {device.name!r} does not run {', '.join(strange)}; its ops: {taken}")
    return session


def missing(device: Device, target: str) -> str | None:
    """The command that installs what a device lacks to run a target, or ``None`` when it is ready."""
    return kind_module(device).missing(device, runtime(target))


def figures(device: Device) -> tuple[str, ...]:
    """What the device can find out, of ``FIGURES``."""
    return KINDS[device.kind].figures


def setup(device: Device, say: Say) -> bool:
    """Install what a device lacks; whether anything was done.

    Raises:
        InputError: the cache cannot be written.
        MissingDependencyError: a tool that setting up needs is missing; the message installs it.
    """
    return kind_module(device).setup(device, say)


def measure(device: Device, session: Session) -> Usage:
    """What one inference costs on a device.

    Raises:
        DeviceFault: it broke.
    """
    return kind_module(device).measure(device, session)


def layers(device: Device, artifact: Path) -> list[LayerCost]:
    """What each op of an artifact costs on a device, in execution order.

    Raises:
        UnsupportedError: the device does not take the artifact, or does not say.
        DeviceFault: it broke.
    """
    row, module = runtime_of(artifact), kind_module(device)
    if row.target not in device.targets or not hasattr(module, "layers"):
        raise UnsupportedError(f"device {device.name!r} does not say what each op of {artifact} costs")
    return cast(list[LayerCost], module.layers(device, row, artifact))


def kind_module(device: Device) -> KindModule:
    """The module of the device's kind.

    Raises:
        InputError: no such kind.
    """
    if device.kind not in KINDS:
        raise InputError(f"device {device.name}: {unknown('kind', device.kind, KINDS)}")
    return cast(KindModule, import_module(KINDS[device.kind].module))
