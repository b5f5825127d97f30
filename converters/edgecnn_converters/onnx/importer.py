"""Import a ``.onnx`` file as a graph: NCHW in, NHWC out. What depends on constants only is computed here.

Transposes cost no node (``graph.builder``), so a file that was converted from TensorFlow comes out as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import InputError, UnsupportedError, supported_ops
from edgecnn.graph.importers import Imported, Importer
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.node_builder import BATCH, Value
from edgecnn.graph.passes import drop_dead
from edgecnn_converters.metadata import KEY, described
from edgecnn_converters.onnx import own
from edgecnn_converters.onnx.folding import evaluate
from edgecnn_converters.onnx.import_integers import INTEGER_HANDLERS, note_constant, quantized
from edgecnn_converters.onnx.import_shapes import HANDLERS
from edgecnn_converters.onnx.model_file import Call, calls_of, external_files, open_model, opset_of, ordered
from edgecnn_converters.onnx.reader import NOTED
from edgecnn_converters.onnx.running import run
from edgecnn_converters.onnx.translation import Translation, graph_name

Shapes = Mapping[str, Sequence[int]]
TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
KEEPS_PLACES = ("Identity", "Relu", "Sigmoid", "Tanh", "Clip", "Cast")  # an output behind them has its dimensions
ROWS = {**HANDLERS, **INTEGER_HANDLERS}
SHAPING = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose")  # what may follow an argmax
CONTROL = ("If", "Loop", "Scan", "SequenceMap")


def read(path: Path, input_shapes: Shapes | None = None) -> Imported:
    """Read a float file; see ``graph.importers.Importer``.

    Args:
        input_shapes: of inputs with dynamic dimensions, by name; the batch is 1. One under ``""`` is of the first.

    Raises:
        InputError: the file is damaged, older or newer than what is read, or an input has no fixed shape.
        UnsupportedError: what no graph holds, all of it, with the node's name.
    """
    model = open_model(path)
    noted = _record(model, path)
    if own.RECORD in noted:
        return _own(noted, path, model)
    walk = _Walk(builder=Translation(opset_of(model)), path=path)
    graph = walk.graph(model, input_shapes or {}, _metadata(noted, path))
    if walk.builder.grids:
        try:
            graph = quantized(walk.builder, drop_dead(graph))
        except InputError as error:
            raise type(error)(f"{path}: {error}") from None
    origin = {name: walk.builder.origin[name] for name in graph.tensors if name in walk.builder.origin}
    return Imported(graph=graph, reference=lambda values: run(model, graph, origin, values))


IMPORTER = Importer(
    suffixes=(".onnx",), read=read, ops=lambda: ROWS, sized=True, beside=external_files, native="ONNX Runtime"
)


@dataclass(kw_only=True)
class _Walk:
    """Translates a file node by node; gathers everything that is wrong with it.

    Attributes:
        unknown: tensors of the file that depend on what is not supported.
    """

    builder: Translation
    path: Path
    faults: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def graph(self, model: Any, shapes: Shapes, metadata: Metadata) -> Graph:
        """Return the graph of a file.

        Raises:
            InputError: inputs or outputs are not what a graph has.
            UnsupportedError: ops that no graph holds.
        """
        from onnx import numpy_helper

        b, source = self.builder, model.graph
        b.values.update({t.name: numpy_helper.to_array(t) for t in source.initializer})
        fed = [i for i in source.input if i.name not in b.values]
        outputs = [o.name for o in source.output]
        self._check_outputs(source, outputs)
        calls = self._ordered(calls_of(source), {*b.values, *(i.name for i in fed)}, outputs)
        self._inputs(fed, calls, shapes)
        if self.faults:
            raise InputError(f"{self.path}: {'; '.join(self.faults)}")
        b.readers.update(outputs)
        self.translate(calls)
        if self.faults:
            listed = "; ".join(dict.fromkeys(self.faults))
            strange = dict.fromkeys(call.op for call in calls if call.op not in ROWS)
            known = f"; {supported_ops('onnx', strange, ROWS)}" if strange else ""
            raise UnsupportedError(f"{self.path} has what no graph holds: {listed}{known}")
        return self._ended(calls, outputs, metadata)

    def _check_outputs(self, source: Any, outputs: list[str]) -> None:
        for name in sorted({o for o in outputs if outputs.count(o) > 1}):
            self.faults.append(f"two outputs are named {name!r}; name each output once")
        for info in (*source.input, *source.output):
            kind = _type_of(info)
            fits = kind in ("int8", "uint8") and self._is_quantized(source, info.name)
            fits |= kind in ("int32", "int64") and self._is_place(source, info.name)
            if kind not in ("float32", "undefined") and not fits and info.name not in self.builder.values:
                what = "input" if info in source.input else "output"
                remedy = "export the network in float32" if kind == "float64" else "cast it outside the network"
                self.faults.append(f"{what} {info.name!r} is {kind}; float32 and float16 are read: {remedy}")

    def _is_place(self, source: Any, name: str) -> bool:
        """Tell whether an argmax makes an output, perhaps in another shape or type."""
        maker = {output: node for node in source.node for output in node.output}
        node = maker.get(name)
        while node is not None and node.op_type in SHAPING:
            node = maker.get(node.input[0])
        return node is not None and node.op_type == "ArgMax"

    def _is_quantized(self, source: Any, name: str) -> bool:
        """Tell whether an input is read, or an output is made, as integers of a grid."""
        near = {n.op_type for n in source.node if name in n.output or name in n.input}
        return bool(near) and near <= {"QuantizeLinear", "DequantizeLinear"}

    def _ordered(self, calls: list[Call], known: set[str], outputs: list[str]) -> list[Call]:
        try:
            return ordered(calls, known, outputs)
        except InputError as error:
            self.faults.append(str(error))
            return []

    def _inputs(self, infos: list[Any], calls: list[Call], shapes: Shapes) -> None:
        """Add the inputs: a dynamic first dimension is 1, any other must be given."""
        if strange := sorted(set(shapes) - {i.name for i in infos} - {""}):
            names = ", ".join(i.name for i in infos)
            self.faults.append(f"shapes are given of {', '.join(strange)}; the inputs are: {names}")
        for place, info in enumerate(infos):
            dims: list[Any] = [
                d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in info.type.tensor_type.shape.dim
            ]
            given = shapes.get(info.name) or (shapes.get("") if place == 0 else None)
            self._enter(info.name, dims, given, calls)
        if not infos and not self.faults:
            self.faults.append("the network has no input")

    def _enter(self, name: str, dims: list[Any], given: Sequence[int] | None, calls: list[Call]) -> None:
        shown = "x".join(str(d) if isinstance(d, int) else "?" for d in dims)
        shape = [1, *given] if given and len(given) == len(dims) - 1 else list(given or dims)
        fits = len(shape) == len(dims) and all(d == s or isinstance(d, str) for d, s in zip(dims, shape, strict=True))
        if given and not fits:
            self.faults.append(f"input {name!r} is {shown}; a shape of {'x'.join(map(str, given))} does not fit it")
            return
        shape = [1 if isinstance(d, str) and k == 0 else d for k, d in enumerate(shape)]
        if any(isinstance(d, str) for d in shape):
            missing = f"input {name!r} is {shown}, whose size is not fixed; say it: --input-shape {name}="
            known = [str(d) if isinstance(d, int) else "SIZE" for d in shape[1:]]
            python = f"input_shapes={{{name!r}: ({', '.join(known)})}}"
            self.faults.append(f"{missing}{'x'.join(known)}, or in Python {python}")
        elif len(shape) < 2 or shape[0] != 1:
            self.faults.append(f"input {name!r} is {shown}; its first dimension must be a batch of 1, or a dynamic one")
        else:
            self.builder.enter(name, shape, channels_last=_is_channels_last(name, calls))

    def translate(self, calls: list[Call]) -> None:
        """Make graph nodes of the file's, or compute them; note what cannot be."""
        b = self.builder
        for call in calls:
            b.readers.update(name for name in call.inputs if name)
        for call in calls:
            lost = not self.unknown.isdisjoint(call.inputs)
            if call.op == "If" and not lost:
                self._branch(call)
            elif call.op not in ROWS and not self._is_constant(call) and call.op not in ("Shape", "Size"):
                self._fault(call, _reason(call.op))
            elif lost:
                self.unknown.update(call.outputs)
            else:
                self._translate(call)

    def _is_constant(self, call: Call) -> bool:
        """Tell whether all that a node reads is known; a node of another domain is never computed."""
        known = all(isinstance(self.builder.values.get(name), np.ndarray) for name in call.inputs if name)
        return known and "." not in call.op and call.op not in CONTROL and call.proto is not None

    def _translate(self, call: Call) -> None:
        b = self.builder
        first = b.begin(call)
        try:
            if self._is_constant(call):
                b.finish(call, evaluate(call, b.values, b.opset), first)  # type: ignore[arg-type]
                if call.op == "DequantizeLinear":
                    note_constant(b, call)
            elif call.op in ("Shape", "Size"):
                shape = np.array(b.shape(b.value(call)), np.int64)
                part = slice(call.attrs.get("start", 0), call.attrs.get("end"))
                b.finish(call, [shape[part] if call.op == "Shape" else np.array(shape.prod())], first)
            else:
                made = ROWS[call.op](b, call)
                b.finish(call, made if isinstance(made, list) else [made], first)
        except InputError as error:
            self._fault(call, str(error))

    def _branch(self, call: Call) -> None:
        """Take the branch of an ``If`` whose condition is known."""
        from onnx import numpy_helper

        b, condition = self.builder, self.builder.values.get(call.inputs[0])
        if not isinstance(condition, np.ndarray):
            self._fault(call, "control flow: its condition is computed while the network runs")
            return
        taken = call.attrs["then_branch" if condition.reshape(-1)[0] else "else_branch"]
        b.values.update({t.name: numpy_helper.to_array(t) for t in taken.initializer})
        ends = [o.name for o in taken.output]
        try:
            calls = ordered(calls_of(taken), set(b.values) | self.unknown, ends)
        except InputError as error:
            self._fault(call, str(error))
            return
        b.readers.update(ends)
        self.translate(calls)
        for inner, outer in zip(ends, call.outputs, strict=True):
            if inner in b.values:
                b.values[outer] = b.values[inner]
            else:
                self.unknown.add(outer)

    def _fault(self, call: Call, why: str) -> None:
        self.faults.append(f"{call.where}: {why}" if why else call.where)
        self.unknown.update(call.outputs)

    def _ended(self, calls: list[Call], names: list[str], metadata: Metadata) -> Graph:
        """Return the graph with the file's outputs, under their names."""
        b, ends = self.builder, list[str]()
        makers = {name: call for call in calls for name in call.outputs}
        for name in names:
            found = b.values[name]
            if not isinstance(found, Value):
                raise UnsupportedError(f"{self.path}: output {name!r} does not depend on any input")
            b.scope, b.named = graph_name(name), False
            found = self._placed(found, _was_turned(name, makers))
            if found.name in (*b.inputs, *ends):  # an output of its own
                found = b.add("reshape", found, axes=found.axes, shape=b.held(found))
            if found.name != b.scope:
                found = Value(b.rename(found.name, b.unique(b.scope)), found.axes)
            b.origin[found.name] = (name, found.axes)
            ends.append(found.name)
        return Graph(
            nodes=tuple(b.nodes), tensors=b.tensors, inputs=tuple(b.inputs), outputs=tuple(ends), metadata=metadata
        )

    def _placed(self, found: Value, turned: bool) -> Value:
        """Return an output in the graph's order: images with their channels last, where the file has not done it."""
        b, shape = self.builder, self.builder.shape(found)
        if shape[:1] != (1,):  # the batch is merged or dropped
            return b.arranged(b.unbatched(found), (BATCH, *range(len(shape))))
        found, plain = b.batched(found), tuple(range(len(shape)))
        stays = len(shape) != 4 or (turned and found.axes == plain)
        return b.arranged(found, plain if stays else b.image_axes(4))


