"""TFLite: written by ``lowering`` and ``writer``, as a flatbuffer, and read by ``reader``. Needs no TensorFlow."""

from __future__ import annotations

from typing import Any

from edgecnn.artifact import PRECISIONS, ConvertedModel
from edgecnn.graph.ir import Graph, Metadata, Node, Quantized, Tensor
from edgecnn_converters.layout import ports
from edgecnn_converters.metadata import KEY, described, to_text
from edgecnn_converters.preconditions import KernelLimits, beyond_float16, beyond_kernels, check
from edgecnn_converters.registry import Converter
from edgecnn_converters.tflite.emitter import Emitter, placement, scale_ratio
from edgecnn_converters.tflite.format import FUNCTIONS, MIN_RUNTIME, MIN_RUNTIME_BYTES
from edgecnn_converters.tflite.labelling import METADATA, described_for_tasks, with_files
from edgecnn_converters.tflite.lowering import LOWERINGS
from edgecnn_converters.tflite.moves import slice_fits
from edgecnn_converters.tflite.reader import guess_precision, integers, layers, read

IO = {"int8": ("int8", "uint8", "float32"), "int16x8": ("int16", "float32")}  # the first is the default
FLOAT_IO = ("float32",)
LIMITS = KernelLimits(
    runtime="XNNPACK",
    multipliers={
        **dict.fromkeys(("conv2d", "fully_connected"), (2.0**-32, 2.0**8)),
        "mul": (2.0**-16, 2.0**8),
        "add": (2.0**-10, 2.0**8),
    },
)
"""Source: XNNPACK ``subgraph``. Beyond them it refuses the file, or its sums of two activations are wrong."""


def convert(graph: Graph, *, precision: str, io: str | None = None) -> ConvertedModel:
    """Write a graph as ``.tflite``, NHWC; see ``registry.Converter``.

    An integer file's input and output are of its own type unless told; others cost one operator at each end.
    """
    types = IO.get(precision, FLOAT_IO)
    io = io or types[0]
    check("TFLite", unsupported, graph, precision, io, types)
    emitter = Emitter(graph, precision)
    outer = emitter.integer and io != types[0]
    fed, made = {}, {}
    for name in graph.inputs:
        inner = fed[name] = emitter.activation(name)
        if outer:
            fed[name] = _outer(emitter, graph.tensors[name], io)
            emitter.operator("QUANTIZE", None, [fed[name]], inner, emitter.schema.QuantizeOptionsT())
    for node in graph:
        LOWERINGS[node.op](emitter, node)
    for name in graph.outputs:
        inner = made[name] = emitter.activation(name)
        if outer:
            made[name] = _outer(emitter, graph.tensors[name], io)
            kind = "Quantize" if io == "uint8" else "Dequantize"
            emitter.operator(kind.upper(), None, [inner], made[name], getattr(emitter.schema, f"{kind}OptionsT")())
    more = {FUNCTIONS: emitter.functions} if emitter.functions else {}
    emitter.model.metadata(KEY, to_text(graph, precision, **more).encode())
    newest = max(emitter.runtimes, key=lambda version: tuple(map(int, version.split("."))))
    emitter.model.metadata(MIN_RUNTIME, newest.encode().ljust(MIN_RUNTIME_BYTES, b"\0"))
    emitter.model.metadata(METADATA, described_for_tasks(graph))
    data = emitter.model.finish(fed, made, f"edgecnn {graph.metadata.model}".strip())
    inputs, outputs = ports(graph, "NHWC", io)
    files = {".tflite": with_files(data, graph)}
    return ConvertedModel(target="tflite", precision=precision, files=files, inputs=inputs, outputs=outputs)


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """List what of the graph TFLite cannot express, as (node, reason), in order."""
    own = [(node.output, reason) for node in graph if (reason := _fault(graph, node, precision))]
    return own + beyond_kernels(graph, LIMITS) + beyond_float16(graph, precision)


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """Return the precision of a ``.tflite`` file, ours or another's, and what our writer noted in it."""
    model = read(data)
    return (guess_precision(model), None) if model.metadata is None else described(model.metadata, FUNCTIONS)


def _fault(graph: Graph, node: Node, precision: str) -> str | None:
    a: Any = node.attrs
    if node.op not in LOWERINGS:
        return f"no row for the op {node.op}; rows: {', '.join(sorted(LOWERINGS))}"
    if node.op == "avg_pool2d" and not isinstance(placement(graph, node, a["kernel"]), str):
        return f"average pooling with padding {a['padding']}; allowed: none, or TensorFlow's SAME"
    if node.op == "slice" and (reason := slice_fits(graph, node)):
        return reason
    if precision in IO and graph.is_wide(node.output) and (node.spec.function or node.op == "prelu"):
        table = "and a table would have 65,536 entries; use int8"
        return f"{node.op} of 16-bit activations: no kernel of LiteRT makes the graph's integers, {table}"
    if precision in IO and node.op == "hard_swish":
        if graph.is_wide(node.output):
            return "LiteRT has no hard_swish of 16-bit activations"
        if scale_ratio(graph, node) >= 128:
            return "int8 hard_swish needs an output scale above 1/128 of its input's"
    return None


def _outer(e: Emitter, tensor: Tensor, io: str) -> int:
    quant = Quantized.of(tensor).quant if io == "uint8" else None
    return e.model.tensor(f"{tensor.name}_{io}", tensor.shape, io, quant)


CONVERTER = Converter(
    target="tflite",
    precisions=PRECISIONS,
    suffixes=(".tflite",),
    convert=convert,
    unsupported=unsupported,
    describe=describe,
    integers=integers,
    layers=layers,
    io=IO,
)
