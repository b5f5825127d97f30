"""Find what is odd about a calibration set: one line each, with the figure that shows it.

Every rule was tried on photographs (ImageNet, CIFAR-10, also single classes of it) and on the demo data, none of which
it may call odd, and on the same images spoilt in the way that it is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.variety import Variety
from edgecnn.preprocess import Preprocess

FEW = 32  # images; below, the ranges of a network's activations are still moving
SMOOTH = 0.5  # correlation of neighbouring pixels: photographs have above 0.8, noise about 0
CONTRAST = 6.0  # standard deviation over all pixels, in levels of 0..255
UNIT = 1.5  # a std below this is not in levels of 0..255
BLUE, SKY = 5.0, 0.0  # standard errors; of 100 photographs -6 and 0.4 to 4, with channels swapped the opposite
REPEATS = 0.2  # correlation at a third of the width above that at a quarter; photographs have below 0
COVERED = 0.1  # share of the network's classes
GROWN, MOVING = 0.1, 0.25  # an activation's range in the last quarter of the images; share of the activations

Vector = NDArray[np.float64]


class CalibrationLint:
    """Looks at calibration images as they stream by; ``findings`` is what was odd.

    Attributes:
        at_fault: findings to the names of the images that they are of, once ``findings`` was called.
    """

    def __init__(self) -> None:
        self._count = 0
        self._variety = Variety()
        self._low, self._high = 255, 0
        self._sum = self._squares = self._pixels = 0.0
        self.at_fault: dict[str, tuple[str, ...]] = {}
        self._figures: dict[str, list[Vector]] = {"smooth": [], "third": [], "quarter": [], "blue": [], "sky": []}

    def update(self, pixels: NDArray[np.uint8], names: Sequence[str] = ()) -> None:
        """Look at ``(n, height, width, channels)`` uint8 images, not normalised yet, or at float network inputs."""
        self._count += len(pixels)
        if pixels.ndim != 4:
            return
        self._variety.update(pixels, names)
        if pixels.dtype != np.uint8:
            return
        rows = pixels[:, ::4, :, :3]  # some rows will do; a fourth channel is no colour
        grey = rows.sum(axis=3, dtype=np.uint16).astype(np.float32) / rows.shape[3]
        self._low, self._high = min(self._low, int(pixels.min())), max(self._high, int(pixels.max()))
        self._sum += float(grey.sum(dtype=np.float64))
        self._squares += float(np.square(grey).sum(dtype=np.float64))
        self._pixels += grey.size
        width = grey.shape[2]
        for name, offset in (("smooth", 1), ("third", width // 3), ("quarter", width // 4)):
            self._figures[name].append(_correlation(grey, offset))
        if rows.shape[3] != 3:
            return
        blue = (rows[..., 2].astype(np.int16) - rows[..., 0]).mean(axis=2)  # (n, rows)
        third = max(blue.shape[1] // 3, 1)
        self._figures["blue"].append(blue.mean(axis=1))
        self._figures["sky"].append(blue[:, :third].mean(axis=1) - blue[:, -third:].mean(axis=1))

    def findings(
        self,
        preprocess: Preprocess,
        *,
        growth: Mapping[str, float] | None = None,
        classes: int | None = None,
        outputs: int | None = None,
    ) -> tuple[str, ...]:
        """One line per oddity; empty where there is none.

        Args:
            preprocess: how the images are fed.
            growth: by how much each activation's range grew in the last quarter of the images, as a share.
            classes: how many classes the images are of, where their folder says.
            outputs: how many classes the network knows.
        """
        if self._count == 0:
            return ()
        found = []
        if self._count < FEW:
            found.append(
                f"only {self._count} calibration images; ranges from fewer than {FEW} are unreliable, give 100 or more"
            )
        of_pixels = self._of_pixels() if self._pixels else []
        alike = None if of_pixels else self._variety.finding()
        if alike is not None:
            self.at_fault = {alike[0]: alike[1]}
        found += of_pixels or list(self.at_fault)
        found += _of_preprocessing(preprocess)
        if classes is not None and outputs is not None and classes < max(COVERED * outputs, min(outputs, 2)):
            found.append(
                f"calibration images are of {classes} of the network's {outputs} classes; ranges may not fit the "
                "others, take some of each"
            )
        grown = [name for name, share in (growth or {}).items() if share > GROWN]
        if growth and self._count >= FEW and len(grown) > MOVING * len(growth):
            found.append(
                f"the ranges of {len(grown)} of {len(growth)} activations grew by more than {100 * GROWN:.0f} % in the "
                "last quarter of the calibration images; give more of them"
            )
        return tuple(found)

    def _of_pixels(self) -> list[str]:
        figures = {name: np.concatenate(parts) for name, parts in self._figures.items() if parts}
        median = {name: float(np.median(values)) for name, values in figures.items()}
        deviation = max(self._squares / self._pixels - (self._sum / self._pixels) ** 2, 0.0) ** 0.5
        if deviation < CONTRAST:
            return [
                f"calibration images use only levels {self._low} to {self._high} of 0..255 (standard deviation "
                f"{deviation:.1f}): they look blank, or were normalised before they were saved, "
                f"and would be normalised twice"
            ]
        if median["third"] > median["quarter"] + REPEATS:
            return [
                f"calibration images repeat after a third of their width (correlation {median['third']:.2f}, after a "
                f"quarter {median['quarter']:.2f}): they look like channels-first arrays saved as channels-last"
            ]
        if median["smooth"] < SMOOTH:
            return [
                f"calibration images look like noise: neighbouring pixels correlate by {median['smooth']:.2f}, "
                "photographs by more than 0.8; ranges from noise do not fit real images"
            ]
        if "blue" not in figures:
            return []
        blue, sky = _standard_errors(figures["blue"]), _standard_errors(figures["sky"])
        if self._count >= FEW and blue > BLUE and sky < SKY:
            return [
                f"calibration images look like BGR: blue exceeds red by {figures['blue'].mean():.1f} levels "
                f"({blue:.1f} standard errors), and not because of skies, for it does so less at the top ({sky:.1f})"
            ]
        return []


def _of_preprocessing(preprocess: Preprocess) -> list[str]:
    if max(preprocess.std) < UNIT and max(preprocess.mean) < UNIT and max(preprocess.mean) > 0:
        return [
            f"preprocessing mean {preprocess.mean} and std {preprocess.std} look like fractions, but are in levels "
            "of 0..255: the network would see values in the hundreds; multiply both by 255"
        ]
    return []


def _standard_errors(values: Vector) -> float:
    """The mean, in units of its standard error."""
    error = float(values.std()) / math.sqrt(len(values))
    return float(values.mean()) / error if error > 0 else 0.0


def _correlation(grey: NDArray[np.float32], offset: int) -> Vector:
    """Pearson correlation of each image's pixels with those ``offset`` to the right; 1 for a blank image."""
    left, right = (x.reshape(len(x), -1).astype(np.float64) for x in (grey[:, :, :-offset], grey[:, :, offset:]))
    if offset == 0 or left.shape[1] == 0:
        return np.ones(len(grey))
    left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
    power = np.sqrt(np.square(left).sum(axis=1) * np.square(right).sum(axis=1))
    products = (left * right).sum(axis=1)
    return np.where(power > 0, products / np.where(power > 0, power, 1), 1.0)
