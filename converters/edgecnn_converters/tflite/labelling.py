"""TFLite Model Metadata: what the Task Library, MediaPipe and Android Studio read of a file.

A flatbuffer of its own stands in the file under the name ``TFLITE_METADATA``; files that it names are appended to the
file as a zip archive. Source: ``metadata_schema.fbs`` (tflite-support, MediaPipe), whose slots are named here.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from edgecnn.graph.ir import Graph
from edgecnn.preprocess import Preprocess
from edgecnn_converters.metadata import logit_labels, per_channel

METADATA = "TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS = "labels.txt"
PARSER = "1.0.0"  # the oldest that reads these fields
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the first date that a zip archive can hold: the same bytes every day
AXIS_LABELS = 2  # AssociatedFileType: a label per element of the last dimension
FEATURE, IMAGE = 1, 2  # members of the union ContentProperties
NORMALIZATION = 1  # member of the union ProcessUnitOptions
COLOURS = {3: 1, 1: 2}  # channels to ColorSpaceType


class ModelSlot(IntEnum):
    """Fields of ``ModelMetadata``."""

    NAME, DESCRIPTION, VERSION, SUBGRAPHS, AUTHOR, LICENSE, FILES, PARSER = range(8)


class SubgraphSlot(IntEnum):
    """Fields of ``SubGraphMetadata``, the first ones."""

    NAME, DESCRIPTION, INPUTS, OUTPUTS = range(4)


class TensorSlot(IntEnum):
    """Fields of ``TensorMetadata``."""

    NAME, DESCRIPTION, DIMENSIONS, CONTENT, PROCESS_UNITS, STATS, FILES = range(7)


def described_for_tasks(graph: Graph) -> bytes:
    """Return the metadata of a graph: its inputs and outputs, how an image is normalised, and the label file."""
    import flatbuffers  # type: ignore[import-untyped]

    t = _Tables(flatbuffers.Builder(1 << 10))
    labels, fed = logit_labels(graph), graph.metadata.preprocess
    fed = None if fed is None or fed.as_given else fed
    inputs = [
        _image(t, name, graph.tensors[name].shape[-1], fed)
        if name == graph.image_input and fed is not None
        else _feature(t, name)
        for name in graph.inputs
    ]
    outputs = [_feature(t, name, labelled=labels is not None) for name in graph.outputs]
    subgraph = t.table(10, {SubgraphSlot.INPUTS: t.vector(inputs), SubgraphSlot.OUTPUTS: t.vector(outputs)})
    model = {
        ModelSlot.NAME: t.text(graph.metadata.model),
        ModelSlot.SUBGRAPHS: t.vector([subgraph]),
        ModelSlot.PARSER: t.text(PARSER),
    }
    t.builder.Finish(t.table(8, model), file_identifier=IDENTIFIER)
    return bytes(t.builder.Output())


def with_files(data: bytes, graph: Graph) -> bytes:
    """Return the file with what its metadata names appended: a label per line, one for each logit."""
    labels = logit_labels(graph)
    if labels is None:
        return data
    whole = io.BytesIO(data)
    with zipfile.ZipFile(whole, "a") as archive:  # stored: readers in C++ take no compression
        lines = "".join(f"{' '.join(label.split())}\n" for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS, LONG_AGO), lines)
    return whole.getvalue()


class _Tables:
    """Write tables of a flatbuffer, the inner ones first; ``Offset`` is where one stands."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def text(self, value: str) -> Offset:
        return Offset(self.builder.CreateString(value))

    def vector(self, offsets: Sequence[Offset]) -> Offset:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return Offset(self.builder.EndVector())

    def numbers(self, values: Sequence[float]) -> Offset:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return Offset(self.builder.EndVector())

    def table(self, slots: int, fields: Mapping[Any, Any]) -> Offset:
        """Add a table of so many slots; a field is an ``Offset``, or a byte."""
        self.builder.StartObject(slots)
        for slot, value in fields.items():
            if isinstance(value, Offset):
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                self.builder.PrependUint8Slot(slot, value, 0)
        return Offset(self.builder.EndObject())


class Offset(int):
    """A place in the flatbuffer, unlike a number."""


def _image(t: _Tables, name: str, channels: int, fed: Preprocess) -> Offset:
    """Add an image input: its colours, its normalisation, and the smallest and largest numbers after it."""
    properties = t.table(2, {0: COLOURS.get(channels, 0)})
    content = t.table(2, {0: IMAGE, 1: properties})
    mean, std = per_channel(fed.mean, channels), per_channel(fed.std, channels)
    low, high = ([(level - m) / s for m, s in zip(mean, std, strict=True)] for level in (0, 255))
    unit = t.table(2, {0: NORMALIZATION, 1: t.table(2, {0: t.numbers(mean), 1: t.numbers(std)})})
    stats = t.table(2, {0: t.numbers(high), 1: t.numbers(low)})
    fields = {
        TensorSlot.NAME: t.text(name),
        TensorSlot.CONTENT: content,
        TensorSlot.PROCESS_UNITS: t.vector([unit]),
        TensorSlot.STATS: stats,
    }
    return t.table(7, fields)


def _feature(t: _Tables, name: str, *, labelled: bool = False) -> Offset:
    """Add an input or output of plain numbers, with the label file where it has labels."""
    content = t.table(2, {0: FEATURE, 1: t.table(0, {})})
    fields = {TensorSlot.NAME: t.text(name), TensorSlot.CONTENT: content}
    if labelled:
        file = t.table(5, {0: t.text(LABELS), 2: AXIS_LABELS})
        fields[TensorSlot.FILES] = t.vector([file])
    return t.table(7, fields)
