"""Import a ``.tflite`` file as a graph: float, or quantized where the file is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

from edgecnn.errors import InputError, UnsupportedError, supported_ops
from edgecnn.graph.importers import Imported, Importer
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.node_builder import BATCH, Value
from edgecnn.graph.ops import need
from edgecnn_converters.metadata import described
from edgecnn_converters.tflite.folding import fold, foldable
from edgecnn_converters.tflite.format import CONVERSIONS, FUNCTIONS
from edgecnn_converters.tflite.import_integers import quantized
from edgecnn_converters.tflite.import_ops import HANDLERS
from edgecnn_converters.tflite.reader import TfliteModel, TfliteOp, read
from edgecnn_converters.tflite.reference import Reference
from edgecnn_converters.tflite.translation import INTEGERS, Translation

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("IF", "WHILE", "CALL", "CALL_ONCE"), "control flow; a graph has none"),
    **dict.fromkeys(("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"), "a variable; a graph keeps no state"),
}
FLOAT = ("float32",)


def import_tflite(path: Path) -> Imported:
    """Read a file; see ``edgecnn.graph.importers.Importer``.

    The graph has float32 activations, or those of an integer file with the file's own integers.

    Raises:
        InputError: the file is missing or damaged, or has inputs that no graph has.
        UnsupportedError: it holds what no graph holds; all of it is listed, each op with the tensor that it makes.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a .tflite file")
    data = path.read_bytes()
    try:
        model = read(data)
        t = Translation(model, _is_integer(model))
        _add_inputs(t)
        _walk(t)
        graph = t.graph(_outputs(t), _metadata(model, path))
        for name, index in zip(graph.outputs, model.outputs, strict=True):
            dims = range(len(t.shape(t.values[index])))
            t.origin.setdefault(name, (index, (*([BATCH] * (len(graph.tensors[name].shape) - len(dims))), *dims)))
        graph = quantized(t, graph) if t.integer else graph
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    names = _names(t, graph)
    origin = {names[name]: place for name, place in t.origin.items() if name in graph.tensors}
    graph = _renamed(graph, names)
    return Imported(graph=graph, reference=Reference(data, model, graph, origin))


def _metadata(model: TfliteModel, path: Path) -> Metadata:
    """Return what edgecnn noted in its own file; of another's, its name."""
    return Metadata(model=path.stem) if model.metadata is None else described(model.metadata, FUNCTIONS)[1]


def _is_integer(model: TfliteModel) -> bool:
    """Tell whether activations are integers, but for those that come in or go out and are converted."""
    stored = {i for op in model.ops for i in op.inputs if i >= 0 and model.tensors[i].data is not None}
    made = [i for op in model.ops if op.name not in CONVERSIONS for i in (*op.inputs, *op.outputs)]
    activations = {i for i in (*model.inputs, *made) if i >= 0 and i not in stored}
    return any(model.tensors[i].dtype in (*INTEGERS, "uint8") for i in activations)


# --- inputs and outputs ---


def _add_inputs(t: Translation) -> None:
    need(bool(t.model.inputs), "the file has no inputs")
    for index in [_behind_conversion(t, i) for i in t.model.inputs]:
        tensor = t.model.tensors[index]
        name, allowed = tensor.name, INTEGERS if t.integer else FLOAT
        need(index not in t.constants, f"input {name!r} is a constant")
        need(tensor.dtype in allowed, f"input {name!r} is {tensor.dtype}; supported: {' and '.join(allowed)}")
        open_ = [d for d in tensor.dynamic if d > 0]
        shapes = f"input {name!r} of shape {tensor.shape} leaves the size of dimension {open_} open"
        need(not open_, f"{shapes}; only the batch may be, so convert with a fixed size")
        value = t.input(t.names[index], (1, *tensor.shape[1:]) if 0 in tensor.dynamic else tensor.shape)
        t.values[index] = value
        t.origin[value.name] = (index, value.axes)


def _behind_conversion(t: Translation, index: int) -> int:
    """Return the tensor that is the graph's input: of a float or uint8 one that is put on a grid, the one behind."""
    op = t.alone(index)
    if not t.integer or op is None or op.name != "QUANTIZE" or t.model.tensors[index].dtype not in ("float32", "uint8"):
        return index
    t.done.add(id(op))
    inner = op.outputs[0]
    if t.model.metadata is None:
        t.names[inner], t.names[index] = t.names[index], t.names[inner]
    return inner


def _outputs(t: Translation) -> list[Value]:
    need(bool(t.model.outputs), "the file has no outputs")
    fixed = [t.model.tensors[i].name for i in t.model.outputs if i not in t.values]
    need(not fixed, f"outputs {', '.join(map(repr, fixed))} do not depend on an input")
    return [t.values[i] for i in t.model.outputs]


