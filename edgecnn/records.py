"""Read a TOML or JSON record into a frozen dataclass; every wrong key or type is one line that names file and key.

msgspec converts and checks the types: it is strict (``True`` is no integer, ``"1"`` no number) and one wheel of 0.7 MB
without dependencies. cattrs, tried beside it, takes both, and asks for a hook for each such type. Neither knows our
suggestions for a misspelt key, so unknown keys are looked for here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgecnn.errors import InputError, unknown

T = TypeVar("T")


def read_file(kind: type[T], path: Path | Traversable, *, remedy: str = "") -> T:
    """Read a ``.toml`` or JSON file as a dataclass; see ``read_record``.

    Args:
        kind: the dataclass, all of whose fields are given when it is made.
        path: the file.
        remedy: what to do about a file that cannot be read, for the message.

    Raises:
        InputError: there is no such file, it is no TOML or JSON, or a key is wrong.
    """
    try:
        text = path.read_bytes().decode()
        given = tomllib.loads(text) if path.name.endswith(".toml") else json.loads(text)
    except RecursionError:
        raise InputError(f"cannot read {path} (it is nested too deeply){remedy and f'; {remedy}'}") from None
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error  # without the path a second time
        raise InputError(f"cannot read {path} ({said}){remedy and f'; {remedy}'}") from None
    return read_record(kind, given, str(path))


def read_record(kind: type[T], given: object, where: str, *, noun: str = "key") -> T:
    """Convert a record of TOML or JSON values to a dataclass: lists to tuples, nested tables to nested dataclasses.

    Args:
        kind: the dataclass, all of whose fields are given when it is made.
        given: a mapping.
        where: what the record is, for messages: a file, ``device cortex-a72``.
        noun: what messages call a key.

    Raises:
        InputError: a key is unknown or missing, a value is of another type, or the dataclass refuses it.
    """
    import msgspec

    _refuse_unknown(kind, given, where, noun)
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).replace("`", "").partition(" - at $")
        said = re.sub("^Object missing required field (.*)", rf"lacks the {noun} '\1'", said)
        key = f" {place.lstrip('.')}:" if place else ""
        raise InputError(f"{where}:{key} {said[0].lower()}{said[1:]}") from None
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None


def _refuse_unknown(kind: Any, given: object, where: str, noun: str) -> None:
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        names = [f.name for f in fields(kind)]
        for key in given if isinstance(given, Mapping) else ():
            if key not in names:
                raise InputError(f"{where}: {unknown(noun, str(key), names or ['none'])}")
            _refuse_unknown(hints[key], given[key], f"{where}: {key}", noun)  # type: ignore[index]  # a mapping
        return
    inside = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
    for inner in get_args(kind):
        for value in [given] if get_origin(kind) in (Union, UnionType) else inside:
            _refuse_unknown(inner, value, where, noun)
