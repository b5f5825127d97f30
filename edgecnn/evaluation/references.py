"""References that an artifact is held beside: fp32, the integer oracle, and the same artifact on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph
from edgecnn.preprocess import Preprocess
from edgecnn.report.record import BesideHost, Parity
from edgecnn_targets.accuracy_meter import parity
from edgecnn_targets.devices import device
from edgecnn_targets.interface import Session
from edgecnn_targets.registry import missing, open_session, runtime

Reference = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""fp32 logits ``(n, classes)`` of network inputs, NHWC."""


def float_reference(graph: Graph) -> Reference:
    """The float values of a graph, run in torch."""
    import torch

    from edgecnn.graph.interpreter import TorchGraph

    run = TorchGraph(graph)

    def reference(x: NDArray[np.float32]) -> NDArray[np.float32]:
        made: NDArray[np.float32] = run(torch.from_numpy(x)).numpy()
        return made.reshape(len(x), -1)

    return reference


def fed_as(reference: Reference, fed: Preprocess | None, own: Preprocess | None) -> Reference:
    """The reference for inputs normalised as ``fed`` says, which itself takes them as ``own`` says, where both do."""
    return reference if fed is None or own is None else lambda x: reference(fed.renormalised(x, own))


def beside_host(artifact: Path, target: str, inputs: NDArray[np.float32], session: Session) -> BesideHost:
    """How far an artifact's outputs elsewhere are from its outputs on this machine, on the same input integers; nothing
    where its runtime is not installed here."""
    host = device("host")
    if target not in host.targets or missing(host, target) is not None:
        return BesideHost()
    fed, exact = session.input.encode(inputs), runtime(target).exact
    there, here = session.run(fed), open_session(host, artifact, kernels=exact).run(fed)
    same = there.reshape(len(fed), -1).argmax(axis=1) == here.reshape(len(fed), -1).argmax(axis=1)
    integers = np.issubdtype(there.dtype, np.integer)
    return BesideHost(
        n=len(fed),
        max_lsb=parity(there, here).max_lsb if integers else None,
        agreement=100 * float(np.count_nonzero(same)) / len(fed),
    )


def compare_with_oracle(session: Session, oracle: Graph, inputs: NDArray[np.float32]) -> Parity:
    """How far an int8 artifact's outputs are from the integer oracle's, on the same input integers.

    The oracle rounds as the session's kernels do.
    """
    from edgecnn.graph.oracle import run

    into, out = (oracle.quant(name) for name in (oracle.inputs[0], oracle.outputs[0]))
    fed = session.input.encode(inputs)
    exact = run(oracle, into.quantize(session.input.decode(fed)), arithmetic=session.arithmetic)[oracle.outputs[0]]
    got = out.quantize(session.output.decode(session.run(fed))).reshape(exact.shape)
    return replace(parity(got, exact), arithmetic=session.arithmetic)
