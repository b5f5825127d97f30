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
from edgecnn.graph.ir import Constant, Graph, Metadata, QParams, Quantized, QuantizedConstant, Tensor
from edgecnn.graph.ops import make_node, need
from edgecnn.reading import reading

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
        if isinstance(tensor, Quantized):
            record["quant"] = {"dtype": tensor.quant.dtype, "axis": tensor.quant.axis}
        arrays |= {f"{tensor.name}/{key}": np.ascontiguousarray(a) for key, a in arrays_of(tensor).items()}
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


def arrays_of(tensor: Tensor) -> dict[str, NDArray[Any]]:
    """Return the arrays of a tensor, by the names that they have in files."""
    arrays: dict[str, NDArray[Any]] = {"value": tensor.value} if isinstance(tensor, Constant) else {}
    if isinstance(tensor, QuantizedConstant):
        arrays["integers"] = tensor.integers
    if isinstance(tensor, Quantized):
        arrays |= {"scale": tensor.quant.scale, "zero_point": tensor.quant.zero_point}
    return arrays


def load(path: Path) -> Graph:
    """Read a graph that ``save`` wrote.

    Raises:
        InputError: the file is missing, truncated, not a safetensors file, or holds no edgecnn graph.
    """
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # safetensors has one message for whatever keeps it from opening a file
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("edgecnn")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is not a readable .edgecnn file ({error}); export the model again") from None
    if header is None:
        raise InputError(f"{path} is a safetensors file without an edgecnn graph; give what `edgecnn export` wrote")
    with reading(f"the graph in {path}"):
        structure = json.loads(header)
        if structure["format"] != FORMAT:
            said = f"has format {structure['format']!r}; this edgecnn reads {FORMAT}"
            raise InputError(f"{path} {said}: export it again")
        return _graph(structure, arrays)


def _graph(structure: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Graph:
    nodes = []
    for n in structure["nodes"]:
        attrs = {k: tuple(v) if isinstance(v, list) else v for k, v in n["attrs"].items()}
        nodes.append(make_node(n["op"], tuple(n["inputs"]), n["output"], n["source"], **attrs))
    return Graph(
        nodes=tuple(nodes),
        tensors={name: _tensor(name, record, arrays) for name, record in structure["tensors"].items()},
        inputs=tuple(structure["inputs"]),
        outputs=tuple(structure["outputs"]),
        metadata=Metadata.from_json(structure["metadata"]),
    )


def _tensor(name: str, record: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Tensor:
    shape, kind = tuple(record["shape"]), record.get("quant")
    value, integers = arrays.get(f"{name}/value"), arrays.get(f"{name}/integers")
    made = Tensor(name=name, shape=shape) if value is None else Constant(name=name, value=value)
    need(made.shape == shape, f"tensor {name!r} has shape {shape} but its value has {made.shape}")
    if (integers is not None) != (value is not None and kind is not None):
        raise InputError(f"tensor {name!r}: a constant has integers exactly when it is quantized")
    if kind is None:
        return made
    quant = QParams(scale=arrays[f"{name}/scale"], zero_point=arrays[f"{name}/zero_point"], **kind)
    if integers is not None:
        return Constant.of(made).quantized(quant, integers)
    return Quantized(name=name, shape=shape, quant=quant)
