"""The settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.quant import DEFAULT


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; the same config gives the same weights on the same machine and thread count.

    Attributes:
        model: a registered name.
        data: an image folder, ``FILE.npz`` or ``FILE.npz:SPLIT``, or ``demo``.
        output: the file to write (safetensors); checkpoint, metrics and plot stand beside it.
        weights: a file, ``demo``, or ``None``: start from a seeded initialisation.
        preprocess: ``KEY=VALUE,…`` over how the model's images are fed.
        label_offset: class ``k`` is logit ``k + label_offset``; ``None`` is what the weights say.
        epochs: passes over the training images.
        batch: images per step, over all processes; a rest at the end of an epoch is left out.
        optimizer: ``adamw`` (Loshchilov & Hutter 2019), or ``sgd`` with Nesterov momentum 0.9.
        lr: peak learning rate.
        schedule: ``cosine`` to zero, or ``step``: a tenth after half of the steps and again after three quarters.
        warmup: share of all steps in which the learning rate rises.
        weight_decay: not applied to biases and norms.
        label_smoothing: as in Szegedy et al. 2016, section 7.
        ema: decay of the weights' moving average per step; the average is what is kept.
        mixup: alpha of mixup's beta distribution (Zhang et al. 2018); 0 mixes nothing.
        rand_augment: random operations per image (RandAugment, Cubuk et al. 2020); 0 is none.
        magnitude: of RandAugment, 0 to 10.
        shift: largest random shift, as a share of the side.
        flip: mirror images at random; not for signs or letters.
        drop_connect: probability that the last residual branch is dropped in training, the others in proportion to
            their place; ``None`` is what the family says.
        images: training images of the demo data.
        val_images: held-out images of the demo data, scored after each epoch.
        precision: ``fp32``, or matrix products in ``bf16`` or ``fp16``.
        accelerator: ``cpu``, ``cuda``, or ``None``: CUDA where there is one.
        checkpoint_steps: steps between checkpoints; 0 is one after each epoch.
        seed: of initialisation, order and augmentation.

    Raises:
        InputError: a value is outside what is allowed.
    """

    model: str
    data: str
    output: Path
    weights: str | None = None
    preprocess: str | None = None
    label_offset: int | None = None
    epochs: int = 30
    batch: int = 64
    optimizer: str = "adamw"
    lr: float = 3e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    ema: float = 0.998
    mixup: float = 0.0
    rand_augment: int = 0
    magnitude: int = 9
    shift: float = 0.08
    flip: bool = False
    drop_connect: float | None = None
    images: int = 16000
    val_images: int = 1000
    precision: str = "fp32"
    accelerator: str | None = None
    checkpoint_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "images", "val_images", "calibration_images"):
            if getattr(self, name, 1) < 1:
                raise InputError(f"{_option(name)} {getattr(self, name)}: at least 1")
        for name, high in _LARGEST.items():
            value = getattr(self, name, None)
            if value is not None and not 0 <= value <= high:
                raise InputError(f"{_option(name)} {value}: allowed 0 to {high}")
        if self.lr == 0:
            raise InputError(f"{_option('lr')} 0 learns nothing; the default is {type(self).lr}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(unknown(_option(name), str(getattr(self, name)), filter(None, allowed)))
        if self.output.suffix != self.suffix:
            raise InputError(f"-o {self.output}: {self.product} is written as {self.suffix}")
        if self.weights == "random":
            raise InputError("--weights random: training starts from a seeded initialisation when none are given")

    suffix = ".safetensors"
    product = "what was trained"

    def beside(self, suffix: str) -> Path:
        """Return a file beside the output, of the same stem."""
        return self.output.with_suffix(suffix)

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values; a checkpoint goes on only with the same ones."""
        return {k: v for k, v in asdict(self).items() if k not in ("output", "checkpoint_steps", "accelerator")}


@dataclass(frozen=True, kw_only=True)
class QatConfig(TrainConfig):
    """A quantization-aware run: a float network, quantized by a recipe, learns on with its rounding.

    Attributes:
        weights: the float network; needed unless the model has demo weights or brings its own.
        recipe: as of ``edgecnn export``; its grids and integers are where training starts.
        calibration_images: training images that set the ranges.
        lr: peak learning rate; weights and biases learn in shares of their ranges, of which 1/127 is one integer.
        learn_steps: the scales of weights and activations learn too (LSQ, Esser et al. 2020).
        distill: share of the loss that asks for the float network's probabilities instead of the labels.
    """

    epochs: int = 4
    lr: float = 1e-4
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.99
    recipe: str = DEFAULT
    calibration_images: int = 300
    learn_steps: bool = False
    distill: float = 0.0

    suffix = ".edgecnn"
    product = "a quantized network"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_connect is not None:
            raise InputError("--drop-connect is for float training: a captured graph has no branches to drop")


_LARGEST: Mapping[str, float] = {
    "lr": 10, "weight_decay": 10, "label_smoothing": 0.9, "ema": 0.99999, "warmup": 0.9, "shift": 0.4, "mixup": 10,
    "rand_augment": 14, "magnitude": 10, "drop_connect": 0.9, "checkpoint_steps": 10**9, "seed": 2**31,
    "label_offset": 10**6, "distill": 1,
}  # fmt: skip
_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "step"),
    "precision": ("fp32", "bf16", "fp16"),
    "accelerator": ("cpu", "cuda", None),
}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
