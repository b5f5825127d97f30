"""Models: typed rows, their blocks, and the weights people have. What lists them needs no torch; building does."""

from __future__ import annotations

from edgecnn.models import mobilenet_v1 as _v1  # noqa: F401  # a family registers itself
from edgecnn.models import mobilenet_v2 as _v2  # noqa: F401
from edgecnn.models.spec import FAMILIES, ModelSpec, resolve

__all__ = ["FAMILIES", "ModelSpec", "resolve"]
