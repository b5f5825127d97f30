"""Weights: int8 weights, int32 biases and the constants of elementwise ops, each rounded to the nearest integer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecnn.errors import InputError
from edgecnn.graph.contract import BIAS_OF
from edgecnn.graph.ir import Constant, Graph, Quantized
from edgecnn.quant.scales.kernel_limits import clamp_weight_scales
from edgecnn.quant.scales.qparams import (
    bias_scales,
    least_error,
    quantize_bias,
    quantize_weight,
    weight_scales,
)
from edgecnn.quant.scales.rounding_safe import operand_parameters, weight_trials
from edgecnn.quant.step import Stage, Step, Work, setting


@dataclass(frozen=True, kw_only=True)
class Weights(Step):
    """Round weights to symmetric int8, one scale per output channel or one in all, and biases to int32.

    Between integer activations each scale is the best of those with which all runtimes round alike, and no smaller than
    integer kernels and int32 biases can hold. Limited to layers, others have one scale per channel that clips nothing.

    Sources: LiteRT 8-bit quantization specification; Krishnamoorthi 2018, section 2; Nagel et al. 2021, section 3.1.
    """

    before, after, limitable = Stage.FINAL, Stage.INTEGER, True

    range: str = setting("minmax", "minmax, or mse: clipped where that lowers the error", allowed=("minmax", "mse"))
    bits: int = setting(
        8, "8, or 7 for x86 without VNNI, whose kernels add pairs of products in 16 bits", allowed=(7, 8)
    )
    per_tensor: bool = setting(False, "one scale for all of a layer's weights, for hardware that has no more")

    def apply(self, work: Work) -> Work:
        graph, changed = work.graph, []
        for node in graph:
            for tensor in (graph.tensors[i] for i in node.inputs if not node.weighted):
                if isinstance(tensor, Constant):  # an elementwise op's operand: per tensor, in its output's type
                    quant = operand_parameters(graph, node, tensor)
                    changed.append(tensor.quantized(quant, quant.quantize(tensor.value)))
        return replace(work, graph=self.quantize_weights(graph.with_tensors(*changed), work.recipe.weight_limit))

    def quantize_weights(self, graph: Graph, limit: int) -> Graph:
        """Return the graph with int8 weights and, between integer activations, int32 (int64) biases.

        Args:
            graph: float weights; float activations too, for weight-only quantization.
            limit: the largest weight integer.

        Raises:
            InputError: the weights are quantized already.
        """
        changed = []
        for node in graph:
            if node.weighted:
                source, (weight, bias) = graph.tensors[node.inputs[0]], map(graph.constant, node.inputs[1:])
                if isinstance(weight, Quantized):
                    raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
                selected = self.selects(node)
                way, in_one = (self.range, self.per_tensor) if selected else ("minmax", False)
                scales = weight_scales(weight.value, way, limit, per_tensor=in_one)
                if not isinstance(source, Quantized):
                    changed.append(quantize_weight(weight, scales, limit))
                    continue
                made = graph.quant(node.output)
                scales = clamp_weight_scales(scales, source.quant, made, bias.value)
                if source.quant.dtype == made.dtype == "int8":
                    scales = least_error(weight.value, weight_trials(node, source.quant, made, scales), limit)
                products = bias_scales(source.quant.scale, scales)
                changed.append(quantize_weight(weight, scales, limit))
                changed.append(quantize_bias(bias, products, bias.value, BIAS_OF[source.quant.dtype]))
        return graph.with_tensors(*changed)
