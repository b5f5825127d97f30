"""Run an imported file in LiteRT, and name what it shows after the tensors of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.graph.importers import Values
from edgecnn.graph.ir import Graph, Quantized
from edgecnn.graph.node_builder import BATCH
from edgecnn_converters.layout import UINT8_OFFSET
from edgecnn_converters.tflite.reader import TfliteModel

Places = Mapping[str, tuple[int, tuple[int, ...]]]


class Reference:
    """The file in LiteRT's own kernels, without XNNPACK.

    Of a quantized graph, values are its integers, and the kernels the reference ones, which the oracle equals.

    Args:
        data: the file.
        model: what the reader found in it.
        graph: what was imported.
        origin: tensor of the graph to the file's, and which of its dimensions each of the graph's is.
    """

    def __init__(self, data: bytes, model: TfliteModel, graph: Graph, origin: Places) -> None:
        self._data, self._model, self._graph, self._origin = data, model, graph, origin

    def __call__(self, values: Values) -> Values:
        """Return the values of every tensor that LiteRT shows.

        Raises:
            MissingDependencyError: ai-edge-litert is not installed.
            InputError: LiteRT does not run the file.
        """
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError:
            raise MissingDependencyError("LiteRT is not installed: pip install 'edgecnn[tflite]'") from None
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        integer = self._graph.precision != "fp32"
        for kernels in (OpResolverType.BUILTIN_REF, plain) if integer else (plain,):
            try:
                interpreter = Interpreter(
                    model_content=self._data,
                    experimental_op_resolver_type=kernels,
                    experimental_preserve_all_tensors=True,
                )
                self._run(interpreter, values)
                break
            except (ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                if kernels is plain or "find op for builtin" not in reason:  # some ops have no reference kernel
                    raise InputError(f"LiteRT does not run the file: {reason}") from None
        return {name: made for name in self._origin if (made := self._shown(interpreter, name)) is not None}

    def _run(self, interpreter: Any, values: Values) -> None:
        pairs = zip(self._model.inputs, self._graph.inputs, strict=True)
        feeds = {index: self._fed(index, name, values) for index, name in pairs}
        for index, value in feeds.items():
            if value.shape != self._model.tensors[index].shape:
                interpreter.resize_tensor_input(index, value.shape)
        interpreter.allocate_tensors()
        for index, value in feeds.items():
            interpreter.set_tensor(index, value)
        interpreter.invoke()

    def _fed(self, index: int, name: str, values: Values) -> NDArray[Any]:
        """Return a value as the file takes it."""
        tensor, inner = self._model.tensors[index], self._graph.tensors[name]
        _, axes = self._origin[name]
        value = np.ascontiguousarray(values[name].transpose(np.argsort(axes)))
        if isinstance(inner, Quantized) and tensor.dtype == "float32":
            value = inner.quant.dequantize(value)
        elif isinstance(inner, Quantized) and tensor.dtype == "uint8":
            value = value.astype(np.int16) + UINT8_OFFSET
        return value.astype(tensor.dtype)

    def _shown(self, interpreter: Any, name: str) -> NDArray[Any] | None:
        """Return the values of a tensor in the graph's order, or ``None`` where LiteRT has none."""
        index, axes = self._origin[name]
        try:
            value = np.asarray(interpreter.get_tensor(index))
        except ValueError:
            return None
        value = value.transpose([a for a in axes if a != BATCH])
        return value[None] if BATCH in axes else value
