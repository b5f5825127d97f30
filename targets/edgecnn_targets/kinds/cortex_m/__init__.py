"""Devices of kind ``cortex-m``: C networks on an emulated bare Cortex-M board, compiled for its core.

QEMU executes the instructions of the core, one after another, each in the same emulated time (``-icount``): what a
counter of the board shows is then a number of instructions, the same in every run. They are no cycles: a real core
takes more than one for some, and waits for its flash.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import DeviceFault, InputError, unknown
from edgecnn.files import scratch
from edgecnn.report.evidence import LayerCost
from edgecnn.report.record import Latency, Resources
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.interface import (
    Arrays,
    Device,
    Kind,
    Runtime,
    Session,
    Usage,
    bytes_of,
    packed,
    unpacked,
)
from edgecnn_targets.kinds.cortex_m import toolchain
from edgecnn_targets.kinds.cortex_m.toolchain import Settings
from edgecnn_targets.runtimes.c import CNetwork, read_network

SHIFT = 4  # an instruction takes 2**SHIFT ns of emulated time: some 2 ticks of the counter make it, at 25 MHz
START_S, IMAGE_S = 60.0, 120.0
EMULATORS = 4  # at a time, at most
COST = np.dtype([("ticks", "<u8"), ("flash", "<u8"), ("ram", "<u8"), ("stack", "<u8")])


class CortexMSession(Session):
    """A network compiled for a board into an image, an ELF file; see ``Session``."""

    def __init__(self, network: CNetwork, settings: Settings, image: bytes, findings: tuple[str, ...]) -> None:
        super().__init__(replace(network.description, findings=findings))
        self.network, self.settings, self.image = network, settings, image

    def execute(self, batch: Arrays) -> Arrays:
        """Share the batch between several emulators; raises as ``emulate``."""
        fed = packed(batch, self.inputs)
        share = -(-len(fed) // min(EMULATORS, os.cpu_count() or 1)) or 1
        parts = [fed[at : at + share] for at in range(0, len(fed), share)]
        with ThreadPoolExecutor(max(len(parts), 1)) as pool:
            made = pool.map(lambda part: emulate(self, self.image, part)[0], parts)
            return unpacked([each for part in made for each in part], self.outputs)


def open_session(
    device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None
) -> CortexMSession:
    """Compile a network for the device's board.

    Raises:
        InputError: more than one thread, or other kernels, were asked for; or the files are not a C network.
        UnsupportedError: it does not fit the board.
        MissingDependencyError: the device is not set up.
        DeviceFault: the compiler failed.
    """
    if threads != 1:
        raise InputError(f"device {device.name!r} has one core: leave --threads at 1")
    if kernels not in (None, "exact"):
        raise InputError(unknown("kernels", kernels, ("exact",)))
    network, settings = read_network(artifact), device.settings
    image = toolchain.build(network, settings)
    version = toolchain.call(toolchain.COMPILER, "-dumpversion", timeout_s=START_S).strip()
    flags = " ".join(("-O3", *settings.flags))
    built = f"built by {toolchain.COMPILER} {version} with {flags}; counts are of instructions, not of cycles"
    return CortexMSession(network, settings, image, (built,))


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that sets the device up, or ``None`` when it is ready."""
    return None if toolchain.ready() else device.setup_command


def measure(device: Device, session: CortexMSession) -> Usage:
    """Return instructions and memory of one inference: the whole image in flash; data, arena and used stack in RAM."""
    _, costs, _ = emulate(session, session.image, packed(fixed_input(session), session.inputs))
    cost = costs[0]
    return Usage(
        latency=Latency(threads=1, instructions=instructions(session.settings, int(cost["ticks"])), runs=1),
        resources=Resources(
            sram_kib=int(cost["ram"] + cost["stack"]) / 1024,
            flash_kib=int(cost["flash"]) / 1024,
            arena_bytes=session.network.arena_bytes,
        ),
    )


def layers(device: Device, runtime: Runtime, artifact: Path) -> list[LayerCost]:
    """Return the instructions of each op, from a build that notes the counter before each."""
    session = open_session(device, runtime, artifact, threads=1, kernels=None)
    image = toolchain.build(session.network, session.settings, marking=True)
    _, _, marks = emulate(session, image, packed(fixed_input(session), session.inputs))
    spent = np.diff(marks[0].astype(np.int64))
    return [
        LayerCost(op=op.kind, name=op.name, instructions=instructions(session.settings, int(ticks)), place="CPU")
        for op, ticks in zip(session.ops, spent, strict=True)
    ]


def instructions(settings: Settings, ticks: int) -> int:
    """Convert ticks of the counter to instructions, to within the instructions of one tick."""
    return round(ticks * 1000 / (settings.clock_mhz * (1 << SHIFT)))


def emulate(session: CortexMSession, image: bytes, inferences: list[bytes]) -> tuple[list[bytes], Any, Any]:
    """Run inferences through one emulator; the bytes of their inputs, and of their outputs, one after another.

    Returns:
        The outputs of each; a ``COST`` for each image; the counter before each op (in a marking build) and at the end.

    Raises:
        DeviceFault: it crashed, hung, or left not every output.
    """
    with scratch() as folder:
        (folder / "image.elf").write_bytes(image)
        (folder / "input.bin").write_bytes(b"".join(inferences))
        said = toolchain.call(
            toolchain.EMULATOR,
            *("-machine", session.settings.machine, "-icount", f"shift={SHIFT}", "-kernel", "image.elf"),
            *("-semihosting-config", "enable=on,target=native", "-nodefaults", "-display", "none"),
            timeout_s=START_S + IMAGE_S * len(inferences),
            cwd=folder,
        )
        marks = toolchain.marks_of(session.network)
        record = np.dtype([("cost", COST), ("marks", "<u8", (marks,))])
        outputs, records = ((folder / f"{what}.bin").read_bytes() for what in ("output", "costs"))
    size, count = bytes_of(session.outputs), len(inferences)
    if len(outputs) != size * count or len(records) != record.itemsize * count:
        raise DeviceFault(f"the emulator left {len(outputs) // size} of {count} outputs; it said: {said or '-'}")
    found = np.frombuffer(records, record)
    made = [outputs[at : at + size] for at in range(0, len(outputs), size)]
    return made, found["cost"], found["marks"]


KIND = Kind(
    figures=("accuracy", "instructions", "sram_kib", "flash_kib"),
    open_session=open_session,
    missing=missing,
    measure=measure,
    setup=toolchain.setup,
    layers=layers,
    settings=Settings,
    start_s=3.0,
    slowdown=160.0,
)
