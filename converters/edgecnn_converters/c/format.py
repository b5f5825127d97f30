"""C as text, written and read: literals, arrays, and records in comments."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_LINE = {"int8_t": 24, "int32_t": 10}  # values, so that lines stay within 120 columns


def identifier(name: str) -> str:
    """Return a name as C allows it."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if plain and not plain[0].isdigit() else f"net_{plain}"


KEYWORDS = (
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while"
)


def members(names: Sequence[str]) -> dict[str, str]:
    """Return a C name for each name, no two alike."""
    found: dict[str, str] = {}
    for name in names:
        plain = identifier(name)
        plain = f"{plain}_" if plain in KEYWORDS.split() else plain
        number, made = 1, plain
        while made in found.values():
            number += 1
            made = f"{plain}_{number}"
        found[name] = made
    return found


def record(fields: Mapping[str, Any]) -> str:
    """Return JSON in a comment, on one line, that neither ends the comment early nor begins another."""
    return "/* " + json.dumps(fields, allow_nan=False).replace("/", "\\/") + " */"


def records(source: str) -> list[tuple[int, dict[str, Any]]]:
    """Find what ``record`` wrote: where each ends in the source, and its fields.

    Raises:
        ValueError: one of them is damaged.
    """
    return [(found.end(), json.loads(found[1])) for found in re.finditer(r"/\* (\{.*\}) \*/$", source, re.MULTILINE)]


def braces(value: Any) -> str:
    """Return an initialiser: a mapping is a struct, a sequence an array; what is a string already is C."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f".{name} = {braces(v)}" for name, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "{" + ", ".join(map(braces, value)) + "}"
    return value if isinstance(value, str) else str(int(value))


def array(name: str, ctype: str, values: NDArray[Any]) -> str:
    """Return the definition of a constant array, flat."""
    step = PER_LINE[ctype]
    # INT32_MIN has no literal: -2147483648 is minus 2147483648, which is not an int
    words = [str(v) if v != -(2**31) else "INT32_MIN" for v in values.ravel().tolist()]
    lines = ",\n".join("  " + ", ".join(words[i : i + step]) for i in range(0, len(words), step))
    return f"static const {ctype} {name}[{len(words)}] = {{\n{lines}}};\n"


def parsed(source: str, name: str) -> NDArray[np.int64]:
    """Return the values of an array that ``array`` wrote.

    Raises:
        ValueError: the array is not there, or is damaged.
    """
    found = re.search(rf"static const \w+ {name}\[(\d+)\] = \{{([^}}]*)\}};", source)
    if found is None:
        raise ValueError(f"no array {name}")
    values = np.array([int(v) for v in found[2].replace("INT32_MIN", str(-(2**31))).split(",")], np.int64)
    if len(values) != int(found[1]):
        raise ValueError(f"array {name} is cut")
    return values


def real(value: float) -> str:
    """Return a float32 literal from which the same float32 comes back."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"
