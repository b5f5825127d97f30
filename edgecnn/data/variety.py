"""Whether calibration images differ: images of one colour, exact copies, images much alike.

Tried on 300 images each of ImageNet, CIFAR-10 (also single classes), the demo data and rendered lines of text. None is
of one colour. By the rule here at least 98 % differ; of the lines, whose paper is alike, 31 %. Of 60 images made from
one photograph 1 differs by noise or brightness, 5 to 13 by an object that crosses it, 27 to 29 by a camera that turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_COLOUR = 3.0  # standard deviation within an image, in levels; of photographs, 99 % have above 17
SHARE = 0.25  # of images of one colour, or of copies
SIDE = 16  # of a thumbnail, in pixels
ALIKE = 0.95  # correlation of two thumbnails; of two photographs, one pair in some 10,000 reaches it
ENOUGH = 32  # images that differ; as many as ranges need
KEPT = 1024  # thumbnails, 1 MiB


class Variety:
    """Looks at images as they stream by; ``findings`` says how they are all one."""

    def __init__(self) -> None:
        self._count = self._plain = 0
        self._thumbnails: list[NDArray[np.float32]] = []

    def update(self, images: NDArray[Any]) -> None:
        """Look at ``(n, height, width, channels)`` images, levels or float network inputs."""
        down, right = (max(size // (4 * SIDE), 1) for size in images.shape[1:3])
        levels = images[:, ::down, ::right].astype(np.float32)  # some pixels will do
        spread = levels.std(axis=(1, 2)).max(axis=1)
        plain = spread < (ONE_COLOUR if images.dtype == np.uint8 else 1e-4 * np.abs(levels).max(axis=(1, 2, 3)) + 1e-30)
        self._count += len(images)
        self._plain += int(plain.sum())
        if len(self._thumbnails) < KEPT:
            self._thumbnails += list(_thumbnails(levels.mean(axis=3))[~plain])

    def findings(self) -> list[str]:
        """Return a line on the worst that was found; none where images differ enough."""
        if self._plain > SHARE * self._count:
            return [
                f"{self._plain} of {self._count} calibration images are of one colour (standard deviation below "
                f"{ONE_COLOUR:g} levels); ranges from them fit no real image, give images like those of use"
            ]
        made = np.array(self._thumbnails[:KEPT])
        if len(made) < 2:
            return []
        copies = len(made) - len(np.unique(made, axis=0))
        if copies > SHARE * len(made):
            return [f"{copies} of {len(made)} calibration images are copies of others; give 100 or more that differ"]
        differing = _differing(made)
        if differing < ENOUGH and 2 * differing <= len(made):
            return [
                f"calibration images are much alike: {differing} of {len(made)} differ, the others correlate with one "
                f"of these by more than {ALIKE} ({SIDE}x{SIDE} pixels), as frames of a video; give 100 or more scenes"
            ]
        return []


def _thumbnails(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means over ``SIDE x SIDE`` blocks, or over fewer of a smaller image: (n, blocks)."""
    down, right = (np.linspace(0, size, min(SIDE, size) + 1).astype(int) for size in grey.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(grey, down[:-1], axis=1), right[:-1], axis=2)
    means: NDArray[np.float32] = (sums / np.outer(np.diff(down), np.diff(right))).astype(np.float32)
    return means.reshape(len(grey), -1)


def _differing(made: NDArray[np.float32]) -> int:
    """Count images that are unlike all counted before them."""
    centred = made - made.mean(axis=1, keepdims=True)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30)
    alike, counted = centred @ centred.T > ALIKE, np.zeros(len(made), bool)
    for k in range(len(made)):
        counted[k] = not alike[k, counted].any()
    return int(counted.sum())
