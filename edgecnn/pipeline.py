"""The street from MODEL to report: each stage hands its result to the next, and nothing flows back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Manifest, manifest_path, read_manifest, write_artifact
from edgecnn.errors import InputError
from edgecnn.files import write_json
from edgecnn.graph.ir import Graph
from edgecnn.progress import Stopwatch, track
from edgecnn.report import Check, ReportEntry
from edgecnn.source import Source, load_graph

if TYPE_CHECKING:
    from edgecnn.data import ImageSource

CALIBRATION_BATCH = 8
VALIDATION_BATCH = 10
PARITY_IMAGES = 16
LIBRARIES = ("edgecnn", "numpy", "torch", "ai-edge-litert", "flatbuffers", "pillow")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a user demands; ``None`` demands nothing.

    Attributes:
        max_drop: fp32 top-1 minus artifact top-1, in points.
        min_agreement: images on which artifact and fp32 pick the same class, in percent.
        max_latency_ms: median of one inference, in milliseconds.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Checking:
    """On what, where and against which limits an artifact is checked."""

    data: str | None
    limit: int | None = None
    skip_bad_images: bool = False
    devices: tuple[str, ...] = ("host",)
    threads: int = 1
    limits: Limits = Limits()
    seed: int = 0
