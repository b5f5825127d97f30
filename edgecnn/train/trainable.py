"""Train a float network or a quantized graph: its loss, its images, and the file that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgecnn.data.training import TrainingImages
from edgecnn.errors import InputError
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.serialize import save
from edgecnn.image_inputs import require_preprocess
from edgecnn.loading import load
from edgecnn.models import resolve
from edgecnn.models.checkpoint import default_preprocess, demo_weights, load_weights, save_weights
from edgecnn.models.classifier import AUXILIARY, AUXILIARY_WEIGHT, build
from edgecnn.models.modules import set_drop_connect
from edgecnn.models.spec import ModelSpec
from edgecnn.network import Network
from edgecnn.preprocess import Preprocess
from edgecnn.quant.qat import QatGraph
from edgecnn.quant.recipe import recipe
from edgecnn.quantizing import quantize
from edgecnn.train.batches import open_both
from edgecnn.train.config import QatConfig, TrainConfig


@dataclass(kw_only=True)
class Trainable:
    """A network, and the images that it learns from and is scored on.

    Attributes:
        module: what learns.
        outputs: the number of logits.
        classes: the logit of each data class.
    """

    config: TrainConfig
    module: nn.Module
    outputs: int
    preprocess: Preprocess
    classes: NDArray[np.int64]
    training: TrainingImages
    held_out: TrainingImages

    def loss(self, outputs: Any, targets: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the mean cross entropy over the images, with the auxiliary heads' where there are some.

        Args:
            outputs: what the module made of ``x``.
            targets: (N, outputs) probabilities.
            x: (N, 3, H, W) network inputs.
        """
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)

        def loss(logits: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.config.label_smoothing)

        total = loss(main)
        for head in auxiliary:
            total = total + AUXILIARY_WEIGHT * loss(head)
        return total

    def write(self, average: nn.Module) -> None:
        """Write the output: the averaged weights. Atomic."""
        raise NotImplementedError


def open_trainable(config: TrainConfig, device: torch.device) -> Trainable:
    """Build or load what is to be trained, and open its images.

    Raises:
        InputError: the model, the weights or the images are wrong, or do not fit each other.
    """
    torch.manual_seed(config.seed)
    return _open_graph(config, device) if isinstance(config, QatConfig) else _open_float(config)


# --- float networks ---


@dataclass(kw_only=True)
class FloatTrainable(Trainable):
    """A registered model, and the safetensors file of its weights."""

    spec: ModelSpec
    labels: tuple[str, ...] | None

    def write(self, average: nn.Module) -> None:
        """Write the weights, without those of auxiliary heads."""
        kept = {name: value for name, value in average.state_dict().items() if not name.startswith(AUXILIARY)}
        plain = build(self.spec)
        plain.load_state_dict(kept)
        save_weights(plain, self.spec, self.config.output, preprocess=self.preprocess, labels=self.labels)


def _open_float(config: TrainConfig) -> Trainable:
    spec = resolve(config.model)
    if config.weights is None:
        preprocess = _overridden(default_preprocess(spec.resolution), config)
        training, held_out = open_both(config, preprocess)
        spec = replace(spec, num_classes=len(training.classes))
        module = build(spec, auxiliary=True)
        labels: tuple[str, ...] | None = training.classes
        classes = np.arange(spec.num_classes)
    else:
        given = config.weights
        module, source = demo_weights(spec) if given == "demo" else load_weights(spec, Path(given))
        if source.label_offset:
            raise InputError(f"{config.weights} has a background class in front; only --qat trains such a head")
        spec, labels = source.spec, source.labels
        preprocess = _overridden(source.preprocess, config)
        training, held_out = open_both(config, preprocess)
        classes = class_table(training, labels, spec.num_classes, config.label_offset or 0, config.data)
    if config.drop_connect is not None:
        set_drop_connect(module, config.drop_connect)
    return FloatTrainable(
        config=config, spec=spec, module=channels_last(module), outputs=spec.num_classes, preprocess=preprocess,
        classes=classes, labels=labels, training=training, held_out=held_out,
    )  # fmt: skip


