"""Read ``.tflite`` files, ours and others': for inspection, for comparison, and for what a runtime must be fed."""

from __future__ import annotations

import json
import math
import struct
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.budget import budget
from edgecnn.errors import InputError
from edgecnn.graph.ir import QParams
from edgecnn.graph.summary import Layer, scale_span
from edgecnn_converters.metadata import KEY
from edgecnn_converters.names import SEPARATOR
from edgecnn_converters.tflite.format import CONVERSIONS, IDENTIFIER, OHWI_TO_1HWO, WEIGHTED, load_schema

# What flatbuffers' accessors raise where an offset leads out of the file or to something else; none of it is ours.
MALFORMED = (struct.error, ValueError, TypeError, LookupError, AttributeError, OverflowError)


@dataclass(frozen=True, kw_only=True, eq=False)
class TfliteTensor:
    """One tensor as the file has it. It has an axis where it has several scales: a file does not tell one channel."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32] | None = None
    zero_point: NDArray[np.int64] | None = None
    axis: int | None = None
    data: NDArray[Any] | None = None  # of a sparse tensor, with its zeros
    dynamic: tuple[int, ...] = ()  # dimensions whose size the file leaves open; ``shape`` has 1 there


@dataclass(frozen=True, kw_only=True)
class TfliteOp:
    """One operator."""

    name: str  # the schema's, such as ``CONV_2D``; ``CUSTOM:name`` for a custom one
    version: int
    inputs: tuple[int, ...]  # tensor indices; -1 for an optional input that is not given
    outputs: tuple[int, ...]
    options: Mapping[str, Any]  # the builtin options' fields
    options_type: str = ""  # the schema's class of the options, such as ``Conv2DOptionsT``


@dataclass(frozen=True, kw_only=True, eq=False)
class TfliteModel:
    """The first subgraph of a file."""

    tensors: tuple[TfliteTensor, ...]
    ops: tuple[TfliteOp, ...]
    inputs: tuple[int, ...]  # tensor indices
    outputs: tuple[int, ...]
    metadata: Mapping[str, Any] | None  # what edgecnn wrote: ``precision`` beside the fields of ``graph.ir.Metadata``
    signature: Mapping[int, str] = field(default_factory=dict)  # tensor indices of inputs and outputs to their names
    subgraphs: int = 1  # of the file; those behind the first are the bodies of control flow


def read(data: bytes) -> TfliteModel:
    """Return everything in a ``.tflite`` file that edgecnn knows of.

    Raises:
        InputError: not a TFLite file, or a truncated or corrupt one.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    schema = load_schema()
    if data[4:8] != IDENTIFIER:
        raise InputError("not a TFLite file: the identifier TFL3 is missing; give a .tflite file")
    try:
        _bounded(schema, data)
        return _model(schema, schema.ModelT.InitFromPackedBuf(data))
    except MALFORMED as error:
        reason = textwrap.shorten(repr(error), 120)
        raise InputError(f"the TFLite file is truncated or corrupt ({reason}); export it again") from None


def _bounded(schema: Any, data: bytes) -> None:
    """Check how much a file unpacks to: its vectors may claim any length, and its tables may be named often.

    Raises:
        InputError: there are more tensors, ops or operands than the budget has.
    """
    model, allowed = schema.Model.GetRootAs(data), budget()
    count = sum(getattr(model, f"{each}Length")() for each in ("Buffers", "Metadata", "OperatorCodes", "SignatureDefs"))
    allowed.require_count(count + model.SubgraphsLength(), "tables in the file")
    for k in range(model.SubgraphsLength()):
        graph = model.Subgraphs(k)
        count += graph.TensorsLength() + graph.OperatorsLength() + graph.InputsLength() + graph.OutputsLength()
        allowed.require_count(count, "tables in the file")
        for i in range(graph.OperatorsLength()):
            op = graph.Operators(i)
            count += op.InputsLength() + op.OutputsLength() + op.IntermediatesLength()
            allowed.require_count(count, "operands in the file")
        numbers = 0
        for i in range(graph.TensorsLength()):
            tensor = graph.Tensors(i)
            quant = tensor.Quantization()
            numbers += tensor.ShapeLength() + tensor.ShapeSignatureLength()
            if quant is not None:
                numbers += quant.ScaleLength() + quant.ZeroPointLength() + quant.MinLength() + quant.MaxLength()
            allowed.require(4 * numbers, "the scales of the file", file_bytes=len(data))
    size = 0
    for k in range(model.BuffersLength()):
        size += model.Buffers(k).DataLength()
        allowed.require(size, "the buffers of the file", file_bytes=len(data))


