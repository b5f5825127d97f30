"""The naming schemes of weight files people bring. A scheme is known by its names, and says what the weights imply."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.models.rows import SAME, SYMMETRIC
from edgecnn.models.schemes import feeding, tables
from edgecnn.models.schemes.feeding import Tensors
from edgecnn.models.schemes.mapping import KERAS, SLIM, TORCH, Origin, Style, Table, names
from edgecnn.models.spec import ModelSpec
from edgecnn.preprocess import Preprocess


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One naming scheme.

    Attributes:
        name: how ``--convention`` calls it; with the family it is unique.
        families: the families whose weights are named so.
        signature: tensor names that only this scheme has, in each of its files.
        table: role to their names.
        style: layout of their tensors.
        preprocess: of a resolution and the tensors.
        padding: of the network that was trained.
        bn_eps: batch norm's epsilon.
        folded: batch norm is folded into the convolutions.
        stride_in: see ``ModelSpec``.
        biased, bgr: see ``mapping.names``.
        unused: beginnings of names that inference needs not.
        background: a head of this many classes has a background class in front.
    """

    name: str
    families: tuple[str, ...]
    signature: tuple[str, ...]
    table: Table
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

    def matches(self, tensors: Collection[str]) -> bool:
        """Whether the tensors are named this way."""
        return all(name in tensors for name in self.signature)

    def origins(self, spec: ModelSpec, ours: Iterable[str]) -> dict[str, Origin]:
        """Our names to theirs."""
        return names(spec, ours, self.table, self.style, biased=self.biased, bgr=self.bgr)

    def classes(self, tensors: Tensors) -> int:
        """Logits of the head.

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

    def label_offset(self, classes: int) -> int:
        """1 for a head with a background class in front, else 0."""
        return 1 if classes == self.background else 0


Preprocessing = Callable[[int, Tensors], Preprocess]
_TIMM_TOP = ("conv_stem.weight", "conv_head.weight", "bn2.weight")
_EFFICIENTNETS = tuple(f"efficientnet_b{n}" for n in range(8))
_LITES = tuple(f"efficientnet_lite{n}" for n in range(5))
_V3 = ("mobilenet_v3_small", "mobilenet_v3_large")
_BOTTLENECKS = ("resnet50", "resnet101", "resnet152")
_RESNETS = ("resnet18", "resnet34", *_BOTTLENECKS)
_CIFAR = tuple(f"resnet{n}" for n in (20, 32, 44, 56, 110))
_VGGS = tuple(f"vgg{n}" for n in (11, 13, 16, 19))


def _torchvision(families: tuple[str, ...], table: Table, *signature: str, **more: Any) -> Scheme:
    facts = {"preprocess": feeding.imagenet, "padding": SYMMETRIC, "bn_eps": 1e-5, **more}
    return Scheme(name="torchvision", families=families, table=table, style=TORCH, signature=signature, **facts)


def _timm(families: tuple[str, ...], table: Table, *signature: str, ported: Preprocessing) -> tuple[Scheme, Scheme]:
    """timm has each of these networks twice, of equal names: as it trained it, and ported from TensorFlow (``tf_``)."""
    common: dict[str, Any] = {
        "families": families, "table": table, "style": TORCH, "signature": signature,
    }  # fmt: skip
    return (
        Scheme(name="timm", padding=SYMMETRIC, bn_eps=1e-5, preprocess=feeding.bordered, **common),
        Scheme(name="timm-tf", padding=SAME, bn_eps=1e-3, preprocess=ported, **common),
    )


def _keras(families: tuple[str, ...], table: Table, *signature: str, **more: Any) -> Scheme:
    facts = {"preprocess": feeding.scaled, "padding": SAME, "bn_eps": 1e-3, **more}
    return Scheme(name="keras", families=families, table=table, style=KERAS, signature=signature, **facts)


SCHEMES: tuple[Scheme, ...] = (
    Scheme(
        name="slim",
        families=("mobilenet_v2",),
        table=tables.SLIM_V2,
        style=SLIM,
        signature=("expanded_conv_1.depthwise.weight",),
        preprocess=feeding.scaled,
        padding=SAME,
        bn_eps=1e-3,
        folded=True,
        background=1001,
    ),
    _keras(("mobilenet_v1",), tables.KERAS_V1, "conv_dw_1/kernel"),
    _keras(("mobilenet_v2",), tables.KERAS_V2, "expanded_conv_depthwise/kernel"),
    _keras(_V3, tables.KERAS_V3, "conv/kernel", "conv_2/kernel"),
    _keras(
        _BOTTLENECKS, tables.KERAS_RESNET, "conv2_block1_1_conv/kernel",
        preprocess=feeding.caffe, padding=SYMMETRIC, bn_eps=1.001e-5, stride_in="1x1", biased=True, bgr=True,
    ),
    _keras(
        ("vgg16", "vgg19"), tables.KERAS_VGG, "block1_conv1/kernel",
        preprocess=feeding.caffe, padding=SYMMETRIC, bgr=True,
    ),
    _keras(
        _EFFICIENTNETS, tables.KERAS_EFFICIENTNET, "stem_conv/kernel", "normalization/mean",
        preprocess=feeding.inside, unused=("normalization/",),
    ),
    _torchvision(("alexnet",), tables.TORCH_ALEXNET, "features.8.weight", "classifier.1.weight"),
    _torchvision(_VGGS, tables.TORCH_VGG, "features.0.weight", "classifier.0.weight"),
    _torchvision(
        tuple(f"{n}_bn" for n in _VGGS), tables.TORCH_VGG, "features.0.weight", "features.1.running_mean",
        "classifier.0.weight",
    ),
    _torchvision(
        ("googlenet",), tables.TORCH_GOOGLENET, "inception3a.branch1.conv.weight",
        preprocess=feeding.centred, bn_eps=1e-3, unused=("aux1.", "aux2."),
    ),
    _torchvision(_RESNETS, tables.TORCH_RESNET, "layer4.0.conv1.weight"),
    _torchvision(("mobilenet_v2",), tables.TORCH_V2, "features.1.conv.0.0.weight"),
    _torchvision(_V3, tables.TORCH_V3, "features.1.block.0.0.weight", bn_eps=1e-3),
    _torchvision(
        _EFFICIENTNETS[:5], tables.TORCH_EFFICIENTNET, "features.1.0.block.0.0.weight", preprocess=feeding.efficientnet
    ),
    _torchvision(
        _EFFICIENTNETS[5:], tables.TORCH_EFFICIENTNET, "features.1.0.block.0.0.weight", preprocess=feeding.efficientnet,
        bn_eps=1e-3,
    ),
    *_timm(
        _EFFICIENTNETS, tables.TIMM_EFFICIENTNET, *_TIMM_TOP, "blocks.0.0.se.conv_reduce.weight",
        ported=feeding.bordered,
    ),
    *_timm(_LITES, tables.TIMM_EFFICIENTNET, *_TIMM_TOP, ported=feeding.bordered_scaled),
    *_timm(_V3, tables.TIMM_V3, "conv_stem.weight", "conv_head.bias", ported=feeding.bordered_scaled),
    Scheme(
        name="akamaster",
        families=_CIFAR,
        table=tables.TORCH_CIFAR,
        style=TORCH,
        signature=("layer1.0.conv1.weight", "linear.weight"),
        preprocess=feeding.cifar,
        padding=SYMMETRIC,
        bn_eps=1e-5,
    ),
)  # fmt: skip
CONVENTIONS = tuple(dict.fromkeys(s.name for s in SCHEMES))


def scheme_of(family: str, model: str, tensors: Collection[str], convention: str | None, where: str) -> Scheme | None:
    """The scheme that a file's tensors are named by; ``None`` for our own names.

    Args:
        family: wanted.
        model: its name, for messages.
        tensors: names in the file.
        convention: the scheme's name, where the user gave it.
        where: the file, for messages.

    Raises:
        InputError: the weights are of another family, of another scheme than was said, or of several that differ in
            what the names cannot tell.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise InputError(unknown("convention", convention, CONVENTIONS))
    found = [s for s in SCHEMES if s.matches(tensors)]
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
