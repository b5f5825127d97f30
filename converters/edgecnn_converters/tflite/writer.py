"""Write a TFLite flatbuffer: one subgraph's tensors, operators and buffers.

Written with the object API of the schema that ships in ai-edge-litert; no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import QParams
from edgecnn_converters.layout import UINT8_OFFSET
from edgecnn_converters.tflite.format import ALIGNMENT, IDENTIFIER, SCHEMA_VERSION, load_schema


class ModelWriter:
    """Tensors are made first and named by their index; an operator's code is registered on first use."""

    def __init__(self) -> None:
        self.schema: Any = load_schema()
        self._subgraph = self.schema.SubGraphT(tensors=[], operators=[], name="main")
        self._buffers: list[bytes] = [b""]  # buffer 0 is the empty one, by convention
        self.dtypes: list[str] = []  # in which each tensor is stored
        self._codes: dict[tuple[int, int], int] = {}
        self._metadata: list[Any] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        quant: QParams | None = None,
        data: NDArray[Any] | None = None,
    ) -> int:
        """Add a tensor; with ``data``, a constant.

        Args:
            dtype: as it is stored; ``uint8`` is the int8 grid of ``quant``, 128 higher.
            quant: its axis is the one in the tensor as it is stored.
        """
        kind, grid = getattr(self.schema.TensorType, dtype.upper()), None
        if quant is not None:
            zeros = quant.zero_point + (UINT8_OFFSET if dtype == "uint8" else 0)
            grid = self.schema.QuantizationParametersT(
                scale=quant.scale, zeroPoint=zeros, quantizedDimension=quant.axis or 0
            )
        buffer = 0 if data is None else self._buffer(np.ascontiguousarray(data).tobytes())
        made = self.schema.TensorT(
            name=name, shape=np.array(shape, np.int32), type=kind, buffer=buffer, quantization=grid, hasRank=True
        )
        self._subgraph.tensors.append(made)
        self.dtypes.append(dtype)
        return len(self.dtypes) - 1

    def operator(
        self,
        builtin: str,
        version: int,
        inputs: Sequence[int],
        output: int | Sequence[int],
        options: Any | None = None,
    ) -> None:
        """Add an operator.

        Args:
            builtin: ``CONV_2D`` and so on.
            version: of the operator.
            inputs: its tensors; -1 for an optional one that is not given.
            output: the tensor that it makes, or several.
            options: the schema's object, or ``None``.
        """
        code = getattr(self.schema.BuiltinOperator, builtin)
        kind = 0 if options is None else getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._subgraph.operators.append(
            self.schema.OperatorT(
                opcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
                inputs=np.array(inputs, np.int32),
                outputs=np.atleast_1d(np.array(output, np.int32)),
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )

    def metadata(self, name: str, data: bytes) -> None:
        """Add a named blob beside the subgraph."""
        self._metadata.append(self.schema.MetadataT(name=name, buffer=self._buffer(data)))

    def finish(self, inputs: Mapping[str, int], outputs: Mapping[str, int], description: str) -> bytes:
        """Return the file. ``inputs`` and ``outputs``: names in the signature to tensors."""
        import flatbuffers  # type: ignore[import-untyped]

        self._subgraph.inputs = np.array(list(inputs.values()), np.int32)
        self._subgraph.outputs = np.array(list(outputs.values()), np.int32)
        signature = self.schema.SignatureDefT(
            signatureKey="serving_default",
            inputs=[self.schema.TensorMapT(name=n, tensorIndex=i) for n, i in inputs.items()],
            outputs=[self.schema.TensorMapT(name=n, tensorIndex=i) for n, i in outputs.items()],
        )
        most = self.schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
        codes = [
            self.schema.OperatorCodeT(deprecatedBuiltinCode=min(code, most), builtinCode=code, version=version)
            for code, version in self._codes
        ]
        model = self.schema.ModelT(
            version=SCHEMA_VERSION,
            description=description,
            operatorCodes=codes,
            subgraphs=[self._subgraph],
            buffers=[_AlignedBuffer(self.schema, data) for data in self._buffers],
            metadata=self._metadata,
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(sum(map(len, self._buffers)) + (1 << 16))
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _buffer(self, data: bytes) -> int:
        self._buffers.append(data)
        return len(self._buffers) - 1


@dataclass(frozen=True)
class _AlignedBuffer:
    """A ``Buffer`` whose data starts on a multiple of ``ALIGNMENT`` in the file."""

    schema: Any
    data: bytes

    def Pack(self, builder: Any) -> Any:  # the object API's name
        vector = None
        if self.data:
            builder.StartVector(1, len(self.data), ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            vector = builder.EndVector()
        self.schema.BufferStart(builder)
        if vector is not None:
            self.schema.BufferAddData(builder, vector)
        return self.schema.BufferEnd(builder)
