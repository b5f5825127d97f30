"""The facts of TFLite files that reading and writing share: schema, names, layouts, operator versions."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.graph.ops import Node, make_node

SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes; the schema's force_align of Buffer.data, which the Python object API does not keep
MIN_RUNTIME = "min_runtime_version"  # name of the metadata that says which runtime is the oldest that can run the file
MIN_RUNTIME_BYTES = 16
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")  # operators that take values from one type to another
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")  # inputs 1 and 2 are a weight and a bias
OHWI_TO_1HWO = (3, 1, 2, 0)  # a depthwise weight is OHW1; swapping the outer two takes it back as well

# Operator to the version of each variant, and the first runtime that has it.
# Source: LiteRT ``tools/versioning/op_version.cc`` and ``runtime_version.cc``. Per-channel weights in FULLY_CONNECTED
# have no version of their own in int8 and int16; the runtime is that of the hybrid one (version 12). QUANTIZE of int8
# to int16 has none either: LiteRT 2.3 has it, TensorFlow 2.21 refuses it.
VERSIONS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "CONV_2D": {"float": (1, "1.5.0"), "int8": (3, "1.14.0"), "int16": (4, "2.3.0"), "grouped": (6, "2.9.0")},
    "DEPTHWISE_CONV_2D": {
        "float": (1, "1.5.0"),
        "dilated": (2, "1.12.0"),
        "int8": (3, "1.14.0"),
        "int16": (5, "2.3.0"),
    },
    "FULLY_CONNECTED": {"float": (1, "1.5.0"), "int8": (4, "2.17.0"), "int16": (7, "2.17.0")},
    "ADD": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.4.0"), "int32": (1, "1.5.0")},
    "MUL": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (4, "2.3.0"), "int8 enlarging": (3, "1.15.0")},
    "MAX_POOL_2D": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.3.0")},
    "AVERAGE_POOL_2D": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.3.0")},
    "MEAN": {"float": (1, "1.6.0"), "int8": (2, "1.14.0"), "int16": (3, "2.4.0")},
    "CONCATENATION": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.3.0")},
    "PAD": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.4.0")},
    "PADV2": {"float": (1, "1.9.0"), "int8": (2, "1.14.0"), "int16": (3, "2.4.0")},
    "RESHAPE": {"float": (1, "1.5.0"), "int8": (1, "1.5.0"), "int16": (1, "1.5.0")},
    "RELU": {"float": (1, "1.5.0"), "int8": (2, "2.1.0"), "int16": (3, "2.5.0")},
    "RELU6": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.5.0")},
    "HARD_SWISH": {"float": (1, "1.15.0"), "int8": (1, "1.15.0")},
    "LOGISTIC": {"float": (1, "1.14.0"), "int8": (2, "1.14.0"), "int16": (3, "2.3.0")},
    "SOFTMAX": {"float": (1, "1.5.0"), "int8": (2, "1.14.0"), "int16": (3, "2.3.0")},
    "TRANSPOSE": {
        "float": (1, "1.6.0"),
        "int8": (2, "1.14.0"),
        "int16": (5, "2.4.0"),
        "rank 5": (4, "2.3.0"),
        "rank 6": (6, "2.12.0"),
    },
    "STRIDED_SLICE": {"float": (1, "1.6.0"), "int8": (2, "1.14.0"), "int16": (4, "2.2.0"), "rank 5": (4, "2.2.0")},
    "GATHER": {"float": (1, "1.6.0"), "int8": (2, "1.14.0"), "int16": (4, "2.4.0")},
    "RESIZE_BILINEAR": {
        "float": (1, "1.7.0"),
        "int8": (2, "1.14.0"),
        "int16": (4, "2.5.0"),
        "placed": (3, "2.2.0"),
    },
    "RESIZE_NEAREST_NEIGHBOR": {
        "float": (1, "1.13.1"),
        "int8": (2, "1.14.0"),
        "int16": (4, "2.4.0"),
        "placed": (3, "2.3.0"),
    },
    "DEPTH_TO_SPACE": {"float": (1, "2.1.0"), "int8": (1, "2.1.0")},
    "SPACE_TO_DEPTH": {"float": (1, "1.5.0"), "int8": (2, "1.14.0")},
    "BATCH_MATMUL": {"float": (1, "2.3.0"), "int8": (2, "2.3.0"), "int16": (3, "2.4.0")},
    "PRELU": {"float": (1, "1.8.0"), "int8": (1, "1.8.0")},
    "LEAKY_RELU": {"float": (1, "1.13.1"), "int8": (2, "2.3.0")},
    "MAXIMUM": {"float": (1, "1.14.0"), "int8": (2, "1.14.0")},
    "MINIMUM": {"float": (1, "1.14.0"), "int8": (2, "1.14.0")},
    "RELU_N1_TO_1": {"float": (1, "1.5.0")},
    "TANH": {"float": (1, "1.14.0"), "int8": (2, "1.14.0")},
    "ELU": {"float": (1, "1.14.0"), "int8": (1, "1.14.0")},
    "GELU": {"float": (1, "2.9.0"), "int8": (2, "2.9.0")},
    "EXP": {"float": (1, "1.7.0"), "int8": (2, "2.12.0")},
    "LOG": {"float": (1, "1.14.0"), "int8": (2, "2.15.0")},
    "ABS": {"float": (1, "1.13.0")},
    "SQRT": {"float": (1, "1.10.0")},
    "RSQRT": {"float": (1, "1.10.0")},
    "DIV": {"float": (1, "1.6.0")},
    "POW": {"float": (1, "1.10.0")},
    "CAST": {"int32": (1, "1.5.0"), "int8": (1, "1.5.0"), "float": (1, "1.5.0")},
    "ARG_MAX": {"float": (1, "1.9.0"), "int8": (2, "1.14.0")},
    "QUANTIZE": {
        "int8": (1, "1.14.0"),
        "uint8 to int8": (2, "1.15.0"),
        "int16": (2, "1.15.0"),
        "int8 to int16": (2, "2.22.0"),
    },
    "DEQUANTIZE": {
        "int8": (2, "1.14.0"),
        "int16": (3, "1.15.0"),
        "float16": (3, "1.15.0"),
        "int8 per channel": (5, "2.7.0"),
    },
}


FUNCTIONS = "functions"  # in edgecnn's record: the nodes that are tables, or two products, in the file
ABOVE, BELOW = "above", "below"  # parts of a node that is the larger or smaller of two products: above zero and below


def write_function(node: Node) -> dict[str, Any]:
    """Return the record of a node that is a table or two products; JSON has no infinities, so numbers are text."""
    return {"op": node.op, **{k: v if isinstance(v, bool) else repr(float(v)) for k, v in node.attrs.items()}}  # type: ignore[arg-type]


def read_function(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the op and the attributes of a record.

    Raises:
        InputError: it is none.
    """
    try:
        attrs: dict[str, Any] = {k: v if isinstance(v, bool) else float(v) for k, v in record.items() if k != "op"}
        return make_node(str(record["op"]), ("x",), "y", **attrs).op, attrs
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the record of a function is damaged ({error}); export the file again") from None


def load_schema() -> ModuleType:
    """Return the generated schema.

    Raises:
        MissingDependencyError: ai-edge-litert or flatbuffers is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingDependencyError("TFLite files need ai-edge-litert: pip install 'edgecnn[tflite]'") from None
    module: ModuleType = schema_py_generated
    return module
