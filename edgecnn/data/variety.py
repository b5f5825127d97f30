"""Whether calibration images differ: images of one colour, exact copies, images much alike.

Tried on 300 images each of ImageNet, CIFAR-10 (also single classes), the demo data and rendered lines of text. None is
of one colour. By the rule here at least 98 % differ; of the lines, whose paper is alike, 31 %. Of 60 images made from
one photograph 1 differs by noise or brightness, 5 to 13 by an object that crosses it, 27 to 29 by a camera that turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_COLOUR = 3.0  # standard deviation within an image, in levels; of photographs, 99 % have above 17
SHARE = 0.25  # of images of one colour, or of copies
SIDE = 16  # of a thumbnail, in pixels
ALIKE = 0.95  # correlation of two thumbnails; of two photographs, one pair in some 10,000 reaches it
ENOUGH = 32  # images that differ; as many as ranges need
KEPT = 1024  # thumbnails, 1 MiB
NAMED = 50  # images at fault


class Variety:
    """Looks at images as they stream by; ``finding`` says how they are all one, and names those at fault."""

    def __init__(self) -> None:
        self._count = self._plain = 0
        self._thumbnails: list[NDArray[np.float32]] = []
        self._names: list[str] = []  # of the thumbnails
        self._plain_names: list[str] = []

    def update(self, images: NDArray[Any], names: Sequence[str] = ()) -> None:
        """Look at ``(n, height, width, channels)`` images, levels or float network inputs, and their names."""
        down, right = (max(size // (4 * SIDE), 1) for size in images.shape[1:3])
        levels = images[:, ::down, ::right].astype(np.float32)  # some pixels will do
        spread = levels.std(axis=(1, 2)).max(axis=1)
        plain = spread < (ONE_COLOUR if images.dtype == np.uint8 else 1e-4 * np.abs(levels).max(axis=(1, 2, 3)) + 1e-30)
        known = names or [f"image {self._count + k}" for k in range(len(images))]
        self._count += len(images)
        self._plain += int(plain.sum())
        if len(self._plain_names) < NAMED:
            self._plain_names += [known[int(k)] for k in np.flatnonzero(plain)]
        if len(self._thumbnails) < KEPT:
            self._thumbnails += list(_thumbnails(levels.mean(axis=3))[~plain])
            self._names += [known[int(k)] for k in np.flatnonzero(~plain)]

    def finding(self) -> tuple[str, tuple[str, ...]] | None:
        """Return a line on the worst that was found, and the images at fault; none where images differ enough."""
        if self._plain > SHARE * self._count:
            text = (
                f"{self._plain} of {self._count} calibration images are of one colour (standard deviation below "
                f"{ONE_COLOUR:g} levels); ranges from them fit no real image, give images like those of use"
            )
            return text, tuple(self._plain_names[:NAMED])
        made = np.array(self._thumbnails[:KEPT])
        if len(made) < 2:
            return None
        originals = np.unique(made, axis=0, return_index=True)[1]
        copies = len(made) - len(originals)
        if copies > SHARE * len(made):
            text = f"{copies} of {len(made)} calibration images are copies of others; give 100 or more that differ"
            return text, self._named(~np.isin(np.arange(len(made)), originals))
        differing = _differing(made)
        count = int(differing.sum())
        if count < ENOUGH and 2 * count <= len(made):
            text = (
                f"calibration images are much alike: {count} of {len(made)} differ, the others correlate with one "
                f"of these by more than {ALIKE} ({SIDE}x{SIDE} pixels), as frames of a video; give 100 or more scenes"
            )
            return text, self._named(~differing)
        return None

    def _named(self, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self._names[k] for k in np.flatnonzero(chosen)[:NAMED])


def _thumbnails(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means over ``SIDE x SIDE`` blocks, or over fewer of a smaller image: (n, blocks)."""
    down, right = (np.linspace(0, size, min(SIDE, size) + 1).astype(int) for size in grey.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(grey, down[:-1], axis=1), right[:-1], axis=2)
    means: NDArray[np.float32] = (sums / np.outer(np.diff(down), np.diff(right))).astype(np.float32)
    return means.reshape(len(grey), -1)


def _differing(made: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which images are unlike all such images before them."""
    centred = made - made.mean(axis=1, keepdims=True)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    alike, counted = centred @ centred.T > ALIKE, np.zeros(len(made), bool)
    for k in range(len(made)):
        counted[k] = not alike[k, counted].any()
    return counted
