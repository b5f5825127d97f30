"""Adaptive rounding: each layer's integers and bias are chosen for what they make of the images, not one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecnn.quant.step import Stage, Step, Work, setting
from edgecnn.quant.steps.bias_correction import BiasCorrection


@dataclass(frozen=True, kw_only=True)
class AdaptiveRounding(Step):
    """Round each weight up or down so that its layer's output stays closest to float.

    The float network and the quantized one run side by side, layer after layer; each layer's integers are those of a
    least-squares problem (``rounding_solver``). Its bias is found too, so bias correction is no further step.

    Sources: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization" (the problem: section 3;
    input and target: section 4); Frantar et al. 2022, "GPTQ" (the columns: section 3, algorithm 1).
    """

    before, after = Stage.INTEGER, Stage.CORRECTED
    limitable = True

    images: int = setting(300, "calibration images; fewer where their activations would not fit in 1.75 GiB", low=1)

    def apply(self, work: Work) -> Work:
        """Solve the layers that are selected, each kept in the checkpoint."""
        from edgecnn.quant.rounding_solver import round_adaptively

        images, limit = work.images[: self.images], work.recipe.weight_limit
        return replace(work, graph=round_adaptively(work.graph, images, limit, work.checkpoint, self.selects))

    def quick(self) -> Step:
        """Return bias correction, which takes seconds."""
        return BiasCorrection(layers=self.layers, exclude=self.exclude)
