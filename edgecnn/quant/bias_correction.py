"""Empirical bias correction, layer after layer.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2 and
appendix D (the empirical form). The float network and the quantized one run side by side over the same images;
after each layer the quantized one's mean output per channel is moved to the float one's, and only then does it go on: a
layer also corrects what the layers before it left. The mean output is that after the activation: what a ReLU makes zero
of is no error.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.interpreter import activated, laid_out, run_node, without_activation
from edgecnn.graph.ir import Graph, Node, Tensor
from edgecnn.quant.memory import affordable
from edgecnn.quant.readers import activation_of, shift
from edgecnn.quant.scheme import quantize_bias
from edgecnn.quant.simulate import on_grid

Chunks = list[torch.Tensor]
CHUNK = 4  # images that go through a layer together: few enough to stay in the caches
MEMORY = 5 << 29  # bytes that the activations of both networks may take: all of EfficientNet-B7 is to fit in 6 GiB


@torch.inference_mode()
def correct_biases(graph: Graph, images: NDArray[np.float32]) -> Graph:
    """The graph with corrected bias integers; the float values beside them stay as they are.

    Args:
        graph: all integers, beside values.
        images: (N, H, W, C) network inputs; in memory at once, layer by layer, so that of large ones only as many of
            the first are used as ``affordable`` says.
    """
    images = images[: affordable(graph, len(images), lambda _: 8, MEMORY)]  # float32 in both
    exact = {t.name: laid_out(t.value) for t in graph.tensors.values() if t.value is not None}
    coarse = {
        t.name: laid_out(t.quant.dequantize(t.integers)) if t.quant and t.integers is not None else exact[t.name]
        for t in graph.tensors.values()
        if t.value is not None
    }
    whole = torch.from_numpy(images).permute(0, 3, 1, 2)
    chunks = [whole[i : i + CHUNK] for i in range(0, len(whole), CHUNK)]
    (name,) = graph.inputs
    float_values = {name: list(chunks)}
    quant_values = {name: [on_grid(c.clone(), graph.tensors[name].quant) for c in chunks]}
    last = {i: k for k, node in enumerate(graph.nodes) for i in node.inputs}
    corrected: list[Tensor] = []
    for k, node in enumerate(graph.nodes):
        a, b = _run(node, float_values, exact), _run(node, quant_values, coarse)
        if node.op in WEIGHTED:
            moved = shift(zip(a, b, strict=True), activation_of(node)).float()
            bias = graph.tensors[node.inputs[2]]
            assert bias.quant is not None
            found = coarse[bias.name].numpy() + moved.numpy()
            corrected.append(quantize_bias(bias, bias.quant.scale, found, bias.quant.dtype))
            for chunk in b:
                chunk += moved.reshape(1, -1, *[1] * (chunk.ndim - 2))
        activation, quant = node.attrs.get("activation"), graph.tensors[node.output].quant
        float_values[node.output] = [activated(chunk, activation) for chunk in a]
        quant_values[node.output] = [on_grid(activated(chunk, activation), quant) for chunk in b]
        for i in node.inputs:
            if last[i] == k:
                float_values.pop(i, None)
                quant_values.pop(i, None)
    return graph.with_tensors(*corrected)


def _run(node: Node, values: Mapping[str, Chunks], constants: Mapping[str, torch.Tensor]) -> Chunks:
    """The node's outputs before its activation, chunk by chunk; not a view of its inputs."""
    before = without_activation(node)
    count = len(next(iter(values.values())))
    made = []
    for j in range(count):
        arguments = [values[i][j] if i in values else constants[i] for i in node.inputs]
        out = run_node(before, arguments)
        made.append(out.clone() if any(out.data_ptr() == x.data_ptr() for x in arguments) else out)
    return made