def _reason(op: str) -> str:
    """Return why an op is not supported, where there is more to say than that."""
    if op in CONTROL:
        return "control flow"
    integer = "QLinear" in op or op.endswith("Integer") or op == "DynamicQuantizeLinear"
    return "an op on integers; quantize with QuantizeLinear and DequantizeLinear (QuantFormat.QDQ)" if integer else ""


def _type_of(info: Any) -> str:
    from onnx import TensorProto

    if not info.type.HasField("tensor_type"):
        return "undefined" if not info.type.WhichOneof("value") else "no tensor"
    name = str(TensorProto.DataType.Name(info.type.tensor_type.elem_type)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _is_channels_last(name: str, calls: list[Call]) -> bool:
    """Tell whether all that the file does with an input first is to put its last dimension before the others."""
    found = [call for call in calls if name in call.inputs and call.op != "Shape"]
    return bool(found) and all(c.op == "Transpose" and c.attrs.get("perm") == TO_CHANNELS_FIRST for c in found)


def _was_turned(name: str, makers: Mapping[str, Call]) -> bool:
    """Tell whether the file puts an output's channels last, after everything else."""
    call = makers.get(name)
    while call is not None and call.op in KEEPS_PLACES:
        call = makers.get(call.inputs[0])
    return call is not None and call.op == "Transpose" and call.attrs.get("perm") == TO_CHANNELS_LAST


def _record(model: Any, path: Path) -> dict[str, Any]:
    """Return what edgecnn noted in a file of its own; nothing in another's."""
    record = next((p.value for p in model.metadata_props if p.key == KEY), "{}")
    try:
        return dict(json.loads(record))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: the record of edgecnn in the file is damaged ({error}); export it again") from None


def _metadata(record: Mapping[str, Any], path: Path) -> Metadata:
    if not record:
        return Metadata()
    try:
        return described(record, *NOTED)[1]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _own(record: Mapping[str, Any], path: Path, model: Any) -> Imported:
    """Return the graph of a file of ours that holds integers; real values and integers go in and out."""
    metadata = _metadata(record, path)
    try:
        graph = own.recalled(record[own.RECORD], path.read_bytes(), metadata)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    ends = (*graph.inputs, *graph.outputs)
    origin = {name: (name, _file_order(graph.tensors[name].shape)) for name in ends}
    return Imported(graph=graph, reference=lambda values: run(model, graph, origin, values))


def _file_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the dimension of the file for each one of the graph, of what goes in and out."""
    return TO_CHANNELS_LAST if len(shape) == 4 else tuple(range(len(shape)))
