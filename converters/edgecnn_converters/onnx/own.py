"""Recall the graph of our own integer ``.onnx`` file: its nodes stand in the record, its integers in the file.

What a node became in the file may be many nodes, such as a table or the steps of a hard swish; so it is noted, not
guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Constant, Graph, Metadata, Quantized, Tensor
from edgecnn.graph.ops import OPS, make_node
from edgecnn_converters.onnx.reader import integers

RECORD = "structure"  # key of the record


def noted(graph: Graph) -> dict[str, Any]:
    """Return nodes, inputs, outputs and shapes of a graph as JSON values; attributes without those that are default."""
    nodes = []
    for node in graph:
        defaults = OPS[node.op].attrs
        attrs = {k: _in_json(v) for k, v in node.attrs.items() if v != defaults[k]}
        nodes.append([node.op, list(node.inputs), node.output, node.source, attrs])
    shapes = {t.name: list(t.shape) for t in graph.tensors.values()}
    return {"inputs": list(graph.inputs), "outputs": list(graph.outputs), "nodes": nodes, "shapes": shapes}


def recalled(record: Mapping[str, Any], data: bytes, metadata: Metadata) -> Graph:
    """Return the graph that a file was written of.

    Args:
        record: what ``noted`` returned.
        data: the file.

    Raises:
        InputError: record and file do not fit together.
        UnsupportedError: some layers are in 16 bits, which the file holds as float.
    """
    held = integers(data)
    try:
        shapes = {name: tuple(shape) for name, shape in record["shapes"].items()}
        nodes = tuple(
            make_node(op, tuple(inputs), output, source, **{k: _plain(v) for k, v in attrs.items()})
            for op, inputs, output, source, attrs in record["nodes"]
        )
        if any(node.op == "requantize" and node.attrs["to"] == "int16" for node in nodes):
            raise UnsupportedError("it keeps layers in 16 bits, which this format holds as float; give NAME.edgecnn")
        tensors = {name: _tensor(name, shape, held) for name, shape in shapes.items()}
        graph = Graph(
            nodes=nodes,
            tensors=tensors,
            inputs=tuple(record["inputs"]),
            outputs=tuple(record["outputs"]),
            metadata=metadata,
        )
        check_integers(graph)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the record of edgecnn in the file is damaged ({error!r}); export it again") from None
    return graph


def _in_json(value: Any) -> Any:
    """Return an attribute as JSON holds it, which has no infinities: those of a clamp are text."""
    return repr(value) if isinstance(value, float) and math.isinf(value) else value


def _plain(value: Any) -> Any:
    if value in ("inf", "-inf"):
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _tensor(name: str, shape: tuple[int, ...], held: Mapping[str, Any]) -> Tensor:
    quant, values = held[name]
    if values is None:
        return Quantized(name=name, shape=shape, quant=quant)
    stored = values.reshape(shape)
    return Constant(name=name, value=quant.dequantize(stored)).quantized(quant, stored)
