"""Open a ``.onnx`` file to import it, with its external data; list what is wrong with it as a whole.

float16 becomes float32. Nodes are sorted, and those that no output depends on are left out.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecnn.budget import budget
from edgecnn.errors import InputError, UnsupportedError
from edgecnn_converters.onnx.reader import library, parsed

OPSETS = (7, 24)  # first and last that are read
DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One node of the file.

    Attributes:
        op: its type, with the domain in front where that is not ONNX's own.
        name: for messages.
        inputs: names of tensors; empty for an optional one that is not given.
        attrs: name to value: numbers, tuples, strings, ``TensorProto``, ``GraphProto``.
        proto: the ``NodeProto``, to evaluate it.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    proto: Any = None

    @property
    def where(self) -> str:
        """Return the op and the node for a message."""
        return f"{self.op} {self.name!r}"


def open_model(path: Path) -> Any:
    """Return the ``ModelProto`` of a file with all its data, in float32, its functions inlined.

    Raises:
        InputError: the file cannot be read, is damaged, or lacks its external data; an opset outside ``OPSETS``.
        UnsupportedError: sparse tensors, types that no graph holds.
        MissingDependencyError: onnx is not installed.
    """
    onnx, decode_error = library()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (decode_error, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "no protocol buffer")
        raise InputError(f"{path} is not an ONNX file, or a truncated one ({reason}); export it again") from None
    if not model.graph.output:
        raise InputError(f"{path} is not an ONNX file, or an empty one: it has no graph with outputs")
    opset = opset_of(model)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        age = "older" if opset < OPSETS[0] else "newer"
        remedy = "export it again with opset_version=17, or convert it with onnx.version_converter"
        raise InputError(f"{path} has opset {opset}, {age} than what is read: {OPSETS[0]} to {OPSETS[1]}; {remedy}")
    load_external(model, path)
    _bounded(model, path)
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    faults = _widen(model)
    if faults:
        raise UnsupportedError(f"{path} has what no graph holds: {'; '.join(faults)}")
    return model


def opset_of(model: Any) -> int:
    """Return the version of ONNX's own ops that a file uses; 1 where it does not say."""
    return max((o.version for o in model.opset_import if o.domain in DOMAINS), default=1)


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph and those in the attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_of(inner)


def _tensors(model: Any) -> Iterator[Any]:
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _bounded(model: Any, path: Path) -> None:
    """Check how many nodes and tensors there are.

    Raises:
        InputError: they are too many.
    """
    nodes = sum(len(graph.node) for graph in graphs_of(model.graph)) + sum(len(f.node) for f in model.functions)
    budget().require_count(nodes, f"nodes in {path}")
    budget().require_count(sum(1 for _ in _tensors(model)), f"tensors in {path}")


def external_files(path: Path) -> list[Path]:
    """Return the files in the model's folder that hold its external data; none of a damaged model.

    Raises:
        InputError: one is missing.
        MissingDependencyError: onnx is not installed.
    """
    data = path.read_bytes()
    if b"location" not in data:  # the key of each entry of external data
        return []
    try:
        tensors = list(_tensors(parsed(data)))
    except InputError:
        return []
    folder, found = path.resolve().parent, set[Path]()  # of a link, the folder of the file it leads to
    for location in {e.value for tensor in tensors for e in tensor.external_data if e.key == "location"}:
        file = folder / os.path.normpath(location)
        if not file.resolve().is_relative_to(folder) or not file.is_relative_to(folder):
            continue  # ``load_external`` refuses it
        if not file.is_file():
            raise InputError(
                f"{path}: its external data {location!r} is missing: put it beside the model, into {folder}"
            )
        found.add(file)
    return sorted(found)


