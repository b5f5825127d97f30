"""References that an artifact is held beside: fp32, the integer oracle, and the same artifact on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph
from edgecnn.preprocess import Preprocess
from edgecnn.report.record import BesideHost, Parity
from edgecnn_targets.accuracy_meter import is_vector, parity
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import encoded
from edgecnn_targets.interface import Session
from edgecnn_targets.registry import missing, open_session, runtime

Reference = Callable[[Batch], Mapping[str, NDArray[np.float32]]]
"""fp32 outputs ``(n, ...)`` of network inputs, in the graph's layout and order."""


def float_reference(graph: Graph) -> Reference:
    """The float values of a graph, run in torch; the batch may have other names, in the order of its inputs."""
    from edgecnn.graph.interpreter import TorchGraph, tensors

    run = TorchGraph(graph)

    def reference(x: Batch) -> Mapping[str, NDArray[np.float32]]:
        return {name: values.numpy() for name, values in run.run(tensors(x.renamed(graph.inputs))).items()}

    return reference


def float_logits(graph: Graph) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The float values of a graph of one input and one output: network inputs to ``(n, classes)``."""
    reference = float_reference(graph)

    def logits(x: NDArray[np.float32]) -> NDArray[np.float32]:
        (values,) = reference(Batch.of(graph.inputs, x)).values()
        return values.reshape(len(x), -1)

    return logits


def fed_as(reference: Reference, fed: Preprocess | None, own: Preprocess | None) -> Reference:
    """The reference for inputs normalised as ``fed`` says, which itself takes them as ``own`` says, where both do."""
    return reference if fed is None or own is None else lambda x: reference(renormalised(x, fed, own))


def renormalised(x: Batch, fed: Preprocess, own: Preprocess | None) -> Batch:
    """Return network inputs normalised as ``own`` says, which were as ``fed`` says; only the image changes."""
    image = next((name for name, array in x.arrays.items() if array.ndim == 4), None)
    if image is None:
        return x
    return Batch({**x.arrays, image: fed.renormalised(x.arrays[image], own)})


def beside_host(artifact: Path, target: str, inputs: Batch, session: Session) -> BesideHost:
    """How far an artifact's outputs elsewhere are from its outputs on this machine, on the same input integers; nothing
    where its runtime is not installed here."""
    host = device("host")
    if target not in host.targets or missing(host, target) is not None:
        return BesideHost()
    fed, exact = encoded(session, inputs), runtime(target).exact
    there, here = session.run(fed), open_session(host, artifact, kernels=exact).run(fed)
    distances = [
        parity(there[port.name], here[port.name]).max_lsb or 0 for port in session.outputs if port.scale is not None
    ]
    agreement = None
    if is_vector(there):
        a, b = (next(iter(side.values())).reshape(len(inputs), -1).argmax(axis=1) for side in (there, here))
        agreement = 100 * float(np.count_nonzero(a == b)) / len(inputs)
    return BesideHost(n=len(inputs), max_lsb=max(distances, default=None), agreement=agreement)


def compare_with_oracle(session: Session, oracle: Graph, inputs: Batch) -> dict[str, Parity]:
    """How far each output of an int8 artifact is from the integer oracle's, on the same input integers.

    The oracle rounds as the session's kernels do. An input in float is fed the values of its integers: another value
    may lie so near to a half that runtimes, which divide by the scale in float32, round it to either side.
    """
    from edgecnn.graph.oracle import run

    fed, integers = encoded(session, inputs), {}
    for name, port in zip(oracle.inputs, session.inputs, strict=True):
        grid = oracle.quant(name)
        integers[name] = grid.quantize(port.decode(fed[port.name]))
        if port.scale is None:
            fed[port.name] = port.encode(grid.dequantize(integers[name]))
    exact, made, found = run(oracle, integers, arithmetic=session.arithmetic), session.run(fed), {}
    for name, port in zip(oracle.outputs, session.outputs, strict=True):
        got = oracle.quant(name).quantize(port.decode(made[port.name])).reshape(exact[name].shape)
        found[port.name] = replace(parity(got, exact[name]), arithmetic=session.arithmetic)
    return found


def worst(found: Mapping[str, Parity], session: Session) -> Parity:
    """Return the largest distance of several outputs, and the mean over all their values."""
    sizes = {port.name: math.prod(port.shape) for port in session.outputs}
    total = sum((each.mean_lsb or 0) * sizes[name] for name, each in found.items())
    most = max((each.max_lsb or 0 for each in found.values()), default=None)
    return Parity(max_lsb=most, mean_lsb=total / sum(sizes.values()), arithmetic=session.arithmetic)
