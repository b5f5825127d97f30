"""Empirical bias correction, layer after layer.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and
appendix D (the empirical form). The float network and the quantized one run side by side over the same images;
after each layer the quantized one's mean output per channel is moved to the float one's, and only then does it go on: a
layer also corrects what the layers before it left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.interpreter import run_node
from edgecnn.graph.ir import Graph, QParams


@torch.inference_mode()
def correct_biases(graph: Graph, images: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
    """Corrected float biases by tensor name.

    Args:
        graph: quantized weights (integers beside values) and activations with parameters; biases still float.
        images: (N, H, W, C) network inputs; all are in memory at once, layer by layer.
    """
    exact = {t.name: _laid_out(t.value) for t in graph.tensors.values() if t.value is not None}
    coarse = {
        t.name: _laid_out(t.quant.dequantize(t.integers)) if t.quant and t.integers is not None else exact[t.name]
        for t in graph.tensors.values()
        if t.value is not None
    }
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    (name,) = graph.inputs
    float_values, quant_values = {name: x}, {name: _on_grid(x, graph.tensors[name].quant)}
    last = {i: k for k, node in enumerate(graph.nodes) for i in node.inputs}
    corrected: dict[str, NDArray[np.float32]] = {}
    for k, node in enumerate(graph.nodes):
        before = replace(node, attrs={**node.attrs, "activation": "none"}) if "activation" in node.attrs else node
        a = run_node(before, [float_values.get(i, exact.get(i)) for i in node.inputs])  # type: ignore[misc]
        b = run_node(before, [quant_values.get(i, coarse.get(i)) for i in node.inputs])  # type: ignore[misc]
        if node.op in WEIGHTED:
            over = (0, 2, 3) if a.ndim == 4 else (0,)
            shift = a.mean(over) - b.mean(over)
            bias = graph.tensors[node.inputs[2]]
            assert bias.value is not None
            corrected[bias.name] = bias.value + shift.numpy()
            b += shift.reshape(1, -1, *[1] * (a.ndim - 2))
        float_values[node.output] = _activated(a, node.attrs.get("activation"))
        quant_values[node.output] = _on_grid(
            _activated(b, node.attrs.get("activation")), graph.tensors[node.output].quant
        )
        for i in node.inputs:
            if last[i] == k:
                float_values.pop(i, None)
                quant_values.pop(i, None)
    return corrected


def _laid_out(array: NDArray[np.float32]) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _activated(x: torch.Tensor, activation: object) -> torch.Tensor:
    match activation:
        case "relu":
            return x.relu_()
        case "relu6":
            return x.clamp_(0, 6)
    return x


def _on_grid(x: torch.Tensor, quant: QParams | None) -> torch.Tensor:
    """The values rounded to the grid, in place of what an integer kernel would hand on."""
    assert quant is not None
    return torch.fake_quantize_per_tensor_affine(x, float(quant.scale[0]), int(quant.zero_point[0]), *quant.limits)
