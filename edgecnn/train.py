"""Training: a plain loop (AdamW, cosine schedule, label smoothing, EMA) that resumes to the same result.

Everything random in an epoch comes from ``(seed, epoch)``: a run that was stopped and resumed equals one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgecnn.errors import InputError
from edgecnn.files import write_atomic
from edgecnn.models.blocks import Classifier, build
from edgecnn.models.checkpoint import default_preprocess, save_weights
from edgecnn.models.spec import resolve
from edgecnn.preprocess import Preprocess
from edgecnn.progress import track


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; the same config gives the same weights on the same machine and thread count.

    Attributes:
        model: a registered name.
        data: an image folder, or ``demo``.
        output: the weight file to write (safetensors); checkpoint and metrics stand beside it.
        epochs: passes over the training images.
        batch: images per step.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW; not applied to biases and norms.
        warmup: share of all steps in which the learning rate rises.
        label_smoothing: as in Szegedy et al. 2016, section 7.
        ema: decay of the weights' moving average per step; the average is what is kept.
        shift: largest random shift, as a share of the side.
        flip: mirror images at random; not for signs or letters.
        images: training images of the demo data.
        val_images: held-out images of the demo data, scored after each epoch.
        seed: of initialisation, order and augmentation.
    """

    model: str
    data: str
    output: Path
    epochs: int = 30
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    label_smoothing: float = 0.1
    ema: float = 0.998
    shift: float = 0.08
    flip: bool = False
    images: int = 16000
    val_images: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "images", "val_images"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: at least 1")
        largest = {"lr": 10, "weight_decay": 10, "label_smoothing": 0.9, "ema": 0.99999, "warmup": 0.9, "shift": 0.4}
        for name, high in largest.items():
            if not 0 <= getattr(self, name) <= high:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}: allowed 0 to {high}")
        if self.output.suffix != ".safetensors":
            raise InputError(f"-o {self.output}: weights are written as .safetensors")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out: the file, the accuracy of the averaged weights on held-out images (percent), seconds."""

    weights: Path
    val_top1: float
    seconds: float


class TrainingImages(Protocol):
    """Images by index, decoded to the model's resolution."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """One class index per image."""

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 of the images at ``indices``."""


class DemoImages:
    """A part of the demo data, drawn once."""

    def __init__(self, split: str, count: int, resolution: int, seed: int = 0) -> None:
        from edgecnn import demo

        self.classes = demo.CLASSES
        parts = [
            demo.images(split, range(i, min(i + 256, count)), seed)
            for i in track(range(0, count, 256), f"draw {split}", math.ceil(count / 256))
        ]
        pixels = np.concatenate([p for p, _ in parts])
        self.labels = np.concatenate([y for _, y in parts])
        self._pixels = pixels if resolution == demo.SIZE else _resized(pixels, resolution)

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8."""
        return self._pixels[indices]


