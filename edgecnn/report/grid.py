"""Tables that fit a terminal: columns that say nothing are dropped, and of the others those that there is room for."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgecnn.escaping import escape_unencodable, printable, printable_lines
from edgecnn.folding import folded, terminal_width

if TYPE_CHECKING:
    from rich.console import Console

NOTHING = ("-", "")
WRAPPED = 24  # characters that a column of prose has at least
GAP = 3  # between columns, of which the box takes one
ALL = 10_000  # a width that holds everything


def show(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    prose: Collection[str] = (),
    keep: Collection[str] = (),
    styles: Sequence[str | None] = (),
    wide: bool = False,
) -> None:
    """Print rows as a table.

    A column of nothing is dropped. One of a single value is said in a line above, where there are several rows. Of the
    others, the first ones that fit are shown, and the rest are named below.

    Args:
        right: headings of the columns that end at the right: figures.
        prose: headings of the columns that are wrapped where there is no room.
        keep: headings of the columns that are not said above.
        styles: of the rows.
        wide: show every column, whatever its width and content.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    columns = [(heading, [printable_lines(row[k]) for row in rows]) for k, heading in enumerate(headings)]
    alike: list[str] = []
    if not wide:
        columns = [c for c in columns if any(cell not in NOTHING for cell in c[1])]
        same = [c for c in columns if len(rows) > 1 and len(set(c[1])) == 1 and c[0] not in keep]
        if len(same) < len(columns):
            alike = [f"{heading} {cells[0]}" for heading, cells in same]
            columns = [c for c in columns if c not in same]
    chosen, left = (columns, []) if wide else _fitting(columns, set(prose), console.width)
    if alike:
        line(console, f"all: {', '.join(alike)}", "dim")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading, _ in chosen:
        at_end, folded = heading in right, heading in prose
        table.add_column(Text(heading), justify="right" if at_end else "left", no_wrap=not folded, overflow="fold")
    for k in range(len(rows)):
        style = styles[k] if k < len(styles) else None
        table.add_row(*(Text(cells[k]) for _, cells in chosen), style=style)
    console.print(table, crop=False)
    if left:
        line(console, f"not shown: {', '.join(left)} (--wide)", "dim")


def _fitting(
    columns: list[tuple[str, list[str]]], prose: set[str], width: int
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Return the first columns that fit in a width, and the headings of those that do not."""
    room = width
    chosen: list[tuple[str, list[str]]] = []
    left: list[str] = []
    for heading, cells in columns:
        needed = max(map(len, (heading, *cells)))
        least = min(needed, WRAPPED) if heading in prose else needed
        if least <= room or not chosen:
            chosen.append((heading, cells))
            room -= least + GAP
        else:
            left.append(heading)
    return chosen, left


def console(*, wide: bool = False, width: int | None = None, **more: Any) -> Console:
    """Return a console on stdout, or on ``file=``: as wide as the terminal, ``COLUMNS``, or 80; ``wide``: endless."""
    from rich.console import Console

    escape_unencodable(sys.stdout)

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command, which knows its exit status; rich would end it with 1."""
            raise

    return Plain(width=ALL if wide else width, highlight=False, markup=False, emoji=False, **more)


def line(console: Console, text: str, style: str = "", *, command: bool = False) -> None:
    """Print one line; on a terminal, and in a text of a given width, it is folded; see ``edgecnn.folding.folded``."""
    from rich.text import Text

    on = console.file
    width = console.width if isinstance(on, io.StringIO) else terminal_width(on)
    console.print(Text(folded(printable(text), width, command=command), style=style), soft_wrap=True)


def headed(lines: Iterator[tuple[str, str]], indent: int = 2, least: int = 0) -> Iterator[str]:
    """Yield lines of a label and a text, labels of one width, at ``least`` so wide; a label is said once."""
    pairs = list(lines)
    size = max((len(label) for label, _ in pairs), default=0)
    size = max(size, least)
    before = None
    for label, text in pairs:
        yield printable(f"{'':{indent}}{label if label != before else '':{size}}  {text}")
        before = label