def load_external(model: Any, path: Path) -> None:
    """Read what lies in other files, which must be in the model's folder.

    Raises:
        InputError: a file is missing or too short, lies elsewhere, or its parts are more than the budget has.
    """
    from onnx import TensorProto

    folder, faults = path.resolve().parent, dict[str, None]()  # of a link, the folder of the file it leads to
    sizes: dict[Path, int] = {}
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        file = (folder / location).resolve()
        if Path(location).is_absolute() or not file.is_relative_to(folder):
            faults[f"data in {location!r}, which is not in the folder of the model"] = None
            continue
        if not file.is_file():
            faults[f"its external data {location!r} is missing: put it beside the model, into {folder}"] = None
            continue
        size = sizes.setdefault(file, file.stat().st_size)
        start, length = _number(said.get("offset", "0")), _number(said.get("length", "rest"))
        if start is None:
            faults[f"external data {location!r} has offset {said['offset']!r}"] = None
            continue
        end = size if length is None else start + length
        if not 0 <= start <= end <= size:
            faults[f"external data {location!r} is truncated: {size} bytes where {end} are needed"] = None
            continue
        total += end - start  # parts may overlap
        budget().require(total, f"the external data of {path}", file_bytes=sum(sizes.values()))
        with file.open("rb") as opened:
            opened.seek(start)
            tensor.raw_data = opened.read(end - start)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _widen(model: Any) -> list[str]:
    """Make float16 float32, everywhere in a model; return what it holds that no graph does."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    faults = dict[str, None]()
    for tensor in _tensors(model):
        if tensor.data_type == half:
            wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            tensor.CopyFrom(wide)
    for graph in graphs_of(model.graph):
        for sparse in graph.sparse_initializer:
            faults[f"sparse tensor {sparse.values.name!r}; store it dense"] = None
        for info in (*graph.input, *graph.output, *graph.value_info):
            if info.type.tensor_type.elem_type == half:
                info.type.tensor_type.elem_type = single
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == half:
                    attribute.i = single
                if attribute.HasField("sparse_tensor"):
                    faults[f"sparse tensor in {node.op_type} {node.name!r}; store it dense"] = None
    return list(faults)


def calls_of(graph: Any) -> list[Call]:
    """Return the nodes of a graph, in the file's order."""
    from onnx import helper

    found = []
    for node in graph.node:
        op = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
        attrs = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute if not a.ref_attr_name}
        name = node.name or next(filter(None, node.output), "")
        found.append(
            Call(op=op, name=name, inputs=tuple(node.input), outputs=tuple(node.output), attrs=attrs, proto=node)
        )
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def reads(call: Call) -> Iterator[str]:
    """Yield what a node reads, with what the graphs in its attributes read from outside."""
    yield from filter(None, call.inputs)
    inner: list[Any] = [v for v in call.attrs.values() if hasattr(v, "initializer") and hasattr(v, "node")]
    for graph in inner:
        own = {t.name for t in graph.initializer} | {i.name for i in graph.input}
        calls = calls_of(graph)
        own |= {name for each in calls for name in each.outputs}
        yield from (name for each in calls for name in reads(each) if name not in own)
        yield from (o.name for o in graph.output if o.name not in own)


def ordered(calls: list[Call], known: set[str], outputs: list[str]) -> list[Call]:
    """Return the nodes that the outputs depend on, each after what it reads.

    Raises:
        InputError: the nodes are in a circle, read what nothing makes, or make one tensor twice.
    """
    makers = {name: call for call in calls for name in call.outputs if name}
    made = Counter(name for call in calls for name in call.outputs if name)
    twice = [name for name, number in made.items() if number > 1 or name in known]
    faults = [f"tensor {name!r} is made more than once" for name in twice]
    needed: dict[int, Call] = {}
    queue, strange = list(outputs), dict[str, None]()
    while queue:
        name = queue.pop()
        if name in known:
            continue
        if name not in makers:
            strange[f"tensor {name!r} is read, and nothing makes it"] = None
        elif id(makers[name]) not in needed:
            needed[id(makers[name])] = makers[name]
            queue.extend(reads(makers[name]))
    if faults or strange:
        raise InputError("; ".join([*faults, *strange]))
    left = [call for call in calls if id(call) in needed]
    done, sorted_calls = set(known), list[Call]()
    while left:
        ready = [call for call in left if done.issuperset(reads(call))]
        if not ready:
            circle = ", ".join(call.where for call in left[:4])
            raise InputError(f"the graph is cyclic: {circle} wait for each other; a graph must have an order")
        rest = []
        for call in left:  # in the file's order, as far as that goes
            if done.issuperset(reads(call)):
                sorted_calls.append(call)
                done.update(call.outputs)
            else:
                rest.append(call)
        left = rest
    return sorted_calls