def _resized(pixels: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    from edgecnn.data import resize_arrays

    return resize_arrays(pixels, default_preprocess(resolution))


def train(config: TrainConfig) -> TrainResult:
    """Train, keeping a checkpoint after each epoch; a checkpoint beside the output is resumed.

    Raises:
        InputError: the data or the config is wrong, the checkpoint is of another run, or the loss is not finite.
    """
    start = time.perf_counter()
    spec = resolve(config.model)
    training, held_out = _open(config, spec.resolution)
    spec = replace(spec, num_classes=len(training.classes))
    preprocess = default_preprocess(spec.resolution)
    torch.manual_seed(config.seed)
    model, average = _channels_last(build(spec)), _channels_last(build(spec))
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(_groups(model, config.weight_decay), lr=config.lr)
    first = _resume(config, model, average, optimizer)
    steps = math.ceil(len(training.labels) / config.batch)
    top1 = _score(average, held_out, preprocess) if first == config.epochs else 0.0
    for epoch in range(first, config.epochs):
        loss = _epoch(config, epoch, steps, model, average, optimizer, training, preprocess)
        top1 = _score(average, held_out, preprocess)
        _log(config, {"epoch": epoch + 1, "loss": round(loss, 4), "val_top1": round(top1, 2),
                      "seconds": round(time.perf_counter() - start, 1)})  # fmt: skip
        _checkpoint(config, epoch + 1, model, average, optimizer)
    save_weights(average, spec, config.output, preprocess=preprocess, labels=training.classes)
    return TrainResult(weights=config.output, val_top1=top1, seconds=time.perf_counter() - start)


def _channels_last(model: Classifier) -> Classifier:
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's stub


def _open(config: TrainConfig, resolution: int) -> tuple[TrainingImages, TrainingImages]:
    if config.data == "demo":
        return DemoImages("train", config.images, resolution), DemoImages("val", config.val_images, resolution)
    from edgecnn.data import open_training_folder

    return open_training_folder(Path(config.data), default_preprocess(resolution), config.seed)


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _epoch(
    config: TrainConfig, epoch: int, steps: int, model: Classifier, average: Classifier,
    optimizer: torch.optim.Optimizer, training: TrainingImages, preprocess: Preprocess,
) -> float:  # fmt: skip
    torch.manual_seed(config.seed * 1_000_003 + epoch)
    rng = np.random.default_rng([config.seed, epoch])
    total = 0.0
    model.train()
    for step, (pixels, labels) in enumerate(track(_batches(config, training, rng), f"epoch {epoch + 1}", steps)):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _schedule((epoch * steps + step + 1) / (config.epochs * steps), config.warmup)
        x = torch.from_numpy(preprocess.normalise(pixels)).permute(0, 3, 1, 2)
        loss = nn.functional.cross_entropy(model(x), torch.from_numpy(labels), label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        _average(average, model, min(config.ema, (epoch * steps + step + 1) / (epoch * steps + step + 10)))
        total += float(loss.detach())
    if not math.isfinite(total):
        raise InputError(f"the loss became {total} in epoch {epoch + 1}; lower --lr (now {config.lr})")
    return total / steps


def _schedule(progress: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017)."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)


def _batches(
    config: TrainConfig, training: TrainingImages, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    order = rng.permutation(len(training.labels))
    for i in range(0, len(order), config.batch):
        chosen = order[i : i + config.batch]
        yield _augment(training.pixels(chosen), rng, config), training.labels[chosen]


def _augment(pixels: NDArray[np.uint8], rng: np.random.Generator, config: TrainConfig) -> NDArray[np.uint8]:
    """Shift (edges repeated), mirror if asked, brightness, contrast; uint8 NHWC in and out."""
    out = np.empty_like(pixels)
    reach = int(config.shift * pixels.shape[1])
    for i, image in enumerate(pixels):
        dy, dx = (int(v) for v in rng.integers(-reach, reach + 1, 2))
        rows = np.clip(np.arange(image.shape[0]) + dy, 0, image.shape[0] - 1)
        columns = np.clip(np.arange(image.shape[1]) + dx, 0, image.shape[1] - 1)
        moved = image[rows][:, columns]
        if config.flip and rng.random() < 0.5:
            moved = moved[:, ::-1]
        gain, lift = 0.75 + 0.5 * rng.random(), 30 * (rng.random() - 0.5)
        table = np.clip(np.arange(256) * gain + lift, 0, 255).astype(np.uint8)
        out[i] = table[moved]
    return out


def _score(model: Classifier, images: TrainingImages, preprocess: Preprocess) -> float:
    """Top-1 in percent."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for i in range(0, len(images.labels), 100):
            chosen = np.arange(i, min(i + 100, len(images.labels)))
            x = torch.from_numpy(preprocess.normalise(images.pixels(chosen))).permute(0, 3, 1, 2)
            right += int((model(x).argmax(1).numpy() == images.labels[chosen]).sum())
    return 100 * right / len(images.labels)


def _beside(config: TrainConfig, suffix: str) -> Path:
    return config.output.with_suffix(suffix)


def _identity(config: TrainConfig) -> dict[str, Any]:
    return {**asdict(config), "output": None}


def _checkpoint(
    config: TrainConfig, epoch: int, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    import io

    buffer = io.BytesIO()
    torch.save(
        {
            "config": json.dumps(_identity(config), sort_keys=True),
            "epoch": epoch,
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        buffer,
    )
    write_atomic(_beside(config, ".checkpoint.pt"), buffer.getvalue())


def _resume(config: TrainConfig, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Epochs already done."""
    path = _beside(config, ".checkpoint.pt")
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    mine, theirs = _identity(config), json.loads(state["config"])
    differs = [f"{k} is {theirs.get(k)!r} there, {v!r} here" for k, v in mine.items() if theirs.get(k) != v]
    if differs:
        raise InputError(f"{path} is of another run ({'; '.join(differs)}); delete it or choose another -o")
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"])


def _log(config: TrainConfig, row: dict[str, Any]) -> None:
    path = _beside(config, ".metrics.jsonl")
    kept = (
        [line for line in path.read_text().splitlines() if json.loads(line)["epoch"] < row["epoch"]]
        if path.exists()
        else []
    )
    write_atomic(path, ("\n".join([*kept, json.dumps(row)]) + "\n").encode())
