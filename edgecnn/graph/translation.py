"""A graph in the making from a trace of aten calls: which traced tensor became which value."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.builder import Array, Builder, Operand, Value
from edgecnn.graph.ops import need
from edgecnn.graph.trace import Call, Trace, Traced

COMPUTED = "a weight that is computed while the network runs"


class Translation(Builder):
    """The builder of a traced module; ``aten.py`` has what adds to it.

    Attributes:
        current: the call being translated.
    """

    def __init__(self, traced: Trace) -> None:
        super().__init__()
        self.values: dict[Traced, Value] = {traced.image: self.input("input", traced.image.shape)}
        self.computed: set[Traced] = set()  # without the image
        self.consumers = Counter(i for call in traced.calls for i in call.inputs)
        self.consumers.update(r for r in traced.results if r is not None)
        self.current: Call

    def begin(self, call: Call) -> None:
        """Name what is added from here on after a call."""
        self.current, self.scope, self.named = call, call.path, bool(call.layer)

    def value(self, argument: Any) -> Value:
        """Return the value of an argument that must be an activation."""
        need(isinstance(argument, Traced), f"argument {argument!r} where an activation is needed")
        need(argument.constant is None, "a constant where an activation is needed")
        need(argument not in self.computed, COMPUTED)
        need(not argument.fault, f"the module {argument.fault}")
        need(argument in self.values, "the second output of an op; the first is supported")
        return self.values[argument]

    def operand(self, argument: Any) -> Operand:
        """Do as ``value``; a number or a parameter is a constant."""
        if isinstance(argument, bool | int | float):
            return float(argument)
        if isinstance(argument, Traced) and argument.constant is not None:
            return self.array(argument)
        return self.value(argument)

    def array(self, argument: Traced) -> Array:
        """Return a parameter or buffer as torch has it.

        Raises:
            InputError: the argument is computed while the network runs.
        """
        if argument.constant is None:
            raise InputError(COMPUTED)
        made: NDArray[Any] = argument.constant.to("cpu", torch.float32).numpy()
        return made
