"""A graph in the making, from a trace of aten calls. The handlers in ``aten.py`` add to it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.ir import Attr, Constant, Node, Tensor
from edgecnn.graph.ops import make_node, need, output_shape
from edgecnn.graph.trace import Call, Trace, Traced

COMPUTED = "a weight that is computed while the network runs"


@dataclass(frozen=True)
class Value:
    """Hold what an aten call made. A flattened image has the (channels, height, width) that it was flattened from:
    torch flattens channels first, the graph channels last, and only a linear layer can absorb the difference."""

    name: str  # of the graph tensor that holds it
    chw: tuple[int, int, int] | None = None


class Builder:
    """Gathers nodes and tensors, and which traced tensor became which of them."""

    def __init__(self, traced: Trace) -> None:
        batch, channels, height, width = traced.image.shape
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {"input": Tensor(name="input", shape=(batch, height, width, channels))}
        self.values: dict[Traced, Value] = {traced.image: Value("input")}
        self.computed: set[Traced] = set()  # without the image
        self.consumers = Counter(i for call in traced.calls for i in call.inputs)
        self.consumers.update(r for r in traced.results if r is not None)
        self.current: Call  # the call being handled; who walks the trace sets it

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the NHWC (or NC) shape."""
        return self.tensors[value.name].shape

    def value(self, argument: Any) -> Value:
        """Return the graph value of an argument that must be an activation."""
        need(isinstance(argument, Traced), f"argument {argument!r} where an activation is needed")
        need(argument.constant is None, "a constant where an activation is needed")
        need(argument not in self.computed, COMPUTED)
        need(not argument.fault, f"the module {argument.fault}")
        need(argument in self.values, "the second output of an op; the first is supported")
        return self.values[argument]

    def operand(self, argument: Any, rank: int) -> Value:
        """Do as ``value``; a number or a parameter becomes a constant that broadcasts over ``rank`` dimensions."""
        if isinstance(argument, int | float):
            return self.constant(np.full((1,), argument, np.float32), "constant")
        if isinstance(argument, Traced) and argument.constant is not None:
            array = self.array(argument)
            array = array.reshape((1,) * (rank - array.ndim) + array.shape) if array.size > 1 else array.reshape(1)
            return self.constant(np.moveaxis(array, 1, -1) if array.ndim == 4 else array, "constant")
        return self.value(argument)

    def array(self, argument: Traced) -> NDArray[np.float32]:
        """Return a parameter or buffer as torch has it.

        Raises:
            InputError: the argument is computed while the network runs.
        """
        if argument.constant is None:
            raise InputError(COMPUTED)
        return argument.constant.to("cpu", torch.float32).numpy()

    def constant(self, value: NDArray[np.float32], suffix: str) -> Value:
        """Add a constant tensor named after the present module."""
        name = self._unique(".".join(filter(None, (self.current.path, suffix))))
        return self._stored(name, value)

    def _stored(self, name: str, value: NDArray[np.float32]) -> Value:
        self.tensors[name] = Constant(name=name, value=np.ascontiguousarray(value, np.float32))
        return Value(name)

    def add(
        self, op: str, *inputs: Value, name: str | None = None, chw: tuple[int, int, int] | None = None, **attrs: Attr
    ) -> Value:
        """Add a node on the given values; its output shape comes from the op table."""
        output = self._unique(name or self._name(op))
        node = make_node(op, tuple(i.name for i in inputs), output, self.current.path, **attrs)
        shape = output_shape(node, [self.shape(i) for i in inputs])
        self.nodes.append(node)
        self.tensors[output] = Tensor(name=output, shape=shape)
        return Value(output, chw)

    def weighted(
        self, op: str, x: Value, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, **attrs: Any
    ) -> Value:
        """Add a conv2d (weight OHWI) or fully_connected node with its constants; a missing bias is zero."""
        name = self._unique(self._name(op))
        shift = np.zeros(weight.shape[0], np.float32) if bias is None else bias
        constants = self._stored(f"{name}.weight", weight), self._stored(f"{name}.bias", shift)
        return self.add(op, x, *constants, name=name, **attrs)

    def _name(self, op: str) -> str:
        path = self.current.path
        return path if self.current.layer else ".".join(filter(None, (path, op)))

    def _unique(self, name: str) -> str:
        numbered = (f"{name}_{k}" for k in count(1))
        return next(candidate for candidate in chain([name], numbered) if candidate not in self.tensors)
