"""Run a captured module again, to see what its graph should compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgecnn.graph.node_builder import BATCH, Value
from edgecnn.graph.signatures import named_results
from edgecnn.graph.traced import Call, Trace, Traced


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """Hold a module to compute it again: its values by name of the graph's tensors.

    Attributes:
        module: in evaluation mode.
        traced: one run of it.
        values: which tensor of the graph holds what the run made; not yet simplified.
        outputs: names of the graph's outputs, in the order of the module's.
    """

    module: nn.Module
    traced: Trace
    values: Mapping[Traced, Value]
    outputs: Sequence[str]

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what the module makes of inputs, as the graph has them: its outputs, and what each aten call made.

        The outputs are those of the module itself. The others are of the recorded calls, made again one by one.
        """
        known = {x: _of_graph(inputs[self.values[x].name], self.values[x].axes) for x in self.traced.inputs.values()}
        made = self.module(*known.values()) if len(known) == 1 else self._called(known)
        for call in self.traced.calls:
            if all(i.constant is not None or i in known for i in call.inputs):
                known.update(_again(call, known))
        found = {v.name: _to_graph(known[x], v.axes) for x, v in self.values.items() if x in known}
        for name, output in zip(self.outputs, named_results(made).values(), strict=True):
            found[name] = _image_last(output)
        return found

    def _called(self, known: Mapping[Traced, torch.Tensor]) -> Any:
        by_name = {name: known[x] for name, x in self.traced.inputs.items()}
        return self.module(**by_name) if self.traced.by_name else self.module(*by_name.values())


def _again(call: Call, known: Mapping[Traced, torch.Tensor]) -> dict[Traced, torch.Tensor]:
    """Make a call again. One in place works on a copy: others may read what was there before."""

    def given(value: Any) -> Any:
        if isinstance(value, Traced):
            return known[value] if value.constant is None else value.constant
        if isinstance(value, dict):
            return {k: given(v) for k, v in value.items()}
        return type(value)(given(v) for v in value) if isinstance(value, list | tuple) else value

    args, kwargs = given(call.args), given(call.kwargs)
    if hasattr(call.op, "_schema") and call.op._schema.is_mutable:
        args = (args[0].clone(), *args[1:])
    op = torch.ops.aten.reshape.default if call.op is torch.ops.aten.view.default else call.op
    made = op(*args, **kwargs)  # kernels may lay out what they make otherwise than in the traced run
    outputs = made if isinstance(made, list | tuple) else [made]
    return dict(zip(call.outputs, [o for o in outputs if isinstance(o, torch.Tensor)], strict=False))


def _of_graph(held: NDArray[Any], axes: tuple[int, ...]) -> torch.Tensor:
    """Return an input of the graph in torch's order of dimensions."""
    return torch.from_numpy(np.ascontiguousarray(held)).permute([axes.index(k) for k in range(len(axes))]).contiguous()


def _to_graph(made: torch.Tensor, axes: tuple[int, ...]) -> NDArray[Any]:
    if axes[0] == BATCH:
        made, axes = made[None], (0, *(a + 1 for a in axes[1:]))
    return made.permute(axes).numpy()


def _image_last(made: torch.Tensor) -> NDArray[Any]:
    """Return an output in the graph's order of dimensions."""
    return (made.permute(0, 2, 3, 1) if made.ndim == 4 else made).numpy()