def _model(schema: Any, model: Any) -> TfliteModel:
    graph = model.subgraphs[0]
    blobs = {
        str(_text(m.name)): np.asarray(model.buffers[m.buffer].data).tobytes()
        for m in model.metadata or []
        if model.buffers[m.buffer].data is not None
    }
    read_model = TfliteModel(
        tensors=tuple(_tensor(schema, model, t) for t in graph.tensors),
        ops=tuple(_op(schema, model, o) for o in graph.operators),
        inputs=_indices(graph.inputs),
        outputs=_indices(graph.outputs),
        metadata=json.loads(blobs[KEY]) if KEY in blobs else None,
        signature=_signature(model),
        subgraphs=len(model.subgraphs),
    )
    used = [*read_model.inputs, *read_model.outputs, *(i for o in read_model.ops for i in (*o.inputs, *o.outputs))]
    if any(not -1 <= i < len(read_model.tensors) for i in used):
        raise IndexError("an operator reads a tensor that is not there")
    return read_model


def _signature(model: Any) -> dict[int, str]:
    """Return the names of the signature of the first subgraph; none where it has several."""
    mine = [s for s in model.signatureDefs or [] if not s.subgraphIndex]
    if len(mine) != 1:
        return {}
    return {int(m.tensorIndex): _text(m.name) for m in (*(mine[0].inputs or []), *(mine[0].outputs or []))}


def _tensor(schema: Any, model: Any, tensor: Any) -> TfliteTensor:
    dtype = _names(schema.TensorType)[tensor.type].lower()
    shape = _indices(tensor.shape)
    raw = model.buffers[tensor.buffer].data
    constant = None
    if raw is not None and len(raw) and dtype in np.sctypeDict:
        constant = np.frombuffer(np.asarray(raw).tobytes(), dtype)
        constant = constant.reshape(shape) if tensor.sparsity is None else _dense(constant, shape, tensor.sparsity)
    elif tensor.buffer and 0 in shape and dtype in np.sctypeDict:
        constant = np.empty(shape, dtype)
    q = tensor.quantization
    grid: dict[str, Any] = {}
    if q is not None and q.scale is not None and len(q.scale) > 0:
        zeros = np.zeros(len(q.scale)) if q.zeroPoint is None else q.zeroPoint
        grid = {"scale": np.asarray(q.scale, np.float32), "zero_point": np.asarray(zeros, np.int64)}
        grid["axis"] = int(q.quantizedDimension) if len(q.scale) > 1 else None
    dynamic = tuple(k for k, d in enumerate(_indices(tensor.shapeSignature)) if d < 0)
    name = "" if tensor.name is None else _text(tensor.name)
    return TfliteTensor(name=name, shape=shape, dtype=dtype, data=constant, dynamic=dynamic, **grid)


def _dense(values: NDArray[Any], shape: tuple[int, ...], sparsity: Any) -> NDArray[Any]:
    """Return a sparse tensor with its zeros.

    Levels are the dimensions, and then those of the blocks in some of them, in ``traversalOrder``; each is dense or
    lists its places. Source: TensorFlow Lite ``schema.fbs``, ``SparsityParameters``.
    """
    order, blocks = _indices(sparsity.traversalOrder), _indices(sparsity.blockMap)
    ends: NDArray[np.int64] = np.zeros(1, np.int64)  # how far each element of the level above is in its own
    places: dict[int, NDArray[np.int64]] = {}
    sizes: dict[int, int] = {}
    for dim, level in zip(order, sparsity.dimMetadata, strict=True):
        if level.format == 0:
            sizes[dim] = int(level.denseSize)
            budget().require_shape((len(ends), max(sizes[dim], 0)), "a sparse tensor")
            counts = np.full(len(ends), sizes[dim])
            own = np.tile(np.arange(sizes[dim]), len(ends))
            made = np.repeat(ends * sizes[dim], counts) + own
        else:
            segments, indices = (np.asarray(v.values, np.int64) for v in (level.arraySegments, level.arrayIndices))
            counts = segments[ends + 1] - segments[ends]
            first = np.repeat(segments[ends], counts)
            made = first + np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
            own = indices[made]
        places = {k: np.repeat(v, counts) for k, v in places.items()} | {dim: own}
        ends = made
    rank = len(shape)
    whole = [places[k] for k in range(rank)]
    for k, dim in enumerate(blocks):
        whole[dim] = whole[dim] * sizes[rank + k] + places[rank + k]
    budget().require_shape(shape, "a sparse tensor")
    dense = np.zeros(shape, values.dtype)
    dense[tuple(whole)] = values
    return dense


