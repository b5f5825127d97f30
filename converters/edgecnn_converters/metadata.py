"""What travels in every file: a record of edgecnn, and labels and preprocessing as other programs read them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from edgecnn.errors import InputError
from edgecnn.graph.ir import Graph, Metadata

KEY = "edgecnn"
"""Name of the record, in each format's place for what programs note."""
BACKGROUND = "background"
"""Label of a logit in front of those of the classes."""
MODEL_INFO = "model_info"
"""Where OpenVINO's Model API looks for what it must know of a file."""
INTERPOLATIONS = {"bilinear": "LINEAR", "bicubic": "CUBIC", "nearest": "NEAREST"}


def fields_of(graph: Graph, precision: str, **more: Any) -> dict[str, Any]:
    """Return the record; ``more`` is what a format notes besides."""
    return {"precision": precision, **more, **graph.metadata.to_json()}


def to_text(graph: Graph, precision: str, **more: Any) -> str:
    """Return the record as JSON, its keys sorted."""
    return json.dumps(fields_of(graph, precision, **more), sort_keys=True, allow_nan=False)


def described(record: str | Mapping[str, Any], *more: str) -> tuple[str, Metadata]:
    """Return the precision and the metadata of a record; ``more`` are the keys that a format notes besides.

    Raises:
        InputError: the record is damaged.
    """
    try:
        fields = dict(json.loads(record) if isinstance(record, str) else record)
    except (ValueError, TypeError) as error:
        raise InputError(f"the record of edgecnn in the file is damaged ({error}); export it again") from None
    for key in more:
        fields.pop(key, None)
    return str(fields.pop("precision", "")), Metadata.from_json(fields)


def logit_labels(graph: Graph) -> tuple[str, ...] | None:
    """Return a label for each logit of a classifier; ``None`` where there are no labels, or not as many."""
    labels, offset = graph.metadata.labels, graph.metadata.label_offset
    if labels is None or len(graph.outputs) != 1:
        return None
    shape = graph.tensors[graph.outputs[0]].shape[1:]
    if len(labels) < math.prod(shape):
        labels = (BACKGROUND,) * offset + labels
    return labels if len(labels) == math.prod(shape) == max(shape) else None


def model_info(graph: Graph) -> dict[str, str]:
    """Return what OpenVINO's Model API reads of a network with an image as its first input; else nothing.

    A label's spaces are underscores there. Source: ``model_api/models/image_model.py``, ``classification.py`` and
    ``parameters.py`` of Model API 0.4. It has no crop of a border: ``crop`` keeps the aspect ratio alone.
    """
    fed, labels = graph.metadata.preprocess, logit_labels(graph)
    if fed is None or fed.as_given or graph.image_input is None:
        return {}
    channels = graph.tensors[graph.image_input].shape[-1]
    said = {
        "resize_type": "standard" if fed.crop is None else "crop",
        "interpolation_mode": INTERPOLATIONS[fed.interpolation],
        "reverse_input_channels": str(channels == 3),  # its images are OpenCV's: BGR
        "mean_values": " ".join(f"{value:g}" for value in per_channel(fed.mean, channels)),
        "scale_values": " ".join(f"{value:g}" for value in per_channel(fed.std, channels)),
    }
    if labels is not None:
        joined = " ".join(re.sub(r"\s+", "_", label.strip()) or "_" for label in labels)
        said |= {"model_type": "Classification", "labels": joined}
    return said


def per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return a number for each channel, of numbers that are equal or as many."""
    return values if len(values) == channels else values[:1] * channels
