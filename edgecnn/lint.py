"""What is odd about a calibration set: too few images, noise, normalised twice. One line each, saying why."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.preprocess import Preprocess

FEW = 32  # images; below, the ranges of a network's activations are still moving
SMOOTH = 0.5  # correlation of neighbouring pixels: photographs have above 0.8, noise about 0
CONTRAST = 6.0  # standard deviation over all pixels, in levels of 0..255
UNIT = 1.5  # a std below this is not in levels of 0..255


class CalibrationLint:
    """Looks at calibration images as they stream by; ``findings`` is what was odd."""

    def __init__(self) -> None:
        self._count = 0
        self._low, self._high = 255, 0
        self._sum = self._squares = self._pixels = 0.0
        self._smoothness: list[NDArray[np.float64]] = []

    def update(self, pixels: NDArray[np.uint8]) -> None:
        """Look at ``(n, height, width, 3)`` uint8 images, resized but not normalised."""
        grey = pixels[:, ::2].sum(axis=3, dtype=np.uint16).astype(np.float32) / 3  # every other row will do
        self._count += len(pixels)
        self._low, self._high = min(self._low, int(pixels.min())), max(self._high, int(pixels.max()))
        self._sum += float(grey.sum(dtype=np.float64))
        self._squares += float(np.square(grey).sum(dtype=np.float64))
        self._pixels += grey.size
        self._smoothness.append(_neighbour_correlation(grey))

    def findings(self, preprocess: Preprocess) -> tuple[str, ...]:
        """One line per oddity; empty where there is none."""
        if self._count == 0:
            return ()
        found = []
        if self._count < FEW:
            found.append(
                f"only {self._count} calibration images; ranges from fewer than {FEW} are unreliable, give 100 or more"
            )
        smooth = float(np.median(np.concatenate(self._smoothness)))
        deviation = max(self._squares / self._pixels - (self._sum / self._pixels) ** 2, 0.0) ** 0.5
        if deviation < CONTRAST:
            found.append(
                f"calibration images use only levels {self._low} to {self._high} of 0..255 (standard deviation "
                f"{deviation:.1f}): they look blank, or were normalised before they were saved, "
                f"and would be normalised twice"
            )
        elif smooth < SMOOTH:
            found.append(
                f"calibration images look like noise: neighbouring pixels correlate by {smooth:.2f}, photographs by "
                "more than 0.8; ranges from noise do not fit real images"
            )
        if max(preprocess.std) < UNIT and max(preprocess.mean) < UNIT and max(preprocess.mean) > 0:
            found.append(
                f"preprocessing mean {preprocess.mean} and std {preprocess.std} look like fractions, but are in levels "
                "of 0..255: the network would see values in the hundreds; multiply both by 255"
            )
        return tuple(found)


def _neighbour_correlation(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pearson correlation of each image's horizontally neighbouring pixels; 1 for a blank image."""
    left, right = (x.reshape(len(x), -1).astype(np.float64) for x in (grey[:, :, :-1], grey[:, :, 1:]))
    if left.shape[1] == 0:
        return np.ones(len(grey))
    left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
    power = np.sqrt(np.square(left).sum(axis=1) * np.square(right).sum(axis=1))
    products = (left * right).sum(axis=1)
    return np.where(power > 0, products / np.where(power > 0, power, 1), 1.0)
