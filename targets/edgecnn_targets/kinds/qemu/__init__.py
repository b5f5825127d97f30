"""Devices of kind ``qemu``: a Linux board or phone by its CPU, under QEMU user mode.

The runtimes' own wheels for that CPU execute the artifact, so its results are that CPU's. Time is not measured:
instructions are counted by a plugin (``counter.c``), and the same artifact has the same count in every run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgecnn.child import Command, Runner
from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn.files import scratch
from edgecnn.report.evidence import LayerCost
from edgecnn.report.record import Latency, Resources
from edgecnn_targets.cache import cache_dir
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.interface import Device, Kind, Runtime, Session, Usage, packed
from edgecnn_targets.kinds.qemu import install
from edgecnn_targets.kinds.qemu.settings import Settings
from edgecnn_targets.kinds.remote import Opening, RemoteSession, kib, opening
from edgecnn_targets.results import ResultCache
from edgecnn_targets.runtimes.litert_profile import prefixes

RUNS = 2
WARMUP = {"tflite": 1, "onnx": 3}  # ONNX Runtime plans its memory in the first inferences
SAME = 1e-6
APART = {"tflite": (SAME, 0), "onnx": (2e-3, 10_000)}
"""Counts of two inferences in a row may differ by so much of them, or by so many instructions. ONNX Runtime's do, since
it takes memory from the C library and hashes addresses, and the heap is not the same in both: measured up to 4e-4, the
same in every run. In networks of few ops the heap weighs more: measured up to 7,000 of 160,000 instructions."""


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs what the device lacks to run that target, or ``None`` when it is ready."""
    ready = install.ready(device.name, device.settings)
    return runtime.missing() if ready else device.setup_command


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> Session:
    """Open an artifact in emulators, one per core of this machine, each for its share of a batch.

    Raises:
        InputError: more than one thread: their instructions cannot be counted the same way twice.
    """
    if threads != 1:
        raise InputError(
            f"device {device.name!r} runs one thread, not --threads {threads}: its counts are of one thread"
        )
    settings: Settings = device.settings
    kernels = kernels or settings.kernels
    request, content = opening(artifact, runtime.target, threads, kernels)
    return RemoteSession(
        command(device),
        artifact,
        runtime.target,
        kernels=kernels,
        vnni=settings.vnni,
        runners=min(4, os.cpu_count() or 1),
        results=ResultCache(repr(request).encode(), content, install.versions(device.name, settings)),
    )


def measure(device: Device, session: RemoteSession) -> Usage:
    """Return instructions, by class, and simulated cache misses of one inference after a warm-up.

    Raises:
        DeviceFault: it broke, or two equal inferences took too different numbers of instructions.
    """
    settings: Settings = device.settings
    assert session.results is not None
    known = session.results.get("inferences")
    found = json.loads(known) if known is not None else _inferences(device, session, settings)
    if known is None:
        session.results.put("inferences", json.dumps(found).encode())
    counts = [line["instructions"] for line in found]
    apart = (max(counts) - min(counts)) / max(counts)
    if apart > SAME:
        said = (
            f"its count is the lesser of {RUNS} inferences in a row, {100 * apart:.2g} % apart, for its heap moves; "
            "every run has the same two"
        )
        session.notes = (*session.notes, said)
    least = min(found, key=lambda line: line["instructions"])
    return Usage(
        latency=Latency(threads=1, instructions=least["instructions"], runs=RUNS),
        resources=Resources(
            instruction_mix={name: n for name, n in least["mix"].items() if n} or None,
            cache_misses=least["misses"],
            heap_kib=kib(least["heap"]),
            estimated_ms=settings.estimated_ms(least["instructions"], least["misses"]),
        ),
    )


def _inferences(device: Device, session: RemoteSession, settings: Settings) -> list[dict[str, Any]]:
    """Return what the plugin says of equal inferences, with its caches."""
    caches = (f"{name}={cache.sets}:{cache.ways}" for name, cache in (("l1", settings.l1d), ("l2", settings.l2)))
    target = session.opening[0]["target"]
    found = _counts(device, [session.opening], session, runs=RUNS, warmup=WARMUP[target], caches=caches)
    counts = [line["instructions"] for line in found]
    share, number = APART[target]
    if max(counts) - min(counts) > max(share * max(counts), number):
        raise DeviceFault(f"{device.name}: {RUNS} equal inferences took {counts} instructions")
    return found


