"""Encoded images and arrays as pixels: decoded, resized and cropped as a ``Preprocess`` says."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecnn.budget import REMEDY, budget
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

WORKERS = min(4, os.cpu_count() or 1)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's, by channels

Pixels = NDArray[np.uint8]


class BadImageError(Exception):
    """One image that cannot be decoded; the message is the reason."""


def decode(data: bytes, preprocess: Preprocess, channels: int = 3) -> Pixels:
    """``(height, width, channels)`` uint8 of an encoded image, grey, RGB or RGBA, resized and cropped as told.

    Raises:
        BadImageError: not an image, truncated, or smaller than the crop.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > (most := budget().pixels):
                raise BadImageError(f"{image.width}x{image.height} pixels; at most {most} are read: {REMEDY}")
            read = image.convert(MODES[channels])
    except BadImageError:
        raise
    except Exception as error:  # what Pillow's decoders raise, of which there are many
        said = str(error).replace("<_io.BytesIO object at ", "<").splitlines()
        raise BadImageError(said[0] if said else type(error).__name__) from error
    return _placed(read, preprocess)


def _placed(image: Image.Image, preprocess: Preprocess) -> Pixels:
    from PIL import Image

    width, height = image.size
    if preprocess.resize is not None:
        if len(preprocess.resize) == 2:
            height, width = preprocess.resize
        else:
            (side,) = preprocess.resize
            short = min(width, height)
            height, width = round(height * side / short), round(width * side / short)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling[preprocess.interpolation.upper()])
    if preprocess.crop is not None:
        rows, columns = preprocess.crop
        if rows > height or columns > width:
            raise BadImageError(f"{height}x{width} pixels are less than the crop of {rows}x{columns}")
        top, left = (height - rows) // 2, (width - columns) // 2
        image = image.crop((left, top, left + columns, top + rows))
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def resize_arrays(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """``(n, H, W, C)`` uint8 resized and cropped as ``preprocess`` says; to resize them, C is 1, 3 or 4.

    Raises:
        InputError: they are smaller than the crop, or have channels that no image has.
    """
    from PIL import Image

    if preprocess.crop is None and preprocess.resize in (None, pixels.shape[1:3]):
        return pixels
    if pixels.shape[3] not in MODES:
        raise InputError(f"arrays of {pixels.shape[3]} channels are not resized; give them in the network's size")
    try:
        grey = pixels.shape[3] == 1
        return np.stack([_placed(Image.fromarray(image[..., 0] if grey else image), preprocess) for image in pixels])
    except BadImageError as error:
        raise InputError(f"{error}; give --preprocess another crop or resize") from None
