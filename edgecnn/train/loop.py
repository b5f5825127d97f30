"""The loop: batches in, steps, a score after each epoch, a checkpoint, and at the end the file and the curves."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgecnn.errors import InputError
from edgecnn.files import require_writable
from edgecnn.progress import track
from edgecnn.train import history, schedule
from edgecnn.train.augment import prepare
from edgecnn.train.batches import order
from edgecnn.train.config import TrainConfig
from edgecnn.train.distributed import Group, group
from edgecnn.train.state import SUFFIX, Progress, State, resume, save
from edgecnn.train.trainable import Trainable, open_trainable

METRICS, PLOT = ".metrics.jsonl", ".svg"
SCORE_BATCH = 100
T = TypeVar("T")
Batch = tuple[torch.Tensor, torch.Tensor]  # network inputs (N, 3, H, W) and targets (N, outputs)
Watch = Callable[[nn.Module, int], None]
"""Looks on in every step, counted from 1: called with the module when its gradients are there, before it is changed."""
Opener = Callable[[TrainConfig, torch.device], Trainable]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Hold what a training run made.

    Attributes:
        weights: the file.
        val_top1: of the averaged weights on held-out images, in percent.
        seconds: of this call.
        leader: whether this process is the one of its group that wrote the file.
    """

    weights: Path
    val_top1: float
    seconds: float
    leader: bool = True


def train(config: TrainConfig, watch: Watch | None = None, opener: Opener = open_trainable) -> TrainResult:
    """Train, or go on from the checkpoint beside the output.

    Started by ``torchrun``, the processes train one network together.

    Args:
        config: the run.
        watch: looks on in every step that this call makes; of ``fp16`` it sees scaled gradients.
        opener: makes what is trained, where that is not what ``config.model`` names.

    Raises:
        InputError: the data or the config is wrong, the checkpoint is of another run, or the loss is not finite.
    """
    start = time.perf_counter()
    require_writable(config.output.parent)
    with group(config) as processes:
        run = _Run(processes, opener(config, processes.device), start, watch)
        run.all_epochs()
        if processes.rank == 0:
            run.trainable.write(run.state.average)
            history.draw(config.beside(PLOT), config.model, history.read(config.beside(METRICS)))
        return TrainResult(
            weights=config.output, val_top1=run.val_top1, seconds=time.perf_counter() - start,
            leader=processes.rank == 0,
        )  # fmt: skip


