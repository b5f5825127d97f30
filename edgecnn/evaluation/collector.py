"""Collect what a page shows beside figures: images on which fp32 and an artifact part, layer errors, op costs."""

from __future__ import annotations

import heapq
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.errors import EdgecnnError
from edgecnn.evaluation.subject import Subject
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.progress import detail
from edgecnn.report.evidence import ClassChange, Disagreement, Evidence, LayerCost, LayerError
from edgecnn_targets.interface import Device
from edgecnn_targets.registry import kind_of
from edgecnn_targets.registry import layers as costs

KEPT = 24  # images of one artifact on one device
PAIRS = 100  # of classes
SIDE = 96  # of a thumbnail, in pixels at most
LAYER_IMAGES = 8  # that layer errors are of: more show the same order

Vector = NDArray[np.integer[Any]]  # (n,)
Values = NDArray[np.float32]  # (n, classes)


class Collector:
    """Gather, over batches, the images on which artifact and fp32 pick different classes, in bounded memory.

    Args:
        metadata: of the network: its class names, and the label offset.

    Attributes:
        errors: of each layer, which are the same for all artifacts.
    """

    def __init__(self, metadata: Metadata) -> None:
        self._names, self._offset = metadata.labels, metadata.label_offset
        self.errors: tuple[LayerError, ...] = ()
        self._seen = 0
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._won: Counter[tuple[int, int]] = Counter()
        self._lost: Counter[tuple[int, int]] = Counter()
        self._labelled = False
        self._kept: list[tuple[float, int, Disagreement, NDArray[Any] | None]] = []  # a heap: the least sure first

    def update(
        self, made: Values, exact: Values, labels: Vector | None, names: Sequence[str], pixels: NDArray[Any] | None
    ) -> None:
        """Look at a batch.

        Args:
            made: the artifact's logits.
            exact: fp32's.
            labels: network classes, or ``None``.
            names: of the images; empty where they have none.
            pixels: the images, NHWC, or ``None`` where the input is no image.
        """
        ours, theirs = made.argmax(axis=1), exact.argmax(axis=1)
        self._labelled |= labels is not None
        for k in map(int, np.flatnonzero(ours != theirs)):
            pair = int(theirs[k]), int(ours[k])
            self._pairs[pair] += 1
            right = None if labels is None else int(labels[k]) + self._offset
            self._lost[pair] += right == pair[0]
            self._won[pair] += right == pair[1]
            number = self._seen + k
            margin = float((exact[k, pair[0]] - exact[k, pair[1]]) / max(float(exact[k].std()), 1e-30))
            one = Disagreement(
                image=names[k] if len(names) else f"image {number}",
                fp32=self._class(pair[0]),
                artifact=self._class(pair[1]),
                label=None if right is None else self._class(right),
                margin=margin,
            )
            held = (margin, -number, one, None if pixels is None else pixels[k].copy())
            if len(self._kept) < KEPT:
                heapq.heappush(self._kept, held)
            else:
                heapq.heappushpop(self._kept, held)
        self._seen += len(made)

    def result(self, subject: Subject, device: Device) -> Evidence:
        """Return what was found about an artifact on a device."""
        return replace(
            self.gathered(),
            errors=self.errors if subject.precision in INTEGER_PRECISIONS else (),
            costs=op_costs(device, subject.target, subject.path),
            recipe=recipe_file(subject.metadata),
        )

    def gathered(self) -> Evidence:
        """Return what the images showed."""
        return Evidence(changes=self._changes(), differing=self._pairs.total(), disagreements=self._disagreements())

    def _changes(self) -> tuple[ClassChange, ...]:
        """Return the pairs of classes that are most frequent."""
        ordered = sorted(self._pairs, key=lambda pair: (-self._pairs[pair], pair))[:PAIRS]
        return tuple(
            ClassChange(
                fp32=self._class(pair[0]),
                artifact=self._class(pair[1]),
                images=self._pairs[pair],
                won=self._won[pair] if self._labelled else None,
                lost=self._lost[pair] if self._labelled else None,
            )
            for pair in ordered
        )

    def _disagreements(self) -> tuple[Disagreement, ...]:
        """Return some of the images, those that fp32 was most sure of first, with their thumbnails."""
        return tuple(
            replace(one, thumbnail=b"" if pixels is None else thumbnail(pixels))
            for _, _, one, pixels in sorted(self._kept, key=lambda held: held[:2], reverse=True)
        )

    def _class(self, logit: int) -> str:
        k = logit - self._offset
        return self._names[k] if self._names is not None and 0 <= k < len(self._names) else str(logit)


def thumbnail(pixels: NDArray[Any]) -> bytes:
    """Return an image (height, width, channels) of levels as a JPEG of at most ``SIDE`` pixels; empty for others."""
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3, 4):
        return b""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
    image.thumbnail((SIDE, SIDE))
    made = io.BytesIO()
    image.save(made, "JPEG", quality=80)
    return made.getvalue()


def layer_errors(oracle: Graph, images: Batch) -> tuple[LayerError, ...]:
    """Return the error of each activation of an integer graph beside its float values, on a few network inputs."""
    from edgecnn.quant.sensitivity import running_errors

    ops = {node.output: node.op for node in oracle}
    found = running_errors(oracle, images[:LAYER_IMAGES])
    return tuple(LayerError(name=name, op=ops.get(name, "input"), sqnr_db=db) for name, db in found.items())


def recipe_file(metadata: Metadata) -> str:
    """Return the recipe of a network as a file; empty where it is float, or of steps that are not known here."""
    from edgecnn.quant.recipe import recorded

    record = (metadata.quantization or {}).get("recipe")
    try:
        return recorded(record).to_toml() if record else ""
    except (EdgecnnError, KeyError):
        return ""


def op_costs(device: Device, target: str, artifact: Path) -> tuple[LayerCost, ...]:
    """Return what each op costs on a device; none where the device does not say."""
    if kind_of(device).layers is None or target not in device.targets:
        return ()
    try:
        return tuple(costs(device, artifact))
    except EdgecnnError as error:
        detail(f"costs of single ops are not in the report: {error}")
        return ()
