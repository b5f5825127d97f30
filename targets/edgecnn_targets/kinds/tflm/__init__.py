"""Devices of kind ``tflm``: TensorFlow Lite Micro, the interpreter that microcontrollers run, built for this machine.

Its kernels are the reference ones, in plain C++, so its outputs are a microcontroller's. Its arena is not, quite: with
64-bit pointers the structs in it are larger.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn.files import scratch
from edgecnn.process import run
from edgecnn.report.record import Resources
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.interface import Arrays, Device, Kind, Runtime, Session, Usage
from edgecnn_targets.kinds import foreign
from edgecnn_targets.kinds.tflm import interpreter_child
from edgecnn_targets.runtimes import litert

ARENA_BYTES = 64 << 20  # given to the interpreter, which says how much of it it takes
START_S, IMAGE_S = 60.0, 60.0
TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
HEAD = re.compile(r"Arena allocation head (\d+) bytes")
UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


class TflmSession(Session):
    """A file that TensorFlow Lite Micro takes; see ``Session``.

    Args:
        original: the same file, open in LiteRT.
        arena_bytes: of the whole arena.
        activation_bytes: of the tensors in it; the rest is structs and what kernels keep.
    """

    def __init__(self, path: Path, original: Session, *, arena_bytes: int, activation_bytes: int) -> None:
        kinds = sorted({op.kind for op in original.ops})
        memory = f"an arena of {arena_bytes:,} bytes, of them {activation_bytes:,} for activations"
        said = f"{memory} (on a 64-bit machine); needs {len(kinds)} ops registered: {', '.join(kinds)}"
        super().__init__(replace(original.description, findings=(said,)))
        self.path, self.arena_bytes, self.activation_bytes = path, arena_bytes, activation_bytes

    def execute(self, batch: Arrays) -> Arrays:
        if not len(batch[self.inputs[0].name]):
            return {port.name: np.empty((0, *port.shape[1:]), port.dtype) for port in self.outputs}
        return _interpret(self.path, self, batch)[0]


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> TflmSession:
    """Open an artifact, and try one inference.

    Raises:
        InputError: more than one thread was asked for, or the file is not a TFLite file.
        UnsupportedError: the interpreter does not have one of its ops.
        DeviceFault: the interpreter crashed or hung.
    """
    if threads != 1:
        raise InputError(f"device {device.name!r} has one core: leave --threads at 1")
    said = foreign.open_session(litert.RUNTIME, artifact, kernels="builtin")  # the reference ones lack ELU
    if said.batch != 1:
        raise UnsupportedError(
            f"{artifact} takes {said.batch} samples at a time; this device runs files of a batch of 1"
        )
    try:
        _, allocations = _interpret(artifact, said, fixed_input(said))
    except DeviceFault as fault:
        unknown = UNKNOWN.search(str(fault))
        if unknown is None:
            raise
        raise UnsupportedError(f"{artifact}: TensorFlow Lite Micro has no {unknown[1]}") from None
    total, head = TOTAL.search(allocations), HEAD.search(allocations)
    if total is None or head is None:
        raise DeviceFault(f"TensorFlow Lite Micro did not say what memory it takes, but: {allocations[-200:]!r}")
    return TflmSession(artifact, said, arena_bytes=int(total[1]), activation_bytes=int(head[1]))


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs the interpreter, or ``None`` when it is there."""
    return None if find_spec("tflite_micro") and runtime.missing() is None else "pip install 'edgecnn[mcu]'"


def measure(device: Device, session: TflmSession) -> Usage:
    """Return the memory: the arena, and the file, without the interpreter's code."""
    return Usage(
        resources=Resources(
            sram_kib=session.arena_bytes / 1024,
            flash_kib=session.path.stat().st_size / 1024,
            arena_bytes=session.arena_bytes,
        )
    )


def _interpret(path: Path, session: Session, batch: Arrays) -> tuple[Arrays, str]:
    """Run samples; return outputs, and what the interpreter said."""
    with scratch() as folder:
        inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
        given = [batch[port.name] for port in session.inputs]
        np.savez(inputs, *given)
        words = (
            sys.executable,
            str(interpreter_child.__file__),
            path,
            inputs,
            outputs,
            str(len(session.outputs)),
            str(ARENA_BYTES),
        )
        said = run(words, timeout_s=START_S + IMAGE_S * len(given[0]))
        with np.load(outputs) as made:
            return {port.name: made[f"arr_{k}"] for k, port in enumerate(session.outputs)}, said


KIND = Kind(
    figures=("accuracy", "sram_kib", "flash_kib"),
    open_session=open_session,
    missing=missing,
    measure=measure,
    start_s=1.5,
    slowdown=60.0,
)
