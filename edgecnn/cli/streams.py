"""What a command writes: a reader that went away ends the output, and not the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from edgecnn.folding import folded, terminal_width


@contextmanager
def until_closed(stream: TextIO) -> Iterator[None]:
    """Write to a stream in the body; where its pipe is closed, drop this and what follows."""
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        _drop(stream)


def write_error(line: str) -> None:
    """Write one line to stderr."""
    with until_closed(sys.stderr):
        _write(sys.stderr, line)


def write_result(line: str, *, command: bool = False) -> None:
    """Write one line to stdout; ``command``: a person may run it."""
    _write(sys.stdout, line, command=command)


def _write(stream: TextIO, line: str, *, command: bool = False) -> None:
    stream.write(f"{folded(line, terminal_width(stream), command=command)}\n")


def flush() -> None:
    """Write what stdout and stderr still hold, so that Python does not try at its end."""
    for stream in (sys.stdout, sys.stderr):
        with until_closed(stream):
            pass


def _drop(stream: TextIO) -> None:
    """Send a stream of this process to nowhere. Source: Python's documentation, "Note on SIGPIPE"."""
    with suppress(OSError, ValueError):  # it has no file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
