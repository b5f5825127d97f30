"""The converter of the format in ``oracle.py``."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgecnn.artifact import ConvertedModel
from edgecnn.errors import InputError
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Graph, Metadata, QParams, Quantized, QuantizedConstant
from edgecnn.graph.summary import Layer
from edgecnn.graph.summary import layers as layers_of
from edgecnn_converters.registry import Converter
from edgecnn_example.oracle import from_bytes, port, to_bytes


def convert(graph: Graph, *, precision: str, io: str = "int8") -> ConvertedModel:
    """Write an int8 graph as ``.oracle``.

    Raises:
        InputError: the graph is not int8, or another input and output type is asked for.
    """
    if io != "int8":
        raise InputError(f"input and output type {io!r}; allowed: int8")
    check_integers(graph)
    inputs, outputs = (tuple(port(graph, name) for name in names) for names in (graph.inputs, graph.outputs))
    files = {".oracle": to_bytes(graph)}
    return ConvertedModel(target="oracle", precision=precision, files=files, inputs=inputs, outputs=outputs)


def describe(main: bytes) -> tuple[str, Metadata | None]:
    """Return the precision and the metadata of a file."""
    graph = from_bytes(main)
    return graph.precision, graph.metadata


def integers(main: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """Return the parameters and integers of each quantized tensor."""
    found = (t for t in from_bytes(main).tensors.values() if isinstance(t, Quantized))
    return {t.name: (t.quant, t.integers if isinstance(t, QuantizedConstant) else None) for t in found}


def layers(main: bytes) -> list[Layer]:
    """Return every op."""
    return layers_of(from_bytes(main))


CONVERTER = Converter(
    target="oracle",
    precisions=("int8",),
    suffixes=(".oracle",),
    convert=convert,
    unsupported=lambda graph, precision: [],
    describe=describe,
    integers=integers,
    layers=layers,
    in_all=False,
)
