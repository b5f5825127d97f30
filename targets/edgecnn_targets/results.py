"""Keep results of devices: the same artifact and input give the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from edgecnn.files import sha256, write_atomic
from edgecnn_targets.cache import REMEDY, cache_dir, make_cache

DIGEST = 64  # characters of SHA-256


class ResultCache:
    """Results of one artifact on one device, in the cache, whole or not at all.

    Args:
        parts: everything that decides the results: the artifact, the runtime's settings, the versions of what runs it.
    """

    def __init__(self, *parts: bytes) -> None:
        self.folder: Path = cache_dir() / "results" / sha256(b"".join(sha256(part).encode() for part in parts))

    def get(self, name: str) -> bytes | None:
        """Return what ``put`` kept under a name, or ``None``."""
        place = self.folder / name
        return place.read_bytes() if place.is_file() else None

    def put(self, name: str, content: bytes) -> None:
        """Keep something under a name.

        Raises:
            InputError: the cache cannot be written.
        """
        with suppress(OSError):  # what cannot be written is named below
            make_cache()
        write_atomic(self.folder / name, content, remedy=REMEDY)

    def output(self, image: bytes) -> bytes | None:
        """Return the output that this input had, or ``None``."""
        return self._outputs.get(sha256(image))

    def __len__(self) -> int:
        return len(self._outputs)

    def put_outputs(self, images: Iterable[bytes], outputs: Iterable[bytes]) -> None:
        """Keep the outputs, all of one size, that these inputs had.

        Raises:
            InputError: the cache cannot be written.
        """
        found = {sha256(image): output for image, output in zip(images, outputs, strict=True)}
        self._outputs.update(found)
        content = b"".join(digest.encode() + output for digest, output in found.items())
        size = len(next(iter(found.values()), b""))
        self.put(f"{sha256(content)[:16]}.outputs", size.to_bytes(8, "little") + content)

    def clear(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def _outputs(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for file in self.folder.glob("*.outputs"):
            found.update(_unpacked(file.read_bytes()))
        return found


def _unpacked(content: bytes) -> dict[str, bytes]:
    step = DIGEST + int.from_bytes(content[:8], "little")
    records = (content[at : at + step] for at in range(8, len(content), step))
    return {record[:DIGEST].decode(): record[DIGEST:] for record in records}
