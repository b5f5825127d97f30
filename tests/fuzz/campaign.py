"""Run many mutated files through the readers, in worker processes with limits on time and memory."""

from __future__ import annotations

import collections
import ctypes
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from edgecnn.errors import EdgecnnError
from fuzz.mutate import mutated
from fuzz.readers import READERS
from fuzz.seeds import Seed, corpus

HANG_S, STARVED_S = 20.0, 900.0  # of a processor, and by the clock: on a busy machine a child of a worker waits long
MEMORY = 2**30  # peak of a worker, in bytes
PR_SET_PDEATHSIG = 1  # of Linux: a worker ends with the campaign
FAULTS = ("traceback", "hang", "death", "memory", "lines")


@dataclass(frozen=True)
class Outcome:
    """What came of one mutated file.

    Attributes:
        kind: of the seed.
        state: ``read``, ``refused``, or one of ``FAULTS``.
        said: the error, or the end of the traceback.
    """

    number: int
    kind: str
    state: str
    said: str = ""


def files_of(seeds: Sequence[Seed], seed: int, number: int) -> tuple[Seed, dict[str, bytes]]:
    """Return the mutated files of one case: the same for the same numbers."""
    rng = random.Random(f"{seed}/{number}")
    chosen = seeds[number % len(seeds)]
    return chosen, mutated(rng, chosen.files, chosen.name, chosen.structure)


def tried(kind: str, name: str, files: dict[str, bytes], folder: Path) -> tuple[str, str]:
    """Write files into a folder, read the main one, and return state and message."""
    for each, data in files.items():
        (folder / each).write_bytes(data)
    try:
        READERS[kind](folder / name)
    except EdgecnnError as error:
        text = str(error)
        return ("lines", text) if "\n" in text else ("refused", text)
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        return "traceback", f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}"
    return "read", ""


def _peak() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def _work(seeds: Sequence[Seed], seed: int, pipe: Connection) -> None:
    """Try the cases whose numbers come, until nothing comes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (number := pipe.recv()) is not None:
        chosen, files = files_of(seeds, seed, number)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            state, said = tried(chosen.kind, chosen.name, files, Path(folder))
        if _peak() > MEMORY:
            state, said = "memory", f"{_peak() / 2**20:.0f} MiB; {state}: {said}"
        pipe.send((number, state, said))


class Worker:
    """A process that tries one case after another."""

    def __init__(self, seeds: Sequence[Seed], seed: int) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process: Any = multiprocessing.get_context("fork").Process(
            target=_work, args=(seeds, seed, other), daemon=True
        )
        self.process.start()
        other.close()
        self.number, self.started, self.used = -1, 0.0, 0.0

    def give(self, number: int) -> None:
        """Start a case."""
        self.number, self.started, self.used = number, time.monotonic(), self.cpu()
        self.pipe.send(number)

    def cpu(self) -> float:
        """Return the seconds that the process has computed: on a busy machine a clock on the wall says less."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> int | None:
        """End the process; return its exit code before that."""
        self.process.join(0.5)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return code


def _warm(seeds: Sequence[Seed]) -> None:
    """Read sound files here, so that no worker has to import what reads them."""
    for kind in dict.fromkeys((seed.kind, Path(seed.name).suffix) for seed in seeds):
        first = next(seed for seed in seeds if (seed.kind, Path(seed.name).suffix) == kind)
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            tried(first.kind, first.name, dict(first.files), Path(folder))


def run(seed: int, numbers: Sequence[int], workers: int, seeds: Sequence[Seed] | None = None) -> Iterator[Outcome]:
    """Yield the outcome of each case, as it ends."""
    seeds = seeds or corpus()
    _warm(seeds)
    waiting = collections.deque(numbers)
    pool = [Worker(seeds, seed) for _ in range(min(workers, len(waiting)))]
    for worker in pool:
        worker.give(waiting.popleft())
    while pool:
        ready = wait([worker.pipe for worker in pool], timeout=1.0)
        for worker in list(pool):
            state = said = ""
            kind = seeds[worker.number % len(seeds)].kind
            if worker.pipe in ready:
                try:
                    _, state, said = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    state = "death"
            elif worker.cpu() - worker.used > HANG_S or time.monotonic() - worker.started > STARVED_S:
                state = "hang"
            if not state:
                continue
            number = worker.number
            if state in ("death", "hang"):
                code = worker.end()
                pool.remove(worker)
                said = f"exit code {code}" if state == "death" else f"{time.monotonic() - worker.started:.0f} s"
                if waiting:
                    worker = Worker(seeds, seed)
                    pool.append(worker)
            if waiting and worker in pool:
                worker.give(waiting.popleft())
            elif worker in pool:
                worker.pipe.send(None)
                worker.end()
                pool.remove(worker)
            yield Outcome(number, kind, state, said)
