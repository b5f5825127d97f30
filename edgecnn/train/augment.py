"""Augmentation. Each image's own generator decides, so an image looks the same whichever process prepares it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from edgecnn.train.config import TrainConfig

Picture = Image.Image
BILINEAR = Image.Resampling.BILINEAR
FILL = (128, 128, 128)  # where a moved image leaves nothing


def prepare(
    config: TrainConfig, epoch: int, indices: NDArray[np.int64], pixels: NDArray[np.uint8], targets: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return augmented levels 0..255 (N, H, W, 3), float32, and the targets that belong to them (N, classes).

    Args:
        config: what to do.
        epoch: counts from 0.
        indices: of the images in the data set, (N,); an even number of them where ``mixup`` is on.
        pixels: (N, H, W, 3) uint8.
        targets: one row of probabilities per image.
    """
    generators = [np.random.default_rng([config.seed, epoch, int(i)]) for i in indices]
    images = np.stack([_one(image, g, config) for image, g in zip(pixels, generators, strict=True)])
    if not config.mixup:
        return images.astype(np.float32), targets
    share = np.array([g.beta(config.mixup, config.mixup) for g in generators], np.float32)
    return _mixed(images.astype(np.float32), share), _mixed(targets, share)


def _one(image: NDArray[np.uint8], rng: np.random.Generator, config: TrainConfig) -> NDArray[np.uint8]:
    """Shift (edges repeated), mirror if asked, RandAugment if asked, brightness and contrast."""
    reach = int(config.shift * image.shape[0])
    dy, dx = (int(v) for v in rng.integers(-reach, reach + 1, 2))
    rows = np.clip(np.arange(image.shape[0]) + dy, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) + dx, 0, image.shape[1] - 1)
    moved = image[rows][:, columns]
    if config.flip and rng.random() < 0.5:
        moved = moved[:, ::-1]
    if config.rand_augment:
        moved = rand_augment(moved, rng, config.rand_augment, config.magnitude)
    gain, lift = 0.75 + 0.5 * rng.random(), 30 * (rng.random() - 0.5)
    table = np.clip(np.arange(256) * gain + lift, 0, 255).astype(np.uint8)
    lit: NDArray[np.uint8] = table[moved]
    return lit


def _mixed(values: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mix each row with its neighbour's: row ``2k`` with row ``2k + 1`` and the other way round.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization", section 2. The partner is the neighbour
    in an order that is random already, so that a part of the batch can be prepared without the rest.
    """
    partner = values.reshape(-1, 2, *values.shape[1:])[:, ::-1].reshape(values.shape)
    weight = share.reshape(-1, *[1] * (values.ndim - 1))
    mixed: NDArray[np.float32] = weight * values + (1 - weight) * partner
    return mixed


def rand_augment(image: NDArray[np.uint8], rng: np.random.Generator, count: int, magnitude: float) -> NDArray[np.uint8]:
    """Apply ``count`` random operations, one after the other, each as strong as ``magnitude`` of 10 says; uint8 HWC.

    Source: Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space", the 14
    operations of section 3.1; their strengths at magnitude 10 are those of AutoAugment (Cubuk et al. 2019, table 6).
    """
    picture = Image.fromarray(image)
    names = tuple(OPERATIONS)
    for _ in range(count):
        name = names[int(rng.integers(len(names)))]
        sign = 1 if rng.random() < 0.5 else -1
        picture = OPERATIONS[name](picture, magnitude / 10, sign)
    return np.asarray(picture)


Operation = Callable[[Picture, float, int], Picture]  # strength in 0..1, and a sign for those that have two directions


def _affine(make: Callable[[float, Picture], tuple[float, ...]]) -> Operation:
    def run(picture: Picture, strength: float, sign: int) -> Picture:
        matrix = make(sign * strength, picture)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=FILL)

    return run


def _enhance(kind: Callable[[Picture], ImageEnhance._Enhance]) -> Operation:
    return lambda picture, strength, sign: kind(picture).enhance(1 + 0.9 * sign * strength)


def _rotate(picture: Picture, strength: float, sign: int) -> Picture:
    return picture.rotate(30 * sign * strength, BILINEAR, fillcolor=FILL)


OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda picture, strength, sign: picture,
    "autocontrast": lambda picture, strength, sign: ImageOps.autocontrast(picture),
    "equalize": lambda picture, strength, sign: ImageOps.equalize(picture),
    "rotate": _rotate,  # to 30 degrees
    "solarize": lambda picture, strength, sign: ImageOps.solarize(picture, round(256 * (1 - strength))),
    "color": _enhance(ImageEnhance.Color),  # to factors 0.1 and 1.9
    "posterize": lambda picture, strength, sign: ImageOps.posterize(picture, 8 - round(4 * strength)),  # to 4 bits
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _affine(lambda s, p: (1, 0.3 * s, 0, 0, 1, 0)),
    "shear_y": _affine(lambda s, p: (1, 0, 0, 0.3 * s, 1, 0)),
    "translate_x": _affine(lambda s, p: (1, 0, 0.45 * s * p.width, 0, 1, 0)),
    "translate_y": _affine(lambda s, p: (1, 0, 0, 0, 1, 0.45 * s * p.height)),
}
