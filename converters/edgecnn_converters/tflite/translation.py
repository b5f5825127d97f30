"""A graph in the making from a ``.tflite`` file: which of its tensors became which value, and which are constants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.builder import Builder, Operand
from edgecnn.graph.ir import QParams, Tensor
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need
from edgecnn_converters.names import SEPARATOR
from edgecnn_converters.tflite.format import load_schema
from edgecnn_converters.tflite.reader import TfliteModel, TfliteOp, TfliteTensor

INTEGERS = ("int8", "int16")  # types of activations of a quantized graph
STORED = ("int8", "uint8", "int16", "int32", "int64")  # types of constants that quantization parameters give a value


class Translation(Builder):
    """The builder of a file; ``import_ops.py`` has what adds to it.

    Attributes:
        model: what is read; tensors are named by their index in it.
        integer: whether its activations are integers.
        values: tensor to the activation that it became.
        constants: tensor to its elements, as the file has them, or as they were folded.
        readers: tensor to the ops that read it; the file's outputs count too, as ``None``.
        done: ids of ops that another op took along.
        hidden: tensors that are not known, for what makes them is not supported.
        lowest: padded tensor to what was padded, and the padding, where it adds what is below every number.
        weights: node to the tensors of its weight and bias, and the order of the weight's dimensions in the graph.
        operands: constant of the graph to its tensor.
        origin: tensor of the graph to the file's, and its dimensions in the order of the graph.
        places: tensors of whole numbers that an argmax made.
        finished: the op whose outputs were taken last.
        spans: each op with where its nodes begin and end.
    """

    def __init__(self, model: TfliteModel, integer: bool) -> None:
        super().__init__(channels_last=True)
        self.model, self.integer, self.schema = model, integer, load_schema()
        self.values: dict[int, Value] = {}
        self.constants = {k: t.data for k, t in enumerate(model.tensors) if t.data is not None}
        self.readers: dict[int, list[TfliteOp | None]] = {}
        for op in model.ops:
            for index in op.inputs:
                self.readers.setdefault(index, []).append(op)
        for index in model.outputs:
            self.readers.setdefault(index, []).append(None)
        self.done: set[int] = set()
        self.hidden: set[int] = set()
        self.places: set[int] = set()
        self.lowest: dict[int, tuple[Value, tuple[int, int, int, int]]] = {}
        self.weights: dict[str, tuple[int, int | None, tuple[int, ...]]] = {}
        self.operands: dict[str, int] = {}
        self.origin: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.spans: list[tuple[TfliteOp, int, int]] = []
        self.finished: TfliteOp
        self.names = _names(model)

    # --- what an op reads ---

    def tensor(self, op: TfliteOp, place: int) -> TfliteTensor:
        """Return the tensor that an op reads in a place."""
        return self.model.tensors[self.index(op, place)]

    def index(self, op: TfliteOp, place: int) -> int:
        """Return the index of the tensor that an op reads in a place."""
        need(self.given(op, place), f"it has no input {place}")
        return op.inputs[place]

    @staticmethod
    def given(op: TfliteOp, place: int) -> bool:
        """Whether an op has an input in a place; some are optional."""
        return place < len(op.inputs) and op.inputs[place] >= 0

    def value(self, op: TfliteOp, place: int = 0) -> Value:
        """Return an activation that an op reads."""
        index = self.index(op, place)
        need(index not in self.constants, f"its input {place} is a constant; an activation is supported")
        need(index in self.values, f"it reads {self.model.tensors[index].name!r} before anything makes it")
        return self.values[index]

    def operand(self, op: TfliteOp, place: int) -> Operand:
        """Return an activation or a constant, in float."""
        return self.floats(op, place) if self.index(op, place) in self.constants else self.value(op, place)

    def floats(self, op: TfliteOp, place: int) -> Array:
        """Return a constant that an op computes with; integers are their real values.

        Raises:
            InputError: it is an activation, or integers beside float activations.
        """
        index = self.index(op, place)
        tensor = self.model.tensors[index]
        need(
            index in self.constants,
            f"its input {tensor.name!r} is computed while the network runs; supported: constants",
        )
        found = self.constants[index]
        if tensor.scale is not None and tensor.dtype in STORED:
            hybrid = f"it computes in float with {tensor.name!r}, which is {tensor.dtype} (dynamic-range quantization)"
            need(self.integer, f"{hybrid}; convert with float weights, or with int8 activations too")
            return dequantized(tensor, found)
        need(found.dtype == np.float32, f"its input {tensor.name!r} is {found.dtype}; float32 is supported")
        return found

    def ints(self, op: TfliteOp, place: int) -> list[int]:
        """Return the elements of a constant of whole numbers."""
        index = self.index(op, place)
        name = self.model.tensors[index].name
        need(index in self.constants, f"its input {name!r} is computed while the network runs; supported: constants")
        found = self.constants[index]
        need(found.dtype.kind in "iub", f"its input {name!r} is {found.dtype}; whole numbers are needed")
        return [int(v) for v in found.reshape(-1)]

    def alone(self, index: int) -> TfliteOp | None:
        """Return the one op that reads a tensor, or ``None``."""
        readers = self.readers.get(index, [])
        return readers[0] if len(readers) == 1 else None

    # --- what it makes ---

    def activated(self, made: Value, op: TfliteOp, first: int) -> Value:
        """Return a value behind the activation fused into its op, whose nodes begin at ``first``."""
        kinds: Any = self.schema.ActivationFunctionType
        code = op.options.get("fusedActivationFunction", kinds.NONE)
        if code == kinds.NONE:
            return made
        if code in (kinds.RELU, kinds.RELU6):
            name = "relu" if code == kinds.RELU else "relu6"
            last = self.nodes[-1] if len(self.nodes) > first else None
            if last is not None and last.output == made.name and last.attrs.get("activation") == "none":
                self.nodes[-1] = replace(last, attrs={**last.attrs, "activation": name})
                return made
            return self.unary(name, made)
        if code == kinds.RELU_N1_TO_1:
            return self.clamp(made, -1.0, 1.0)
        need(code == kinds.TANH, f"its fused activation has code {code}; supported: relu, relu_n1_to_1, relu6, tanh")
        return self.unary("tanh", made)

    def finish(self, op: TfliteOp, made: Sequence[Value]) -> None:
        """Take what an op made for its outputs.

        Raises:
            InputError: the file has other shapes.
        """
        if not made:
            return
        self.finished = op
        need(len(made) == len(op.outputs), f"it has {len(op.outputs)} outputs; {len(made)} are supported")
        for index, value in zip(op.outputs, made, strict=True):
            tensor, shape = self.model.tensors[index], self.shape(value)
            fits = shape == tensor.shape or len(tensor.dynamic) > 0 or tensor.shape == ()
            need(fits, f"it makes {shape} of {self.shapes(op)}, and the file says {tensor.shape}")
            self.values[index] = value
            self.origin.setdefault(value.name, (index, value.axes))

    def shapes(self, op: TfliteOp) -> str:
        """Return the shapes of what an op reads, for messages."""
        return " and ".join(str(self.model.tensors[i].shape) for i in op.inputs if i >= 0)

    def stand_in(self, index: int) -> None:
        """Let something of its shape stand for a tensor that cannot be made, so that what reads it is looked at."""
        shape = self.model.tensors[index].shape
        if len(shape) < 2 or shape[0] != 1 or min(shape) < 1:
            self.hidden.add(index)
            return
        name = self.unique(self.names[index])
        self.tensors[name] = Tensor(name=name, shape=shape)
        self.values[index] = Value(name, tuple(range(len(shape))))


def grid(tensor: TfliteTensor) -> QParams:
    """Return the quantization parameters of a tensor.

    Raises:
        InputError: it has none, or none that integers can have.
    """
    if tensor.scale is None or tensor.zero_point is None:
        raise InputError(f"{tensor.name!r} is {tensor.dtype} without a scale")
    zeros = np.broadcast_to(tensor.zero_point, tensor.scale.shape) if tensor.zero_point.size == 1 else tensor.zero_point
    try:
        return QParams(scale=tensor.scale, zero_point=zeros, dtype=tensor.dtype, axis=tensor.axis)
    except InputError as error:
        raise InputError(f"{tensor.name!r}: {error}") from None


def dequantized(tensor: TfliteTensor, stored: NDArray[Any]) -> Array:
    """Return the real values of a tensor's integers."""
    assert tensor.scale is not None
    assert tensor.zero_point is not None
    zeros = tensor.zero_point.size
    need(zeros in (1, tensor.scale.size), f"{tensor.name!r} has {tensor.scale.size} scales and {zeros} zero points")
    along = [1] * stored.ndim
    if tensor.axis is not None:
        fits = tensor.axis < stored.ndim and stored.shape[tensor.axis] == tensor.scale.size
        need(fits, f"{tensor.name!r} has {tensor.scale.size} scales for the shape {stored.shape}")
        along[tensor.axis] = -1
    zero = tensor.zero_point.reshape(along if zeros > 1 else [1] * stored.ndim)
    scale = tensor.scale.astype(np.float64).reshape(along)
    return np.asarray((stored.astype(np.int64) - zero) * scale, np.float32)


