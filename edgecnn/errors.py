"""The errors a user can meet, and the exit status each one means.

    EdgecnnError
    ├── InputError               exit status 2: what was given is wrong
    │   └── UnsupportedError     ... or is something this target or graph cannot express
    ├── MissingDependencyError   exit status 3: an optional library or tool is not installed
    └── DeviceFault              exit status 1: a device broke while it ran; of several, a failed check of that one

A message is one line: what was got, what is allowed, what to do. A failed check is not an error: it is
a result, reported as such (exit status 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class EdgecnnError(Exception):
    """Base of every error raised on purpose; the command line prints its message and nothing else."""

    exit_status = 2


class InputError(EdgecnnError):
    """The input is wrong: a file, a folder, an option, a shape, a value."""


class UnsupportedError(InputError):
    """The input is well formed, but holds something that is not supported; the message lists what is."""


class MissingDependencyError(EdgecnnError):
    """An optional library or tool is missing; the message is the command that installs it."""

    exit_status = 3


class DeviceFault(EdgecnnError):
    """A device's emulator or connection broke in the middle: it crashed, hung, or answered nonsense.

    The message says how, and holds the last that the device said.
    """

    exit_status = 1


MANY, NEAR = 16, 5  # names: so many are all listed; of more, these nearest ones


def misspelt(kind: str, got: str, allowed: Iterable[str]) -> str:
    """Return what an unknown name was, and the nearest allowed one where one is near."""
    near = _near(got, sorted(set(allowed)))
    return f"unknown {kind} {got!r}" + (f" (did you mean {near[0]!r}?)" if near else "")


def unknown(kind: str, got: str, allowed: Iterable[str]) -> str:
    """Return ``misspelt``, and the allowed names; of more than ``MANY``, how many there are and some near ones."""
    names = sorted(set(allowed))
    said = misspelt(kind, got, names)
    if len(names) <= MANY:
        return f"{said}; allowed: {', '.join(names)}"
    near = _near(got, names) or difflib.get_close_matches(got, names, n=NEAR, cutoff=0) or names
    return f"{said}; {len(names)} are allowed, such as {', '.join(near[:NEAR])}"


def _near(got: str, names: Collection[str]) -> list[str]:
    """Return the names that begin so, and those that are spelt nearly so, the nearest first."""
    begun = [name for name in names if got and name.startswith(got)]
    return list(dict.fromkeys([*begun, *difflib.get_close_matches(got, names, n=NEAR)]))


def supported_ops(kind: str, got: Iterable[str], allowed: Collection[str]) -> str:
    """Return how many ops are supported, those whose names are near, and the command that lists all.

    Args:
        kind: of the network, as ``edgecnn models ops`` names it.
        got: names of ops that are not supported.
        allowed: names of those that are.
    """
    near = dict.fromkeys(name for each in got for name in difflib.get_close_matches(each, allowed, n=2))
    shown = f", near ones: {', '.join(list(near)[:NEAR])}" if near else ""
    return f"{len(allowed)} ops are supported{shown}; `edgecnn models ops {kind}` lists all"
