"""OpenVINO IR: FakeQuantize on activations, int8 weights behind Convert and Multiply; the CPU plugin runs int8."""

from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgecnn.artifact import Emission, Port
from edgecnn.errors import MissingDependencyError
from edgecnn.graph.ir import Graph, Metadata, QParams
from edgecnn.graph.summary import Layer
from edgecnn_converters.layout import nchw
from edgecnn_converters.request import check_request, float16_obstacles, refuse

METADATA = "edgecnn"  # key of rt_info


def convert(graph: Graph, *, precision: str, io: str = "float32") -> Emission:
    """Write a graph as OpenVINO IR (``.xml`` and ``.bin``), NCHW, float32 outside. The same graph gives the same bytes.

    Args:
        graph: one NHWC input, one output; float for fp32 and fp16, integers in its weights for w8, full int8 for int8.
        precision: ``fp32``, ``fp16``, ``w8`` or ``int8``.
        io: ``float32``.

    Raises:
        InputError: the graph is not of that precision, or breaks the numerics contract.
        UnsupportedError: the graph holds what the file cannot express.
        MissingDependencyError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError("writing OpenVINO IR needs openvino: pip install 'edgecnn[openvino]'") from None
    from edgecnn_converters.openvino.rows import Emitter

    check_request(graph, precision, io, ("float32",))
    refuse("OpenVINO IR", unsupported(graph, precision))
    model = Emitter(graph, precision).model()
    fields = {"precision": precision, **graph.metadata.to_json()}
    model.set_rt_info(json.dumps(fields, sort_keys=True, allow_nan=False), METADATA)
    with tempfile.TemporaryDirectory() as folder:
        xml, data = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, str(xml), str(data))
        text = re.sub(rb">\s+<", b"><", xml.read_bytes())  # a third of it is indentation
        files = {".xml": text, ".bin": data.read_bytes()}
    return Emission(
        target="openvino",
        precision=precision,
        files=files,
        input=_port(graph, graph.inputs[0]),
        output=_port(graph, graph.outputs[0]),
    )


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """What of the graph OpenVINO IR cannot express: (node, reason), in order. Empty when all of it can be written."""
    averages = (n.output for n in graph if n.op == "avg_pool2d" and math.prod(graph.tensors[n.output].shape) < 4)
    wrong = "OpenVINO 2026.4's int8 average pool gives wrong integers where its output is 1 to 3 numbers"
    return [*float16_obstacles(graph, precision), *((name, wrong) for name in averages if precision == "int8")]


def _port(graph: Graph, name: str) -> Port:
    shape = nchw(graph.tensors[name].shape)
    return Port(name=name, shape=shape, layout="NCHW" if len(shape) == 4 else "NC", dtype="float32")


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """The precision of an ``.xml``, ours or another's, and what our writer noted in it.

    Raises:
        InputError: not OpenVINO IR, a corrupt one, or damaged metadata.
    """
    from edgecnn_converters.openvino.reader import guess_precision, noted, parse

    root: Any = parse(data)
    text = noted(root, METADATA)
    if text is None:
        return guess_precision(root), None
    fields = json.loads(text)
    return str(fields.pop("precision", "")), Metadata.from_json(fields)


def integers(xml: bytes, data: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """See ``edgecnn_converters.openvino.reader.integers``."""
    from edgecnn_converters.openvino import reader

    return reader.integers(xml, data)


def layers(xml: bytes, data: bytes) -> list[Layer]:
    """See ``edgecnn_converters.openvino.reader.layers``."""
    from edgecnn_converters.openvino import reader

    return reader.layers(xml, data)
