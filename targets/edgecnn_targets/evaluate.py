"""Run an open artifact: over images for accuracy, and again and again for latency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Port
from edgecnn.errors import InputError
from edgecnn.graph.batch import Batch, Fed
from edgecnn.report.record import Latency
from edgecnn_targets.interface import Arrays, Session


def outputs(session: Session, inputs: Fed) -> dict[str, NDArray[np.float32]]:
    """Return the artifact's outputs as real values, in the graph's layout, for network inputs.

    Args:
        inputs: float32, in the graph's layout; under other names than the artifact's, in the order of its inputs.

    Raises:
        InputError: they are not what the artifact takes.
    """
    return decoded(session, session.run(encoded(session, inputs)))


def encoded(session: Session, inputs: Fed) -> dict[str, NDArray[Any]]:
    """Return network inputs as the artifact takes them; see ``outputs``."""
    names = tuple(port.name for port in session.inputs)
    fed: dict[str, NDArray[Any]] = {}
    if not isinstance(inputs, np.ndarray):
        arrays = inputs.arrays if isinstance(inputs, Batch) else inputs
        inputs = arrays if set(arrays) == set(names) else dict(zip(names, arrays.values(), strict=False))
    arrays = Batch.of(names, inputs).arrays
    for port in session.inputs:
        array = arrays[port.name]
        if array.shape[1:] != port.sample:
            takes = "images of " if len(port.sample) == 3 else f"{port.name!r} of "
            layout = " (NHWC), the preprocessing makes " if len(port.sample) == 3 else ", not "
            raise InputError(f"the artifact takes {takes}{port.sample}{layout}{array.shape[1:]}")
        fed[port.name] = port.encode(array)
    return fed


def decoded(session: Session, made: Arrays) -> dict[str, NDArray[np.float32]]:
    """Return what an artifact gives as real values, in the graph's layout."""
    return {port.name: port.decode(made[port.name]) for port in session.outputs}


def logits(session: Session, inputs: Fed) -> NDArray[np.float32]:
    """Return the only output as real values, ``(n, classes)``; see ``outputs``."""
    made = outputs(session, inputs)[session.output.name]
    return made.reshape(len(made), -1)


def latency(session: Session, *, runs: int = 100, warmup: int = 10) -> Latency:
    """Time single inferences on one fixed input, feeding and reading included.

    Raises:
        InputError: fewer than 50 runs, or no warm-up.
    """
    if runs < 50 or warmup < 1:
        raise InputError(f"latency over {runs} runs after {warmup}; at least 50 after at least 1 are needed")
    sample = fixed_input(session)
    nanoseconds = []
    for _ in range(warmup + runs):
        start = time.perf_counter_ns()
        session.run(sample)
        nanoseconds.append(time.perf_counter_ns() - start)
    return timing(nanoseconds[warmup:], threads=session.threads)


def timing(nanoseconds: Sequence[int], *, threads: int) -> Latency:
    """Summarize the times of single inferences."""
    ms = np.asarray(nanoseconds) / 1e6
    median, p90 = (float(np.percentile(ms, q)) for q in (50, 90))
    return Latency(median_ms=median, p90_ms=p90, threads=threads, runs=len(ms))


def fixed_input(session: Session) -> dict[str, NDArray[Any]]:
    """Return noise for one inference, always the same, in the artifact's layouts and types."""
    random = np.random.default_rng(0)
    return {port.name: _noise(port, random) for port in session.inputs}


def _noise(port: Port, random: np.random.Generator) -> NDArray[Any]:
    noise = random.standard_normal(port.shape)
    if port.scale is None:
        return noise.astype(port.dtype)
    limits = np.iinfo(port.dtype)
    middle, reach = (int(limits.max) + int(limits.min)) / 2, (int(limits.max) - int(limits.min)) / 8
    return np.clip(np.rint(middle + reach * noise), limits.min, limits.max).astype(port.dtype)


def dequantize(integers: NDArray[Any], parameters: tuple[float, int]) -> NDArray[np.float32]:
    """Return the real values of integers, by scale and zero point."""
    scale, zero_point = parameters
    real: NDArray[np.float32] = ((integers.astype(np.float32) - zero_point) * np.float32(scale)).astype(np.float32)
    return real


def nhwc(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return NCHW values as NHWC; others as they are."""
    return values.transpose(0, 2, 3, 1) if values.ndim == 4 else values
