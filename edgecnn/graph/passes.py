"""Simplify float graphs by rules: graph in, graph out, the same function computed by fewer nodes.

Every rule needs a valid graph and leaves one (``Graph`` checks itself when it is made).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import UnsupportedError
from edgecnn.graph import heads, move_rules, patterns
from edgecnn.graph.ir import Constant, Graph, Node
from edgecnn.graph.ops import ACTIVATIONS, make_node
from edgecnn.graph.rewriting import Draft, Rule, apply


def simplify(graph: Graph) -> Graph:
    """Apply all rules, in the order they need.

    Raises:
        UnsupportedError: an interim op is no part of what its rule knows.
    """
    for rules in (move_rules.RULES, patterns.RULES, move_rules.RULES, SHAPES, (fuse_activations,), FOLDS + heads.RULES):
        graph = apply(graph, rules)
    if left := sorted({str(n) for n in graph if n.spec.interim}):
        raise UnsupportedError(
            f"ops that are supported only as parts of others, erf as that of GELU: {', '.join(left)}"
        )
    return graph


def rename(graph: Graph, names: Mapping[str, str]) -> Graph:
    """Return the graph with other names for some tensors; one that has such a name already gets a number behind it."""
    wanted = {old: new for old, new in names.items() if old != new}
    for name in set(wanted.values()) & (set(graph.tensors) - set(wanted)):
        wanted[name] = next(n for k in count(1) if (n := f"{name}_{k}") not in graph.tensors)
    nodes = tuple(
        replace(n, inputs=tuple(wanted.get(i, i) for i in n.inputs), output=wanted.get(n.output, n.output))
        for n in graph.nodes
    )
    tensors = {wanted.get(k, k): replace(t, name=wanted.get(k, k)) for k, t in graph.tensors.items()}
    ends = ([wanted.get(name, name) for name in each] for each in (graph.inputs, graph.outputs))
    inputs, outputs = map(tuple, ends)
    return replace(graph, nodes=nodes, tensors=tensors, inputs=inputs, outputs=outputs)


def drop_dead(graph: Graph) -> Graph:
    """Drop nodes and constants that no output depends on."""
    return Draft(graph).graph()


# --- rules of shapes ---

NO_PADDING = (0, 0, 0, 0)


def fuse_padding(d: Draft, first: Node) -> bool:
    """Fuse a zero ``pad`` into the padding of the convolution that alone reads it."""
    second = d.only_reader(first.output)
    if first.op != "pad" or second is None or second.op != "conv2d" or first.attrs["channels"] != (0, 0):
        return False
    outer: Any = first.attrs["padding"]
    inner: Any = second.attrs["padding"]
    total = tuple(a + b for a, b in zip(outer, inner, strict=True))
    attrs = {**second.attrs, "padding": total}
    d.place(replace(second, inputs=(first.inputs[0], *second.inputs[1:]), attrs=attrs))
    d.drop(first.output)
    return True


def whole_pool_to_mean(d: Draft, first: Node) -> bool:
    """Make an average pool over the whole image a mean, whose output has a scale of its own, far below its input's."""
    if first.op != "avg_pool2d" or first.attrs["kernel"] != d.shape(first.inputs[0])[1:3]:
        return False
    if first.attrs["padding"] != NO_PADDING:
        return False
    d.put("mean", first.inputs, first.output, first, keepdims=True)
    return True


def flatten_mean(d: Draft, first: Node) -> bool:
    """Merge global average pooling and a flatten, or what undoes it, into a mean that keeps the dimensions or not."""
    second = d.only_reader(first.output)
    if first.op != "mean" or second is None or second.op != "reshape":
        return False
    batch, channels, made = d.shape(first.output)[0], d.shape(first.output)[-1], d.shape(second.output)
    if made not in ((batch, channels), (batch, 1, 1, channels)):
        return False
    d.place(replace(first, attrs={"keepdims": len(made) == 4}, output=second.output))
    d.drop(first.output)
    return True


