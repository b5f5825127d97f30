"""``NAME.edgecnn``: a graph as one safetensors file. Tensors are tensors; the structure is JSON in the header.

Float weights and integers stand side by side, so any artifact, the fp32 reference and the integer oracle come out
of this one file, without torch, without calibrating again, and without executing anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.files import write_atomic
from edgecnn.graph.ir import Graph, Metadata, QParams, Tensor
from edgecnn.graph.ops import make_node

FORMAT = 1


def save(graph: Graph, path: Path) -> None:
    """Write the graph atomically. The same graph gives the same bytes.

    Raises:
        InputError: the place cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, NDArray[Any]] = {}
    tensors: dict[str, Any] = {}
    for tensor in graph.tensors.values():
        record: dict[str, Any] = {"shape": list(tensor.shape)}
        if tensor.value is not None:
            arrays[f"{tensor.name}/value"] = np.ascontiguousarray(tensor.value)
        if tensor.integers is not None:
            arrays[f"{tensor.name}/integers"] = np.ascontiguousarray(tensor.integers)
        if tensor.quant is not None:
            record["quant"] = {"dtype": tensor.quant.dtype, "axis": tensor.quant.axis}
            arrays[f"{tensor.name}/scale"] = tensor.quant.scale
            arrays[f"{tensor.name}/zero_point"] = tensor.quant.zero_point
        tensors[tensor.name] = record
    structure = {
        "format": FORMAT,
        "inputs": graph.inputs,
        "outputs": graph.outputs,
        "nodes": [asdict(node) for node in graph],
        "tensors": tensors,
        "metadata": graph.metadata.to_json(),
    }
    write_atomic(path, to_bytes(arrays, metadata={"edgecnn": json.dumps(structure, sort_keys=True)}))


def load(path: Path) -> Graph:
    """Read a graph that ``save`` wrote.

    Raises:
        InputError: the file is missing, truncated, not a safetensors file, or holds no edgecnn graph.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("edgecnn")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable .edgecnn file ({error}); export the model again") from None
    if header is None:
        raise InputError(f"{path} is a safetensors file without an edgecnn graph; give what `edgecnn export` wrote")
    try:
        return _graph(json.loads(header), arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not hold a graph of format {FORMAT} ({error!r}); export it again") from None


def _graph(structure: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Graph:
    if structure["format"] != FORMAT:
        raise ValueError(f"format {structure['format']}")
    tensors = {}
    for name, record in structure["tensors"].items():
        quant = None
        if kind := record.get("quant"):
            quant = QParams(scale=arrays[f"{name}/scale"], zero_point=arrays[f"{name}/zero_point"], **kind)
        value, stored = arrays.get(f"{name}/value"), arrays.get(f"{name}/integers")
        tensors[name] = Tensor(name=name, shape=tuple(record["shape"]), value=value, integers=stored, quant=quant)
    nodes = []
    for n in structure["nodes"]:
        attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in n["attrs"].items()}
        nodes.append(make_node(n["op"], tuple(n["inputs"]), n["output"], n["source"], **attrs))
    return Graph(
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=tuple(structure["inputs"]),
        outputs=tuple(structure["outputs"]),
        metadata=Metadata.from_json(structure["metadata"]),
    )
