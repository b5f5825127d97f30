"""Run jobs in processes of this machine, as many at once as cores and memory allow; or one by one in this process."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Self

from edgecnn.jobs.forkserver import Child, server
from edgecnn.jobs.task import RETRIED, Outcome, Status, Task, attempt
from edgecnn.jobs.transfer import located

POLL_S = 0.1  # between two looks at memory and time
GUESS_MIB = 1024  # of a kind of job of which none has ended yet
SHARE = 0.8  # of the memory that is free at the start


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_mib() -> int | None:
    """Return how much memory jobs may take, as the system and its control group tell; ``None`` where they do not."""
    found = []
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) // 1024)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append((limit - used) // 2**20)
    return min(found, default=None)


def _here(task: Task) -> Task:
    """Return a task whose files are paths on this machine."""
    return replace(task, arguments=located(task.arguments, lambda file: file.path))


@dataclass
class _Running:
    task: Task
    child: Child
    attempt: int
    started: float
    peak_mib: int = 0

    def exceeded(self, now: float) -> tuple[Status, str] | None:
        """Return which limit is exceeded."""
        if self.task.memory_mib is not None:
            self.peak_mib = max(self.peak_mib, self.child.memory_mib())
            if self.peak_mib > self.task.memory_mib:
                return Status.MEMORY, f"it took {self.peak_mib} MiB of memory; the limit is {self.task.memory_mib} MiB"
        if self.task.timeout_s is not None and now - self.started > self.task.timeout_s:
            return Status.TIMEOUT, f"it took longer than the limit of {self.task.timeout_s:g} s"
        return None


class LocalExecutor:
    """One process per job, each forked from one that has imported edgecnn.

    Args:
        workers: jobs at once; ``None`` is one for each core.
        memory_mib: for all jobs together; ``None`` is most of what is free now. A job waits until what jobs of its kind
            took so far is free.
    """

    shares_files = True

    def __init__(self, workers: int | None = None, memory_mib: int | None = None) -> None:
        free = free_mib()
        self.at_once = workers or cores()
        self.memory_mib = memory_mib or (None if free is None else int(SHARE * free))
        self._server = server()
        self._waiting: deque[tuple[Task, int]] = deque()
        self._running: dict[Connection, _Running] = {}
        self._peaks: dict[str, int] = {}
        self._ended: list[Outcome] = []

    @property
    def window(self) -> int:
        """Return twice the number of workers."""
        return 2 * self.at_once

    def submit(self, task: Task) -> None:
        """Take a task; it starts when there is room. One without a limit of memory has that of all jobs together."""
        if task.memory_mib is None and self.memory_mib is not None:
            task = replace(task, memory_mib=max(GUESS_MIB, self.memory_mib))
        self._waiting.append((_here(task), 1))
        self._admit()

    def completed(self, timeout: float | None = None) -> list[Outcome]:
        """See ``Executor``; jobs over a limit are ended here."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._ended and (self._running or self._waiting):
            left = POLL_S if until is None else min(POLL_S, until - time.monotonic())
            if left < 0:
                break
            for connection in wait(list(self._running), timeout=left):
                assert isinstance(connection, Connection)
                self._finish(connection, None)
            for connection, fault in list(self._over()):
                self._finish(connection, fault)
            self._admit()
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """End all."""
        for running in self._running.values():
            running.child.kill()
        self._running.clear()
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _over(self) -> Iterator[tuple[Connection, tuple[Status, str]]]:
        now = time.monotonic()
        for connection, running in self._running.items():
            fault = running.exceeded(now)
            if fault is not None and not connection.poll():
                yield connection, fault

    def _finish(self, connection: Connection, fault: tuple[Status, str] | None) -> None:
        running = self._running.pop(connection)
        task, seconds = running.task, time.monotonic() - running.started
        value: Any = None
        if fault is None:
            status, value, text, peak = running.child.result()
        else:
            running.child.kill()
            (status, text), peak = fault, 0
        peak = max(peak, running.peak_mib)
        self._peaks[task.kind] = max(peak, self._peaks.get(task.kind, 1))
        if status in RETRIED and running.attempt <= task.retries:
            self._waiting.append((task, running.attempt + 1))
            return
        self._ended.append(
            Outcome(
                key=task.key,
                status=status,
                value=value,
                text=text,
                attempts=running.attempt,
                seconds=seconds,
                peak_mib=peak,
            )
        )

    def _admit(self) -> None:
        """Start what there is room for, in order; of a board that is busy, later tasks go first."""
        while (chosen := next((k for k, (task, _) in enumerate(self._waiting) if self._free(task)), None)) is not None:
            if any(self._waiting[k][0].alone for k in range(chosen)):
                return  # it waits for the machine, and so does what comes after it
            task, number = self._waiting[chosen]
            del self._waiting[chosen]
            child = self._server.start(task)
            self._running[child.connection] = _Running(task, child, number, time.monotonic())

    def _free(self, task: Task) -> bool:
        now = [running.task for running in self._running.values()]
        if not now:
            return True
        if len(now) >= self.at_once or task.alone or any(other.alone for other in now):
            return False
        if task.board and task.resource in {other.resource for other in now}:
            return False
        need = sum(self._peaks.get(other.kind, GUESS_MIB) for other in (task, *now))
        return self.memory_mib is None or need <= self.memory_mib


class InProcess:
    """One job after another in this process, without limits: for arguments that cannot leave it."""

    window = at_once = 1
    shares_files = True

    def __init__(self) -> None:
        self._waiting: list[Task] = []

    def submit(self, task: Task) -> None:
        """Take a task."""
        self._waiting.append(_here(task))

    def completed(self, timeout: float | None = None) -> list[Outcome]:
        """Run what is waiting."""
        tasks, self._waiting = self._waiting, []
        return [self._outcome(task) for task in tasks]

    def close(self) -> None:
        """Forget what is waiting."""
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _outcome(self, task: Task) -> Outcome:
        start = time.monotonic()
        status, value, text = attempt(task.call, task.arguments)
        made = Outcome(key=task.key, status=status, value=value, text=text)
        return replace(made, seconds=time.monotonic() - start)
