"""Train models shortly, from several seeds each, and say how far their figures must lie apart to mean something."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgecnn.allocator import require_memory
from edgecnn.data.training import open_training
from edgecnn.errors import InputError
from edgecnn.lab.compound import scalable
from edgecnn.lab.trials import OUTPUT, Training, run_trials
from edgecnn.models import resolve
from edgecnn.models.checkpoint import default_preprocess
from edgecnn.models.count import size_of
from edgecnn.models.spec import ModelSpec
from edgecnn.train import TrainConfig

COPIES = 5  # of each weight in training: itself, its average, its gradient, and AdamW's two moments
SURE = 2.0  # standard errors of a difference: what chance alone exceeds in one of twenty pairs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every model of a study is trained; no drop connect and no smoothing, which short trainings do not reward.

    Attributes:
        data, epochs, batch, lr, images, val_images: as of ``TrainConfig``.
        seeds: trainings of each model, of seeds 0, 1, …
        folder: where results are kept.
        workers: processes; ``None`` is one for each core.

    Raises:
        InputError: a value is not allowed.
    """

    folder: Path
    data: str = "demo"
    epochs: int = 7
    batch: int = 32
    lr: float = 4e-3
    images: int = 2000
    val_images: int = 1000
    seeds: int = 2
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds {self.seeds}: at least 1; two or more tell chance from difference")

    def trial(self, spec: ModelSpec, seed: int) -> Training:
        """Return one training."""
        config = TrainConfig(
            model=spec.name, data=self.data, output=OUTPUT, epochs=self.epochs, batch=self.batch, lr=self.lr,
            label_smoothing=0.0, ema=0.98, drop_connect=0.0, images=self.images, val_images=self.val_images,
            accelerator="cpu", seed=seed,
        )  # fmt: skip
        return Training(config=config)

    def base(self, name: str) -> ModelSpec:
        """Return the model that a study makes larger, with a logit for each class of the data.

        Raises:
            InputError: no such model, or the data are not as ``edgecnn.data`` says.
        """
        spec = resolve(name)
        scalable(spec.family)
        training, _ = open_training(self.data, default_preprocess(spec.resolution), seed=0, drawn=(1, 1))
        return replace(spec, num_classes=len(training.classes))

    def to_json(self) -> dict[str, Any]:
        """Return what decides the results."""
        return {k: v for k, v in asdict(self).items() if k not in ("folder", "workers")}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A model, and what it reached.

    Attributes:
        model: its name.
        macs: counted.
        parameters: counted.
        runs: top-1 on held-out images after each training, in percent.
    """

    model: str
    macs: int
    parameters: int
    runs: tuple[float, ...]

    @property
    def top1(self) -> float:
        """Return the mean, in percent."""
        return statistics.fmean(self.runs)

    @property
    def spread(self) -> float | None:
        """Return the standard deviation over the seeds, in points; ``None`` for one seed."""
        return statistics.stdev(self.runs) if len(self.runs) > 1 else None


def score(specs: Sequence[ModelSpec], plan: Plan, say: Callable[[str], None]) -> list[Scored]:
    """Train them all, or find the results of trainings that were done before.

    Args:
        specs: of as many classes as the data has, so that what is counted is what is trained.
        plan: how.
        say: gets a line for each training that is done.

    Raises:
        InputError: as ``run_trials``; or a model needs more memory than there is.
    """
    trials = {(spec.name, seed): plan.trial(spec, seed) for spec in specs for seed in range(plan.seeds)}
    sides = {spec.name: spec.resolution for spec in specs}
    turns = sorted(trials, key=lambda k: (sides[k[0]], k))  # images of one size are drawn once
    for spec in specs:
        size = size_of(spec)
        require_memory(f"training {spec.name}", 4 * (COPIES * size.parameters + plan.batch * size.activations))
    results = run_trials([trials[k] for k in turns], folder=plan.folder / "trials", workers=plan.workers, progress=say)
    top1 = {turn: float(result["val_top1"]) for turn, result in zip(turns, results, strict=True)}
    runs = {spec.name: tuple(top1[spec.name, seed] for seed in range(plan.seeds)) for spec in specs}
    return [
        Scored(model=spec.name, macs=size_of(spec).macs, parameters=size_of(spec).parameters, runs=runs[spec.name])
        for spec in specs
    ]


def margin(scored: Iterable[Scored]) -> float | None:
    """Return the difference of two means, in points, that chance alone rarely exceeds; ``None`` if no model ran twice.

    ``SURE * s * sqrt(2 / n)``: s is the standard deviation of one run, pooled over all models, n the runs of each.
    """
    several = [s.runs for s in scored if len(s.runs) > 1]
    if not several:
        return None
    one_run = math.sqrt(statistics.fmean(statistics.variance(runs) for runs in several))
    return SURE * one_run * math.sqrt(2 / min(map(len, several)))
