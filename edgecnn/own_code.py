"""Code of the user's: what it raises is one line that says where, and no fault of edgecnn."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import TracebackType

from edgecnn.errors import EdgecnnError, InputError

OURS = ("edgecnn", "edgecnn_converters", "edgecnn_targets")  # import names


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Turn what the user's code raises in the body into one line.

    Args:
        what: names the code, for the message: ``metric pkg.module:function``.

    Raises:
        InputError: the code raised; says what, and at which line of which file.
    """
    try:
        yield
    except EdgecnnError:
        raise
    except Exception as error:  # it may raise anything; it is named, not hidden
        raise InputError(f"{what} raised {said(error)}") from error


def said(error: BaseException) -> str:
    """Return type, message and place of an exception in one line: where the user's code raised it, if it did."""
    message = " ".join(str(error).split())
    place = own_place(error) or last_place(error)
    return f"{type(error).__name__}{message and f': {message}'}{place and f' ({place})'}"


def own_place(error: BaseException) -> str:
    """Return ``FILE:LINE`` in the user's code that an exception came through last, or nothing.

    Code of a library counts as its caller's. Nothing: that caller is edgecnn.
    """
    for file, line, module in reversed(_frames(error.__traceback__)):
        if module.partition(".")[0] in OURS:
            return ""
        if not _is_library(file):
            return f"{file}:{line}"
    return ""


def raised_by_us(error: BaseException) -> bool:
    """Tell whether the line that raised an exception is edgecnn's."""
    frames = _frames(error.__traceback__)
    return bool(frames) and frames[-1][2].partition(".")[0] in OURS


def last_place(error: BaseException) -> str:
    """Return ``FILE:LINE`` where an exception was raised, or nothing."""
    return next((f"{file}:{line}" for file, line, _ in reversed(_frames(error.__traceback__))), "")


def _frames(trace: TracebackType | None) -> list[tuple[str, int, str]]:
    """Return file, line and module of each frame, the innermost last."""
    found = []
    while trace is not None:
        code, names = trace.tb_frame.f_code, trace.tb_frame.f_globals
        found.append((code.co_filename, trace.tb_lineno, str(names.get("__name__", ""))))
        trace = trace.tb_next
    return found


def _is_library(file: str) -> bool:
    """Tell whether a file is Python's or an installed package's that is no plugin of edgecnn."""
    if file.startswith("<"):
        return True
    path = Path(file)
    inside = any(path.is_relative_to(place) for place in _library_folders())
    return inside and not any(path.is_relative_to(place) for place in _plugin_folders())


@cache
def _library_folders() -> frozenset[str]:
    return frozenset(sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib"))


@cache
def _plugin_folders() -> frozenset[str]:
    """Return the folders of installed packages that register something with edgecnn."""
    found = set()
    for package in distributions():
        for point in package.entry_points:
            top = point.value.partition(":")[0].partition(".")[0]
            if point.group.startswith("edgecnn.") and top not in OURS:
                found.add(str(package.locate_file(top)))
    return frozenset(found)
