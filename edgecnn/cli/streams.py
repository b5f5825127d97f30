"""What a command writes: a reader that went away ends the output, and not the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


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
        sys.stderr.write(f"{line}\n")


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
