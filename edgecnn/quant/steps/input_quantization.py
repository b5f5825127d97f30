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
    """Feed pixels as the int8 integers of image inputs, where one mean and one std serve all channels."""

    before, after = Stage.LOADED, Stage.FLOAT

    def fixed_parameters(self, graph: Graph) -> Mapping[str, QParams]:
        """Return the parameters of image inputs, where pixels can be their integers."""
        fed, found = dict(graph.metadata.other_preprocess), dict[str, QParams]()
        if graph.image_input is not None and graph.metadata.preprocess is not None:
            fed[graph.image_input] = graph.metadata.preprocess
        for name, preprocess in fed.items():
            if not _uniform(preprocess):
                continue
            zero = LOWEST + preprocess.mean[0]
            if zero == int(zero) and LOWEST <= zero <= LOWEST + 255:
                scale = np.array([1 / preprocess.std[0]], np.float32)
                found[name] = QParams(scale=scale, zero_point=np.array([int(zero)]), dtype="int8")
        return found

    def apply(self, work: Work) -> Work:
        """Fold the mean's fraction into the first layer, for int8 inputs."""
        graph, preprocess = work.graph, work.graph.metadata.preprocess
        name = graph.image_input
        if work.precision != "int8" or preprocess is None or name is None or not _uniform(preprocess):
            return work
        consumers = graph.consumers(name)
        mean, std = preprocess.mean[0], preprocess.std[0]
        level = math.ceil(mean - 0.5)
        if level == mean or name in graph.outputs or not all(node.weighted for node in consumers):
            return work
        changed = []
        for node in consumers:
            weight, bias = (graph.constant(i) for i in node.inputs[1:])
            sums = weight.value.astype(np.float64).reshape(len(weight.value), -1).sum(axis=1)
            changed.append(replace(bias, value=(bias.value - (mean - level) / std * sums).astype(np.float32)))
        metadata = replace(graph.metadata, preprocess=replace(preprocess, mean=(float(level),) * len(preprocess.mean)))
        return replace(work, graph=replace(graph.with_tensors(*changed), metadata=metadata))


def _uniform(preprocess: Preprocess) -> bool:
    return not preprocess.as_given and len(set(preprocess.mean)) == 1 and len(set(preprocess.std)) == 1
