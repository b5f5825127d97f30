"""Image sets that are read by file or by index; each one is an ``edgecnn.data.Images``."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.arrays import ArraySet
from edgecnn.data.decode import MODES, WORKERS, BadImageError, Pixels, decode
from edgecnn.data.feed import Feed, Given, feed_of
from edgecnn.data.stored import Encoded, Labels
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess
from edgecnn.reading import require_answer


@dataclass(kw_only=True)
class FolderImages:
    name: str
    files: Sequence[Encoded]
    labels: Labels | None
    classes: tuple[str, ...] | None
    skip_bad: bool
    kinds: int | None = None
    bad: list[str] = field(default_factory=list)
    digest: str = ""
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, preprocess: Preprocess | Feed, size: int) -> Iterator[tuple[Given, Labels | None]]:
        feed = feed_of(preprocess)
        if len(feed.names) > 1 or feed.image is None or feed.channels not in MODES:
            takes = ", ".join(f"{name} {shape}" for name, shape in feed.shapes.items())
            raise InputError(
                f"{self.name} is a folder of images, but the network's inputs are {takes}: give arrays, FILE.npz or an "
                "iterable"
            )
        if feed.preprocess.as_given:
            raise InputError(
                f"{self.name} holds images, but this network is fed arrays as they are: give float32 arrays"
            )
        hashes: dict[str, str] = {}
        pixels: list[Pixels] = []
        kept: list[int] = []
        for i, image in enumerate(self._decoded(feed, hashes, ahead=2 * size)):
            if image is None:
                continue
            if pixels and image.shape != pixels[0].shape:
                raise InputError(
                    f"{self.files[i]} is {image.shape[0]}x{image.shape[1]} pixels, others {pixels[0].shape[0]}x"
                    f"{pixels[0].shape[1]}; say how to resize with --preprocess resize=HEIGHTxWIDTH"
                )
            pixels.append(image)
            kept.append(i)
            if len(pixels) == size:
                self.names = self._names_of(kept)
                yield feed.fitting(feed.names[0], np.stack(pixels)), self._labels_of(kept)
                pixels, kept = [], []
        if pixels:
            self.names = self._names_of(kept)
            yield feed.fitting(feed.names[0], np.stack(pixels)), self._labels_of(kept)
        if len(self.bad) == len(self.files):
            raise InputError(
                f"none of the {len(self.files)} images in {self.name} can be read, the first {self.bad[0]}"
            )
        lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
        self.digest = hashlib.sha256(lines.encode()).hexdigest()

    def _names_of(self, kept: list[int]) -> list[str]:
        """Return file names below the folder."""
        folder = f"{Path(self.name).as_posix()}/"
        return [self.files[i].as_posix().removeprefix(folder) for i in kept]

    def _labels_of(self, kept: list[int]) -> Labels | None:
        return None if self.labels is None else self.labels[kept]

    def _decoded(self, feed: Feed, hashes: dict[str, str], ahead: int) -> Iterator[Pixels | None]:
        """Images in order, decoded by threads a little ahead; ``None`` for a bad one that is skipped."""

        def work(path: Encoded) -> tuple[str, Pixels]:
            try:
                data = path.read_bytes()
            except OSError as error:
                require_answer(error, path.as_posix())
                raise BadImageError(error.strerror or "cannot be read") from None
            return hashlib.sha256(data).hexdigest(), decode(data, feed.preprocess, feed.channels)

        self.bad = []
        with ThreadPoolExecutor(WORKERS) as pool:
            waiting: deque[tuple[Encoded, Future[tuple[str, Pixels]]]] = deque()
            files = iter(self.files)
            try:
                while True:
                    while len(waiting) < ahead and (path := next(files, None)) is not None:
                        waiting.append((path, pool.submit(work, path)))
                    if not waiting:
                        break
                    path, future = waiting.popleft()
                    try:
                        digest, image = future.result()
                    except BadImageError as error:
                        self.bad.append(f"{path} ({error})")
                        if not self.skip_bad:
                            ahead = max(ahead, len(self.files))  # the rest is read only to count what else is bad
                        yield None
                        continue
                    hashes[path.as_posix()] = digest
                    yield None if self.bad and not self.skip_bad else image
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if self.bad and not self.skip_bad:
            raise InputError(
                f"{len(self.bad)} of {len(self.files)} images in {self.name} cannot be read, the first {self.bad[0]}; "
                "mend or remove them, or pass --skip-bad-images"
            )


@dataclass(kw_only=True)
class ArrayImages:
    name: str
    found: ArraySet
    chosen: NDArray[np.int64]
    labelled: bool
    bad: Sequence[str] = ()
    names: Sequence[str] = ()

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.found.classes if self.labelled else None

    @property
    def kinds(self) -> int | None:
        return None if self.found.labels is None else len(np.unique(self.found.labels[self.chosen]))

    @property
    def labels(self) -> Labels | None:
        return self.found.labels[self.chosen] if self.labelled and self.found.labels is not None else None

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.found.digest}: {sorted(self.chosen.tolist())}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.chosen)

    def batches(self, preprocess: Preprocess | Feed, size: int) -> Iterator[tuple[Given, Labels | None]]:
        labels, feed, held = self.labels, feed_of(preprocess), self.found.pixels
        for i in range(0, len(self.chosen), size):
            rows = self.chosen[i : i + size]
            self.names = [f"{self.name}[{k}]" for k in rows]
            given = {name: array[rows] for name, array in held.items()} if isinstance(held, Mapping) else held[rows]
            yield feed.taken(given), None if labels is None else labels[i : i + size]
