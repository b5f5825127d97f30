"""Rounding-safe scales: scales of activations are final after this step, and every runtime rounds alike with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecnn.quant.scales.qparams import parameters_of, with_parameters
from edgecnn.quant.scales.rounding_safe import make_rounding_safe
from edgecnn.quant.step import Stage, Step, Work


@dataclass(frozen=True, kw_only=True)
class RoundingSafeScales(Step):
    """Move the scales of additions, means and products a little, so that no sum lies where two runtimes part.

    Runtimes round ties differently, so scales are picked that produce none (docs/numerics.md).
    """

    before, after = Stage.SCALED, Stage.FINAL

    def apply(self, work: Work) -> Work:
        """Finalize the scales of activations."""
        chosen = parameters_of(work.graph)
        make_rounding_safe(work.graph, chosen)
        return replace(work, graph=with_parameters(work.graph, chosen))