def pointwise_to_linear(d: Draft, first: Node) -> bool:
    """Turn global average pooling, a 1x1 convolution head and a flatten into a mean and a fully connected layer."""
    second = d.only_reader(first.output)
    if first.op != "mean" or second is None or second.op != "conv2d":
        return False
    last = d.only_reader(second.output)
    weight, padding = d.value(second.inputs[1]), second.attrs["padding"]
    if last is None or last.op != "reshape" or weight is None or not d.alone(second.inputs[1]):
        return False
    plain = weight.shape[1:3] == (1, 1) and second.attrs["groups"] == 1 and padding == (0, 0, 0, 0)
    if not plain or len(d.shape(last.output)) != 2:
        return False
    d.set(second.inputs[1], weight.reshape(weight.shape[0], weight.shape[3]))
    d.place(replace(first, attrs={"keepdims": False}))
    activation = second.attrs["activation"]
    d.place(make_node("fully_connected", second.inputs, last.output, second.source, activation=activation))
    d.drop(second.output)
    return True


def lift_pointwise(d: Draft, first: Node) -> bool:
    """Let a 1x1 convolution between two reshapes, which undo each other but for its channels, work on the image itself.

    torch makes a linear layer over the last dimension of an image so.
    """
    before, after = d.producer(first.inputs[0], "reshape"), d.only_reader(first.output)
    if first.op != "conv2d" or before is None or after is None or after.op != "reshape":
        return False
    weight, source = d.shape(first.inputs[1]), d.shape(before.inputs[0])
    plain = first.attrs["stride"] == (1, 1) and first.attrs["padding"] == NO_PADDING and first.attrs["groups"] == 1
    if not plain or weight[1:3] != (1, 1) or len(source) != 4 or source[3] != weight[3]:
        return False
    if d.shape(after.output) != (*source[:3], weight[0]):
        return False
    d.place(replace(first, inputs=(before.inputs[0], *first.inputs[1:])))
    return d.bypass(after.output, first.output)


def fold_transposes(d: Draft, first: Node) -> bool:
    """Fold a transpose before a flattening into the columns of the linear layer that alone reads it."""
    second = d.only_reader(first.output)
    if first.op != "transpose" or second is None or second.op != "reshape" or len(d.shape(second.output)) != 2:
        return False
    last = d.only_reader(second.output)
    while last is not None and (last.op in move_rules.POINTWISE or last.spec.function):
        last = d.only_reader(last.output)
    if last is None or last.op != "fully_connected" or not d.alone(last.inputs[1]):
        return False
    weight, perm = d.value(last.inputs[1]), first.attrs["perm"]
    assert isinstance(perm, tuple)
    assert weight is not None
    moved = tuple(d.shape(first.inputs[0])[k] for k in perm[1:])
    by_place = weight.reshape(-1, *moved).transpose(0, *(1 + np.argsort([k - 1 for k in perm[1:]])))
    d.set(last.inputs[1], by_place.reshape(len(weight), -1))
    return d.bypass(first.output, first.inputs[0])


# --- rules of activations and constants ---


def fuse_activations(d: Draft, first: Node) -> bool:
    """Fuse a relu or relu6 into the node whose output only it reads, as its ``activation``."""
    second = d.only_reader(first.output)
    if first.attrs.get("activation") != "none" or second is None or second.op not in ACTIVATIONS:
        return False
    return d.rename(first, second, activation=second.op)


def fold_constants(d: Draft, first: Node) -> bool:
    """Fold a sum or product with a constant into the convolution or linear layer before it."""
    second = d.only_reader(first.output)
    if not first.weighted or first.attrs["activation"] != "none" or second is None:
        return False
    term, factor = (_operand(d, second, op, first.output) for op in ("add", "mul"))
    if (term is None and factor is None) or not all(d.alone(name) for name in first.inputs[1:]):
        return False
    weight, bias = _weights(d, first)
    added = np.zeros(1, np.float32) if term is None else term
    times = np.ones(1, np.float32) if factor is None else factor
    rows = np.broadcast_to(times, bias.shape).reshape(-1, *[1] * (weight.ndim - 1))
    activation = second.attrs["activation"]
    if not d.rename(first, second, activation=activation):
        return False
    d.set(first.inputs[1], weight * rows)
    d.set(first.inputs[2], bias * times + added)
    return True


