"""Bias correction: each layer's mean output, after its activation, is moved to the float network's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from edgecnn.graph.ir import Node, QuantizedConstant
from edgecnn.quant.scales.qparams import quantize_bias
from edgecnn.quant.step import Stage, Step, Work, setting

if TYPE_CHECKING:
    from edgecnn.quant.executor import Chunks, SideBySide

MEMORY = 5 << 29  # bytes that the activations of both networks may take: all of EfficientNet-B7 is to fit in 6 GiB
VALUE_BYTES = 8  # of a float32 value in both


@dataclass(frozen=True, kw_only=True)
class BiasCorrection(Step):
    """Correct biases empirically, layer after layer.

    The float network and the quantized one run side by side over the same images. After each layer the quantized one's
    mean output per channel is moved to the float one's, and only then does it go on: a layer also corrects what the
    layers before it left. The mean is taken after the activation: what a ReLU makes zero of is no error.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and
    appendix D (the empirical form).
    """

    before, after = Stage.INTEGER, Stage.CORRECTED
    limitable = True

    images: int = setting(32, "calibration images; fewer where their activations would not fit in 2.5 GiB", low=1)

    def apply(self, work: Work) -> Work:
        import torch

        from edgecnn.quant.executor import SideBySide, affordable

        images = work.images[: self.images]
        with torch.inference_mode():
            images = images[: affordable(work.graph, len(images), lambda _: VALUE_BYTES, MEMORY)]
            both = SideBySide(work.graph, images)
            return replace(work, graph=both.run(sums=partial(correct_bias, both), summed=self.selects))


def correct_bias(both: SideBySide, node: Node, exact: Chunks, got: Chunks) -> None:
    """Move a layer's bias, and what it made, towards the float network.

    Args:
        both: at this node.
        node: weighted.
        exact, got: the layer's sums in the float network and in the quantized one, all chunks; ``got`` changes.
    """
    from edgecnn.quant.scales.bias_shift import bias_shift, function_behind

    moved = bias_shift(list(zip(exact, got, strict=True)), function_behind(both.graph, node)).float()
    bias = QuantizedConstant.of(both.tensors[node.inputs[2]])
    quant = bias.quant
    found = quant.dequantize(bias.integers) + moved.numpy()
    both.tensors[bias.name] = quantize_bias(bias, quant.scale, found, quant.dtype)
    for chunk in got:
        chunk += moved.reshape(1, -1, *[1] * (chunk.ndim - 2))
