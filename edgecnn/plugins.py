"""Registries that any installed package may add to, through entry points. What ships with edgecnn uses the same doors.

An entry point names an object; the group says of which type. A registry is read once in a process.
Source: Python Packaging User Guide, "Entry points specification".
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, cast

from edgecnn.errors import InputError
from edgecnn.own_code import own_place, said

INTERFACE = 1
"""Version of what a plugin must offer. An object that asks for a newer one, in ``interface``, is refused."""
T = TypeVar("T")


def registry(group: str, kind: type[T]) -> Mapping[str, T]:
    """Return what all installed packages offer in a group, by entry point name; what ships comes first.

    Args:
        group: ``converters``, ``runtimes``, ``steps`` …: entry points of ``edgecnn.GROUP``.
        kind: the type of the objects.

    Raises:
        InputError: a plugin fails to import, has the name of another, is of another type, or needs a newer edgecnn.
    """
    return cast("Mapping[str, T]", _read(group, cast(Hashable, kind)))


@cache
def _read(group: str, kind: Any) -> Mapping[str, object]:
    points = sorted(entry_points(group=f"edgecnn.{group}"), key=lambda point: _package(point) != "edgecnn")
    found: dict[str, object] = {}
    owners: dict[str, str] = {}
    for point in points:
        where = f"plugin {point.name!r} of package {_package(point)}"
        if point.name in found:
            raise InputError(f"{where}: {owners[point.name]} has {group} {point.name!r} too; uninstall one of them")
        try:
            loaded = point.load()
        except Exception as error:  # another's code may raise anything; it is named, not hidden
            raise InputError(f"{where} cannot be imported ({said(error)}); mend or uninstall it") from error
        if not isinstance(loaded, kind):
            raise InputError(f"{where} is a {type(loaded).__name__}; edgecnn.{group} takes a {kind.__name__}")
        wanted = getattr(loaded, "interface", INTERFACE)
        if wanted > INTERFACE:
            raise InputError(f"{where} needs plugin interface {wanted}; this edgecnn has {INTERFACE}: upgrade edgecnn")
        found[point.name], owners[point.name] = loaded, _package(point)
    if "edgecnn" not in owners.values():
        raise InputError(f"no {group} of edgecnn's own are registered: install it (pip install -e . in a clone)")
    return found


def _package(point: EntryPoint) -> str:
    return _name(point.dist) if point.dist is not None else "unknown"


@cache
def _name(package: Distribution) -> str:
    """Return a package's name, for which all of its metadata is parsed."""
    return package.name


def imported(reference: str, what: str) -> Any:
    """Return the object that ``package.module:name`` names; the current directory is searched first.

    Args:
        what: the object should be, for messages: ``a metric``.

    Raises:
        InputError: it cannot be imported, or there is no such name.
    """
    module_name, found, attribute = reference.partition(":")
    if not found:
        raise InputError(f"{what} {reference!r}: give package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(import_module(module_name), attribute)
    except (ImportError, SyntaxError) as error:
        why = f"{error}; run where it can be imported"
        raise InputError(f"cannot import {module_name!r} of {reference}: {why}") from error
    except AttributeError as error:
        if own_place(error):
            raise InputError(f"importing {module_name!r} of {reference} raised {said(error)}") from error
        raise InputError(f"module {module_name!r} has no {attribute!r}; give package.module:function") from None
    except Exception as error:  # the user's own code may raise anything; it is named, not hidden
        raise InputError(f"importing {module_name!r} of {reference} raised {said(error)}") from error
