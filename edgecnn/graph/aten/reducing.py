"""Make graph nodes of the aten ops that reduce: means, maxima, norms, softmax, products of matrices, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgecnn.graph import reductions
from edgecnn.graph.aten.arguments import Handler, arguments, dims_of
from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn.graph.traced import Call, Traced


def _reduce(t: Translation, call: Call) -> Value:
    """mean, sum, amax, amin, and max and min with their values as the first output."""
    x, dims, keep = arguments(call, input=None, dim=None, keepdim=False)
    need(not isinstance(dims, Traced), "the larger of two tensors by another name than maximum")
    return _reduced(t, call.name, t.value(x), dims_of(dims, len(x.shape)), keep=bool(keep))


def _reduced(t: Translation, name: str, x: Value, dims: list[int], *, keep: bool) -> Value:
    match name:
        case "mean":
            return reductions.mean(t, x, dims, keepdims=keep)
        case "sum":
            return reductions.total(t, x, dims, keepdims=keep)
        case "max" | "amax":
            return reductions.largest(t, x, dims, keepdims=keep)
    turned = reductions.largest(t, t.binary("mul", x, -1.0), dims, keepdims=keep)
    return t.binary("mul", turned, -1.0)


def _variance(t: Translation, call: Call) -> Value | list[Value]:
    """var, std, var_mean, std_mean; ``correction`` is taken from the count."""
    x, dims, correction, keep = arguments(call, input=None, dim=None, correction=1, keepdim=False)
    value, over = t.value(x), dims_of(dims, len(x.shape))
    correction = 1 if correction is None else float(correction)
    count = math.prod(x.shape[d] for d in over)
    need(count > correction, f"a variance of {count} numbers with correction {correction:g}")
    average = reductions.mean(t, value, over, keepdims=True)
    centred = t.binary("sub", value, average)
    made = reductions.mean(t, t.binary("mul", centred, centred), over, keepdims=bool(keep))
    made = t.binary("mul", made, count / (count - correction))
    if call.name.startswith("std"):
        made = t.unary("pow", made, exponent=0.5)
    return [made, t.reshape(average, call.outputs[1].shape)] if len(call.outputs) > 1 else made


def _norm(t: Translation, call: Call) -> Value:
    """``linalg_vector_norm`` and ``norm`` of order 1, 2 or infinity."""
    x, order, dims, keep = arguments(call, self=None, ord=2, dim=None, keepdim=False)
    order = float(2 if (order := call.kwargs.get("p", order)) is None else order)
    value, over = t.value(x), dims_of(dims, len(x.shape))
    need(order in (1, 2, math.inf), f"a norm of order {order:g}; 1, 2 and inf are supported")
    if order == 2:
        square = reductions.total(t, t.binary("mul", value, value), over, keepdims=bool(keep))
        return t.unary("pow", square, exponent=0.5)
    return _reduced(t, "sum" if order == 1 else "amax", t.unary("abs", value), over, keep=bool(keep))


def _softmax(t: Translation, call: Call) -> Value:
    made = reductions.softmax(t, t.value(call.args[0]), int(call.args[1]))
    return t.unary("log", made) if call.name == "log_softmax" else made


def _argmax(t: Translation, call: Call) -> Value:
    x, dim, keep = arguments(call, self=None, dim=None, keepdim=False)
    need(dim is not None, "argmax over all numbers; give a dimension")
    return reductions.argmax(t, t.value(x), int(dim), keepdims=bool(keep))


def _log_sum_exp(t: Translation, call: Call) -> Value:
    x, dims, keep = arguments(call, self=None, dim=(), keepdim=False)
    over = dims_of(dims, len(x.shape))
    return t.unary("log", reductions.total(t, t.unary("exp", t.value(x)), over, keepdims=bool(keep)))


def _layer_norm(t: Translation, call: Call) -> Value:
    x, shape, weight, bias, eps = arguments(call, input=None, shape=(), weight=None, bias=None, eps=1e-5)
    rank = len(x.shape)
    scale, shift = (None if p is None else t.array(p) for p in (weight, bias))
    return reductions.layer_norm(t, t.value(x), range(rank - len(shape), rank), scale, shift, float(eps))


def _group_norm(t: Translation, call: Call) -> Value:
    x, weight, bias, _, _, _, groups, eps = call.args
    scale, shift = (None if p is None else t.array(p) for p in (weight, bias))
    return reductions.group_norm(t, t.value(x), int(groups), scale, shift, float(eps))


def _matmul(t: Translation, call: Call) -> Value:
    """bmm, matmul, baddbmm."""
    if call.name == "baddbmm":
        bias, left, right = call.args
        return product(t, left, right, bias, call.kwargs.get("alpha", 1), call.kwargs.get("beta", 1))
    return product(t, *call.args[:2])


def product(
    t: Translation, left: Traced, right: Traced, bias: Traced | None = None, alpha: Any = 1, beta: Any = 1
) -> Value:
    """Return ``beta bias + alpha left right``; one of the matrices may be a constant, the same of the whole batch."""
    if right.constant is not None:
        made = reductions.matmul(t, t.value(left), _one_matrix(t, right))
    elif left.constant is not None:  # (right.T left.T).T
        rank = len(right.shape)
        turned = t.transpose(t.value(right), [*range(rank - 2), rank - 1, rank - 2])
        made = reductions.matmul(t, turned, _one_matrix(t, left).T)
        made = t.transpose(made, [*range(rank - 2), rank - 1, rank - 2])
    else:
        made = reductions.matmul(t, t.value(left), t.value(right))
    if alpha != 1:
        made = t.binary("mul", made, float(alpha))
    if bias is None or beta == 0:
        return made
    shift = t.operand(bias)
    if beta != 1:
        shift = (
            t.binary("mul", shift, float(beta)) if isinstance(shift, Value) else np.asarray(shift * beta, np.float32)
        )
    return t.binary("add", made, shift)


def _one_matrix(t: Translation, constant: Traced) -> Any:
    """Return a constant of two dimensions, also of one that is repeated over a batch."""
    value = t.array(constant)
    flat = value.reshape(-1, *value.shape[-2:])
    need(
        bool(np.all(flat == flat[:1])), f"a product with a constant of shape {value.shape}, another for each of a batch"
    )
    return flat[0]


def _attention(t: Translation, call: Call) -> Value:
    """``scaled_dot_product_attention`` as torch's kernel for the CPU takes it.

    Source: Vaswani et al. 2017, "Attention Is All You Need", eq. 1.
    """
    q, k, v, dropout, causal, mask, scale = arguments(
        call, query=None, key=None, value=None, dropout_p=0.0, is_causal=False, attn_mask=None, scale=None
    )
    need(not causal and not dropout, "causal attention, or attention with dropout")
    rank, factor = len(q.shape), scale if scale is not None else 1 / math.sqrt(q.shape[-1])
    query = t.binary("mul", t.value(q), float(factor))
    key = t.transpose(t.value(k), [*range(rank - 2), rank - 1, rank - 2])
    scores = reductions.matmul(t, query, key)
    if mask is not None:
        scores = t.binary("add", scores, t.operand(mask))
    return reductions.matmul(t, reductions.softmax(t, scores, rank - 1), t.value(v))


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min"), _reduce),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _variance),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _norm),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax),
    "argmax": _argmax,
    "logsumexp": _log_sum_exp,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    **dict.fromkeys(("bmm", "baddbmm", "matmul"), _matmul),
    "scaled_dot_product_flash_attention_for_cpu": _attention,
}
