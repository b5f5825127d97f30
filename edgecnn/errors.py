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


def unknown(kind: str, got: str, allowed: Iterable[str]) -> str:
    """One line for an unknown name: what was got, the nearest allowed name, and the allowed names, or near ones."""
    names = sorted(set(allowed))
    begun = [name for name in names if got and name.startswith(got)]
    near = begun or difflib.get_close_matches(got, names, n=NEAR)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    if len(names) > MANY:
        shown = dict.fromkeys([*near, *difflib.get_close_matches(got, names, n=NEAR, cutoff=0), *names])
        return f"unknown {kind} {got!r}{hint}; {len(names)} are allowed, such as {', '.join(list(shown)[:NEAR])}"
    return f"unknown {kind} {got!r}{hint}; allowed: {', '.join(names)}"


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
