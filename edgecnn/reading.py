"""The boundary between files and edgecnn's types: whatever a library raises for a file becomes one ``InputError`` here.

Readers check sizes, ranges and references themselves, and say what is wrong. What they and their libraries do not
foresee ends here, and nowhere else. What no content of a file makes is a fault of edgecnn, and stays what it is.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import ParamSpec, TypeVar

from edgecnn.errors import EdgecnnError, InputError
from edgecnn.own_code import OURS, raised_by_us, said

P = ParamSpec("P")
T = TypeVar("T")
LONGEST = 300  # characters of what a library says
NO_ANSWER = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ENOTCONN", "ESHUTDOWN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
                 "ENETUNREACH", "ENODEV", "ENXIO", "EREMOTEIO")
    if hasattr(errno, name)
)  # fmt: skip
"""Numbers of system errors of a disk, or of a folder of the network, that does not answer: the file may be sound."""


def require_answer(error: BaseException, what: str | Path | None = None) -> None:
    """Check that an error does not say that what holds a file has gone away.

    Args:
        error: what was raised, at any depth of a chain of causes.
        what: names the file; ``None`` where the error does.

    Raises:
        InputError: it says so.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_ANSWER:
            place = what or cause.filename or "a file"
            raise InputError(
                f"{place}: {cause.strerror}; the disk or network folder that holds it does not answer: "
                "try again when it does, or copy the file to this machine"
            ) from error
        cause = cause.__cause__ or cause.__context__


@contextmanager
def reading(what: str | Path, *, remedy: str = "export it again") -> Iterator[None]:
    """Read a file in the body.

    Args:
        what: names the file.
        remedy: what to do about a damaged one.

    Raises:
        InputError: what was raised in the body is none of edgecnn's errors and no fault; its cause is that.
    """
    try:
        yield
    except EdgecnnError:
        raise
    except PermissionError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}; allow it, or give another file") from error
    except RecursionError as error:
        raise InputError(f"{what} cannot be read: it is nested too deeply, or refers to itself; {remedy}") from error
    except Exception as error:  # a damaged file may make a library raise anything
        require_answer(error, what)
        if is_fault(error):
            raise
        raise InputError(f"{what} cannot be read: it is damaged ({said(error)[:LONGEST]}); {remedy}") from error


def is_fault(error: Exception) -> bool:
    """Tell whether an exception is a fault of edgecnn, as no content of a file makes it.

    That is a name or a module that is not there, an assertion in edgecnn's own code, and an attribute that a class or a
    module of edgecnn does not have.
    """
    if isinstance(error, NameError | ImportError):
        return True
    if isinstance(error, AttributeError):
        holder = error.obj if isinstance(error.obj, ModuleType | type) else type(error.obj)
        module = holder.__name__ if isinstance(holder, ModuleType) else holder.__module__
        return module.partition(".")[0] in OURS
    return isinstance(error, AssertionError | NotImplementedError) and raised_by_us(error)


def checked(read: Callable[P, T], what: str = "the file") -> Callable[P, T]:
    """Return a reader whose body is ``reading``; the file is the first argument where that is a path."""

    @wraps(read)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with reading(args[0] if args and isinstance(args[0], Path) else what):
            return read(*args, **kwargs)

    return inside
