"""Progress of long work goes through one object that a caller can silence or replace.

``use(progress)`` sets it for a block of code; ``track`` and ``say`` report to it. ``Progress`` itself is silent;
``Terminal`` draws bars on a terminal and writes lines to stderr.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgecnn.errors import InputError
from edgecnn.escaping import printable, printable_lines

if TYPE_CHECKING:
    import rich.progress

T = TypeVar("T")


class Progress:
    """Receives what long work reports. This one shows nothing; override its methods to show it elsewhere."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items, one after another; see ``track``."""
        yield from items

    def say(self, line: str) -> None:
        """Take one line: a step that ended, or a warning."""


class Terminal(Progress):
    """Bars on stderr where it is a terminal, and lines on stderr.

    Args:
        lines: whether lines are written; bars are drawn in any case.
    """

    def __init__(self, *, lines: bool = True) -> None:
        self._lines = lines

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items with a bar that shows count, rate and time left."""
        return _bar(items, description, total)

    def say(self, line: str) -> None:
        """Write one line for the person at the terminal."""
        if self._lines:
            with suppress(BrokenPipeError):  # nobody reads it; the work goes on
                sys.stderr.write(printable_lines(line.rstrip()) + "\n")


_BARS = Terminal(lines=False)
_current: ContextVar[Progress] = ContextVar("progress", default=_BARS)


@contextmanager
def use(progress: Progress | None) -> Iterator[None]:
    """Report to another object in the body; ``None`` leaves it as it is.

    Raises:
        InputError: it has no ``track`` and ``say``.
    """
    if progress is None:
        yield
        return
    if not (callable(getattr(progress, "track", None)) and callable(getattr(progress, "say", None))):
        raise InputError(f"progress is a {type(progress).__name__}; give an edgecnn.progress.Progress")
    token = _current.set(progress)
    try:
        yield
    finally:
        _current.reset(token)


def say(line: str) -> None:
    """Report one line."""
    _current.get().say(line)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, reported to whatever shows progress.

    Args:
        items: what is done one after another.
        description: of the work.
        total: how many items, where it is known.
    """
    return _current.get().track(items, description, total)


def _bar(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    if not sys.stderr.isatty():
        yield from items
        return
    with _bars("MofNCompleteColumn", "TimeElapsedColumn", "TimeRemainingColumn") as bars:
        yield from bars.track(items, total=total, description=printable(description))


def _bars(*figures: str) -> rich.progress.Progress:
    """Bars on stderr, each with its name and these columns of ``rich.progress``."""
    import rich.progress
    from rich.console import Console

    columns = [getattr(rich.progress, name)() for name in ("BarColumn", *figures)]
    name = rich.progress.TextColumn("{task.description:<10}", markup=False)
    return rich.progress.Progress(name, *columns, console=Console(stderr=True), transient=True)


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
    with _bars("DownloadColumn", "TimeElapsedColumn") as bars:
        task, over = bars.add_task(printable(description), total=total), threading.Event()

        def watch() -> None:
            while not over.wait(0.2):
                bars.update(task, completed=_bytes_in(folder))

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
    """Seconds spent in each named step; a line is reported when a step ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what the body appends to the list is printed beside its seconds."""
        notes: list[str] = []
        start = time.perf_counter()
        yield notes
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)
        say(f"{name:<10}{self.seconds[name]:7.1f} s  {', '.join(notes)}")
