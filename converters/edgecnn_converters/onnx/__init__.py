"""ONNX: QuantizeLinear and DequantizeLinear around float ops, which ONNX Runtime fuses into integer kernels."""

from __future__ import annotations

from pathlib import Path

from edgecnn.artifact import ConvertedModel
from edgecnn.errors import InputError, MissingDependencyError, unknown
from edgecnn.graph.ir import Graph
from edgecnn_converters.layout import ports
from edgecnn_converters.metadata import KEY, MODEL_INFO, model_info, to_text
from edgecnn_converters.onnx import own
from edgecnn_converters.onnx.reader import describe, integers, layers, parsed
from edgecnn_converters.preconditions import Fault, check
from edgecnn_converters.registry import IN_8_BITS, Converter

IO = ("float32", "uint8", "int8")


def unsupported(graph: Graph, precision: str) -> list[Fault]:
    """List what cannot be written; see ``registry.Converter``."""
    from edgecnn_converters.onnx import kernel_faults  # and with it the oracle, which no row needs

    return kernel_faults.unsupported(graph, precision)


def convert(graph: Graph, *, precision: str, io: str = "float32", activations: str = "uint8") -> ConvertedModel:
    """Write a graph as ``.onnx``, NCHW; see ``registry.Converter``.

    Activations of an int8 file are uint8 (zero point + 128: the same grid), weights int8 per channel: what ONNX Runtime
    runs fastest on x86 with VNNI; on Arm it is int8. The opset and IR version are the oldest that carry what is used.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("writing ONNX needs onnx: pip install 'edgecnn[onnx]'") from None
    from edgecnn_converters.onnx.emitter import Emitter
    from edgecnn_converters.onnx.lowering import LOWERINGS

    check("ONNX", unsupported, graph, precision, io, IO)
    if activations not in ("uint8", "int8"):
        raise InputError(unknown("type of activations", activations, ("uint8", "int8")))
    emitter = Emitter(graph, precision, io if precision == "int8" else "float32", activations)
    model = emitter.model(LOWERINGS)
    note = {own.RECORD: own.noted(graph)} if precision == "int8" else {}
    said = {f"{MODEL_INFO} {key}": value for key, value in model_info(graph).items()}  # as Model API reads ONNX files
    onnx.helper.set_model_props(model, {KEY: to_text(graph, precision, io=emitter.io, **note), **said})
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString(deterministic=True)
    inputs, outputs = ports(graph, "NCHW", emitter.io)
    return ConvertedModel(target="onnx", precision=precision, files={".onnx": data}, inputs=inputs, outputs=outputs)


def gathered(path: Path) -> list[bytes]:
    """Return a file with its external data inside.

    Raises:
        InputError: it cannot be read, or lacks external data.
    """
    from edgecnn_converters.onnx.model_file import load_external

    data = path.read_bytes()
    if b"location" not in data:  # the key of each entry of external data
        return [data]
    model = parsed(data)
    load_external(model, path)
    return [model.SerializeToString()]


CONVERTER = Converter(
    target="onnx",
    precisions=IN_8_BITS,
    suffixes=(".onnx",),
    convert=convert,
    unsupported=unsupported,
    describe=describe,
    integers=integers,
    layers=layers,
    io={"int8": IO},
    options=("activations",),
    gather=gathered,
    refusals={"int16x8": "ONNX Runtime computes in float between 16-bit QuantizeLinear and DequantizeLinear"},
)
