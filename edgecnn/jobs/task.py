"""What is executed, what came of it, and what every executor offers."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self

from edgecnn.errors import DeviceFault, EdgecnnError


class Status(StrEnum):
    """How a job ended."""

    OK = "ok"
    ERROR = "error"  # an error that the function raised on purpose
    FAULT = "fault"  # the device broke, or any other exception
    LOST = "lost"  # its process died
    TIMEOUT = "timeout"
    MEMORY = "memory"


RETRIED = (Status.LOST, Status.TIMEOUT, Status.MEMORY)
"""What may go better another time; an exception comes again."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job.

    Attributes:
        key: unique among the tasks of an executor.
        call: a function of an importable module; its arguments and result can be pickled.
        arguments: of the function; a ``FileInput`` among them becomes a path on the machine of the job.
        name: what a person calls it.
        kind: tasks of one kind need about as much memory as each other.
        memory_mib: a process of more resident memory, with its children, is ended; ``None``: the executor's limit.
        timeout_s: a job that takes longer is ended; ``None`` is no limit.
        retries: how often it is run again after its process died, or a limit was exceeded.
        alone: nothing else runs on the machine meanwhile, since it measures time.
        resource: the device that the job runs on, or ``None``; on a cluster, workers may be started with it.
        board: the device takes one job at a time.
        log: a file for what the job writes to stdout and stderr; ``None`` drops it.
    """

    key: str
    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    name: str = ""
    kind: str = ""
    memory_mib: int | None = None
    timeout_s: float | None = None
    retries: int = 0
    alone: bool = False
    resource: str | None = None
    board: bool = False
    log: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a task.

    Attributes:
        key: of the task.
        status: how it ended the last time.
        value: what the function returned, where the status is ``ok``.
        text: one line that says what went wrong, else empty.
        attempts: how often it was run.
        seconds: of the last run.
        peak_mib: largest resident memory of the last run.
        log: what the last run wrote, where it could not write into the log of the task.
    """

    key: str
    status: Status
    value: Any = None
    text: str = ""
    attempts: int = 1
    seconds: float = 0.0
    peak_mib: int = 0
    log: bytes = b""


class Executor(Protocol):
    """Runs tasks; an outcome comes for each, in any order."""

    @property
    def window(self) -> int:
        """Return how many tasks are worth giving ahead; more only take memory."""

    @property
    def at_once(self) -> int:
        """Return how many tasks run at once, as long as no worker comes or goes."""

    @property
    def shares_files(self) -> bool:
        """Return whether jobs read and write the files of this machine."""

    def submit(self, task: Task) -> None:
        """Take a task."""

    def completed(self, timeout: float | None = None) -> list[Outcome]:
        """Wait until at least one task has ended, or for so many seconds; return those that have ended.

        Raises:
            EdgecnnError: the executor itself is lost.
        """

    def close(self) -> None:
        """End every job that still runs, and give back what the executor holds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def attempt(task_call: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Status, Any, str]:
    """Call a function; return the status, its result, and a line about the error. A traceback goes to stderr."""
    try:
        return Status.OK, task_call(*arguments), ""
    except DeviceFault as error:
        return Status.FAULT, None, one_line(error)
    except EdgecnnError as error:
        return Status.ERROR, None, one_line(error)
    except MemoryError:
        return Status.MEMORY, None, "there was too little memory"
    except Exception as error:  # noqa: BLE001  # whatever a job raises is its result, and ends no other job
        traceback.print_exc()
        return Status.FAULT, None, f"{type(error).__name__}: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())
