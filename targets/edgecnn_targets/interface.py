"""The types of runtimes, kinds of device and devices: what a plugin imports.

A runtime executes the artifacts of one format. A kind is how devices run artifacts: in this process, in an emulator, by
SSH. A device is data, one TOML file. Both open sessions: a session is one open artifact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import PRECISIONS, Port, Ported
from edgecnn.errors import InputError, MissingDependencyError, UnsupportedError, unknown
from edgecnn.plugins import INTERFACE
from edgecnn.report.evidence import LayerCost
from edgecnn.report.record import Latency, Resources

Say = Callable[[str], None]
"""Takes one line of progress for the person at the terminal."""
Parameters = Mapping[str, tuple[float, int]]
"""Tensor name to the scale and the int8 zero point of an activation."""
Activations = dict[str, NDArray[np.float32]]
"""Tensor name to real values, in the graph's layout."""
Arrays = Mapping[str, NDArray[Any]]
"""Name of an input or output to its values, ``(n, ...)``, as the artifact takes or gives them."""

FIGURES = ("accuracy", "latency", "instructions", "cycles", "sram_kib", "flash_kib", "npu_coverage")
"""Figures that a kind of device can measure: ``accuracy`` by executing artifacts, ``latency`` by a clock on the wall,
the rest by counting."""

INSTRUCTION_SETS = ("vnni", "avx2", "other")
"""Kinds of CPU that a tolerance may depend on: x86 with VNNI, x86 with AVX2 and without VNNI, and any other CPU."""


class Saturation(str):
    """A finding of a session whose int8 sums can be clipped: its distance from the oracle has no bound."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation of an open artifact, as the runtime sees it.

    Attributes:
        kind: the format's name of the op, ``CONV_2D``.
        name: of the tensor it makes.
        requested_kernels: whether the kernels that were requested run it, and no others took its place.
    """

    kind: str
    name: str
    requested_kernels: bool
    is_float: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Hold what one inference costs on a device, after a warm-up."""

    latency: Latency = field(default_factory=Latency)
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, kw_only=True)
class Description(Ported):
    """Hold what an open artifact says of itself.

    Attributes:
        inputs, outputs: in the graph's order.
        ops: in execution order.
        findings: what a user should know about how it runs here, one line each.
        arithmetic: whose rounding its integer kernels have: a key of ``edgecnn.graph.oracle.ARITHMETICS``.

    Raises:
        UnsupportedError: there are no inputs, or no outputs.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ops: tuple[Op, ...]
    findings: tuple[str, ...] = ()
    arithmetic: str = "litert"

    def __post_init__(self) -> None:
        for side in ("inputs", "outputs"):
            if not getattr(self, side):
                raise UnsupportedError(f"the artifact has no {side}; a network has at least one")


class Session(Ported):
    """One open artifact. Its ports are read from the artifact itself, so a file without a manifest runs too."""

    def __init__(self, description: Description, *, threads: int = 1) -> None:
        self.description, self.threads = description, threads
        self.inputs, self.outputs, self.ops = description.inputs, description.outputs, description.ops
        self.arithmetic = description.arithmetic

    @property
    def findings(self) -> tuple[str, ...]:
        """Return what a user should know about how it runs here, one line each."""
        return self.description.findings

    @property
    def saturates(self) -> bool:
        """Return whether its sums can be clipped, so that its distance from the oracle has no bound."""
        return any(isinstance(finding, Saturation) for finding in self.description.findings)

    @property
    def batch(self) -> int:
        """Return how many samples one inference takes."""
        return self.inputs[0].shape[0]

    @overload
    def run(self, batch: NDArray[Any]) -> NDArray[Any]: ...

    @overload
    def run(self, batch: Arrays) -> Arrays: ...

    def run(self, batch: NDArray[Any] | Arrays) -> NDArray[Any] | Arrays:
        """Execute; every sample is its own inference, or as many as the artifact takes at a time.

        Args:
            batch: of each input ``(n, ...)`` in its dtype and layout; an array for an artifact of one input and one
                output.

        Returns:
            Of each output ``(n, ...)`` in its dtype and layout; an array for an array.

        Raises:
            InputError: an input is missing, or has another dtype or shape.
            DeviceFault: the device broke.
        """
        if isinstance(batch, np.ndarray):
            return self.run({self.input.name: batch})[self.output.name]
        if set(batch) != {port.name for port in self.inputs}:
            wanted = ", ".join(port.name for port in self.inputs)
            raise InputError(f"the artifact's inputs are {wanted}; got {', '.join(batch)}")
        for port in self.inputs:
            given, expected = batch[port.name], port.shape[1:]
            if given.shape[1:] != expected or given.dtype != port.dtype:
                got = f"{given.dtype} {given.shape[1:]}"
                raise InputError(f"input {port.name!r} takes {port.dtype} {expected} per image, not {got}")
        return self.execute({port.name: batch[port.name] for port in self.inputs})

    def execute(self, batch: Arrays) -> Arrays:
        """Execute a batch that fits; by default, one inference after another."""
        count, size = len(batch[self.inputs[0].name]), self.batch
        made = {port.name: np.empty((count, *port.shape[1:]), port.dtype) for port in self.outputs}
        for at in range(0, count, size):
            found = self.infer({name: filled(array[at : at + size], size) for name, array in batch.items()})
            for name, values in made.items():
                values[at : at + size] = found[name][: count - at]
        return made

    def infer(self, sample: Arrays) -> Arrays:
        """Execute one inference: of each input ``(1, ...)``, or as many as the artifact takes."""
        raise NotImplementedError

    def close(self) -> None:
        """End what the session holds: a process, a connection."""


