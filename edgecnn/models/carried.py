"""Preprocessing that a torch module carries: timm's ``pretrained_cfg``, torchvision's ``transforms``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeGuard

from edgecnn.errors import InputError
from edgecnn.preprocess import CENTRE, INTERPOLATIONS, Preprocess, centred

Size = tuple[int, int]
LEVEL = 255.0  # both libraries normalise pixels in 0..1


class Transforms(Protocol):
    """What ``weights.transforms()`` of torchvision returns for a classifier (``transforms/_presets.py``)."""

    crop_size: Sequence[int]
    resize_size: Sequence[int]
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: Any


def is_transforms(given: object) -> TypeGuard[Transforms]:
    """Whether an object is torchvision's ``ImageClassification``, by its attributes."""
    return all(hasattr(given, name) for name in Transforms.__annotations__)


def of_transforms(transforms: Transforms) -> Preprocess:
    """Return the preprocessing of torchvision's transforms.

    Raises:
        InputError: they interpolate in a way that is not among ``INTERPOLATIONS``.
    """
    crop = tuple(transforms.crop_size) * 2 if len(transforms.crop_size) == 1 else tuple(transforms.crop_size)
    named = getattr(transforms.interpolation, "value", transforms.interpolation)
    return Preprocess(
        resize=tuple(transforms.resize_size),
        crop=(crop[0], crop[1]),
        interpolation=_interpolation(str(named)),
        mean=_levels(transforms.mean),
        std=_levels(transforms.std),
    )


def of_timm(config: Mapping[str, Any], size: Size | None) -> Preprocess:
    """Return the preprocessing of timm's ``pretrained_cfg``; its rules are those of timm's ``data/config.py``.

    Args:
        config: of the module.
        size: height and width of the input; ``None`` is the configuration's.

    Raises:
        InputError: it interpolates in a way that is not among ``INTERPOLATIONS``.
    """
    height, width = size or config["input_size"][-2:]
    fed = centred(height, width, _interpolation(config["interpolation"]), config.get("crop_pct") or CENTRE)
    if config.get("crop_mode") == "squash":
        fed = replace(fed, resize=(fed.resize or (height,)) * 2 if height == width else fed.resize)
    return replace(fed, mean=_levels(config["mean"]), std=_levels(config["std"]))


def carried(module: object, size: Size | None) -> tuple[Preprocess, str] | None:
    """Return the preprocessing that a module carries, and where, or ``None``.

    Args:
        module: with timm's ``pretrained_cfg``, or with torchvision's transforms as the attribute ``transforms``.
        size: height and width of the input, where the caller says them.
    """
    config = getattr(module, "pretrained_cfg", None)
    config = config if isinstance(config, Mapping) else vars(config) if hasattr(config, "input_size") else None
    if config is not None and all(config.get(key) for key in ("mean", "std", "input_size", "interpolation")):
        return of_timm(config, size), "timm's pretrained_cfg"
    transforms = getattr(module, "transforms", None)
    return (of_transforms(transforms), "its transforms") if is_transforms(transforms) else None


def _levels(values: Sequence[float]) -> tuple[float, ...]:
    """Return numbers for pixels in 0..255."""
    return tuple(round(LEVEL * float(value), 6) for value in values)


def _interpolation(name: str) -> str:
    if name not in INTERPOLATIONS:
        allowed = ", ".join(INTERPOLATIONS)
        raise InputError(f"the module's preprocessing interpolates by {name!r}; pass --preprocess with {allowed}")
    return name
