"""How an image file becomes the network's input: resize, crop, normalise. One definition, carried by every artifact."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown

KEYS = ("resize", "crop", "interpolation", "mean", "std")  # of --preprocess
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Preprocessing of one image: RGB, of one channel (grey) or of four (RGBA).

    Steps, in order: resize, centre crop, ``(pixel - mean) / std`` per channel, pixels in 0..255. ``Preprocess.as_is()``
    has no steps: arrays are the network's inputs already.

    Attributes:
        resize: ``(height, width)`` in pixels; a single ``(side,)`` resizes the shorter side and keeps the
            aspect ratio; ``None`` leaves the image as it is.
        crop: ``(height, width)`` of the centre crop after resizing, or ``None``.
        interpolation: one of ``INTERPOLATIONS`` (Pillow's filters; they antialias when shrinking).
        mean: per channel, in pixel units (0..255); one number, or equal ones, serve any channels.
        std: per channel, in pixel units, above 0; likewise.
        as_given: images are float32 network inputs, fed as they are; the other fields say nothing.

    Raises:
        InputError: a value is outside what is allowed.
    """

    resize: tuple[int, ...] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (127.5, 127.5, 127.5)
    as_given: bool = False

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and (len(size) not in (1, 2) or min(size) < 1):
                raise InputError(f"preprocess {name}={size}: sizes are HEIGHTxWIDTH in pixels, at least 1")
        if self.crop is not None and len(self.crop) != 2:
            raise InputError(f"preprocess crop={self.crop}: give HEIGHTxWIDTH, for example 224x224")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(unknown("interpolation", self.interpolation, INTERPOLATIONS))
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, int | float):
                values = (float(values),) * 3
                object.__setattr__(self, name, values)
            if not values or not np.all(np.isfinite(values)):
                raise InputError(f"preprocess {name}={values}: give finite numbers, one per channel, in 0..255 units")
        if len(self._counts) > 1:
            raise InputError(f"preprocess mean={self.mean} and std={self.std}: give as many numbers of both")
        if min(self.std) <= 0:
            raise InputError(f"preprocess std={self.std}: every value must be above 0")

    @property
    def _counts(self) -> set[int]:
        """Return how many channels the numbers are for, where they differ."""
        return {len(values) for values in (self.mean, self.std) if len(set(values)) > 1}

    def check_channels(self, channels: int) -> None:
        """Check that the numbers serve an image of so many channels.

        Raises:
            InputError: there are more, or fewer, of them.
        """
        if not self.as_given and self._counts - {channels}:
            raise InputError(
                f"preprocess mean={self.mean}, std={self.std} is for {min(self._counts)} channels, but the network's "
                f"image has {channels}; give {channels} numbers, or one that serves all"
            )

    @classmethod
    def as_is(cls) -> Preprocess:
        """Return the preprocessing of a network that is fed arrays as they are: float32, (N, H, W, C)."""
        return cls(mean=(0.0,) * 3, std=(1.0,) * 3, as_given=True)

    def normalise(self, pixels: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn levels 0..255, NHWC or HWC, into the float32 network input of the same layout."""
        made = pixels.astype(np.float32)
        if self.as_given:
            return made
        mean, std = self._numbers(self.mean), self._numbers(self.std)
        scale, shift = (1.0 / std).astype(np.float32), (-mean / std).astype(np.float32)
        if len(set(scale)) == len(set(shift)) == 1:  # numpy is three times as fast with single numbers
            scale, shift = scale[:1], shift[:1]
        made *= scale
        made += shift
        return made

    def renormalised(self, inputs: NDArray[np.float32], other: Preprocess | None) -> NDArray[np.float32]:
        """Return what ``other`` makes of the pixels that became these inputs here; it ignores size and crop."""
        if other is None or other.as_given or self.as_given or (other.mean, other.std) == (self.mean, self.std):
            return inputs
        mean, std = (self._numbers(values).astype(np.float32) for values in (self.mean, self.std))
        return other.normalise(inputs * std + mean)

    @staticmethod
    def _numbers(values: tuple[float, ...]) -> NDArray[np.float64]:
        """Return one number per channel, or one for any channels where they are equal."""
        return np.asarray(values[:1] if len(set(values)) == 1 else values, np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; ``records.read_record`` reads it back."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return fields if self.as_given else {k: v for k, v in fields.items() if k != "as_given"}

    def override(self, text: str) -> Preprocess:
        """Return a copy with the keys of ``text`` replaced, e.g. ``resize=224x224,crop=none,mean=0/0/0,std=255``."""
        changes: dict[str, Any] = {}
        for item in filter(None, text.split(",")):
            key, found, value = item.partition("=")
            if not found or key not in KEYS:
                allowed = ", ".join(KEYS)
                raise InputError(f"--preprocess {item!r}: expected KEY=VALUE with KEY one of {allowed}")
            changes[key] = _parse(key, value)
        return replace(self, **changes)


def _parse(key: str, value: str) -> Any:
    if key == "interpolation":
        return value
    if key in ("resize", "crop") and value == "none":
        return None
    try:
        if key in ("resize", "crop"):
            return tuple(int(v) for v in value.split("x"))
        numbers = tuple(float(v) for v in value.split("/"))
    except ValueError:
        form = "HEIGHTxWIDTH or none" if key in ("resize", "crop") else "R/G/B or one number"
        raise InputError(f"--preprocess {key}={value}: expected {form}") from None
    return numbers * 3 if len(numbers) == 1 else numbers
