"""Compute what depends on constants only: in numpy where that is plain, else by LiteRT's own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn_converters.tflite.format import load_schema
from edgecnn_converters.tflite.reader import TfliteOp
from edgecnn_converters.tflite.translation import Translation, dequantized, grid
from edgecnn_converters.tflite.writer import ModelWriter

SHAPES = ("SHAPE", "RANK")  # constant even where they read an activation: shapes are static


def foldable(t: Translation, op: TfliteOp) -> bool:
    """Whether an op depends on constants only."""
    given = [i for i in op.inputs if i >= 0]
    return all(i in t.constants for i in given) or (op.name in SHAPES and given[0] in t.values)


def fold(t: Translation, op: TfliteOp) -> list[NDArray[Any]]:
    """Return what an op of constants makes.

    Raises:
        InputError: LiteRT cannot run it.
    """
    if op.name in SHAPES:
        source = op.inputs[0]
        shape = t.constants[source].shape if source in t.constants else t.shape(t.values[source])
        dtype = t.model.tensors[op.outputs[0]].dtype
        return [
            np.array(shape if op.name == "SHAPE" else len(shape), dtype if dtype in ("int32", "int64") else "int32")
        ]
    source = op.inputs[0] if op.inputs else -1
    if op.name == "DENSIFY":
        return [t.constants[source]]
    if op.name == "DEQUANTIZE":
        stored, tensor = t.constants[source], t.model.tensors[source]
        if stored.dtype == np.float16:
            return [stored.astype(np.float32)]
        grid(tensor) if tensor.dtype != "uint8" else None
        if tensor.scale is not None:
            return [dequantized(tensor, stored)]
    return _run(t, op)


def _run(t: Translation, op: TfliteOp) -> list[NDArray[Any]]:
    """Run one op in LiteRT, in a file of its own."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    schema, writer = load_schema(), ModelWriter()

    def tensor(index: int, data: NDArray[Any] | None) -> int:
        own = t.model.tensors[index]
        quant = grid(own) if own.scale is not None and own.dtype != "uint8" else None
        return writer.tensor(f"t{index}", own.shape if data is None else data.shape, own.dtype, quant, data)

    try:
        inputs = [-1 if i < 0 else tensor(i, t.constants[i]) for i in op.inputs]
        outputs = [tensor(i, None) for i in op.outputs]
        options = getattr(schema, op.options_type)(**op.options) if op.options_type else None
        writer.operator(op.name, op.version, inputs, outputs, options)
        data = writer.finish({}, {f"t{i}": made for i, made in zip(op.outputs, outputs, strict=True)}, "")
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(d["index"])) for d in interpreter.get_output_details()]
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"it depends on constants only, and LiteRT cannot compute it ({line})") from None
