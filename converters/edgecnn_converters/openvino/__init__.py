"""OpenVINO IR: FakeQuantize on activations, int8 weights behind Convert and Multiply; the CPU plugin runs int8."""

from __future__ import annotations

import re

from edgecnn.artifact import ConvertedModel
from edgecnn.errors import MissingDependencyError
from edgecnn.files import scratch
from edgecnn.graph.ir import Graph
from edgecnn_converters.layout import ports
from edgecnn_converters.metadata import KEY, MODEL_INFO, model_info, to_text
from edgecnn_converters.openvino.reader import describe, integers, layers
from edgecnn_converters.preconditions import check
from edgecnn_converters.registry import IN_8_BITS, Converter


def convert(graph: Graph, *, precision: str, io: str = "float32") -> ConvertedModel:
    """Write a graph as OpenVINO IR (``.xml`` and ``.bin``), NCHW, float32 outside; see ``registry.Converter``."""
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError("writing OpenVINO IR needs openvino: pip install 'edgecnn[openvino]'") from None
    from edgecnn_converters.openvino.lowering import model as lowered

    check("OpenVINO IR", unsupported, graph, precision, io, ("float32",))
    model = lowered(graph, precision)
    model.set_rt_info(to_text(graph, precision), KEY)
    for key, value in model_info(graph).items():
        model.set_rt_info(value, [MODEL_INFO, key])
    with scratch() as folder:
        xml, data = folder / "model.xml", folder / "model.bin"
        openvino.serialize(model, str(xml), str(data))
        text = re.sub(rb">\s+<", b"><", xml.read_bytes())  # a third of it is indentation
        files = {".xml": text, ".bin": data.read_bytes()}
    inputs, outputs = ports(graph, "NCHW", "float32")
    return ConvertedModel(target="openvino", precision=precision, files=files, inputs=inputs, outputs=outputs)


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """List what of the graph OpenVINO IR cannot express, as (node, reason), in order."""
    from edgecnn_converters.openvino import kernel_faults

    return kernel_faults.unsupported(graph, precision)


CONVERTER = Converter(
    target="openvino",
    precisions=IN_8_BITS,
    suffixes=(".xml", ".bin"),
    convert=convert,
    unsupported=unsupported,
    describe=describe,
    integers=integers,
    layers=layers,
    io={"int8": ("float32",)},
    refusals={"int16x8": "OpenVINO's CPU plugin computes in float after a FakeQuantize of 65,536 levels"},
)
