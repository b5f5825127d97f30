"""Make graph nodes of aten ops: one function per op, but for those that the op table names itself.

``windows`` has layers, ``shaping`` what only moves elements, ``arithmetic`` what goes element by element, and
``reducing`` the others.
"""

from __future__ import annotations

from functools import partial

from edgecnn.graph.aten import arithmetic, reducing, shaping, windows
from edgecnn.graph.aten.arguments import Handler
from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import OPS
from edgecnn.graph.traced import Call

HANDLERS: dict[str, Handler] = {
    **windows.HANDLERS,
    **shaping.HANDLERS,
    **arithmetic.HANDLERS,
    **reducing.HANDLERS,
}
HINTS = {  # a rewrite that helps
    **dict.fromkeys(("topk", "sort", "argsort", "nonzero", "nms"), "do it on what the network returns"),
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), "write it with clamp, relu, minimum or maximum"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh"), "convolutions over time are supported, recurrent layers are not"),
    **dict.fromkeys(("sin", "cos"), "computed from constants only, it is folded"),
    "grid_sampler_2d": "a constant grid can be a resize",
    "conv3d": "fold depth into channels, or convolve each plane by a 2-d convolution",
    "bernoulli": "call the module's eval(), or dropout with training=self.training",
    "cumsum": "a product with a triangular matrix of ones does the same",
}


def _simple(op: str, t: Translation, call: Call) -> Value:
    return t.unary(op, t.value(call.args[0]))


def handler(name: str) -> Handler | None:
    """Return what makes nodes of an aten op: its own function, or the op whose row in the table names it."""
    if name in HANDLERS:
        return HANDLERS[name]
    return next((partial(_simple, op) for op, spec in OPS.items() if name in spec.aten), None)


def supported() -> list[str]:
    """Return the names of all aten ops that have a handler, sorted."""
    return sorted({*HANDLERS, *(name for spec in OPS.values() for name in spec.aten)})
