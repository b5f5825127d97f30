"""Residual learning, shown: plain and residual networks of growing depth, and how hard the identity is.

    Setup ─► trials (a training each) ─► Findings: networks, deepened ones, and claims that the figures bear out or not

Source: He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), sections 1, 3.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgecnn.data import demo
from edgecnn.errors import InputError, unknown
from edgecnn.lab.claims import NETWORKS, Claim, Deepened, DepthResult, claims_of_depth, claims_of_identity
from edgecnn.lab.gradients import Reach, reach
from edgecnn.lab.identity import KINDS, Deepening
from edgecnn.lab.trials import OUTPUT, Result, Training, run_trials
from edgecnn.models.checkpoint import default_preprocess
from edgecnn.models.classifier import Classifier
from edgecnn.models.resnet import PLAIN
from edgecnn.models.rows import BasicRow
from edgecnn.models.spec import ModelSpec, named, resolve
from edgecnn.train import TrainConfig
from edgecnn.train.batches import fits, open_both, order
from edgecnn.train.loop import Watch

PROBED = 64  # images whose gradients are looked at
MOMENTS = 10  # of a run at which they are
SHALLOW = 0.33  # of the blocks of 20 layers: one in each stage, 8 layers, which learn fast
ADDED = 2  # blocks in each stage of the shallow network: 20 layers
LONGER = 3  # times the steps: where a network still learns fast, training on alone gains what more layers would
FASTER = 3  # times the rate: without the deep plain networks there is nothing that it breaks
WIDER = 2  # times the images of the demo data: smaller differences between smaller errors are to count


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Set what all networks of a study have in common; the defaults are the reduced form.

    Attributes:
        data: as of ``edgecnn train``.
        depths: layers, 6n + 2, two or more of them.
        width: multiplier of the channels (16, 32, 64).
        resolution: in pixels.
        steps: of each training; rounded to whole epochs, at least one.
        images, val_images: of the demo data.
        batch, lr, seed: as of ``edgecnn train``, whose optimizer, schedule and augmentation it is, without label
            smoothing and averaged weights.

    Raises:
        InputError: a value that is not allowed.
    """

    data: str = "demo"
    depths: tuple[int, ...] = PLAIN
    width: float = 0.5
    resolution: int = 32
    steps: int = 1000
    images: int = 2000
    val_images: int = 500
    batch: int = 32
    lr: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for depth in self.depths:
            if depth not in PLAIN:
                raise InputError(unknown("depth", str(depth), map(str, PLAIN)))
        if len(set(self.depths)) < 2:
            raise InputError("a study of depth needs two depths or more, such as --depths 20,56")
        if self.steps < 1:
            raise InputError(f"--steps {self.steps}: at least 1")
        self.model("plain", self.depths[0])

    def model(self, kind: str, layers: int, depth: float = 1.0) -> ModelSpec:
        """Return the spec of a network."""
        return named(f"{NETWORKS[kind]}{layers}", self.width, depth, self.resolution)

    def config(self, kind: str, layers: int, epochs: int) -> TrainConfig:
        """Return its training."""
        return TrainConfig(
            model=self.model(kind, layers).name, data=self.data, output=OUTPUT, epochs=epochs, batch=self.batch,
            lr=self.lr, label_smoothing=0.0, ema=0.0, images=self.images, val_images=self.val_images, seed=self.seed,
        )  # fmt: skip

    def shallow_config(self, epochs: int) -> TrainConfig:
        """Return the training of the network that is made deeper."""
        config = self.config("plain", PLAIN[0], epochs)
        more = WIDER * self.images if self.data == "demo" else self.images
        return replace(config, model=self.model("plain", PLAIN[0], SHALLOW).name, lr=FASTER * self.lr, images=more)


FULL = Setup(width=1.0, steps=6000, images=16000, batch=64)


# --- trials ---


@dataclass(frozen=True, kw_only=True)
class Depth(Training):
    """A training whose gradients are looked at on the same images, ``MOMENTS`` times."""

    def watch(self) -> Watch:
        """Return what looks at the gradients."""
        return _Probe(self.config)

    def result(self, watch: Watch | None, epochs: list[Result]) -> Result:
        """Return errors in percent, and the gradients' norms."""
        assert isinstance(watch, _Probe)
        return {"epochs": epochs, "gradients": [{"step": r.step, "norms": list(r.norms)} for r in watch.found]}