# --- operators ---


def _walk(t: Translation) -> None:
    """Make nodes of every op that the outputs depend on.

    Raises:
        UnsupportedError: lists every op that cannot be made.
    """
    faults: list[str] = []
    for op in _needed(t.model):
        if id(op) in t.done:
            continue
        t.scope, t.named, t.finished, first = t.names[op.outputs[0]], True, op, len(t.nodes)
        try:
            _make(t, op)
        except InputError as error:
            made = f"{op.name} {t.model.tensors[op.outputs[0]].name!r}"
            faults.append(f"{made}: {error}" if str(error) else made)
            for index in op.outputs:
                t.stand_in(index)
        t.spans.append((t.finished, first, len(t.nodes)))
    if t.model.subgraphs > 1 and not faults:
        faults.append(f"{t.model.subgraphs} subgraphs, where one is supported")
    if faults:
        listed = "; ".join(dict.fromkeys(faults))
        strange = dict.fromkeys(op.name for op in t.model.ops if op.name not in HANDLERS)
        known = f"; {supported_ops('tflite', strange, HANDLERS)}" if strange else ""
        raise UnsupportedError(f"it holds what no graph holds: {listed}{known}")


def _why(op: TfliteOp) -> str:
    custom = "a custom operator, whose arithmetic the file does not tell" if op.name.startswith("CUSTOM:") else ""
    return REASONS.get(op.name, custom)


def _needed(model: TfliteModel) -> Iterator[TfliteOp]:
    """Yield the ops that the outputs depend on, in order."""
    wanted = set(model.outputs)
    kept: list[TfliteOp] = []
    for op in reversed(model.ops):
        need(bool(op.outputs), f"the file is corrupt: {op.name} makes nothing")
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(op.inputs)
    return reversed(kept)


def _make(t: Translation, op: TfliteOp) -> None:
    if foldable(t, op):
        folded = fold(t, op)
        need(len(folded) == len(op.outputs), f"it has {len(op.outputs)} outputs; {len(folded)} are supported")
        t.constants.update(zip(op.outputs, folded, strict=True))
        return
    need(op.name in HANDLERS, _why(op))
    given = [i for i in op.inputs if i >= 0 and i not in t.constants]
    if any(i in t.hidden for i in given):
        t.hidden.update(op.outputs)
        return
    if not t.integer and (op.name == "ARG_MAX" or any(i in t.places for i in given)):
        t.places.update(op.outputs)
    allowed = INTEGERS if t.integer else FLOAT
    for tensor in (t.model.tensors[i] for i in (*given, *op.outputs) if i not in t.places):
        typed = f"its activation {tensor.name!r} is {tensor.dtype}; supported: {' and '.join(allowed)}"
        need(tensor.dtype in allowed or (t.integer and op.name in (*CONVERSIONS, "CAST", "ARG_MAX")), typed)
    made = HANDLERS[op.name](t, op)
    t.finish(op, [made] if isinstance(made, Value) else made)


# --- names ---


def _names(t: Translation, graph: Graph) -> dict[str, str]:
    """Return a name for every tensor of the graph: the file's, where it has one."""
    wished = {name: t.names[index] for name, (index, _) in t.origin.items()}
    if t.model.metadata is None:
        wished |= dict(zip(graph.outputs, (t.names[i] for i in t.model.outputs), strict=True))
    if t.integer:
        wished |= {name: t.names[index] for name, index in t.operands.items()}
    wished |= {name: name for name in graph.inputs}
    names: dict[str, str] = {}
    used: set[str] = set()
    known = [name for name in wished if name in graph.tensors]
    for name in dict.fromkeys((*graph.inputs, *graph.outputs, *known, *graph.tensors)):
        wish = wished.get(name, name)
        names[name] = next(w for w in chain([wish], (f"{wish}_{k}" for k in count(1))) if w not in used)
        used.add(names[name])
    return names


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    nodes = (replace(n, inputs=tuple(names[i] for i in n.inputs), output=names[n.output]) for n in graph.nodes)
    tensors = {names[name]: replace(tensor, name=names[name]) for name, tensor in graph.tensors.items()}
    inputs, outputs = (tuple(names[name] for name in side) for side in (graph.inputs, graph.outputs))
    return replace(graph, nodes=tuple(nodes), tensors=tensors, inputs=inputs, outputs=outputs)


IMPORTER = Importer(suffixes=(".tflite",), read=import_tflite, ops=lambda: HANDLERS, native="LiteRT")
