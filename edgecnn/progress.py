"""Progress of long work: a bar on a terminal, nothing elsewhere, and one line per finished step."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_silent = False


def silence() -> None:
    """No bars from this process: several would write over each other."""
    global _silent
    _silent = True


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items; on a terminal (stderr), with a bar that shows count, rate and time left."""
    if _silent or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def filling(folder: Path, description: str, total: int | None = None) -> Iterator[None]:
    """On a terminal (stderr), a bar of the bytes that come into a folder while the body runs.

    Args:
        folder: is read again and again; need not exist yet.
        description: of what comes.
        total: bytes, where it is known.
    """
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task, over = progress.add_task(description, total=total), threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                progress.update(task, completed=_bytes_in(folder))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _bytes_in(folder: Path) -> int:
    found = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # it was there a moment ago
            found += file.lstat().st_size
    return found


class Stopwatch:
    """Seconds spent in each named step, and a line on stderr when a step ends."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._quiet = quiet

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what the body appends to the list is printed beside its seconds."""
        notes: list[str] = []
        start = time.perf_counter()
        yield notes
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)
        self.say(f"{name:<10}{self.seconds[name]:7.1f} s  {', '.join(notes)}")

    def say(self, line: str) -> None:
        """One line for the person at the terminal."""
        if not self._quiet:
            sys.stderr.write(line.rstrip() + "\n")
