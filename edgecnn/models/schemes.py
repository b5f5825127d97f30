"""The naming schemes of weight files people bring. A scheme is known by its keys, and says what the weights imply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from edgecnn.errors import InputError
from edgecnn.models.rows import ConvRow, InvertedRow, SeparableRow
from edgecnn.models.spec import ModelSpec
from edgecnn.preprocess import Preprocess

Arrange = Callable[[torch.Tensor], torch.Tensor]
Names = dict[str, tuple[str, Arrange]]  # our name to their name, and how their tensor becomes ours
Convolutions = Iterator[tuple[str, str, bool]]  # our prefix, their prefix, depthwise


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One naming scheme.

    Attributes:
        name: for messages.
        family: the family it is of.
        key: a tensor name that only this scheme has.
        head: the classifier's weight; its classes stand in dimension ``class_axis``.
        padding: of the network that was trained.
        folded: whether batch norm is folded into the convolutions.
        bn_eps: batch norm's epsilon.
        names: our names to theirs.
        preprocess: of a resolution.
        background: a head of this many classes has a background class in front.
    """

    name: str
    family: str
    key: str
    head: str
    class_axis: int
    padding: str
    folded: bool
    bn_eps: float
    names: Callable[[ModelSpec], Names]
    preprocess: Callable[[int], Preprocess]
    background: int | None = None

    def matches(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether the tensors are named this way."""
        return self.key in tensors

    def classes(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """Logits of the head.

        Raises:
            InputError: there is no head, or it is no matrix.
        """
        if self.head not in tensors:
            raise InputError(f"the weights ({self.name}) lack the classifier's tensor {self.head!r}")
        shape = tuple(tensors[self.head].shape)
        if len(shape) not in (2, 4):
            raise InputError(f"the weights ({self.name}): the classifier's tensor {self.head!r} has shape {shape}")
        return shape[self.class_axis]

    def label_offset(self, classes: int) -> int:
        """1 for a head with a background class in front, else 0."""
        return 1 if classes == self.background else 0


def _as_is(t: torch.Tensor) -> torch.Tensor:
    return t


def _ohwi(t: torch.Tensor) -> torch.Tensor:
    return t.permute(0, 3, 1, 2)


def _one_hwc(t: torch.Tensor) -> torch.Tensor:
    return t.permute(3, 0, 1, 2)


def _hwio(t: torch.Tensor) -> torch.Tensor:
    return t.permute(3, 2, 0, 1)


def _hwc_one(t: torch.Tensor) -> torch.Tensor:
    return t.permute(2, 3, 0, 1)


def _flat_first(t: torch.Tensor) -> torch.Tensor:
    return t.reshape(t.shape[0], -1)


def _flat_last(t: torch.Tensor) -> torch.Tensor:
    return t.reshape(-1, t.shape[-1]).T


def _google_v2(spec: ModelSpec) -> Names:
    """TensorFlow-slim scopes, batch norm folded; OHWI, depthwise 1HWC."""
    names: Names = {}

    def add(ours: str, theirs: str, arrange: Arrange) -> None:
        names[f"{ours}.weight"] = (f"{theirs}.weight", arrange)
        names[f"{ours}.bias"] = (f"{theirs}.bias", _as_is)

    add("features.0.conv", "Conv2d_0_0", _ohwi)
    index = 0
    for row in spec.rows:
        for _ in range(row.repeats if isinstance(row, InvertedRow) else 0):
            index += 1
            block = f"expanded_conv_{index}"
            if isinstance(row, InvertedRow) and row.expand != 1:
                add(f"features.{index}.expand.conv", f"{block}.expand", _ohwi)
            add(f"features.{index}.depthwise.conv", f"{block}.depthwise", _one_hwc)
            add(f"features.{index}.project.conv", f"{block}.project", _ohwi)
    add(f"features.{index + 1}.conv", f"Conv2d_{index + 1}_1", _ohwi)
    add("classifier", "top.Conv2d_1x1_output", _flat_first)
    return names


def _keras_v1(spec: ModelSpec) -> Names:
    """Keras layer names; HWIO, depthwise HWC1, batch norm apart, the head a 1x1 convolution."""
    names: Names = {}

    def add(ours: str, kernel: str, norm: str, arrange: Arrange) -> None:
        names[f"{ours}.conv.weight"] = (kernel, arrange)
        parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        for part, theirs in parts.items():
            names[f"{ours}.bn.{part}"] = (f"{norm}/{theirs}", _as_is)

    add("features.0", "conv1/kernel", "conv1_bn", _hwio)
    for index, row in enumerate(spec.rows):
        if isinstance(row, SeparableRow):
            dw, pw = f"conv_dw_{index}", f"conv_pw_{index}"
            add(f"features.{index}.depthwise", f"{dw}/depthwise_kernel", f"{dw}_bn", _hwc_one)
            add(f"features.{index}.pointwise", f"{pw}/kernel", f"{pw}_bn", _hwio)
    names["classifier.weight"] = ("conv_preds/kernel", _flat_last)
    names["classifier.bias"] = ("conv_preds/bias", _as_is)
    return names


def _torchvision_v2(spec: ModelSpec) -> Names:
    """torchvision.models.mobilenet_v2; OIHW, batch norm apart."""
    names: Names = {}

    def add(ours: str, conv: str, norm: str) -> None:
        names[f"{ours}.conv.weight"] = (f"{conv}.weight", _as_is)
        for part in ("weight", "bias", "running_mean", "running_var"):
            names[f"{ours}.bn.{part}"] = (f"{norm}.{part}", _as_is)

    index = 0
    for row in spec.rows:
        if isinstance(row, ConvRow):
            add(f"features.{index}", f"features.{index}.0", f"features.{index}.1")
            index += 1
        elif isinstance(row, InvertedRow):
            for repeat in range(row.repeats):
                ours, theirs = f"features.{index}", f"features.{index}.conv"
                step = 0
                if row.expand != 1:
                    add(f"{ours}.expand", f"{theirs}.0.0", f"{theirs}.0.1")
                    step = 1
                add(f"{ours}.depthwise", f"{theirs}.{step}.0", f"{theirs}.{step}.1")
                add(f"{ours}.project", f"{theirs}.{step + 1}", f"{theirs}.{step + 2}")
                index += 1
                assert repeat >= 0
    names["classifier.weight"] = ("classifier.1.weight", _as_is)
    names["classifier.bias"] = ("classifier.1.bias", _as_is)
    return names


def _squash(resolution: int) -> Preprocess:
    return Preprocess(resize=(resolution, resolution))


def _imagenet(resolution: int) -> Preprocess:
    return Preprocess(
        resize=(round(resolution / 0.875),),
        crop=(resolution, resolution),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    )


SCHEMES = (
    Scheme(
        name="Google's MobileNetV2, batch norm folded",
        family="mobilenet_v2",
        key="expanded_conv_1.depthwise.weight",
        head="top.Conv2d_1x1_output.weight",
        class_axis=0,
        padding="same",
        folded=True,
        bn_eps=1e-3,
        names=_google_v2,
        preprocess=_squash,
        background=1001,
    ),
    Scheme(
        name="Keras MobileNetV1",
        family="mobilenet_v1",
        key="conv_dw_1/depthwise_kernel",
        head="conv_preds/kernel",
        class_axis=-1,
        padding="same",
        folded=False,
        bn_eps=1e-3,
        names=_keras_v1,
        preprocess=_squash,
    ),
    Scheme(
        name="torchvision's MobileNetV2",
        family="mobilenet_v2",
        key="features.1.conv.0.0.weight",
        head="classifier.1.weight",
        class_axis=0,
        padding="symmetric",
        folded=False,
        bn_eps=1e-5,
        names=_torchvision_v2,
        preprocess=_imagenet,
    ),
)
