"""How an image file becomes the network's input: resize, crop, normalise. One definition, carried by every artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown

KEYS = ("resize", "crop", "interpolation", "mean", "std")  # of --preprocess
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
IMAGENET = "imagenet"  # in place of numbers: those of all its images, in pixels 0..255
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
LEVELS = {"mean": MEAN, "std": STD}
CENTRE = 0.875  # of the image that an evaluation on ImageNet crops: 224 of 256


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

    def __str__(self) -> str:
        """Return the text that ``override`` takes."""
        if self.as_given:
            return "as it is"
        sizes = {"resize": self.resize, "crop": self.crop}
        said = [f"{key}={'none' if size is None else 'x'.join(map(str, size))}" for key, size in sizes.items()]
        numbers = [f"{key}={'/'.join(f'{v:g}' for v in getattr(self, key))}" for key in LEVELS]
        return ",".join([*said, f"interpolation={self.interpolation}", *numbers])

    @property
    def size(self) -> tuple[int, int] | None:
        """Return height and width of what is left of an image, or ``None`` where it depends on the image."""
        size = self.crop or self.resize
        return (size[0], size[1]) if size is not None and len(size) == 2 else None

    def override(self, text: str) -> Preprocess:
        """Return a copy with what ``text`` says, e.g. ``resize=224x224,crop=none,mean=0/0/0,std=255``, or ``timm``.

        A preset of ``PRESETS`` is the evaluation of that library at the size that the text says, or this one's. Keys
        change it. ``mean=imagenet`` is ``std=imagenet`` too, unless that is said.

        Raises:
            InputError: a key or a value is not allowed, or a preset has no size.
        """
        changes: dict[str, Any] = {}
        preset = None
        for item in filter(None, text.split(",")):
            key, found, value = item.partition("=")
            if item in PRESETS and preset is None:
                preset = item
            elif found and key in KEYS:
                changes[key] = _parse(key, value)
                if value == IMAGENET and key == "mean":
                    changes.setdefault("std", STD)
            else:
                allowed = f"KEY=VALUE with KEY one of {', '.join(KEYS)}, or one of {', '.join(PRESETS)}"
                raise InputError(f"--preprocess {item!r}: expected {allowed}")
        return replace(self if preset is None else self._preset(preset, changes), **changes)

    def _preset(self, name: str, changes: Mapping[str, Any]) -> Preprocess:
        size = replace(self, **changes).size
        if size is None:
            raise InputError(f"--preprocess {name} needs the network's input size: {name},crop=HEIGHTxWIDTH")
        return PRESETS[name](*size)


def centred(height: int, width: int, interpolation: str = "bilinear", centre: float = CENTRE) -> Preprocess:
    """Return an evaluation on ImageNet: the centre of the image, normalised by ImageNet's mean and deviation.

    The shorter side is resized, so that the aspect ratio is kept; of an input that is not square, both are.

    Args:
        height, width: of the network's input.
        interpolation: one of ``INTERPOLATIONS``.
        centre: the part of each side that the crop leaves.
    """
    sides = (height,) if height == width else (height, width)
    resize = tuple(int(side / centre) for side in sides)
    return Preprocess(resize=resize, crop=(height, width), interpolation=interpolation, mean=MEAN, std=STD)


PRESETS: Mapping[str, Callable[[int, int], Preprocess]] = {
    "torchvision": centred,
    "timm": lambda height, width: centred(height, width, "bicubic"),
    "keras": lambda height, width: Preprocess(resize=(height, width)),
}
"""Names that ``--preprocess`` takes, to the preprocessing of a height and a width.

Sources: torchvision ``transforms/_presets.py``, ``ImageClassification``; timm ``data/config.py`` with the defaults of
``data/constants.py``; Keras ``applications/imagenet_utils.py``, mode ``tf`` (pixels to -1..1).
"""


def by_input(text: str) -> Mapping[str, str]:
    """Return the text of ``--preprocess`` for each input: ``TEXT``, ``NAME:TEXT``, or several with ``;`` between.

    The key of a text without a name is empty: it is of the image input.

    Raises:
        InputError: two are of one input.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        name, _, how = part.rpartition(":")
        if name in found:
            raise InputError(f"--preprocess {text}: {name or 'the image input'} twice; give each once")
        found[name] = how
    return found


def says_levels(text: str) -> bool:
    """Whether the text of ``--preprocess`` says the mean and the standard deviation."""
    items = set(text.split(","))
    said = {item.partition("=")[0] for item in items}
    return bool(items & {*PRESETS, f"mean={IMAGENET}"}) or {"mean", "std"} <= said


def _parse(key: str, value: str) -> Any:
    if key == "interpolation":
        return value
    if key in ("resize", "crop") and value == "none":
        return None
    if key in LEVELS and value == IMAGENET:
        return LEVELS[key]
    try:
        if key in ("resize", "crop"):
            return tuple(int(v) for v in value.split("x"))
        numbers = tuple(float(v) for v in value.split("/"))
    except ValueError:
        form = "HEIGHTxWIDTH or none" if key in ("resize", "crop") else "R/G/B, one number or imagenet"
        raise InputError(f"--preprocess {key}={value}: expected {form}") from None
    return numbers * 3 if len(numbers) == 1 else numbers
