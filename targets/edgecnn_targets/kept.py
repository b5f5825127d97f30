"""What a device has answered already, on disk, so that a run that broke in the middle goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from edgecnn.errors import InputError
from edgecnn_targets.cache import VARIABLE, cache_dir

DIGEST = hashlib.sha256().digest_size


class Kept:
    """Outputs by input, in one file of records: the input's SHA-256, then the output.

    Args:
        name: of the file; names all that the outputs depend on besides the input.
        size: bytes of an output.

    Raises:
        InputError: the cache cannot be read or written.
    """

    def __init__(self, name: str, size: int) -> None:
        self._path, self._size = cache_dir() / "kept" / name, size
        record = DIGEST + size
        self._outputs: dict[bytes, bytes] = {}
        with self._writing():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a+b") as file:
                file.seek(0)
                held = file.read()
                file.truncate(len(held) // record * record)  # a kill can leave half a record at the end
        for at in range(0, len(held) - record + 1, record):
            self._outputs[held[at : at + DIGEST]] = held[at + DIGEST : at + record]

    def __len__(self) -> int:
        return len(self._outputs)

    def get(self, image: bytes) -> bytes | None:
        """The output of an input, or ``None``."""
        return self._outputs.get(hashlib.sha256(image).digest())

    def put(self, image: bytes, output: bytes) -> None:
        """Keep an output.

        Raises:
            InputError: the cache cannot be written.
        """
        assert len(output) == self._size
        digest = hashlib.sha256(image).digest()
        self._outputs[digest] = output
        with self._writing(), self._path.open("ab", buffering=0) as file:
            file.write(digest + output)

    def forget(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write {self._path}: {error.strerror}; set {VARIABLE} to a folder with room"
            ) from None
