"""Inputs that tests draw: float32 values and pixels, always the same for a seed. Integers: ``int8_builder``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph


def normal(shape: tuple[int, ...], count: int, seed: int = 0, spread: float = 1.0) -> NDArray[np.float32]:
    """Draw ``count`` samples of a shape from a normal distribution around zero."""
    return np.random.default_rng(seed).normal(0, spread, (count, *shape)).astype(np.float32)


def normal_for(graph: Graph, count: int, seed: int = 0, spread: float = 1.0) -> NDArray[np.float32]:
    """Draw inputs of a graph, NHWC or NC, from a normal distribution around zero."""
    return normal(graph.tensors[graph.inputs[0]].shape[1:], count, seed, spread)


def smooth(shape: tuple[int, ...], count: int) -> NDArray[np.float32]:
    """Draw samples whose rows go together, as in photographs, so that errors can be traded between weights."""
    noise = np.random.default_rng(0).normal(0, 1, (count, *shape))
    return (np.cumsum(noise, axis=1) / np.sqrt(shape[0])).astype(np.float32)


def smooth_for(graph: Graph, count: int) -> NDArray[np.float32]:
    """Draw such inputs of a graph."""
    return smooth(graph.tensors[graph.inputs[0]].shape[1:], count)


def int8(shape: tuple[int, ...], count: int, seed: int = 0) -> NDArray[np.int8]:
    """Draw int8 samples of a shape, evenly."""
    return np.random.default_rng(seed).integers(-128, 128, (count, *shape)).astype(np.int8)


def pixels(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw uint8 levels ``(count, height, width, 3)``, evenly."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
