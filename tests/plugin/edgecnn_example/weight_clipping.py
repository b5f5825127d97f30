"""A quantization step: weights far from a channel's mean are clipped before they get scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgecnn.quant.step import Stage, Step, Work, setting


@dataclass(frozen=True, kw_only=True)
class WeightClipping(Step):
    """Clip each channel's weights to some standard deviations around zero."""

    before, after = Stage.FLOAT, Stage.FLOAT
    limitable = True
    deviations: float = setting(4.0, "as many standard deviations stay", low=1.0)

    def apply(self, work: Work) -> Work:
        """Clip the weights of the layers that ``layers`` and ``except`` select."""
        changed = []
        for node in (node for node in work.graph if node.spec.weighted and self.selects(node)):
            tensor = work.graph.constant(node.inputs[1])
            most = self.deviations * tensor.value.std(axis=tuple(range(1, tensor.value.ndim)), keepdims=True)
            changed.append(replace(tensor, value=np.clip(tensor.value, -most, most)))
        return replace(work, graph=work.graph.with_tensors(*changed))