def fold_gathers(d: Draft, first: Node) -> bool:
    """Let a convolution make its channels in the order in which ``depth_to_space`` takes them: a pixel shuffle."""
    second = d.only_reader(first.output)
    if first.op != "conv2d" or first.attrs["groups"] != 1 or second is None or second.op != "gather":
        return False
    indices: Any = second.attrs["indices"]
    last = d.only_reader(second.output)
    if second.attrs["axis"] != 3 or len(set(indices)) < len(indices) or last is None or last.op != "depth_to_space":
        return False
    if not all(d.alone(name) for name in first.inputs[1:]) or not d.bypass(second.output, first.output):
        return False
    for name, value in zip(first.inputs[1:], _weights(d, first), strict=True):
        d.set(name, value[list(indices)])
    d.place(first)
    return True


def fold_past_blocks(d: Draft, first: Node) -> bool:
    """Fold what a ``depth_to_space`` alone is read by into the convolution before it: factors and terms per channel.

    They are a batch norm, a bias or an activation behind a transposed convolution. The convolution makes every channel
    once for each place in the block.
    """
    middle = d.only_reader(first.output)
    if first.op != "conv2d" or first.attrs["activation"] != "none" or middle is None or middle.op != "depth_to_space":
        return False
    second = d.only_reader(middle.output)
    if second is None or not all(d.alone(name) for name in first.inputs[1:]):
        return False
    if second.op in ACTIVATIONS:
        times, plus, activation = np.ones(1, np.float32), np.zeros(1, np.float32), second.op
    else:
        term, factor = (_operand(d, second, op, middle.output) for op in ("add", "mul"))
        if second.op == "conv2d" and _is_per_channel(d, second):
            factor, term = (array.reshape(-1) for array in _weights(d, second))
        if term is None and factor is None:
            return False
        times = np.ones(1, np.float32) if factor is None else factor
        plus = np.zeros(1, np.float32) if term is None else term
        activation = str(second.attrs["activation"])
    if not d.bypass(second.output, middle.output):
        return False
    weight, bias = _weights(d, first)
    channels, places = d.shape(middle.output)[-1], int(middle.attrs["block"]) ** 2  # type: ignore[arg-type]
    times, plus = (np.tile(np.broadcast_to(each, (channels,)), places) for each in (times, plus))
    d.set(first.inputs[1], weight * times.reshape(-1, 1, 1, 1))
    d.set(first.inputs[2], bias * times + plus)
    d.place(replace(first, attrs={**first.attrs, "activation": activation}))
    return True


def _is_per_channel(d: Draft, node: Node) -> bool:
    """Tell whether a convolution is a factor and a term for each channel."""
    channels, pads, a = d.shape(node.inputs[0])[-1], node.attrs["padding"], node.attrs
    alone = d.shape(node.inputs[1]) == (channels, 1, 1, 1) and a["groups"] == channels
    return alone and a["stride"] == (1, 1) and pads == NO_PADDING


def fold_hard_sigmoid(d: Draft, first: Node) -> bool:
    """Make a hard sigmoid behind a layer the layer's ReLU6 and a factor: ``relu6(6 alpha x + 6 beta) / 6``."""
    second = d.only_reader(first.output)
    if not first.weighted or first.attrs["activation"] != "none" or second is None or second.op != "hard_sigmoid":
        return False
    if not all(d.alone(name) for name in first.inputs[1:]):
        return False
    weight, bias = _weights(d, first)
    alpha, beta = (np.float32(6 * float(second.attrs[key])) for key in ("alpha", "beta"))  # type: ignore[arg-type]
    d.set(first.inputs[1], weight * alpha)
    d.set(first.inputs[2], bias * alpha + beta)
    d.place(replace(first, attrs={**first.attrs, "activation": "relu6"}))
    sixth = d.constant(np.array([1 / 6]), second.output)
    d.put("mul", [first.output, sixth], second.output, second)
    return True


def fold_factors_ahead(d: Draft, first: Node) -> bool:
    """Fold the product with one number into the weights of the layer that reads it, past a product of activations.

    The hard sigmoid of a squeeze-excite ends in such a product.
    """
    second = d.only_reader(first.output)
    factor = _operand(d, first, "mul", first.inputs[0]) if first.op == "mul" else None
    if second is None or factor is None or factor.size != 1 or first.attrs["activation"] != "none":
        return False
    passed = second if second.op == "mul" and second.attrs["activation"] == "none" else None
    last = second if passed is None else d.only_reader(second.output)
    if last is None or not last.weighted:
        return False
    if passed is not None and (len(set(passed.inputs)) == 1 or _has_constant(d, passed)):  # a square has it twice
        return False
    if last.inputs[0] not in (first.output, second.output) or not d.alone(last.inputs[1]):
        return False
    weight = d.value(last.inputs[1])
    assert weight is not None
    d.set(last.inputs[1], weight * factor)
    return d.bypass(first.output, first.inputs[0])


