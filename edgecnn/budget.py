"""How much a file may ask for before anything is allocated: bytes, tensors, pixels, nesting, time.

A few kilobytes of a file can claim gigabytes: compressed zeros, a shape, a picture of a billion pixels. What a file
claims is compared with one budget; ``--max-memory``, or ``use``, sets another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.errors import InputError
from edgecnn.escaping import printable

if TYPE_CHECKING:
    import zipfile

MIB = 2**20
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
PACKED = (0, 8)  # stored and deflated, as zipfile numbers them; LZMA's dictionary alone may take gigabytes
REMEDY = "--max-memory allows more"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bound what one file may ask for. A file that is itself larger than ``memory`` may have as much as it is large.

    Attributes:
        memory: bytes of all that a file holds once it is unpacked, and of one activation.

    Raises:
        InputError: it is below 1 MiB.
    """

    memory: int = 512 * MIB

    def __post_init__(self) -> None:
        if self.memory < MIB:
            raise InputError(f"a budget of {self.memory} bytes of memory; give at least 1 MiB")

    @property
    def tensors(self) -> int:
        """Return how many tensors, ops or members a file may have: 32,768 by default."""
        return self.memory // 2**14

    @property
    def pixels(self) -> int:
        """Return how many pixels an image may have: 67 million by default."""
        return self.memory // 8

    @property
    def elements(self) -> int:
        """Return how many elements a tensor that no file holds may have: 134 million by default."""
        return self.memory // 4

    @property
    def seconds(self) -> float:
        """Return how long a child process may take to read a file: 15 by default."""
        return 15.0 * max(1.0, self.memory / Budget.memory)

    def require(self, size: int, what: str, *, file_bytes: int = 0) -> None:
        """Check a number of bytes that a file claims.

        Args:
            what: claims them, for the message.
            file_bytes: size of the file itself.

        Raises:
            InputError: they are too many.
        """
        allowed = max(self.memory, file_bytes)
        if size > allowed:
            raise InputError(f"{what} takes {amount(size)} once unpacked; at most {amount(allowed)} are read: {REMEDY}")

    def require_shape(self, shape: Sequence[int], what: str) -> None:
        """Check the elements of a declared shape.

        Raises:
            InputError: they are too many.
        """
        if (size := prod(map(int, shape))) > self.elements:
            raise InputError(f"{what} has {size:.3g} elements; at most {self.elements:.3g} are allowed: {REMEDY}")

    def require_count(self, count: int, what: str) -> None:
        """Check how many tensors, ops or members there are.

        Raises:
            InputError: they are too many.
        """
        if count > self.tensors:
            raise InputError(f"{count} {what}; at most {self.tensors} are read: {REMEDY}")


_current = Budget()


def budget() -> Budget:
    """Return the budget that holds now, in every thread."""
    return _current


@contextmanager
def use(other: Budget | None) -> Iterator[None]:
    """Read with another budget in the body; ``None`` leaves it as it is."""
    global _current
    before, _current = _current, other or _current
    try:
        yield
    finally:
        _current = before


def parsed(text: str) -> Budget:
    """Return the budget of ``--max-memory``: ``4GiB``, ``600m``, a number of bytes.

    Raises:
        InputError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip().lower())
    if found is None:
        raise InputError(f"--max-memory {text!r} is no size; give one such as 2GiB or 800MiB")
    return Budget(memory=int(float(found[1]) * UNITS[found[2]]))


def amount(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / MIB:,.1f} MiB"


def require_members(archive: zipfile.ZipFile, names: Iterable[str], path: Path) -> None:
    """Check those members of a zip file that are about to be unpacked.

    Raises:
        InputError: there are too many, they are too large together, or one is packed as nobody packs such files.
    """
    held = archive.infolist()
    budget().require_count(len(held), f"members of {path}")
    wanted = set(names)
    used = [info for info in held if info.filename in wanted]
    for info in used:
        if info.compress_type not in PACKED or info.flag_bits & 1:
            how = "encrypted" if info.flag_bits & 1 else f"packed by method {info.compress_type}"
            raise InputError(f"{path}: {printable(info.filename)!r} is {how}; stored and deflated members are read")
    size = sum(info.file_size for info in used)
    budget().require(size, f"{path}", file_bytes=path.stat().st_size)
