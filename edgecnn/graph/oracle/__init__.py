"""The oracle: execute an integer graph in integers, bit-exact with LiteRT's reference kernels. numpy only.

It knows no converter and no runtime; every runtime is compared with it. Sources are named function by function in
``fixed_point.py``, ``parameters.py`` and ``kernels.py``. ``arithmetic.py`` says where fast runtimes round otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown
from edgecnn.graph.batch import Batch, Fed
from edgecnn.graph.contract import check_integers
from edgecnn.graph.execution import execute, released
from edgecnn.graph.ir import Graph, Node, Quantized, QuantizedConstant
from edgecnn.graph.oracle.float32_rounding import ARITHMETICS
from edgecnn.graph.oracle.parameters import Call

__all__ = ["ARITHMETICS", "run"]


def run(
    graph: Graph, inputs: Fed, *, keep: Collection[str] = (), arithmetic: str = "litert"
) -> dict[str, NDArray[Any]]:
    """Run the graph, and return the integers of its outputs and of the activations named in ``keep``.

    Args:
        graph: all integers (int8, int16 or both), by the numerics contract.
        inputs: integers of each input, of its type, NHWC where it has 4 dimensions, any batch.
        keep: further activations to return. The others are freed after their last reader.
        arithmetic: whose rounding, a key of ``ARITHMETICS``; by default that of LiteRT's reference kernels.

    Returns:
        Tensor name to integers.

    Raises:
        InputError: the graph breaks the contract, an input does not fit, ``keep`` names no activation, or there is no
            such arithmetic.
    """
    if arithmetic not in ARITHMETICS:
        raise InputError(unknown("arithmetic", arithmetic, ARITHMETICS))
    kernels = ARITHMETICS[arithmetic]
    check_integers(graph)
    fed = Batch.of(graph.inputs, inputs).arrays
    for name, x in fed.items():
        wanted, quant = graph.tensors[name].shape[1:], graph.quant(name)
        if x.dtype != quant.dtype or x.shape[1:] != wanted:
            raise InputError(
                f"input {name!r} got {x.dtype} {x.shape}; it takes {quant.dtype} of shape (batch, *{wanted})"
            )
    made = [t.name for t in graph.activations()]
    if strange := set(keep) - set(made):
        raise InputError(unknown("activation", min(strange), made))

    def compute(node: Node, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        call = Call(
            attrs=node.attrs,
            inputs=[Quantized.of(graph.tensors[source]) for source in node.inputs],
            output=Quantized.of(graph.tensors[node.output]),
            values=[values[source] for source in node.inputs],
        )
        wide = call.wide or node.op == "requantize"  # no runtime has fast kernels for these: LiteRT's own run
        return (ARITHMETICS["litert"] if wide else kernels)[node.op](call)

    constants = {t.name: QuantizedConstant.of(t).integers for t in graph.constants()}
    values = execute(graph, {**constants, **fed}, compute, released(graph, keep))
    return {key: values[key] for key in made if key in {*graph.outputs, *keep}}
