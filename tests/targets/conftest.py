"""Tiny .tflite files, written with the runtime's schema so that they need no converter of ours; and the demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

CLASSES = 5
IMAGE = (2, 2, 3)
KINDS = {
    "reshape": "RESHAPE",
    "linear": "FULLY_CONNECTED",
    "softmax": "SOFTMAX",
    "quantize": "QUANTIZE",
    "dequantize": "DEQUANTIZE",
}
SCALES = {"input": 0.02, "quantized": 0.02, "flat": 0.02, "weight": 0.01, "logits": 0.05, "softmax": 1 / 256}


def tiny_tflite(ops: Sequence[str], *, integer: bool) -> bytes:
    """A chain of the ops of ``KINDS`` on a ``(1, 2, 2, 3)`` image; ``quantize`` in front makes the input float."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    tensors: list[schema.TensorT] = []
    buffers = [schema.BufferT()]

    def tensor(name: str, shape: Sequence[int], value: np.ndarray | None = None, zero_point: int = 0) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, list(shape), 0
        quantized = integer and name in SCALES
        made.type = schema.TensorType.INT8 if quantized else schema.TensorType.FLOAT32
        if quantized:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [SCALES[name]], [zero_point]
        if value is not None:
            if value.dtype == np.int32:
                made.type = schema.TensorType.INT32
            buffers.append(schema.BufferT())
            buffers[-1].data = np.frombuffer(value.tobytes(), np.uint8)
            made.buffer = len(buffers) - 1
        tensors.append(made)
        return len(tensors) - 1

    operators = []
    current = first = tensor("real" if ops[0] == "quantize" else "input", (1, *IMAGE), zero_point=3)
    for op in ops:
        operator, inputs = schema.OperatorT(), [current]
        operator.opcodeIndex = list(KINDS).index(op)
        if op == "reshape":
            inputs.append(tensor("shape", (2,), np.array([1, 12], np.int32)))
            current = tensor("flat", (1, 12), zero_point=3)
        elif op == "linear":
            weight = np.random.default_rng(0).integers(-127, 128, (CLASSES, 12)).astype(np.int8)
            inputs.append(tensor("weight", weight.shape, weight if integer else weight.astype(np.float32) * 0.01))
            operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            operator.builtinOptions = schema.FullyConnectedOptionsT()
            current = tensor("logits", (1, CLASSES), zero_point=-4)
        elif op == "quantize":
            current = tensor("quantized", (1, *IMAGE), zero_point=3)
        elif op == "dequantize":
            current = tensor("result", tensors[current].shape)
        else:
            operator.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
            operator.builtinOptions = schema.SoftmaxOptionsT()
            operator.builtinOptions.beta = 1.0
            name = "softmax" if tensors[current].type == schema.TensorType.INT8 else "probabilities"
            current = tensor(name, tensors[current].shape, zero_point=-128)
        operator.inputs, operator.outputs = inputs, [current]
        operators.append(operator)

    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, operators, [first], [current]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, []
    for kind in KINDS.values():
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = {"FULLY_CONNECTED": 4, "SOFTMAX": 2, "DEQUANTIZE": 2}.get(kind, 1) if integer else 1
        model.operatorCodes.append(code)
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


Tflite = Callable[..., Path]


@pytest.fixture
def tflite(tmp_path: Path) -> Tflite:
    """Writes a tiny network: ``tflite("reshape", "linear", integer=True)`` is the path of its file."""

    def write(*ops: str, integer: bool) -> Path:
        path = tmp_path / f"{'_'.join(ops)}_{'int8' if integer else 'fp32'}.tflite"
        path.write_bytes(tiny_tflite(ops, integer=integer))
        return path

    return write


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the demo network's int8 artifacts, in every format."""
    from edgecnn.cli import main

    folder = tmp_path_factory.mktemp("demo")
    words = ["export", "mobilenet_v2_0.35_96", "--target", "all", "--weights", "demo", "--calibration", "demo"]
    assert main([*words, "--calibration-images", "100", "-o", str(folder)]) == 0
    return folder
