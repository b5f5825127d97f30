"""Progress of long work goes through one object that a caller can silence or replace.

``use(progress)`` sets it for a block of code; ``track``, ``say`` and ``detail`` report to it. ``Progress`` itself is
silent; ``Terminal`` draws bars on a terminal and writes lines to stderr. ``talking`` sets how much is said.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgecnn.errors import InputError
from edgecnn.escaping import printable, printable_lines
from edgecnn.folding import folded, terminal_width

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
        """Yield the items with a bar that shows their count and the time left."""
        return _bar(items, description, total, "", 1)

    def say(self, line: str) -> None:
        """Write one line for the person at the terminal."""
        if self._lines and _talk.get() is not Talk.QUIET:
            for each in printable_lines(line.rstrip()).split("\n"):
                sys.stderr.write(f"{folded(each, terminal_width(sys.stderr))}\n")


class Talk(Enum):
    """How much is said: results alone, each stage, or each step of a stage too."""

    QUIET = "quiet"
    USUAL = "usual"
    VERBOSE = "verbose"


_BARS = Terminal(lines=False)
_talk: ContextVar[Talk] = ContextVar("talk", default=Talk.USUAL)
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


def detail(line: str) -> None:
    """Report one line that only a person who asked for details wants."""
    if _talk.get() is Talk.VERBOSE:
        say(line)


def talk() -> Talk:
    """Return how much is said."""
    return _talk.get()


@contextmanager
def talking(wanted: Talk) -> Iterator[None]:
    """Say so much in the body."""
    token = _talk.set(wanted)
    try:
        yield
    finally:
        _talk.reset(token)


def track(
    items: Iterable[T], description: str, total: int | None = None, *, unit: str = "", each: int = 1
) -> Iterator[T]:
    """Yield the items, reported to whatever shows progress.

    Args:
        items: what is done one after another.
        description: of the work.
        total: how many units, where it is known.
        unit: what a person counts: ``images``, ``layers``.
        each: units that an item has; the last item may have fewer.
    """
    current = _current.get()
    if isinstance(current, Terminal):
        return _bar(items, description, total, unit, each)
    return current.track(items, description, None if total is None else -(-total // each))


def bars_shown() -> bool:
    """Whether bars are drawn: stderr is a terminal that a person looks at, and nobody asked for quiet.

    ``CI``, which CI services set, says that nobody looks.
    """
    return sys.stderr.isatty() and not os.environ.get("CI") and _talk.get() is not Talk.QUIET


def _bar(items: Iterable[T], description: str, total: int | None, unit: str, each: int) -> Iterator[T]:
    if not bars_shown():
        yield from items
        return
    from rich.progress import TextColumn

    count = "{task.completed:.0f}" + ("" if total is None else "/{task.total:.0f}") + (f" {unit}" if unit else "")
    with _bars(TextColumn(count), TextColumn("{task.fields[left]}")) as bars:
        task = bars.add_task(printable(description), total=total, left="")
        done = 0
        for item in items:
            yield item
            done += each
            bars.update(task, completed=done if total is None else min(done, total))
            bars.update(task, left=_left(bars.tasks[0].time_remaining))


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"


def _bars(*figures: rich.progress.ProgressColumn) -> rich.progress.Progress:
    """Bars on stderr, each with its name and these columns."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    name = TextColumn("{task.description:<10}", markup=False)
    return Progress(name, BarColumn(), *figures, console=Console(stderr=True), transient=True)


@contextmanager
def filling(folder: Path, description: str, total: int | None = None) -> Iterator[None]:
    """On a terminal (stderr), a bar of the bytes that come into a folder while the body runs.

    Args:
        folder: is read again and again; need not exist yet.
        description: of what comes.
        total: bytes, where it is known.
    """
    if not bars_shown():
        yield
        return
    from rich.progress import DownloadColumn, TimeElapsedColumn

    with _bars(DownloadColumn(), TimeElapsedColumn()) as bars:
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
