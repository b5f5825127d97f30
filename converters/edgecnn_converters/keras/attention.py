"""Multi-head attention of Keras in ops of the graph. Source: Vaswani et al. 2017, section 3.2."""

from __future__ import annotations

import math

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need
from edgecnn_converters.keras.translation import Step


def multi_head_attention(step: Step) -> Value:
    """Add MultiHeadAttention over the second of three dimensions, without a mask."""
    b, config = step.b, step.config
    given = dict(zip(("query", "value", "key"), step.args, strict=False)) | dict(step.kwargs)
    for name in ("attention_mask", "query_mask", "value_mask", "key_mask"):
        need(given.get(name) is None, f"{name}; attention without a mask is supported")
    for name in ("use_causal_mask", "return_attention_scores"):
        need(not given.get(name), f"{name}; attention without it is supported")
    need(not config.get("use_gate") and not config.get("sliding_window"), "a gate or a sliding window")
    query, value = given["query"], given["value"]
    key = value if given.get("key") is None else given["key"]
    for each in (query, value, key):
        need(isinstance(each, Value) and len(b.shape(each)) == 3, "an input that is not (batch, places, features)")
    axes = config.get("attention_axes")
    need(axes in (None, [1], [-2]), f"attention over axes {axes}; [1] is supported")
    biased = bool(config.get("use_bias", True))
    scale = 1 / math.sqrt(int(config["key_dim"]))
    heads = {
        name: _heads(step, name, each, biased, scale if name == "query" else 1.0)
        for name, each in (("query", query), ("key", key), ("value", value))
    }
    scores = reductions.matmul(b, heads["query"], b.transpose(heads["key"], (0, 1, 3, 2)))
    mixed = reductions.matmul(b, reductions.softmax(b, scores, -1), heads["value"])
    kernel, bias = _arrays(step, "attention_output", "output_dense", biased)
    flat = b.reshape(b.transpose(mixed, (0, 2, 1, 3)), (1, b.shape(query)[1], kernel.shape[0] * kernel.shape[1]))
    weight = kernel.reshape(-1, kernel.shape[-1]).T
    return layers.linear(b, flat, np.ascontiguousarray(weight), bias)


def _arrays(step: Step, name: str, attribute: str, biased: bool) -> tuple[Array, Array | None]:
    """Return kernel and bias of one of the dense layers inside."""
    place = step.place.part(name, attribute)
    if biased:
        kernel, bias = step.b.archive.arrays(place, ("kernel", "bias"))
        return kernel, bias
    return step.b.archive.arrays(place, ("kernel",))[0], None


def _heads(step: Step, name: str, x: Value, biased: bool, scale: float) -> Value:
    """Return a projection as (batch, heads, places, features)."""
    kernel, bias = _arrays(step, name, f"{name}_dense", biased)
    features, heads, size = kernel.shape
    weight = np.ascontiguousarray(kernel.reshape(features, -1).T * np.float32(scale))
    made = layers.linear(step.b, x, weight, None if bias is None else bias.reshape(-1) * np.float32(scale))
    return step.b.transpose(step.b.reshape(made, (1, step.b.shape(x)[1], heads, size)), (0, 2, 1, 3))