def _names(model: TfliteModel) -> list[str]:
    """Return a name for every tensor: the signature's, or the file's without what TensorFlow adds to it.

    Raises:
        InputError: two inputs, or two outputs, are named alike.
    """
    signature = {} if model.metadata is not None else model.signature  # in edgecnn's own, names are the graph's
    ends = {*model.inputs, *model.outputs}
    wished = []
    for index, tensor in enumerate(model.tensors):
        name = signature.get(index, "") if index in ends else ""
        name = name or tensor.name.split(";")[0].removesuffix(":0").removeprefix("serving_default_")
        wished.append(name.replace(SEPARATOR, ".").strip() or f"tensor_{index}")
    for kind, side in (("inputs", model.inputs), ("outputs", model.outputs)):
        twice = [name for name, times in Counter(wished[k] for k in set(side)).items() if times > 1]
        need(not twice, f"two {kind} are named {', '.join(map(repr, twice))}; give each a name of its own")
    used: set[str] = set()
    for index in (*dict.fromkeys((*model.inputs, *model.outputs)), *(k for k in range(len(wished)) if k not in ends)):
        numbered = (f"{wished[index]}_{k}" for k in count(1))
        wished[index] = next(name for name in chain([wished[index]], numbered) if name not in used)
        used.add(wished[index])
    return wished
