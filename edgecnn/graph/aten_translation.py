"""A graph in the making from a trace of aten calls: which traced tensor became which value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from edgecnn.graph.builder import Builder, Operand
from edgecnn.graph.ir import Tensor
from edgecnn.graph.node_builder import BATCH, Array, Value
from edgecnn.graph.ops import need
from edgecnn.graph.traced import Call, Trace, Traced

COMPUTED = "a weight that is computed from the input while the network runs"


class Translation(Builder):
    """The builder of a traced module; the modules of ``aten`` have what adds to it.

    Attributes:
        current: the call being translated.
    """

    def __init__(self, traced: Trace) -> None:
        super().__init__()
        self.values: dict[Traced, Value] = {x: self.input(k, x.shape) for k, x in traced.inputs.items()}
        self.consumers = Counter(i for call in traced.calls for i in call.inputs)
        self.consumers.update(r for r in traced.results.values() if r is not None)
        self.readers: dict[Traced, set[str]] = {}  # names of the calls that read a tensor
        for call in traced.calls:
            for read in call.inputs:
                self.readers.setdefault(read, set()).add(call.name)
        self.unpadded: dict[Traced, tuple[Value, list[tuple[int, int]]]] = {}  # what was padded by minus infinity
        self.current: Call

    def begin(self, call: Call) -> None:
        """Name what is added from here on after a call."""
        self.current, self.scope, self.named = call, call.path, bool(call.layer)

    def unmade(self, call: Call) -> bool:
        """Tell whether a call reads only outputs that no node makes, such as the indices of a pool."""
        read = [i for i in call.inputs if i.constant is None]
        return bool(read) and not call.fault and self.values.keys().isdisjoint(read) and not any(i.fault for i in read)

    def stand_for(self, traced: Traced) -> None:
        """Let whatever has its shape be an activation, so that what reads an unsupported op can be looked at."""
        rank = len(traced.shape)
        natural = bool(rank) and traced.shape[0] == 1
        axes = (self.image_axes(4) if rank == 4 else tuple(range(rank))) if natural else (BATCH, *range(rank))
        name = self.unique("unsupported")
        self.tensors[name] = Tensor(name=name, shape=tuple(1 if a == BATCH else max(traced.shape[a], 1) for a in axes))
        self.values[traced] = Value(name, axes)

    def value(self, argument: Any) -> Value:
        """Return the value of an argument that must be an activation."""
        need(isinstance(argument, Traced), f"argument {argument!r} where an activation is needed")
        need(argument.constant is None, "a constant where an activation is needed")
        need(not argument.fault, f"the module {argument.fault}")
        need(argument in self.values, "the second output of an op; the first is supported")
        return self.values[argument]

    def alone(self, argument: Traced) -> bool:
        """Tell whether one call reads a value, under all the names that it has: a detached tensor is the same one."""
        name = self.value(argument).name
        return all(self.consumers[traced] == 1 for traced, value in self.values.items() if value.name == name)

    def operand(self, argument: Any) -> Operand:
        """Do as ``value``; a number or a parameter is a constant."""
        if isinstance(argument, bool | int | float):
            return float(argument)
        if isinstance(argument, Traced) and argument.constant is not None:
            return self.array(argument)
        return self.value(argument)

    def whole(self, argument: Traced) -> NDArray[Any]:
        """Return a constant in its own type."""
        need(argument.constant is not None, COMPUTED)
        assert argument.constant is not None
        made: NDArray[Any] = argument.constant.detach().cpu().numpy()
        return made

    def array(self, argument: Traced) -> Array:
        """Return a constant as torch has it, in float32.

        Raises:
            InputError: the argument depends on the input.
        """
        need(argument.constant is not None, COMPUTED)
        assert argument.constant is not None
        made: NDArray[Any] = argument.constant.detach().float().cpu().numpy()
        return made

    def size(self, x: Value) -> int:
        """Return the number of elements."""
        return math.prod(self.shape(x))

    def spread(self, x: Value, dim: int) -> Value:
        """Return the value with the graph's batch as another dimension than ``dim``."""
        return self.unbatched(x) if x.axes[0] == dim else x

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        """Return the value with its elements repeated to a shape, as torch's ``expand``."""
        have = self.shape(x)
        x = self.reshape(x, (*[1] * (len(shape) - len(have)), *have))
        for dim, size in enumerate(shape):
            if self.shape(x)[dim] != size:
                x = self.gather(self.spread(x, dim), dim, [0] * size)
        return x
