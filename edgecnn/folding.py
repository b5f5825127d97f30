"""Fold long lines at words where a person reads them on a terminal; a pipe and a file get each line whole."""

from __future__ import annotations

import os
import re
import textwrap
from typing import IO

INDENT = 2  # of the lines that follow, where the line has no label
CONTINUED = " \\"  # at the end of a line of a command: a shell reads on
_LABEL = re.compile(r" *(?:\S+(?: \S+){0,2} {2,})?(?=\S)")
_QUOTED = re.compile(r"`[^`]*`")
_TIED = "\ue000"  # stands for a space where no line ends; of Unicode's private use


def terminal_width(stream: IO[str]) -> int | None:
    """Return how many columns the terminal has that a stream writes to; ``None`` where it is none, or does not say."""
    try:
        if not stream.isatty():
            return None
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdecimal() else os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # a stream without a file, or closed
        return None


def folded(line: str, width: int | None, *, command: bool = False) -> str:
    """Return a line as several of at most ``width`` columns; ``None`` leaves it whole.

    Lines that follow begin under the text of the first, behind its label: what comes before two spaces. A command in
    backticks stays on one line where it fits. A word that is longer than a line is not broken.

    Args:
        command: the text is a command: its lines end with a backslash, so that a copy of them runs.
    """
    if width is None or len(line) <= width:
        return line
    label = _LABEL.match(line)
    indent = label.end() if label and 0 < label.end() <= width // 2 else INDENT
    end = CONTINUED if command else ""
    room = width - len(end)

    def tied(found: re.Match[str]) -> str:
        return found[0].replace(" ", _TIED) if len(found[0]) <= room - indent else found[0]

    lines = textwrap.wrap(
        line if command else _QUOTED.sub(tied, line),
        room,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{end}\n".join(lines).replace(_TIED, " ")
