"""What an exception means to the shell: one line, and an exit status."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from edgecnn import __version__
from edgecnn.cli.streams import write_error
from edgecnn.errors import EdgecnnError, InputError
from edgecnn.escaping import printable
from edgecnn.own_code import own_place, said
from edgecnn.reading import require_answer

INTERRUPTED = 130
FAULT = 70  # EX_SOFTWARE of BSD's sysexits.h
ROOM = "make room, or set TMPDIR to a folder that has some"
DETAILS = "--traceback shows where"


def status_of(error: Exception, words: list[str], *, details: bool) -> int:
    """Report an exception that a command raised in one line on stderr, and return the exit status that it means.

    Args:
        error: an error of ours, of the system, of the user's own code, or a fault of edgecnn.
        words: of the command, for the file of a fault.
        details: whether the traceback comes first, on stderr.
    """
    if details:
        for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
            write_error(printable(line))
    line, status = _meaning(error, words)
    write_error(f"edgecnn: {printable(line)}")
    return status


def interrupted() -> int:
    """Say that the command was interrupted, and return the exit status of that."""
    write_error("edgecnn: interrupted; no half-written artifact was left")
    return INTERRUPTED


def was_interrupted(error: BaseException | None) -> bool:
    """Tell whether an exception came of an interrupt, of which a library made another error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _meaning(error: Exception, words: list[str]) -> tuple[str, int]:
    if isinstance(error, EdgecnnError):
        return f"error: {error}", error.exit_status
    try:
        require_answer(error)
    except InputError as found:
        return f"error: {found}", found.exit_status
    of_system = error.strerror if isinstance(error, OSError) else None
    if isinstance(error, OSError) and of_system:
        place = f" ({error.filename})" if error.filename else ""
        if error.errno == errno.ENOSPC or "temporary directory" in of_system:
            return f"error: {of_system}{place}; {ROOM}", InputError.exit_status
        if error.filename and not own_place(error):
            return f"error: {of_system}{place}; give another place, or change what is there", InputError.exit_status
    if own_place(error):
        return f"error: your code raised {said(error)}; {DETAILS}", InputError.exit_status
    if isinstance(error, MemoryError):
        line = f"out of memory ({said(error)}); give less at a time, or a machine with more"
        return f"error: {line}", InputError.exit_status
    kept = _kept(error, words)
    where = f"with {kept}" if kept else "with what --traceback shows"
    return f"internal error: {said(error)}; please report it {where}", FAULT


def _kept(error: Exception, words: list[str]) -> Path | None:
    """Write the traceback to a file in the folder of temporary files, and return its path; ``None`` where it cannot."""
    text = "".join(traceback.format_exception(error))
    about = f"edgecnn {__version__}, Python {sys.version}, {sys.platform}\nedgecnn {' '.join(words)}\n\n{text}"
    try:
        handle, name = tempfile.mkstemp(prefix="edgecnn-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(about)
    except OSError:
        return None
    return Path(name)
