"""The software that made an artifact: versions, and a bill of materials in CycloneDX's form."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any

LIBRARIES = ("edgecnn", "numpy", "torch", "pillow", "ai-edge-litert", "onnx", "onnxruntime", "openvino")
"""Those that make artifacts."""


@cache
def library_versions(libraries: tuple[str, ...] = LIBRARIES) -> Mapping[str, str]:
    """Return the versions of libraries, those that are installed."""
    found = {name: _distribution(name) for name in libraries}
    return {name: package.version for name, package in found.items() if package is not None}


@cache
def bill_of_materials(libraries: tuple[str, ...] = LIBRARIES) -> Mapping[str, Any]:
    """Return what made an artifact: Python, libraries, and all that these require.

    The form is CycloneDX 1.6, JSON (ECMA-424), without a date and a serial number: the same software gives the same
    bytes.
    """
    components, left = {}, list(libraries)
    for name in left:
        key, package = _plain(name), _distribution(name)
        if key in components or package is None:
            continue
        components[key] = _component(key, package.version, f"pkg:pypi/{key}@{package.version}")
        required = [line for line in package.requires or () if "extra ==" not in line]
        left += [match[0] for line in required if (match := re.match(r"[\w.-]+", line))]
    python = platform.python_version()
    rows = [
        _component("python", python, f"pkg:generic/python@{python}"),
        *(components[key] for key in sorted(components)),
    ]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": rows}


def _component(name: str, version: str, purl: str) -> Mapping[str, str]:
    return {"type": "library", "name": name, "version": version, "purl": purl}


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _plain(name: str) -> str:
    """Return a package's name in its normal form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
