"""Small ``.tflite`` files for tests, op by op; LiteRT says which shapes they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import QParams
from edgecnn_converters.tflite.writer import ModelWriter


class TfliteFile:
    """A file in the making. Methods return tensor indices."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: list[dict[str, Any]] = []
        self.ops: list[tuple[str, int, Sequence[int], Sequence[int], str, Mapping[str, Any]]] = []
        self.inputs: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int] = (), dtype: str = "float32", **more: Any) -> int:
        """Add a tensor."""
        self.tensors.append({"name": name, "shape": tuple(shape), "dtype": dtype, **more})
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], name: str = "", dtype: str = "float32", **more: Any) -> int:
        """Add an input of the file."""
        name = name or f"in{len(self.inputs)}"
        self.inputs[name] = self.tensor(name, shape, dtype, **more)
        return self.inputs[name]

    def constant(self, value: Any, dtype: str | None = None, **more: Any) -> int:
        """Add a constant: whole numbers are int32, others float32."""
        array = np.asarray(value)
        array = array.astype(dtype or ("int32" if array.dtype.kind == "i" else "float32"))
        return self.tensor(f"constant_{len(self.tensors)}", array.shape, str(array.dtype), data=array, **more)

    def normal(self, *shape: int) -> int:
        """Add a constant of random numbers."""
        return self.constant(self.rng.normal(size=shape))

    def op(self, builtin: str, inputs: Sequence[int], options: str = "", *, made: Any = "float32", version: int = 1,
           outputs: int = 1, quant: Any = None, shape: Sequence[int] = (), **fields: Any) -> int:  # fmt: skip
        """Add an operator; the first of its ``outputs``, of type ``made``, is returned, the others come after it.

        Its shape is LiteRT's unless it is given.
        """
        first = len(self.tensors)
        for k in range(outputs):
            self.tensor(f"{builtin.lower()}_{first + k}", shape, made, quant=quant)
        self.ops.append((builtin, version, inputs, range(first, first + outputs), options, fields))
        return first

    def conv(self, x: int, weight: int, bias: int = -1, builtin: str = "CONV_2D", **fields: Any) -> int:
        """Add a convolution; its options are the schema's."""
        kind = "Conv2DOptionsT" if builtin == "CONV_2D" else "DepthwiseConv2DOptionsT"
        if builtin != "CONV_2D":
            fields = {"depthMultiplier": 1, **fields}
        shape = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        return self.op(builtin, [x, weight, bias] if bias >= 0 else [x, weight], kind, **{**shape, **fields})

    def bytes(self, *outputs: int) -> bytes:
        """Return the file. Shapes that nothing gives are LiteRT's."""
        data = self._written(outputs)
        if any(t["shape"] == () and "data" not in t for t in self.tensors):
            for detail in _run(data).get_tensor_details()[: len(self.tensors)]:
                tensor = self.tensors[detail["index"]]
                if "data" not in tensor:
                    tensor["shape"] = tuple(int(d) for d in detail["shape"])
            data = self._written(outputs)
        return data

    def _written(self, outputs: Sequence[int]) -> bytes:
        writer = ModelWriter()
        for tensor in self.tensors:
            writer.tensor(**tensor)
        for builtin, version, inputs, made, options, fields in self.ops:
            given = getattr(writer.schema, options)(**fields) if options else None
            writer.operator(builtin, version, inputs, list(made), given)
        return writer.finish(self.inputs, {f"out{k}": index for k, index in enumerate(outputs)}, "test")


def _run(data: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    interpreter.invoke()
    return interpreter


def grid(scale: float | Sequence[float], zero: int = 0, dtype: str = "int8", axis: int | None = None) -> QParams:
    """Return quantization parameters."""
    scales: NDArray[Any] = np.atleast_1d(np.asarray(scale, np.float32))
    zeros = np.full(scales.shape, zero)
    return QParams(scale=scales, zero_point=zeros, dtype=dtype, axis=axis if scales.size > 1 else None)


def edited(data: bytes, change: Any) -> bytes:
    """Return a file in which ``change`` altered the schema's model."""
    import flatbuffers

    from edgecnn_converters.tflite.format import IDENTIFIER, load_schema

    model = load_schema().ModelT.InitFromPackedBuf(data)
    change(model)
    builder = flatbuffers.Builder(len(data) + (1 << 16))
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())
