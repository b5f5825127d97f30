"""Images made from nothing, for calibration without data: dead leaves with the statistics of photographs.

Opaque shapes of all sizes that cover each other have the edges, the regions and the 1/f spectrum of natural images.
Source: Lee, Mumford and Huang 2001, "Occlusion Models for Natural Images"; Baradad et al. 2021, "Learning to See by
Looking at Noise", which shows that networks take such images much as they take photographs. No batch norm statistics
are needed, so networks whose batch norm is folded already can be quantized too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.feed import Feed, feed_of
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

VERSION = 1
LEAVES = 120  # shapes per image
SMALLEST, LARGEST = 0.02, 0.7  # radius, as a share of the image's shorter side; density falls with the cube of it
MEAN = (123.7, 116.3, 103.5)  # of R, G, B over ImageNet, in levels of 0..255
LIGHT, HUE = 62.0, 20.0  # standard deviations of a leaf's lightness and of its colour beside it
TEXTURE = 22.0  # of the 1/f noise on every leaf


@dataclass(frozen=True, kw_only=True)
class SyntheticImages:
    """See ``edgecnn.data.Images``: as many images as wanted, the same for the same seed."""

    count: int
    seed: int = 0
    name: str = "none"
    classes: tuple[str, ...] | None = None
    labels: None = None
    kinds: None = None
    bad: Sequence[str] = ()
    names: Sequence[str] = ()

    @property
    def digest(self) -> str:
        """Of what makes the images."""
        return hashlib.sha256(f"edgecnn synthetic {VERSION} seed {self.seed}: {self.count}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.count

    def batches(self, how: Preprocess | Feed, size: int) -> Iterator[tuple[NDArray[np.uint8], None]]:
        """Pixels ``(n, height, width, channels)`` of the size that the preprocessing leaves.

        Raises:
            InputError: the network takes more than one image, or the preprocessing does not fix the size.
        """
        feed = feed_of(how)
        if len(feed.names) > 1 or feed.image is None or feed.channels not in (1, 3):
            raise InputError("--calibration none makes images, grey or RGB; this network takes others: give some")
        shape = feed.preprocess.crop or feed.preprocess.resize or tuple(feed.shapes.get(feed.image, ())[:2])
        if len(shape) != 2:
            raise InputError("--calibration none needs the input size; pass --preprocess resize=HEIGHTxWIDTH")
        for start in range(0, self.count, size):
            indices = range(start, min(start + size, self.count))
            pixels = np.stack([image(shape[0], shape[1], self.seed, i) for i in indices])
            grey = pixels.mean(axis=3, keepdims=True).astype(np.uint8) if feed.channels == 1 else pixels
            yield feed.fitting(feed.names[0], grey), None


def image(height: int, width: int, seed: int, index: int) -> NDArray[np.uint8]:
    """One image, ``(height, width, 3)`` RGB."""
    from PIL import Image, ImageDraw, ImageFilter

    rng = np.random.default_rng((VERSION, seed, index))
    canvas = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(canvas)
    side = min(height, width)
    for _ in range(LEAVES):
        radius = side * _radius(rng)
        x, y, stretch = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.5, 1.5)
        if rng.random() < 0.5:
            draw.ellipse((x - radius, y - radius * stretch, x + radius, y + radius * stretch), fill=_colour(rng))
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
            points = [(x + radius * float(np.cos(t)), y + radius * stretch * float(np.sin(t))) for t in turns]
            draw.polygon(points, fill=_colour(rng))
    blurred = canvas.filter(ImageFilter.GaussianBlur(side / 224 * float(rng.uniform(0.3, 1.2))))
    textured = np.asarray(blurred, np.float32) + TEXTURE * rng.uniform(0.2, 1.5) * _pink(rng, height, width)[..., None]
    return np.clip(np.rint(textured), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    light, hues = rng.normal(0, LIGHT), rng.normal(0, HUE, 3)
    red, green, blue = (int(np.clip(m + light + h, 0, 255)) for m, h in zip(MEAN, hues, strict=True))
    return red, green, blue


def _radius(rng: np.random.Generator) -> float:
    """With density proportional to r**-3 between the limits: what makes the images look alike at every scale."""
    a, b = SMALLEST**-2, LARGEST**-2
    return float((a + rng.random() * (b - a)) ** -0.5)


def _pink(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Noise with a 1/f amplitude spectrum, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.normal(0, 1, (height, width))) / frequency, (height, width))
    scaled: NDArray[np.float32] = (noise / max(float(noise.std()), 1e-9)).astype(np.float32)
    return scaled
