"""Escape text that came from a file or a name, for each place where it is shown.

Names in artifacts, labels, folders and messages of libraries may hold what a terminal, a spreadsheet or a compiler
obeys. Each function here returns text that the place only shows.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any, TextIO

_CONTROLS = r"\x00-\x1f\x7f-\x9f"  # C0, DEL and C1, of which ESC and CSI begin commands of a terminal
_UNSEEN = r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # without width, or change the direction
_SURROGATES = r"\ud800-\udfff"  # bytes of a file name that are no text; no stream can encode them
_UNSAFE = re.compile(f"[{_CONTROLS}{_UNSEEN}{_SURROGATES}]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the begin of a formula. Source: OWASP, "CSV Injection"."""


def printable(text: str) -> str:
    r"""Return text for one line of a terminal or a log: control and invisible characters as ``\xNN`` or ``\uNNNN``."""
    return _UNSAFE.sub(lambda found: _escaped(found[0]), text)


def printable_lines(text: str) -> str:
    """Return text of several lines, each as ``printable`` returns it."""
    return "\n".join(map(printable, text.split("\n")))


def escape_unencodable(stream: TextIO) -> None:
    r"""Let a stream write ``\uNNNN`` for a character that its encoding lacks, where it would raise."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it: as JSON does, with DEL escaped and other characters as they are."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")


def csv_cell(value: Any) -> Any:
    """Return a value for a cell of CSV; before text that a spreadsheet would compute stands an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def c_comment(text: str) -> str:
    """Return text for a comment of C: it neither ends the comment nor begins another, and stays on its line."""
    return printable(text).replace("*/", "*\\/").replace("/*", "/\\*")


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