def channels_last(module: nn.Module) -> nn.Module:
    """Lay a module out as the images come: no copies, and faster convolutions."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's stub


def _overridden(preprocess: Preprocess, config: TrainConfig) -> Preprocess:
    return preprocess.override(config.preprocess) if config.preprocess is not None else preprocess


def class_table(
    images: TrainingImages, labels: tuple[str, ...] | None, outputs: int, offset: int, where: str
) -> NDArray[np.int64]:
    """Map data class to logit: by name where both have names, else class ``k`` is logit ``k + offset``.

    Raises:
        InputError: the images have a class that the network has not, or another number of them.
    """
    names = images.classes
    numbered = names == tuple(str(k) for k in range(len(names)))
    if labels is not None and not numbered:
        strange = sorted(set(names) - set(labels))
        if strange:
            raise InputError(
                f"{where} has the class {strange[0]!r} ({len(strange)} such) that the weights lack; they know "
                f"{', '.join(labels[:20])}{', …' if len(labels) > 20 else ''}"
            )
        return np.array([labels.index(name) + offset for name in names], np.int64)
    room = outputs - offset
    if len(names) > room or (len(names) < room and not numbered):
        raise InputError(
            f"{where} has {len(names)} classes but the weights have {outputs} outputs; train without --weights, or "
            "name the folders by class index (0, 1, …)"
        )
    return np.arange(len(names)) + offset


# --- quantized graphs ---


@dataclass(kw_only=True)
class QatTrainable(Trainable):
    """A quantized graph, and the ``.edgecnn`` file that it becomes."""

    config: QatConfig
    teacher: TorchGraph | None

    def loss(self, outputs: Any, targets: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the cross entropy with the labels and, for the share ``distill``, the float network's probabilities.

        Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", at temperature 1.
        """
        loss = super().loss(outputs, targets, x)
        if self.teacher is None:
            return loss
        wanted = self.teacher(x.permute(0, 2, 3, 1)).reshape(outputs.shape).clone().softmax(1)
        share = self.config.distill
        return (1 - share) * loss + share * nn.functional.cross_entropy(outputs, wanted)

    def write(self, average: nn.Module) -> None:
        """Write the quantized graph."""
        assert isinstance(average, QatGraph)
        graph = average.quantized()
        settings = {k: v for k, v in self.config.identity().items() if k not in ("data", "weights")}
        record = {**(graph.metadata.quantization or {}), "qat": settings}
        save(replace(graph, metadata=replace(graph.metadata, quantization=record)), self.config.output)


def _open_graph(config: QatConfig, device: torch.device) -> Trainable:
    if config.precision != "fp32":
        raise InputError(f"--precision {config.precision} with --qat: the grids need fp32; leave it out")
    network = load(
        config.model, weights=config.weights, preprocess=config.preprocess, label_offset=config.label_offset,
        seed=config.seed,
    )  # fmt: skip
    metadata = network.graph.metadata
    if network.classes is None or list(network.inputs) != [network.graph.image_input]:
        takes = "one image and returns one vector of logits"
        raise InputError(f"training is of classifiers: a network that takes {takes}; this is {network!r}")
    outputs = network.classes
    training, held_out = open_both(config, require_preprocess(metadata))
    classes = class_table(training, metadata.labels, outputs, metadata.label_offset, config.data)
    if network.precision == "fp32":
        network = _post_training(config, network, training)
    return QatTrainable(
        config=config,
        module=QatGraph(network.graph, weight_limit=recipe(config.recipe).weight_limit, learn_steps=config.learn_steps),
        outputs=outputs, preprocess=require_preprocess(network.graph.metadata), classes=classes,
        teacher=TorchGraph(network.graph.as_float(), device=device) if config.distill else None,
        training=training, held_out=held_out,
    )  # fmt: skip


def _post_training(config: QatConfig, network: Network, training: TrainingImages) -> Network:
    """Quantize what training starts from, on training images without augmentation."""
    chosen = np.random.default_rng(config.seed).permutation(len(training.labels))[: config.calibration_images]
    given = require_preprocess(network.graph.metadata)
    cut = _fed(network, replace(given, resize=None, crop=None))  # training images have their size already
    count = config.calibration_images
    made = quantize(cut, training.pixels(chosen), recipe=config.recipe, calibration_images=count, seed=config.seed)
    return _fed(made, replace(require_preprocess(made.graph.metadata), resize=given.resize, crop=given.crop))


def _fed(network: Network, preprocess: Preprocess) -> Network:
    graph = network.graph
    return replace(network, graph=replace(graph, metadata=replace(graph.metadata, preprocess=preprocess)))
