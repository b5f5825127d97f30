"""TFLite: written by ``lowering`` and ``writer``, as a flatbuffer, and read by ``reader``. Needs no TensorFlow."""

from __future__ import annotations

from typing import Any

from edgecnn.artifact import PRECISIONS, ConvertedModel
from edgecnn.graph.ir import Graph, Metadata, Node, Tensor, is_wide
from edgecnn_converters.layout import port
from edgecnn_converters.metadata import KEY, described, to_text
from edgecnn_converters.preconditions import beyond_float16, check, refuse
from edgecnn_converters.registry import Converter
from edgecnn_converters.tflite.format import MIN_RUNTIME, MIN_RUNTIME_BYTES
from edgecnn_converters.tflite.lowering import LOWERINGS, Emitter, placement, scale_ratio
from edgecnn_converters.tflite.reader import guess_precision, integers, layers, read

IO = {"int8": ("int8", "uint8", "float32"), "int16x8": ("int16", "float32")}  # the first is the default
FLOAT_IO = ("float32",)


def convert(graph: Graph, *, precision: str, io: str | None = None) -> ConvertedModel:
    """Write a graph as ``.tflite``. The same graph gives the same bytes.

    Args:
        graph: one NHWC input, one output; float for fp32 and fp16, integers in its weights for w8, full int8 for int8.
        precision: ``fp32``, ``fp16``, ``w8``, ``int8`` or ``int16x8``.
        io: type of the input and output of an integer file: its own unless told. Others cost one operator at each end.

    Raises:
        InputError: the graph is not of that precision, or breaks the numerics contract; the message names the node.
        UnsupportedError: the graph holds what a TFLite file or its kernels cannot express; all of it is listed.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    types = IO.get(precision, FLOAT_IO)
    io = io or types[0]
    check(graph, precision, io, types)
    refuse("TFLite", unsupported(graph, precision))
    emitter = Emitter(graph, precision)
    source, result = (graph.tensors[name] for name in (*graph.inputs, *graph.outputs))
    outer = emitter.integer and io != types[0]
    fed = _outer_input(emitter, source, io) if outer else emitter.activation(source.name)
    for node in graph:
        LOWERINGS[node.op](emitter, node)
    made = _outer_output(emitter, result, io) if outer else emitter.activation(result.name)
    emitter.model.metadata(KEY, to_text(graph, precision).encode())
    newest = max(emitter.runtimes, key=lambda version: tuple(map(int, version.split("."))))
    emitter.model.metadata(MIN_RUNTIME, newest.encode().ljust(MIN_RUNTIME_BYTES, b"\0"))
    data = emitter.model.finish({"input": fed}, {"logits": made}, f"edgecnn {graph.metadata.model}".strip())
    into, out = (port(tensor, "NHWC", io, _outer_name(tensor, io) if outer else "") for tensor in (source, result))
    return ConvertedModel(target="tflite", precision=precision, files={".tflite": data}, input=into, output=out)


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """List what of the graph TFLite cannot express, as (node, reason), in order."""
    own = [(node.output, reason) for node in graph if (reason := _fault(graph, node, precision))]
    return own + beyond_float16(graph, precision)


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """Return the precision of a ``.tflite`` file, ours or another's, and what our writer noted in it.

    Raises:
        InputError: not a TFLite file, a corrupt one, or damaged metadata.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    model = read(data)
    if model.metadata is None:
        return guess_precision(model), None
    return described(model.metadata)


def _fault(graph: Graph, node: Node, precision: str) -> str | None:
    a: Any = node.attrs
    if node.op not in LOWERINGS:
        return f"no row for the op {node.op}; rows: {', '.join(sorted(LOWERINGS))}"
    if node.op == "avg_pool2d" and not isinstance(placement(graph, node, a["kernel"]), str):
        return f"average pooling with padding {a['padding']}; allowed: none, or TensorFlow's SAME"
    if precision in IO and node.op == "hard_swish":
        if is_wide(graph.tensors[node.output]):
            return "LiteRT has no hard_swish of 16-bit activations"
        if scale_ratio(graph, node) >= 128:
            return "int8 hard_swish needs an output scale above 1/128 of its input's"
    return None


def _outer_name(tensor: Tensor, io: str) -> str:
    return f"{tensor.name}_{io}"


def _outer(e: Emitter, tensor: Tensor, io: str) -> int:
    return e.model.tensor(_outer_name(tensor, io), tensor.shape, io, tensor.quant if io == "uint8" else None)


def _outer_input(e: Emitter, tensor: Tensor, io: str) -> int:
    source = _outer(e, tensor, io)
    e.operator("QUANTIZE", None, [source], e.activation(tensor.name), e.schema.QuantizeOptionsT())
    return source


def _outer_output(e: Emitter, tensor: Tensor, io: str) -> int:
    result = _outer(e, tensor, io)
    options = e.schema.QuantizeOptionsT() if io == "uint8" else e.schema.DequantizeOptionsT()
    e.operator("QUANTIZE" if io == "uint8" else "DEQUANTIZE", None, [e.activation(tensor.name)], result, options)
    return result


CONVERTER = Converter(
    target="tflite",
    precisions=PRECISIONS,
    suffixes=(".tflite",),
    convert=convert,
    unsupported=unsupported,
    describe=describe,
    integers=integers,
    layers=layers,
)
