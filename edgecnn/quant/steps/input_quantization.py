"""Input quantization: pixel levels become the input's integers exactly, and the mean is folded into the first layer.

``(pixel - mean) / std`` has a step of ``1 / std``. With that as the input's scale, a pixel loses nothing, if the level
that becomes zero is whole; the usual mean of 127.5 would put every pixel half way between two integers. Moving the mean
to 127 moves the input by half a level, which the first layer's bias takes back: exactly, but where its window reaches
into the padding, which is half a level off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgecnn.graph.ir import Graph, QParams
from edgecnn.preprocess import Preprocess
from edgecnn.quant.step import Stage, Step, Work

LOWEST = -128  # the integer of level 0


@dataclass(frozen=True, kw_only=True)
class InputQuantization(Step):
    """Feed pixels as the input's integers, where one mean and one std serve all channels and the input is int8."""

    before, after = Stage.LOADED, Stage.FLOAT

    def fixed_parameters(self, graph: Graph) -> Mapping[str, QParams]:
        """Return the input's parameters, where pixels can be its integers."""
        quant = pixel_parameters(graph.metadata.preprocess)
        return {} if quant is None else dict.fromkeys(graph.inputs, quant)

    def apply(self, work: Work) -> Work:
        """Fold the mean's fraction into the first layer, for int8 inputs."""
        return replace(work, graph=fold_mean(work.graph)) if work.precision == "int8" else work


def fold_mean(graph: Graph) -> Graph:
    """Return the float graph with a whole mean, where one mean and one std serve all channels; else the graph itself.

    Args:
        graph: float; its preprocessing says how pixels are fed.
    """
    preprocess = graph.metadata.preprocess
    consumers = graph.consumers(graph.inputs[0])
    if preprocess is None or not _uniform(preprocess) or not all(n.weighted for n in consumers):
        return graph
    mean, std = preprocess.mean[0], preprocess.std[0]
    level = math.ceil(mean - 0.5)
    if level == mean:
        return graph
    changed = []
    for node in consumers:
        weight, bias = (graph.tensors[i].constant for i in node.inputs[1:])
        sums = weight.astype(np.float64).reshape(len(weight), -1).sum(axis=1)
        moved = (bias - (mean - level) / std * sums).astype(np.float32)
        changed.append(replace(graph.tensors[node.inputs[2]], value=moved))
    whole = replace(preprocess, mean=(float(level),) * 3)
    return replace(graph.with_tensors(*changed), metadata=replace(graph.metadata, preprocess=whole))


def pixel_parameters(preprocess: Preprocess | None) -> QParams | None:
    """Return the int8 parameters with which levels 0..255 are -128..127, if there are any."""
    if preprocess is None or not _uniform(preprocess):
        return None
    zero = LOWEST + preprocess.mean[0]
    if zero != int(zero) or not LOWEST <= zero <= LOWEST + 255:
        return None
    scale = np.array([1 / preprocess.std[0]], np.float32)
    return QParams(scale=scale, zero_point=np.array([int(zero)]), dtype="int8")


def _uniform(preprocess: Preprocess) -> bool:
    return not preprocess.as_given and len(set(preprocess.mean)) == 1 and len(set(preprocess.std)) == 1
