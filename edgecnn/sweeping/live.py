"""A live table of a sweep on a terminal; elsewhere a line for each combination that ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgecnn.progress import Progress as Shown
from edgecnn.progress import Terminal, bars_shown
from edgecnn.sweeping.run import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgecnn.sweeping.api import Seen

NAMES = 4  # running stages that are named


class _Above(Shown):
    """Writes lines above the live table."""

    def __init__(self, console: object) -> None:
        self._print = console.print  # type: ignore[attr-defined]  # of rich, which is imported when it is used

    def say(self, line: str) -> None:
        """Write one line."""
        self._print(line.rstrip(), markup=False, highlight=False)


@contextmanager
def table() -> Iterator[tuple[Seen | None, Shown]]:
    """Show a live table on stderr, where it is a terminal, while the body runs; gives arguments of ``sweep``."""
    if not bars_shown():
        yield None, Terminal()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield lambda progress, total: live.update(view(progress, total)), _Above(console)


def view(progress: Progress, total: int | None) -> RenderableType:
    """Return the table: combinations and stages done, running, failed and left, the best so far, and time left."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    of = "" if total is None else f" of {total}"
    left = () if total is None else (f"{total - progress.rows} left", time_left(progress, total))
    combinations = (f"{progress.rows}{of} done", f"{progress.rows_failed} failed", *left)
    running = f"{len(progress.running)} running"
    stages = (f"{progress.done} done", running, f"{progress.failed} failed", f"{progress.kept} were there")
    made.add_row("combinations", ", ".join(filter(None, combinations)))
    made.add_row("stages", ", ".join(stages))
    made.add_row("best so far", progress.best or "-")
    for name in list(progress.running.values())[:NAMES]:
        made.add_row("running", name)
    more = len(progress.running) - NAMES
    if more > 0:
        made.add_row("", f"and {more} more")
    return made


def time_left(progress: Progress, total: int | None) -> str:
    """Return the time that what is left will take, at the rate so far."""
    if total is None or not progress.rows or not progress.done:
        return ""
    seconds = (time.monotonic() - progress.started) / progress.rows * (total - progress.rows)
    return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"
