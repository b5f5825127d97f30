"""Key maps: whose names the tensors of a weight file have, and what these weights imply."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.models.key_maps import layer_names, preprocessing
from edgecnn.models.key_maps.preprocessing import Tensors
from edgecnn.models.key_maps.sources import KERAS, SLIM, TORCH, LayerNames, Style, TensorSource, tensor_sources
from edgecnn.models.rows import SAME, SYMMETRIC
from edgecnn.models.spec import ModelSpec
from edgecnn.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """How one library names the tensors of some families, and what its weights imply.

    Attributes:
        name: how ``--convention`` calls it; with the family it is unique.
        families: the families whose weights are named so.
        signature: tensor names that only this key map has, in each of its files.
        table: role to their names.
        style: layout of their tensors.
        preprocess: of a resolution and the tensors.
        padding: of the network that was trained.
        bn_eps: batch norm's epsilon.
        folded: batch norm is folded into the convolutions.
        stride_in: see ``ModelSpec``.
        biased, bgr: see ``sources.tensor_sources``.
        unused: beginnings of names that inference needs not.
        background: a head of this many classes has a background class in front.
    """

    name: str
    families: tuple[str, ...]
    signature: tuple[str, ...]
    table: LayerNames
    style: Style
    preprocess: Callable[[int, Tensors], Preprocess]
    padding: str
    bn_eps: float
    folded: bool = False
    stride_in: str = "3x3"
    biased: bool = False
    bgr: bool = False
    unused: tuple[str, ...] = ()
    background: int | None = None

    def sources(self, spec: ModelSpec, ours: Iterable[str]) -> dict[str, TensorSource]:
        """Map our names to theirs."""
        return tensor_sources(spec, ours, self.table, self.style, biased=self.biased, bgr=self.bgr)

    def classes(self, tensors: Tensors) -> int:
        """Return the number of logits of the head.

        Raises:
            InputError: there is no head, or it is no matrix.
        """
        layer = self.table["classifier"]
        head = self.style.name(layer if isinstance(layer, str) else layer[0], "weight")
        if head not in tensors:
            raise InputError(f"the weights ({self.name}) lack the classifier's tensor {head!r}")
        shape = tuple(tensors[head].shape)
        if len(shape) not in (2, 4):
            raise InputError(f"the weights ({self.name}): the classifier's tensor {head!r} has shape {shape}")
        return shape[-1 if self.style is KERAS else 0]


Preprocessing = Callable[[int, Tensors], Preprocess]
_TIMM_TOP = ("conv_stem.weight", "conv_head.weight", "bn2.weight")
_EFFICIENTNETS = tuple(f"efficientnet_b{n}" for n in range(8))
_LITES = tuple(f"efficientnet_lite{n}" for n in range(5))
_V3 = ("mobilenet_v3_small", "mobilenet_v3_large")
_BOTTLENECKS = ("resnet50", "resnet101", "resnet152")
_RESNETS = ("resnet18", "resnet34", *_BOTTLENECKS)
_CIFAR = tuple(f"resnet{n}" for n in (20, 32, 44, 56, 110))
_VGGS = tuple(f"vgg{n}" for n in (11, 13, 16, 19))


def _torchvision(families: tuple[str, ...], table: LayerNames, *signature: str, **more: Any) -> KeyMap:
    facts = {"preprocess": preprocessing.imagenet, "padding": SYMMETRIC, "bn_eps": 1e-5, **more}
    return KeyMap(name="torchvision", families=families, table=table, style=TORCH, signature=signature, **facts)


def _timm(
    families: tuple[str, ...], table: LayerNames, *signature: str, ported: Preprocessing
) -> tuple[KeyMap, KeyMap]:
    """Return two: timm has each of these networks twice, of equal names: as it trained it,
    and ported from TensorFlow (``tf_``)."""
    common: dict[str, Any] = {"families": families, "table": table, "style": TORCH, "signature": signature}
    return (
        KeyMap(name="timm", padding=SYMMETRIC, bn_eps=1e-5, preprocess=preprocessing.bordered, **common),
        KeyMap(name="timm-tf", padding=SAME, bn_eps=1e-3, preprocess=ported, **common),
    )


def _keras(families: tuple[str, ...], table: LayerNames, *signature: str, **more: Any) -> KeyMap:
    facts = {"preprocess": preprocessing.scaled, "padding": SAME, "bn_eps": 1e-3, **more}
    return KeyMap(name="keras", families=families, table=table, style=KERAS, signature=signature, **facts)


KEY_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        name="slim", families=("mobilenet_v2",), table=layer_names.SLIM_V2, style=SLIM,
        signature=("expanded_conv_1.depthwise.weight",), preprocess=preprocessing.scaled, padding=SAME, bn_eps=1e-3,
        folded=True, background=1001,
    ),
    _keras(("mobilenet_v1",), layer_names.KERAS_V1, "conv_dw_1/kernel"),
    _keras(("mobilenet_v2",), layer_names.KERAS_V2, "expanded_conv_depthwise/kernel"),
    _keras(_V3, layer_names.KERAS_V3, "conv/kernel", "conv_2/kernel"),
    _keras(
        _BOTTLENECKS, layer_names.KERAS_RESNET, "conv2_block1_1_conv/kernel",
        preprocess=preprocessing.caffe, padding=SYMMETRIC, bn_eps=1.001e-5, stride_in="1x1", biased=True, bgr=True,
    ),
    _keras(
        ("vgg16", "vgg19"), layer_names.KERAS_VGG, "block1_conv1/kernel",
        preprocess=preprocessing.caffe, padding=SYMMETRIC, bgr=True,
    ),
    _keras(
        _EFFICIENTNETS, layer_names.KERAS_EFFICIENTNET, "stem_conv/kernel", "normalization/mean",
        preprocess=preprocessing.inside, unused=("normalization/",),
    ),
    _torchvision(("alexnet",), layer_names.TORCH_ALEXNET, "features.8.weight", "classifier.1.weight"),
    _torchvision(_VGGS, layer_names.TORCH_VGG, "features.0.weight", "classifier.0.weight"),
    _torchvision(
        tuple(f"{n}_bn" for n in _VGGS), layer_names.TORCH_VGG, "features.0.weight", "features.1.running_mean",
        "classifier.0.weight",
    ),
    _torchvision(
        ("googlenet",), layer_names.TORCH_GOOGLENET, "inception3a.branch1.conv.weight",
        preprocess=preprocessing.centred, bn_eps=1e-3, unused=("aux1.", "aux2."),
    ),
    _torchvision(_RESNETS, layer_names.TORCH_RESNET, "layer4.0.conv1.weight"),
    _torchvision(("mobilenet_v2",), layer_names.TORCH_V2, "features.1.conv.0.0.weight"),
    _torchvision(_V3, layer_names.TORCH_V3, "features.1.block.0.0.weight", bn_eps=1e-3),
    _torchvision(
        _EFFICIENTNETS[:5], layer_names.TORCH_EFFICIENTNET, "features.1.0.block.0.0.weight",
        preprocess=preprocessing.efficientnet,
    ),
    _torchvision(
        _EFFICIENTNETS[5:], layer_names.TORCH_EFFICIENTNET, "features.1.0.block.0.0.weight",
        preprocess=preprocessing.efficientnet, bn_eps=1e-3,
    ),
    *_timm(
        _EFFICIENTNETS, layer_names.TIMM_EFFICIENTNET, *_TIMM_TOP, "blocks.0.0.se.conv_reduce.weight",
        ported=preprocessing.bordered,
    ),
    *_timm(_LITES, layer_names.TIMM_EFFICIENTNET, *_TIMM_TOP, ported=preprocessing.bordered_scaled),
    *_timm(_V3, layer_names.TIMM_V3, "conv_stem.weight", "conv_head.bias", ported=preprocessing.bordered_scaled),
    KeyMap(
        name="efficientnet_pytorch", families=_EFFICIENTNETS, table=layer_names.LUKEMELAS, style=TORCH,
        signature=("_conv_stem.weight", "_blocks.0._se_reduce.weight"), preprocess=preprocessing.shorter_side,
        padding=SAME, bn_eps=1e-3,
    ),
    KeyMap(
        name="akamaster", families=_CIFAR, table=layer_names.TORCH_CIFAR, style=TORCH,
        signature=("layer1.0.conv1.weight", "linear.weight"), preprocess=preprocessing.cifar, padding=SYMMETRIC,
        bn_eps=1e-5,
    ),
)  # fmt: skip
STATISTICS = ("running_mean", "running_var", "moving_mean", "moving_variance")


def has_statistics(tensors: Iterable[str]) -> bool:
    """Tell whether there is a batch norm among tensors; where it was folded into the convolutions, there is none."""
    return any(name.endswith(STATISTICS) for name in tensors)


def is_of_norm(name: str) -> bool:
    """Tell whether a tensor of a signature belongs to a batch norm."""
    return name.endswith(STATISTICS) or re.search(r"(^|\.)bn\d*\.", name) is not None


CONVENTIONS = tuple(dict.fromkeys(s.name for s in KEY_MAPS))


def key_map_of(family: str, model: str, tensors: Collection[str], convention: str | None, where: str) -> KeyMap | None:
    """Return the key map that a file's tensors are named by; ``None`` for our own names.

    Args:
        family: wanted.
        model: its name, for messages.
        tensors: names in the file.
        convention: the key map's name, where the user gave it.
        where: the file, for messages.

    Raises:
        InputError: the weights are of another family, of another key map than was said, or of several that differ in
            what the names cannot tell.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise InputError(unknown("convention", convention, CONVENTIONS))
    folded = not has_statistics(tensors)
    found = [s for s in KEY_MAPS if all(n in tensors or (folded and is_of_norm(n)) for n in s.signature)]
    mine = [s for s in found if family in s.families]
    if found and not mine:
        families = ", ".join(dict.fromkeys(f for s in found for f in s.families))
        raise InputError(f"{where} holds weights of {families} ({found[0].name}), not of {model}")
    if convention is not None:
        mine = [s for s in mine if s.name == convention]
        if not mine:
            raise InputError(f"{where} is not named as {convention} names {family}")
    if len(mine) > 1:
        options = "; ".join(f"--convention {s.name}: padding {s.padding}, epsilon {s.bn_eps:g}" for s in mine)
        raise InputError(f"{where} can be of several networks that differ in what its names cannot tell: {options}")
    return mine[0] if mine else None
