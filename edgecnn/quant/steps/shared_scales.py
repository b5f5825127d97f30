"""Shared scales: what additions join gets one scale, where rounding once makes less noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecnn.quant.scales.qparams import parameters_of, with_parameters
from edgecnn.quant.scales.rounding_safe import added, share_scales
from edgecnn.quant.step import Stage, Step, Work, setting


@dataclass(frozen=True, kw_only=True)
class SharedScales(Step):
    """Give the inputs and outputs of additions one scale where that pays: such an addition rounds nothing.

    Of each residual stream that run of additions shares a scale for which it pays most, by gradient sensitivity.
    """

    before, after = Stage.SCALED, Stage.SCALED

    images: int = setting(16, "calibration images on which gradients are taken", low=1)

    def apply(self, work: Work) -> Work:
        """Make the scales of runs of additions equal."""
        from edgecnn.quant.observers.gradient_sensitivity import gradient_sensitivity

        found = gradient_sensitivity(work.graph, added(work.graph), work.images[: self.images])
        chosen = parameters_of(work.graph)
        share_scales(work.graph, chosen, {name: float(each.sum()) for name, each in found.items()})
        return replace(work, graph=with_parameters(work.graph, chosen))
