"""ONNX: QuantizeLinear and DequantizeLinear around float ops, which ONNX Runtime fuses into integer kernels."""

from __future__ import annotations

import json
from typing import Any

from numpy.typing import NDArray

from edgecnn.artifact import Emission, Port
from edgecnn.errors import InputError, MissingDependencyError, unknown
from edgecnn.graph.ir import Graph, Metadata, QParams
from edgecnn.graph.summary import Layer
from edgecnn_converters.layout import nchw
from edgecnn_converters.request import check_request, float16_obstacles, refuse

IO = ("float32", "uint8", "int8")
METADATA = "edgecnn"  # key of metadata_props


def convert(graph: Graph, *, precision: str, io: str = "float32", activations: str = "uint8") -> Emission:
    """Write a graph as ``.onnx``, NCHW. The same graph gives the same bytes.

    Activations are uint8 (zero point + 128: the same grid), weights int8 per channel: what ONNX Runtime runs fastest on
    x86 with VNNI; on Arm it is int8. The opset and IR version are the oldest that carry what is used.

    Args:
        graph: one NHWC input, one output; float for fp32 and fp16, integers in its weights for w8, full int8 for int8.
        precision: ``fp32``, ``fp16``, ``w8`` or ``int8``.
        io: type of the input and output of an int8 file.
        activations: how an int8 file carries its activations: ``uint8`` or ``int8``.

    Raises:
        InputError: the graph is not of that precision, or breaks the numerics contract.
        UnsupportedError: the graph holds what the file cannot express.
        MissingDependencyError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("writing ONNX needs onnx: pip install 'edgecnn[onnx]'") from None
    from edgecnn_converters.onnx.rows import Emitter

    check_request(graph, precision, io, IO)
    refuse("ONNX", unsupported(graph, precision))
    if activations not in ("uint8", "int8"):
        raise InputError(unknown("type of activations", activations, ("uint8", "int8")))
    emitter = Emitter(graph, precision, io if precision == "int8" else "float32", activations)
    model = emitter.model()
    fields = {"precision": precision, "io": emitter.io, **graph.metadata.to_json()}
    onnx.helper.set_model_props(model, {METADATA: json.dumps(fields, sort_keys=True, allow_nan=False)})
    onnx.checker.check_model(model, full_check=True)
    return Emission(
        target="onnx",
        precision=precision,
        files={".onnx": model.SerializeToString(deterministic=True)},
        input=port(graph, graph.inputs[0], emitter.io),
        output=port(graph, graph.outputs[0], emitter.io),
    )


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """What of the graph ONNX cannot express: (node, reason), in order. Empty when all of it can be written."""
    return float16_obstacles(graph, precision)


def unsigned(quant: QParams) -> tuple[float, int]:
    """(scale, zero point) of an int8 grid carried as uint8."""
    return float(quant.scale[0]), int(quant.zero_point[0]) + 128


def port(graph: Graph, name: str, io: str) -> Port:
    """How the file takes or gives a tensor of the graph."""
    tensor = graph.tensors[name]
    shape = nchw(tensor.shape)
    fields: dict[str, Any] = {"name": name, "shape": shape, "layout": "NCHW" if len(shape) == 4 else "NC", "dtype": io}
    if io == "float32" or tensor.quant is None:
        return Port(**fields)
    scale, zero = unsigned(tensor.quant)
    return Port(**fields, scale=scale, zero_point=zero if io == "uint8" else zero - 128)


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """The precision of an ``.onnx`` file, ours or another's, and what our writer noted in it.

    Raises:
        InputError: not an ONNX file, a corrupt one, or damaged metadata.
        MissingDependencyError: onnx is not installed.
    """
    from edgecnn_converters.onnx.reader import guess_precision, read

    model = read(data)
    props = {p.key: p.value for p in model.metadata_props}
    if METADATA not in props:
        return guess_precision(model), None
    fields = json.loads(props[METADATA])
    fields.pop("io", None)
    return str(fields.pop("precision", "")), Metadata.from_json(fields)


def integers(data: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """See ``edgecnn_converters.onnx.reader.integers``."""
    from edgecnn_converters.onnx import reader

    return reader.integers(data)


def layers(data: bytes) -> list[Layer]:
    """See ``edgecnn_converters.onnx.reader.layers``."""
    from edgecnn_converters.onnx import reader

    return reader.layers(data)
