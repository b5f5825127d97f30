"""Progress of long work: a bar on a terminal, nothing elsewhere, and one line per finished step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
