"""Pixels that are integers already: an input grid on which each of the 256 levels is one integer, exactly.

``(pixel - mean) / std`` has a step of ``1 / std``. With that as the input's scale, a pixel loses nothing, if the level
that becomes zero is whole; the usual mean of 127.5 would put every pixel half way between two integers. Moving the mean
to 127 moves the input by half a level, which the first layer's bias takes back: exactly, but where its window reaches
into the padding, which is half a level off.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgecnn.graph.contract import WEIGHTED
from edgecnn.graph.ir import Graph, QParams
from edgecnn.preprocess import Preprocess

LOWEST = -128  # the integer of level 0


def on_pixels(graph: Graph) -> Graph:
    """The float graph with a whole mean, where one mean and one std serve all channels; else the graph as it is.

    Args:
        graph: float; its preprocessing says how pixels are fed.
    """
    preprocess = graph.metadata.preprocess
    readers = graph.consumers(graph.inputs[0])
    if preprocess is None or not _uniform(preprocess) or not all(n.op in WEIGHTED for n in readers):
        return graph
    mean, std = preprocess.mean[0], preprocess.std[0]
    level = math.ceil(mean - 0.5)
    if level == mean:
        return graph
    changed = []
    for node in readers:
        weight, bias = (graph.tensors[i].value for i in node.inputs[1:])
        assert weight is not None
        assert bias is not None
        sums = weight.astype(np.float64).reshape(len(weight), -1).sum(axis=1)
        moved = (bias - (mean - level) / std * sums).astype(np.float32)
        changed.append(replace(graph.tensors[node.inputs[2]], value=moved))
    whole = replace(preprocess, mean=(float(level),) * 3)
    return replace(graph.with_tensors(*changed), metadata=replace(graph.metadata, preprocess=whole))


def pixel_grid(preprocess: Preprocess | None) -> QParams | None:
    """The int8 grid on which levels 0..255 are -128..127, if there is one."""
    if preprocess is None or not _uniform(preprocess):
        return None
    zero = LOWEST + preprocess.mean[0]
    if zero != int(zero) or not LOWEST <= zero <= LOWEST + 255:
        return None
    scale = np.array([1 / preprocess.std[0]], np.float32)
    return QParams(scale=scale, zero_point=np.array([int(zero)]), dtype="int8")


def _uniform(preprocess: Preprocess) -> bool:
    return not preprocess.as_given and len(set(preprocess.mean)) == 1 and len(set(preprocess.std)) == 1