class _Probe:
    """Measure a run's gradients on the first images of its first epoch."""

    def __init__(self, config: TrainConfig) -> None:
        preprocess = default_preprocess(resolve(config.model).resolution)
        images, _ = open_both(config, preprocess)
        batches = order(config, 0, len(images.labels))
        chosen = batches.flatten()[:PROBED]
        self.x = torch.from_numpy(preprocess.normalise(images.pixels(chosen))).permute(0, 3, 1, 2)
        self.targets = torch.from_numpy(images.labels[chosen])
        self.every = max(1, config.epochs * len(batches) // MOMENTS)
        self.found: list[Reach] = []

    def __call__(self, module: torch.nn.Module, step: int) -> None:
        """Look on, as ``Watch`` says."""
        assert isinstance(module, Classifier)
        if (step - 1) % self.every == 0:
            place = module.classifier.weight.device
            self.found.append(reach(module, self.x.to(place), self.targets.to(place), step - 1))


# --- the study ---


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All of a study.

    Attributes:
        training_images: in an epoch.
        test_images: held out.
        guessing: the error of always naming the most frequent class of the training images, in percent.
        epochs: of each training.
        networks: plain ones, then residual ones, by depth.
        deepened_images: in an epoch of the network that is made deeper.
        deepened_epochs: of its training, and of training on.
        deepened: before, then by ``KINDS``.
        claims: of the paper.
    """

    training_images: int
    test_images: int
    guessing: float
    epochs: int
    networks: tuple[DepthResult, ...]
    deepened_images: int
    deepened_epochs: tuple[int, int]
    deepened: tuple[Deepened, ...]
    claims: tuple[Claim, ...]


def study(setup: Setup, *, folder: Path, workers: int | None, progress: Callable[[str], None]) -> Findings:
    """Train what is not trained yet, and judge the claims.

    Args:
        setup: what to train.
        folder: where results are kept, so that a stopped study goes on.
        workers: processes; ``None`` is one for each core.
        progress: gets a line for each training that is done.

    Raises:
        InputError: the data is wrong, or as ``run_trials``.
    """
    depths = sorted(set(setup.depths))
    seen, held_out, guessing = _drawn(setup.config("plain", depths[0], 1))
    more, _, guessing_more = _drawn(setup.shallow_config(1))
    wanted = ((setup.steps, seen), (LONGER * setup.steps, more), (setup.steps, more))
    epochs, before, on = (max(1, round(steps * setup.batch / images)) for steps, images in wanted)
    deepening = Deepening(config=setup.shallow_config(before), blocks=ADDED, epochs=on)
    order_of_work = [(kind, layers) for layers in reversed(depths) for kind in NETWORKS]  # the longest first
    runs = [Depth(config=setup.config(*one, epochs)) for one in order_of_work]
    rows, *results = run_trials([deepening, *runs], folder=folder, workers=workers, progress=progress)
    trained = dict(zip(order_of_work, results, strict=True))
    networks = tuple(
        DepthResult(
            model=setup.model(kind, layers).name, kind=kind, layers=layers, **_errors(trained[kind, layers]["epochs"]),
            gradients=tuple(Reach(step=g["step"], norms=tuple(g["norms"])) for g in trained[kind, layers]["gradients"]),
        )
        for kind in NETWORKS
        for layers in depths
    )  # fmt: skip
    stages = [row for row in resolve(deepening.config.model).rows if isinstance(row, BasicRow)]
    layers = 2 + 2 * sum(row.repeats for row in stages)  # the stem and the classifier, and two in each block
    deeper = (
        Deepened(added="nothing", layers=layers, **_errors(rows["before"])),
        *(Deepened(added=k, layers=layers + 2 * ADDED * len(stages), **_errors(rows[k])) for k in KINDS),
    )
    return Findings(
        training_images=seen, test_images=held_out, guessing=round(guessing, 2), epochs=epochs,
        networks=networks, deepened_images=more, deepened_epochs=(before, on), deepened=deeper,
        claims=(*claims_of_depth(networks, seen, guessing), *claims_of_identity(deeper, more, guessing_more)),
    )  # fmt: skip


def _drawn(config: TrainConfig) -> tuple[int, int, float]:
    """Return the images in an epoch, those held out, and ``guessing`` as of ``Findings``."""
    if config.data == "demo":
        fits(config, config.images)
        labels, held_out = demo.labels("train", range(config.images)), config.val_images
    else:
        training, tested = open_both(config, default_preprocess(resolve(config.model).resolution))
        labels, held_out = training.labels, len(tested.labels)
    guessing = 100 - 100 * float(np.bincount(labels).max()) / len(labels)
    return len(labels) // config.batch * config.batch, held_out, guessing


def _errors(epochs: list[Result]) -> Result:
    curve = tuple(round(100 - row["train_top1"], 2) for row in epochs)
    return {"training_error": curve[-1], "test_error": round(100 - epochs[-1]["val_top1"], 2), "curve": curve}