class _Run:
    """One run under way."""

    def __init__(self, processes: Group, trainable: Trainable, start: float, watch: Watch | None) -> None:
        self.group, self.trainable, self.start, self.watch = processes, trainable, start, watch
        self.config = config = trainable.config
        module = trainable.module.to(processes.device)
        self.state = State(
            module=module, average=copy.deepcopy(module), optimizer=schedule.optimizer(config, module),
            scaler=torch.amp.GradScaler(processes.device.type, enabled=config.precision == "fp16"),
            progress=Progress(),
        )  # fmt: skip
        resume(config, self.state)
        self.module = processes.whole_batch(module)
        self.val_top1 = math.nan

    def all_epochs(self) -> None:
        """Train to the end; score once where nothing is left to do."""
        if self.state.progress.epoch == self.config.epochs:
            self.val_top1 = self.score()
        while self.state.progress.epoch < self.config.epochs:
            self.epoch()

    def epoch(self) -> None:
        """Do the rest of one epoch, its score, its line in the metrics, its checkpoint."""
        config, progress = self.config, self.state.progress
        chosen = order(config, progress.epoch, len(self.trainable.training.labels))
        steps = len(chosen)
        batches = prefetched(self.batch(progress.epoch, indices) for indices in chosen[progress.step :])
        self.module.train()
        for batch in track(batches, f"epoch {progress.epoch + 1}", steps - progress.step, unit="batches"):
            self.step(batch, progress.epoch * steps + progress.step + 1, config.epochs * steps)
            progress.step += 1
            if config.checkpoint_steps and progress.step % config.checkpoint_steps == 0 and progress.step < steps:
                self.require_finite()
                self.keep()
        self.require_finite()
        loss, right = progress.sums
        self.val_top1 = self.score()
        row = {
            "epoch": progress.epoch + 1,
            "lr": schedule.learning_rate(config, (progress.epoch + 1) / config.epochs),
            "loss": round(loss / steps, 4),
            "train_top1": round(100 * right / chosen.size, 2),
            "val_top1": round(self.val_top1, 2),
            "seconds": round(time.perf_counter() - self.start, 1),
        }
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, [0.0, 0.0]
        if self.group.rank == 0:
            history.log(config.beside(METRICS), row)
        self.keep()

    def require_finite(self) -> None:
        """Check that every weight is a number; before anything is kept.

        Raises:
            InputError: one is not; the checkpoint before it stays.
        """
        for name, value in self.state.module.named_parameters():
            if not bool(value.isfinite().all()):
                self.stop(
                    f"{name} holds NaN or infinity after {self.state.progress.step} steps of epoch "
                    f"{self.state.progress.epoch + 1}"
                )

    def stop(self, what: str) -> NoReturn:
        """Say what went wrong, and what is left."""
        kept = self.config.beside(SUFFIX)
        said = f"{kept} holds the run before it" if kept.exists() else "no checkpoint was written yet"
        raise InputError(f"{what}; lower --lr (now {self.config.lr}); {said}")

    def keep(self) -> None:
        """Write the checkpoint, in the one process that writes."""
        if self.group.rank == 0:
            save(self.config, self.state)

    def batch(self, epoch: int, indices: NDArray[np.int64]) -> Batch:
        """Return this process' share of a batch, augmented."""
        mine, images = self.group.share(indices), self.trainable.training
        targets = np.zeros((len(mine), self.trainable.outputs), np.float32)
        targets[np.arange(len(mine)), self.trainable.classes[images.labels[mine]]] = 1
        levels, targets = prepare(self.config, epoch, mine, images.pixels(mine), targets)
        return self.fed(levels), torch.from_numpy(targets).to(self.group.device)

    def fed(self, levels: NDArray[np.uint8] | NDArray[np.float32]) -> torch.Tensor:
        """Turn levels 0..255, NHWC, into network inputs, NCHW."""
        x = torch.from_numpy(self.trainable.preprocess.normalise(levels))
        return x.permute(0, 3, 1, 2).to(self.group.device)

    def step(self, batch: Batch, step: int, steps: int) -> None:
        """Take one step, counted from 1, of so many in the run.

        Raises:
            InputError: the loss is not finite; the checkpoint before it stays.
        """
        config, state = self.config, self.state
        x, targets = batch
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout and dropped branches
        rate = schedule.learning_rate(config, step / steps)
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = rate
        low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
        with torch.autocast(self.group.device.type, dtype=low, enabled=low is not None):
            outputs = self.module(x)
        loss = self.trainable.loss(outputs, targets, x)
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's stub
        if self.watch is not None:
            self.watch(state.module, step)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        schedule.average(state.average, state.module, config.ema, step)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs  # GoogLeNet adds its auxiliary heads'
        right = (logits.argmax(1) == targets.argmax(1)).sum()
        figures = self.group.total([float(loss.detach()) / self.group.size, float(right)])
        if not math.isfinite(figures[0]):
            self.stop(f"the loss became {figures[0]} in step {step} of {steps}")
        state.progress.sums = [a + b for a, b in zip(state.progress.sums, figures, strict=True)]

    @torch.inference_mode()
    def score(self) -> float:
        """Return the top-1 of the averaged weights on the held-out images, in percent; each process scores its part."""
        self.state.average.eval()
        images, right = self.trainable.held_out, 0
        for i in range(self.group.rank * SCORE_BATCH, len(images.labels), self.group.size * SCORE_BATCH):
            chosen = np.arange(i, min(i + SCORE_BATCH, len(images.labels)))
            answers = self.state.average(self.fed(images.pixels(chosen))).argmax(1).cpu().numpy()
            right += int((answers == self.trainable.classes[images.labels[chosen]]).sum())
        return 100 * self.group.total([float(right)])[0] / len(images.labels)


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, each made by a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, items, None)
        while (item := ahead.result()) is not None:
            ahead = pool.submit(next, items, None)
            yield item
