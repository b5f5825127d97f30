"""Devices of kind ``qemu``: a Linux board or phone by its CPU, under QEMU user mode.

The runtimes' own wheels for that CPU execute the artifact, so its results are that CPU's. Time is not measured:
instructions are counted by a plugin (``counter.c``), and the same artifact has the same count in every run.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.errors import DeviceFault, InputError
from edgecnn.report import Latency, Resources
from edgecnn_targets.cache import cache_dir
from edgecnn_targets.devices import Device, settings_of
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.qemu import install
from edgecnn_targets.qemu.settings import Settings
from edgecnn_targets.session import Session, Usage

if TYPE_CHECKING:
    from edgecnn_targets.registry import Runtime, Say
    from edgecnn_targets.remote import Command

RUNS, WARMUP = 2, 1
SAME = 1e-6
"""Counts of two inferences may differ by so much of them."""


def missing(device: Device, runtime: Runtime) -> str | None:
    """The command that installs what the device lacks to run that target, or ``None`` when it is ready."""
    ready = install.ready(device.name, settings_of(device, Settings))
    return runtime.missing() if ready else f"edgecnn devices setup {device.name}"


def setup(device: Device, say: Say) -> bool:
    """See ``install.setup``."""
    return install.setup(device.name, settings_of(device, Settings), say)


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> Session:
    """Open an artifact in emulators, one per core of this machine, each for its share of a batch.

    Raises:
        InputError: more than one thread: their instructions cannot be counted the same way twice.
    """
    import os

    from edgecnn_targets.remote import RemoteSession

    if threads != 1:
        raise InputError(
            f"device {device.name!r} runs one thread, not --threads {threads}: its counts are of one thread"
        )
    settings = settings_of(device, Settings)
    return RemoteSession(
        command(device),
        artifact,
        runtime.target,
        kernels=kernels,
        vnni=settings.vnni,
        runners=min(4, os.cpu_count() or 1),
    )


def measure(device: Device, session: Session) -> Usage:
    """Instructions, by class, and simulated cache misses of one inference after a warm-up."""
    from edgecnn_targets.remote import RemoteSession, Runner

    assert isinstance(session, RemoteSession)
    settings = settings_of(device, Settings)
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        counting = command(device, f"out={counts}", *(f"{k}={c.sets}:{c.ways}" for k, c in _caches(settings)))
        runner = Runner(counting)
        try:
            runner.ask(*session.opening, within_s=counting.open_s)
            runner.answer()
            runner.ask({"do": "arm"}, within_s=counting.image_s)
            runner.answer()
            request = {"do": "count", "warmup": WARMUP, "runs": RUNS}
            runner.ask(request, fixed_input(session).tobytes(), within_s=counting.image_s * (WARMUP + RUNS))
            runner.answer()
        finally:
            runner.close()
        found = _read(device, counts, RUNS)
    instructions, misses = found[0]["instructions"], found[0]["misses"]
    return Usage(
        latency=Latency(threads=1, instructions=instructions, runs=RUNS),
        resources=Resources(
            instruction_mix={name: n for name, n in found[0]["mix"].items() if n} or None,
            cache_misses=misses,
            estimated_ms=settings.estimated_ms(instructions, misses),
        ),
    )


def command(device: Device, *counting: str) -> Command:
    """How a runner is started on the device; with arguments of the plugin, one that counts."""
    from edgecnn_targets.remote import Command

    settings = settings_of(device, Settings)
    plugin = None
    if counting:
        isa = settings.isa
        library = cache_dir() / install.plugin_tree() / "counter.so"
        plugin = ",".join([str(library), f"yield={isa.sched_yield}", f"classes={isa.classes}", *counting])
    words, environment = install.emulation(device.name, settings, plugin)
    return Command(device=device.name, words=words, environment=environment)


def _caches(settings: Settings) -> list[tuple[str, Any]]:
    return [("l1", settings.l1d), ("l2", settings.l2)]


def _read(device: Device, path: Path, runs: int) -> list[dict[str, Any]]:
    """The plugin's lines, one per counted inference."""
    try:
        found: list[dict[str, Any]] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DeviceFault(f"{device.name}: the plugin left no counts ({error})") from None
    counts = [line["instructions"] for line in found]
    if len(counts) != runs or max(counts) - min(counts) > SAME * max(counts):
        raise DeviceFault(f"{device.name}: {runs} equal inferences took {counts} instructions")
    return found
