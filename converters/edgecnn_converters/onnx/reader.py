"""Read ``.onnx`` files, ours and others'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.graph.ir import Metadata, QParams
from edgecnn.graph.summary import Layer, scale_span
from edgecnn_converters.layout import OIHW_TO_OHWI, UINT8_OFFSET
from edgecnn_converters.metadata import KEY, described
from edgecnn_converters.names import SEPARATOR, part
from edgecnn_converters.onnx.format import INTEGERS, MOVING, TO_INTEGERS, TO_REAL, WEIGHTED

SUFFIX = part("", INTEGERS)
NOTED = ("io", "structure")  # in the record, beside what every format notes
SHOWN = ("strides", "pads", "dilations", "group", "axis")


def library() -> tuple[Any, type[Exception]]:
    """Return onnx, and what protocol buffers raise for a damaged message.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependencyError("reading ONNX needs onnx: pip install 'edgecnn[onnx]'") from None
    return onnx, DecodeError


def read(data: bytes) -> Any:
    """Return the ``ModelProto`` of a file.

    Raises:
        InputError: not an ONNX file, or a truncated or corrupt one.
        MissingDependencyError: onnx is not installed.
    """
    model = parsed(data)
    onnx, _ = library()
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, UnicodeDecodeError) as error:
        reason = next(iter(str(error).strip().splitlines()), "it is empty")
        raise InputError(f"the ONNX file is truncated or corrupt ({reason}); export it again") from None
    return model


def parsed(data: bytes) -> Any:
    """Return the ``ModelProto`` of a file, which nobody has checked.

    Raises:
        InputError: it is no message of this kind.
        MissingDependencyError: onnx is not installed.
    """
    onnx, decode_error = library()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (decode_error, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), "it is empty")
        raise InputError(f"the ONNX file is truncated or corrupt ({reason}); export it again") from None
    return model


def guess_precision(model: Any) -> str:
    """Guess the precision of a file that does not say it, from the types in it."""
    from onnx import TensorProto

    stored = {i.data_type for i in model.graph.initializer if np.prod(i.dims) > 1}
    kinds = {n.op_type for n in model.graph.node}
    if stored & {TensorProto.INT8, TensorProto.UINT8}:
        return "int8" if TO_INTEGERS in kinds or any(k.startswith("QLinear") for k in kinds) else "w8"
    return "fp16" if TensorProto.FLOAT16 in stored else "fp32"


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """Return the precision of an ``.onnx`` file, ours or another's, and what our writer noted in it."""
    model = read(data)
    record = next((p.value for p in model.metadata_props if p.key == KEY), None)
    return (guess_precision(model), None) if record is None else described(record, *NOTED)


def integers(data: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """Return the quantized tensors in the graph's own form; see ``registry.Converter``."""
    from onnx import numpy_helper

    model = read(data)
    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    found: dict[str, tuple[QParams, NDArray[Any] | None]] = {}
    for tensor, (scale, zeros) in _grids(model.graph, stored).items():
        name, values = tensor.removesuffix(SUFFIX), stored.get(tensor)
        if SEPARATOR in name:
            continue
        shifted = UINT8_OFFSET if zeros.dtype == np.uint8 else 0
        dtype = "int8" if shifted else str(zeros.dtype)
        if values is not None:
            values = (values.astype(np.int64) - shifted).astype(dtype)
            values = np.ascontiguousarray(values.transpose(OIHW_TO_OHWI)) if values.ndim == 4 else values
        scales, points = np.atleast_1d(scale).astype(np.float32), np.atleast_1d(zeros).astype(np.int64) - shifted
        quant = QParams(scale=scales, zero_point=points, dtype=dtype, axis=0 if zeros.ndim else None)
        found[name] = (quant, values)
    return found


def _grids(graph: Any, stored: Mapping[str, NDArray[Any]]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return scale and zero point of each tensor of integers in the file: the first ones, which it is made with.

    A hard swish reads its input by other scales too. Our files have the grids of all the graph's tensors, of those too
    that no node makes or reads.
    """
    grids = _held(graph, stored)
    for node in graph.node:
        if node.op_type in MOVING and node.input[0] in grids:
            grids.setdefault(node.output[0], grids[node.input[0]])
        if node.op_type in (TO_INTEGERS, TO_REAL):
            tensor = node.output[0] if node.op_type == TO_INTEGERS else node.input[0]
            grids.setdefault(tensor, (stored[node.input[1]], stored[node.input[2]]))
    return grids


def _held(graph: Any, stored: Mapping[str, NDArray[Any]]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return the grids that our files hold beside tensors of the graph, by the name of their integers."""
    ends = {value.name for value in (*graph.input, *graph.output)}
    grids: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for each in stored:
        name, _, what = each.rpartition(SEPARATOR)
        ours = what in ("zero_point_uint8", "zero_point_int8") and part(name, "scale") in stored
        if SEPARATOR in name or not ours:
            continue
        for integers in (name + SUFFIX, *({name} & ends)):
            grids[integers] = (stored[part(name, "scale")], stored[each])
    return grids


def layers(data: bytes) -> list[Layer]:
    """List every node that computes, with what it costs. Quantization is shown as the output's type; NCHW."""
    import onnx
    from onnx import numpy_helper

    model = onnx.shape_inference.infer_shapes(read(data))
    graph = model.graph
    stored = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    behind = {n.output[0]: n.input[0] for n in graph.node if n.op_type == TO_REAL}  # weights
    scales = {n.output[0]: stored.get(n.input[1]) for n in graph.node if n.op_type == TO_REAL}
    grids, onto = _grids(graph, stored), {n.input[0]: n.output[0] for n in graph.node if n.op_type == TO_INTEGERS}
    found = []
    for node in graph.node:
        if node.op_type in (TO_INTEGERS, TO_REAL, "Cast"):
            continue
        constants = [(name, stored[behind.get(name, name)]) for name in node.input if behind.get(name, name) in stored]
        weight = next((c for c in constants if node.op_type in WEIGHTED), None)
        made = onto.get(node.output[0], node.output[0])
        scale, zero = grids.get(made, (None, None))
        shape = shapes.get(node.output[0], ())
        found.append(
            Layer(
                op=node.op_type,
                name=made.removesuffix(SUFFIX),
                output=shape,
                dtype=str(zero.dtype) if zero is not None else "float32",
                scale=None if scale is None else float(scale),
                zero_point=None if zero is None else int(zero),
                weight="" if weight is None else f"{weight[1].dtype} {'x'.join(map(str, weight[1].shape))}",
                weight_scales=scale_span(None if weight is None else scales.get(weight[0])),
                weight_bytes=sum(values.nbytes for _, values in constants),
                macs=0 if weight is None else int(np.prod(shape) * np.prod(weight[1].shape[1:])),
                details=" ".join(f"{a.name}={_text(a)}" for a in node.attribute if a.name in SHOWN),
            )
        )
    return found


def _text(attribute: Any) -> str:
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