def filled(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return ``size`` samples: those that there are, and the last one again."""
    missing = size - len(array)
    return array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def packed(batch: Arrays, ports: tuple[Port, ...]) -> list[bytes]:
    """Return the bytes of each inference, those of the ports one after another.

    Args:
        batch: as many samples as a number of inferences takes.
    """
    size = ports[0].shape[0]
    count = len(batch[ports[0].name])
    starts = range(0, count - size + 1, size)
    return [b"".join(batch[port.name][at : at + size].tobytes() for port in ports) for at in starts]


def unpacked(inferences: list[bytes], ports: tuple[Port, ...]) -> dict[str, NDArray[Any]]:
    """Return what ``packed`` made bytes of."""
    made, at = {}, 0
    for port in ports:
        size = math.prod(port.shape) * np.dtype(port.dtype).itemsize
        joined = b"".join(each[at : at + size] for each in inferences)
        made[port.name] = np.frombuffer(joined, port.dtype).reshape(-1, *port.shape[1:])
        at += size
    return made


def bytes_of(ports: tuple[Port, ...]) -> int:
    """Return how many bytes the ports have in one inference."""
    return sum(math.prod(port.shape) * np.dtype(port.dtype).itemsize for port in ports)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Execute the artifacts of one format: an entry point of ``edgecnn.runtimes``, named as the target.

    Attributes:
        description: one line for ``edgecnn targets``.
        open_session: opens an artifact in this process: ``(path, *, threads, kernels) -> Session``.
        library: the import name that writing and running artifacts needs, or ``None``.
        extra: the extra of edgecnn that installs the library.
        needs: returns the command that installs what else running artifacts here needs, or ``None`` when it is there.
        activations: returns what an int8 artifact computes inside:
            ``(path, sample, parameters, kernels) -> Activations``, the sample by input; ``None`` where the runtime does
            not tell.
        profile: returns the time of each op, ``(path, threads) -> costs``; ``None`` where the runtime does not tell.
        exact: its kernels whose sums are exact on every CPU, a name that ``open_session`` takes.
        interface: version of this interface that it is written for.
    """

    target: str
    description: str
    open_session: Callable[..., Session]
    library: str | None = None
    extra: str | None = None
    needs: Callable[[], str | None] | None = None
    activations: Callable[[Path, Arrays, Parameters, str | None], Activations] | None = None
    profile: Callable[[Path, int], list[LayerCost]] | None = None
    exact: str = "exact"
    interface: int = INTERFACE

    def missing(self) -> str | None:
        """Return the command that installs the library, or ``None`` when it is there."""
        present = self.library is None or find_spec(self.library)
        return None if present else f"pip install 'edgecnn[{self.extra}]'"

    def absent(self) -> MissingDependencyError:
        """Return the error for a library that cannot be imported."""
        return MissingDependencyError(
            f"{self.target} artifacts need {self.library} to run: pip install 'edgecnn[{self.extra}]'"
        )


@dataclass(frozen=True, kw_only=True)
class DeviceLimits:
    """Limit what a device has and takes. Each number is a check wherever the user does not give another.

    Attributes:
        sram_kib: memory for activations and the runtime's state, in KiB; ``None`` where there is plenty.
        flash_kib: memory for weights and code, in KiB; ``None`` where there is plenty.
        precisions: of artifacts, of ``artifact.PRECISIONS``.
        ops: the format's names of the ops that it runs, ``CONV_2D``; empty: every op.
        npu_coverage: percent of the ops that its NPU must run; ``None`` where it has none.
    """

    sram_kib: float | None = None
    flash_kib: float | None = None
    precisions: tuple[str, ...] = PRECISIONS
    ops: tuple[str, ...] = ()
    npu_coverage: float | None = None

    def __post_init__(self) -> None:
        for name in self.precisions:
            if name not in PRECISIONS:
                raise InputError(unknown("precision", name, PRECISIONS))
        for name in ("sram_kib", "flash_kib", "npu_coverage"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value:g}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far an int8 artifact's outputs may be from others'; a target that is not there has no bound.

    Attributes:
        host_lsb: target to LSB from the same artifact's on this machine; 0 where they must be equal bit for bit.
        oracle_lsb: target to LSB from the oracle's, rounded as the runtime there rounds. Of a device of kind ``host``,
            it may be a table of LSB by instruction set, of ``INSTRUCTION_SETS``.
        host_agreement: target to the percentage of images on which both must pick the same class.

    Raises:
        InputError: an instruction set is not known.
    """

    host_lsb: Mapping[str, int] = field(default_factory=dict)
    oracle_lsb: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)
    host_agreement: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in self.by_instruction_set:
            for name in table:
                if name not in INSTRUCTION_SETS:
                    raise InputError(f"oracle_lsb: {unknown('instruction set', name, INSTRUCTION_SETS)}")

    @property
    def by_instruction_set(self) -> list[Mapping[str, int]]:
        """Return the tables of LSB by instruction set."""
        return [limit for limit in self.oracle_lsb.values() if not isinstance(limit, int)]

    def from_oracle(self, target: str, instruction_set: str) -> int | None:
        """Return the LSB that a target's outputs may be from the oracle's; ``None`` where there is no bound."""
        limit = self.oracle_lsb.get(target)
        return limit if limit is None or isinstance(limit, int) else limit.get(instruction_set)


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where an artifact runs.

    Attributes:
        name: of its file without ``.toml``, or its address.
        kind: how it runs artifacts, an entry point of ``edgecnn.device_kinds``.
        description: one line for ``edgecnn devices``.
        targets: formats it takes; ``*`` in a file is every runtime's.
        onnx_activations: ``uint8`` or ``int8``: how ONNX Runtime there wants an int8 file's activations. x86 multiplies
            unsigned by signed bytes; Arm signed by signed.
        limits: what it has and takes.
        tolerances: how far its results may be from others'.
        settings: what its kind alone understands: one of the kind's ``settings``.
        option: what ``--device`` takes for it: the name, or the path of the user's own file.
    """

    name: str
    kind: str
    description: str
    targets: tuple[str, ...]
    onnx_activations: str = "uint8"
    limits: DeviceLimits = DeviceLimits()
    tolerances: Tolerances = Tolerances()
    settings: Any = field(default_factory=dict)
    option: str = ""

    def __post_init__(self) -> None:
        if self.onnx_activations not in ("uint8", "int8"):
            raise InputError(unknown("onnx_activations", self.onnx_activations, ("uint8", "int8")))
        if self.kind != "host" and self.tolerances.by_instruction_set:
            raise InputError(
                f"oracle_lsb by instruction set is for kind 'host'; a device of kind {self.kind!r} is one CPU: give LSB"
            )

    @property
    def setup_command(self) -> str:
        """Return the command that sets it up."""
        return f"edgecnn devices setup {self.option or self.name}"


@dataclass(frozen=True)
class NoSettings:
    """The settings of a kind that has none."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How devices run artifacts: an entry point of ``edgecnn.device_kinds``.

    Any of its functions may raise ``DeviceFault``: the device broke.

    Attributes:
        figures: of ``FIGURES``. Without ``accuracy``, its sessions are never run. With ``latency``, nothing else runs
            here while it measures.
        open_session: opens an artifact there: ``(device, runtime, path, *, threads, kernels) -> Session``.
        missing: returns the command that installs what the device lacks to run that runtime's artifacts, or ``None``
            when it is ready.
        measure: returns what one inference costs there after a warm-up; the session is one of ``open_session``.
        setup: installs what the device lacks, in ``cache.cache_dir()``, and returns whether anything was done. A second
            call does nothing.
        layers: returns what each op of an artifact costs, in execution order; ``None`` where the kind does not know.
        settings: the frozen dataclass that validates ``[settings]`` of a device.
        address: what a file would say of a device that is an address, ``KIND`` or ``KIND:…``, and has no file; ``None``
            where every device has a file.
        elsewhere: it runs on another machine, whose clock measures: others may run here meanwhile.
        start_s: seconds that opening and measuring take here, about, for plans; ``None`` where nobody knows.
        slowdown: times as long as the float network takes here for an image, about, for plans.
        interface: version of this interface that it is written for.
    """

    figures: tuple[str, ...]
    open_session: Callable[..., Session]
    missing: Callable[[Device, Runtime], str | None]
    measure: Callable[[Device, Any], Usage]
    setup: Callable[[Device, Say], bool] = lambda device, say: False
    layers: Callable[[Device, Runtime, Path], list[LayerCost]] | None = None
    settings: type = NoSettings
    address: Mapping[str, Any] | None = None
    elsewhere: bool = False
    start_s: float | None = None
    slowdown: float = 1.0
    interface: int = INTERFACE

    def __post_init__(self) -> None:
        for figure in self.figures:
            if figure not in FIGURES:
                raise InputError(unknown("figure", figure, FIGURES))