def _op(schema: Any, model: Any, op: Any) -> TfliteOp:
    code = model.operatorCodes[op.opcodeIndex]
    name = _names(schema.BuiltinOperator)[max(code.builtinCode, code.deprecatedBuiltinCode)]
    fields = vars(op.builtinOptions) if op.builtinOptions is not None else {}
    return TfliteOp(
        name=f"CUSTOM:{_text(code.customCode)}" if name == "CUSTOM" else name,
        version=int(code.version),
        inputs=_indices(op.inputs),
        outputs=_indices(op.outputs),
        options={k: v for k, v in fields.items() if v is not None},
        options_type="" if op.builtinOptions is None else type(op.builtinOptions).__name__,
    )


def _names(kind: Any) -> dict[int, str]:
    return {value: name for name, value in vars(kind).items() if isinstance(value, int)}


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)


def _indices(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in np.asarray(values if values is not None else ()))


def integers(data: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """Return the quantized tensors in the graph's own form; see ``registry.Converter``."""
    model = read(data)
    weighted = [op for op in model.ops if op.name in WEIGHTED]
    stored = {op.outputs[0]: op.inputs[0] for op in model.ops if op.name == "DEQUANTIZE"}  # weight-only files
    per_channel = {stored.get(i, i) for op in weighted for i in op.inputs[1:]}
    depthwise = {stored.get(op.inputs[1], op.inputs[1]) for op in weighted if op.name == "DEPTHWISE_CONV_2D"}
    found: dict[str, tuple[QParams, NDArray[Any] | None]] = {}
    for index, tensor in enumerate(model.tensors):
        scale, zero = tensor.scale, tensor.zero_point
        if scale is None or zero is None or tensor.dtype not in QParams.TYPES or SEPARATOR in tensor.name:
            continue
        values, axis = tensor.data, 0 if index in per_channel else tensor.axis
        if index in depthwise and values is not None:
            values = np.ascontiguousarray(values.transpose(OHWI_TO_1HWO))
        found[tensor.name] = (QParams(scale=scale, zero_point=zero, dtype=tensor.dtype, axis=axis), values)
    return found


def layers(data: bytes) -> list[Layer]:
    """List every operator of the file, with what it stores and what it costs."""
    model = read(data)
    return [_layer(model, op) for op in model.ops]


def _layer(model: TfliteModel, op: TfliteOp) -> Layer:
    made = model.tensors[op.outputs[0]]
    constants = [t for t in (model.tensors[i] for i in op.inputs if i >= 0) if t.data is not None]
    weight = next((t for t in constants if op.name in WEIGHTED), None)
    macs = 0
    if op.name in WEIGHTED:
        kernel = model.tensors[op.inputs[1]].shape
        macs = math.prod(made.shape) * math.prod(kernel[1:3] if op.name == "DEPTHWISE_CONV_2D" else kernel[1:])
    elif op.name == "BATCH_MATMUL":
        macs = math.prod(made.shape) * model.tensors[op.inputs[0]].shape[-2 if op.options.get("adjX") else -1]
    return Layer(
        op=op.name,
        name=made.name,
        output=made.shape,
        dtype=made.dtype,
        scale=None if made.scale is None else float(made.scale[0]),
        zero_point=None if made.zero_point is None else int(made.zero_point[0]),
        weight="" if weight is None else f"{weight.dtype} {'x'.join(map(str, weight.shape))}",
        weight_scales=scale_span(None if weight is None else weight.scale),
        weight_bytes=sum(t.data.nbytes for t in constants if t.data is not None),
        macs=macs,
        details=" ".join(_details(op)),
    )


def _details(op: TfliteOp) -> Iterator[str]:
    schema, options = load_schema(), op.options
    if "strideH" in options:
        yield f"stride={options['strideH']}x{options['strideW']}"
    if "padding" in options:
        yield f"padding={_names(schema.Padding)[options['padding']]}"
    if options.get("fusedActivationFunction"):
        yield f"activation={_names(schema.ActivationFunctionType)[options['fusedActivationFunction']]}"
    if "depthMultiplier" in options and options["depthMultiplier"] != 1:
        yield f"multiplier={options['depthMultiplier']}"


def guess_precision(model: TfliteModel) -> str:
    """Guess the precision of a file that does not say it, from the types of its activations, then of its constants."""
    made = {model.tensors[i].dtype for op in model.ops for i in op.outputs if op.name not in CONVERSIONS}
    stored = {t.dtype for t in model.tensors if t.data is not None}
    if made & {"int8", "uint8"}:
        return "int8"
    if "int16" in made:
        return "int16x8"
    return "w8" if stored & {"int8", "uint8"} else "fp16" if "float16" in stored else "fp32"
