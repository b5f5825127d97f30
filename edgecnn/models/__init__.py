"""Models: typed rows, their blocks, and the weights people have. What lists them needs no torch; building does."""

from __future__ import annotations

from edgecnn.models import (  # each registers its family
    alexnet,
    efficientnet,
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    resnet,
    vgg,
)
from edgecnn.models.spec import FAMILIES, ModelSpec, resolve

TABLES = (alexnet, vgg, googlenet, resnet, mobilenet_v1, mobilenet_v2, mobilenet_v3, efficientnet)

__all__ = ["FAMILIES", "ModelSpec", "resolve"]
