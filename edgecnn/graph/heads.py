"""Take slices of the last dimension ahead of what joined it, so that each has a scale of its own.

A detector's boxes and scores often are slices of one tensor, whose one scale would be that of the boxes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from edgecnn.graph.ir import Constant, Node
from edgecnn.graph.rewriting import Draft, Rule

ELEMENTWISE = ("relu", "relu6", "hard_swish", "sigmoid")
Cut = tuple[int, int]
"""First element of the last dimension, and the one after the last."""


def slice_early(d: Draft, node: Node) -> bool:
    """Let other nodes make the slices of a tensor's last dimension, where nothing but slices reads the tensor.

    A concatenation gives its inputs, and a layer at the network's end becomes one for each slice.
    """
    name, slices = node.output, d.readers(node.output)
    cuts = {each.output: cut for each in slices if (cut := _cut(d, each)) is not None}
    known = sorted(cuts.values())
    apart = all(first[1] <= second[0] for first, second in pairwise(known))
    if len(known) < 2 or len(known) < len(slices) or name in d.outputs or not apart:
        return False
    ends = _is_end(d, name)
    if not all(_is_made(d, name, cut, ends) for cut in known):
        return False
    for made, cut in cuts.items():
        _make(d, name, cut, made)
    return True


def _cut(d: Draft, node: Node) -> Cut | None:
    """Return what a slice takes of the last dimension; ``None`` where it takes less of another, or is none."""
    a: Any = node.attrs
    if node.op != "slice" or a["begin"][:-1] != (0,) * (len(a["begin"]) - 1) or set(a["step"]) != {1}:
        return None
    return (a["begin"][-1], a["end"][-1]) if a["end"][:-1] == d.shape(node.inputs[0])[1:-1] else None


def _is_end(d: Draft, name: str) -> bool:
    """Tell whether no layer and no product of matrices depends on a tensor."""
    readers = d.readers(name)
    return not any(n.weighted or n.op == "batch_matmul" for n in readers) and all(_is_end(d, n.output) for n in readers)


def _is_made(d: Draft, name: str, cut: Cut, ends: bool) -> bool:
    """Tell whether ``_make`` can make a slice; ``ends``: whether layers may be taken apart."""
    node = d.producer(name)
    if node is None:
        return False
    if node.weighted:
        return ends and node.attrs.get("groups", 1) == 1 and all(d.alone(i) for i in node.inputs[1:])
    if node.op == "concat" and node.attrs["axis"] == len(d.shape(name)) - 1:
        whole = _whole_input(d, node, cut)
        return whole is not None and d.producer(whole) is not None and whole not in d.outputs
    if not _keeps_last(d, node):
        return False
    return all(d.only_reader(i) is not None and _is_made(d, i, cut, ends) for i in node.inputs)


def _keeps_last(d: Draft, node: Node) -> bool:
    """Tell whether a node computes element by element, or moves elements, but none along the last dimension."""
    a: Any = node.attrs
    last = len(d.shape(node.output)) - 1
    match node.op:
        case "reshape":
            return bool(d.shape(node.inputs[0])[-1] == a["shape"][-1])
        case "transpose":
            return bool(a["perm"][-1] == last)
        case "concat":
            return bool(a["axis"] != last) and len(set(node.inputs)) == len(node.inputs)
        case _:
            return node.op in ELEMENTWISE or node.spec.function


def _whole_input(d: Draft, node: Node, cut: Cut) -> str | None:
    """Return the input of a concatenation that is a slice of it."""
    begin = 0
    for name in node.inputs:
        end = begin + d.shape(name)[-1]
        if (begin, end) == cut:
            return name
        begin = end
    return None


def _make(d: Draft, name: str, cut: Cut, made: str) -> None:
    """Let a node make the slice of a tensor under a name."""
    node = d.nodes[name]
    if node.weighted:
        constants = (d.constant(Constant.of(d.tensors[i]).value[slice(*cut)], i) for i in node.inputs[1:])
        d.put(node.op, [node.inputs[0], *constants], made, node, **node.attrs)
        return
    whole = _whole_input(d, node, cut) if node.op == "concat" else None
    if whole is not None:
        d.bypass(made, whole)
        return
    parts = [_part(d, i, cut) for i in node.inputs]
    shape = {"shape": (*d.shape(name)[:-1], cut[1] - cut[0])} if node.op == "reshape" else {}
    d.put(node.op, parts, made, node, **{**node.attrs, **shape})


def _part(d: Draft, name: str, cut: Cut) -> str:
    """Return the slice of a tensor that something else makes, under a name of its own."""
    node = d.nodes[name]
    whole = _whole_input(d, node, cut) if node.op == "concat" and not _keeps_last(d, node) else None
    if whole is not None:
        return whole
    begin, end = (0,) * (len(d.shape(name)) - 2), d.shape(name)[1:-1]
    made = d.add("slice", [name], node, begin=(*begin, cut[0]), end=(*end, cut[1]), step=(1,) * (len(end) + 1))
    _make(d, name, cut, made)
    return made


RULES: tuple[Rule, ...] = (slice_early,)
