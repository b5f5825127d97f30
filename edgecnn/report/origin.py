"""Name the libraries that make a result, with their versions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata as packages

LIBRARIES = ("edgecnn", "numpy", "torch", "pillow", "ai-edge-litert", "onnx", "onnxruntime", "openvino")
"""What makes artifacts and runs them."""


def library_versions() -> Mapping[str, str]:
    """Return versions of the libraries that make artifacts, those that are installed."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = packages.version(library)
        except packages.PackageNotFoundError:
            continue
    return found