def fold_factors_past_sums(d: Draft, first: Node) -> bool:
    """Fold the product with one number into the weights of all layers that read it, past a sum with a constant.

    ``a x + b`` is ``a (x + b / a)``. Scale and shift behind an activation, as in PP-LCNet, become one addition so.
    """
    second = d.only_reader(first.output)
    factor = _operand(d, first, "mul", first.inputs[0]) if first.op == "mul" else None
    term = None if second is None else _operand(d, second, "add", first.output)
    if second is None or factor is None or term is None or factor.size != 1 or second.output in d.outputs:
        return False
    if any(node.attrs["activation"] != "none" for node in (first, second)) or not d.alone(second.inputs[1]):
        return False
    layers = d.readers(second.output)
    if not all(n.weighted and n.inputs[0] == second.output and d.alone(n.inputs[1]) for n in layers):
        return False
    value = d.value(second.inputs[1])
    assert value is not None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        shifted = value / factor
    if not layers or not np.isfinite(shifted).all() or not d.bypass(first.output, first.inputs[0]):
        return False
    d.set(second.inputs[1], shifted)
    for layer in layers:
        d.set(layer.inputs[1], _weights(d, layer)[0] * factor)
    return True


def fold_inputs(d: Draft, first: Node) -> bool:
    """Fold a sum or product with a constant per channel into the convolution or linear layer that alone reads it.

    A sum is folded where nothing is padded: with zeros around it, the border is another. Normalisation of the input
    inside a network, ``(x - mean) / std``, ends in the first convolution so.
    """
    second = d.only_reader(first.output)
    if first.op not in ("add", "mul") or second is None or not second.weighted or second.inputs[0] != first.output:
        return False
    operand = _operand(d, first, first.op, first.inputs[0])
    if operand is None or first.attrs["activation"] != "none" or not all(d.alone(i) for i in second.inputs[1:]):
        return False
    weight, bias = _weights(d, second)
    if d.shape(first.output) != d.shape(first.inputs[0]):
        return False
    groups: Any = second.attrs.get("groups", 1)
    each = np.broadcast_to(operand, d.shape(first.output)[-1:]).reshape(groups, -1)  # (groups, channels of a group)
    rows = np.repeat(each, len(weight) // groups, axis=0)  # (out_channels, channels of its group)
    rows = rows.reshape(len(weight), *[1] * (weight.ndim - 2), -1)
    if first.op == "mul":
        d.set(second.inputs[1], weight * rows)
    elif second.attrs.get("padding", NO_PADDING) != NO_PADDING:
        return False
    else:
        d.set(second.inputs[2], bias + (weight.astype(np.float64) * rows).reshape(len(weight), -1).sum(1))
    return d.bypass(first.output, first.inputs[0])


def _operand(d: Draft, node: Node, op: str, other: str) -> NDArray[np.float32] | None:
    """Return the constant operand of an ``op`` whose other one is ``other``: one number, or one for each channel."""
    if node.op != op or node.inputs[0] != other or (value := d.value(node.inputs[1])) is None:
        return None
    alike = value.size in (1, d.shape(other)[-1]) and value.shape[-1:] == (value.size,)
    return value.reshape(-1) if alike else None


def _weights(d: Draft, layer: Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight, bias = (Constant.of(d.tensors[name]).value for name in layer.inputs[1:])
    return weight, bias


def _has_constant(d: Draft, node: Node) -> bool:
    return any(d.value(i) is not None for i in node.inputs)


SHAPES: tuple[Rule, ...] = (
    lift_pointwise,
    whole_pool_to_mean,
    flatten_mean,
    pointwise_to_linear,
    fuse_padding,
    fold_transposes,
)
FOLDS: tuple[Rule, ...] = (
    fuse_activations,
    fold_constants,
    fold_gathers,
    fold_past_blocks,
    fold_hard_sigmoid,
    fold_factors_ahead,
    fold_factors_past_sums,
    fold_inputs,
)