def instructions(device: Device, runtime: Runtime, artifact: Path, *, within_s: float) -> int:
    """Count the instructions of one inference after a warm-up, and nothing else.

    It is for networks so large that simulated caches, a warm-up that the plugin sees, and more inferences would take
    too long.

    Args:
        within_s: on average an inference takes no longer, or the device is broken.
    """
    session = RemoteSession(command(device), artifact, runtime.target, kernels=device.settings.kernels)
    session.close()
    (line,) = _counts(device, [session.opening], session, runs=1, warmup=0, unseen=1, within_s=within_s)
    return int(line["instructions"])


def layers(device: Device, runtime: Runtime, artifact: Path) -> list[LayerCost]:
    """Count the instructions of each op: those of the file that ends with it, less those of the file before.

    The first op has what every inference costs as well, and all of them add up to the whole.

    Raises:
        UnsupportedError: the artifact is no ``.tflite`` file.
    """
    if runtime.target != "tflite":
        raise UnsupportedError(f"device {device.name!r} says what each op costs of .tflite files, not of {artifact}")
    kernels = device.settings.kernels
    session = RemoteSession(command(device), artifact, runtime.target, kernels=kernels)
    session.close()
    request, content = session.opening
    files = [(request, cut) for cut in prefixes(content)]
    totals = [line["instructions"] for line in _counts(device, files, session, runs=1, warmup=1)]
    own = [after - before for before, after in zip([0, *totals[:-1]], totals, strict=True)]
    return [LayerCost(op=op.kind, name=op.name, instructions=n) for op, n in zip(session.ops, own, strict=True)]


def _counts(
    device: Device,
    openings: Sequence[Opening],
    session: RemoteSession,
    *,
    runs: int,
    warmup: int,
    unseen: int = 0,
    caches: Iterable[str] = (),
    within_s: float | None = None,
) -> list[dict[str, Any]]:
    """Open files one after another in one emulator with the plugin.

    Returns what the plugin says of each counted inference, and how many bytes of the heap the network held. ``unseen``
    inferences of the first file run before the plugin counts."""
    (image,), heaps = packed(fixed_input(session), session.inputs), []
    with scratch() as folder:
        place = folder / "counts"
        how = command(device, f"out={place}", *caches)
        runner = Runner(how)
        try:
            for number, opening in enumerate(openings):
                runner.ask(*opening, within_s=how.open_s)
                runner.answer()
                if number == 0:  # what comes before would only be slow to count
                    for _ in range(unseen):
                        runner.ask({"do": "run"}, image, within_s=within_s or how.image_s)
                        runner.answer()
                    runner.ask({"do": "arm"}, within_s=how.open_s)
                    runner.answer()
                request = {"do": "count", "warmup": warmup, "runs": runs}
                runner.ask(request, image, within_s=(within_s or how.image_s) * (warmup + runs))
                heaps += [runner.answer()[0]["heap"]] * runs
        finally:
            runner.close()
        try:
            found: list[dict[str, Any]] = [json.loads(line) for line in place.read_text("utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise DeviceFault(f"{device.name}: the plugin left no counts ({error})") from None
    if len(found) != runs * len(openings):
        raise DeviceFault(f"{device.name}: the plugin counted {len(found)} inferences of {runs * len(openings)}")
    return [{**line, "heap": heap} for line, heap in zip(found, heaps, strict=True)]


def command(device: Device, *counting: str) -> Command:
    """Return how a runner is started on the device; with arguments of the plugin, one that counts."""
    settings: Settings = device.settings
    plugin = None
    if counting:
        isa = settings.isa
        library = cache_dir() / install.plugin_tree() / install.PLUGIN
        plugin = ",".join([str(library), f"yield={isa.sched_yield}", f"classes={isa.classes}", *counting])
    words, environment = install.emulation(cache_dir() / install.device_tree(device.name, settings), settings, plugin)
    return Command(device=device.name, words=words, environment=environment)


KIND = Kind(
    figures=("accuracy", "instructions"),
    open_session=open_session,
    missing=missing,
    measure=measure,
    setup=lambda device, say: install.setup(device.name, device.settings, say),
    layers=layers,
    settings=Settings,
    start_s=6.0,
    slowdown=10.0,
)
