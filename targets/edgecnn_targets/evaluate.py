"""Run an open artifact: over images for accuracy, and again and again for latency."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.report.record import Accuracy, Latency
from edgecnn_targets.interface import Session
from edgecnn_targets.metrics import AccuracyMeter


class Batch(NamedTuple):
    """Images and what they are compared with.

    Attributes:
        inputs: preprocessed, float32, NHWC.
        labels: data classes, ``(n,)``, or ``None``.
        reference: fp32's logits, ``(n, classes)``, or ``None``.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[np.integer[Any]] | None = None
    reference: NDArray[np.float32] | None = None


def logits(session: Session, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the artifact's outputs as real values, ``(n, classes)``, for preprocessed images, float32 NHWC.

    Raises:
        InputError: the images are not what the artifact takes.
    """
    port = session.input
    order = (2, 3, 1) if port.layout == "NCHW" else (1, 2, 3)
    takes = tuple(port.shape[d] for d in order)
    if inputs.shape[1:] != takes:
        raise InputError(f"the artifact takes images of {takes} (NHWC), the preprocessing makes {inputs.shape[1:]}")
    return session.output.decode(session.run(port.encode(inputs))).reshape(len(inputs), -1)


def evaluate(session: Session, batches: Iterable[Batch], *, label_offset: int = 0) -> Accuracy:
    """Return the accuracy over a stream of images, one batch in memory at a time.

    Args:
        session: the open artifact, of any input and output type.
        batches: consumed once; all with labels or none, and likewise the reference.
        label_offset: data class ``k`` is logit ``k + label_offset``.

    Raises:
        InputError: images, labels or reference do not fit the artifact, or there are no images.
    """
    meter = AccuracyMeter(label_offset)
    for batch in batches:
        meter.update(logits(session, batch.inputs), batch.labels, batch.reference)
    accuracy = meter.result()
    if accuracy.n == 0:
        raise InputError("there are no images to check on; give a folder with at least one")
    return accuracy


def latency(session: Session, *, runs: int = 100, warmup: int = 10) -> Latency:
    """Time single inferences on one fixed input, feeding and reading included.

    Raises:
        InputError: fewer than 50 runs, or no warm-up.
    """
    if runs < 50 or warmup < 1:
        raise InputError(f"latency over {runs} runs after {warmup}; at least 50 after at least 1 are needed")
    image = fixed_input(session)
    nanoseconds = []
    for _ in range(warmup + runs):
        start = time.perf_counter_ns()
        session.run(image)
        nanoseconds.append(time.perf_counter_ns() - start)
    return timing(nanoseconds[warmup:], threads=session.threads)


def timing(nanoseconds: Sequence[int], *, threads: int) -> Latency:
    """Summarize the times of single inferences."""
    ms = np.asarray(nanoseconds) / 1e6
    median, p90 = (float(np.percentile(ms, q)) for q in (50, 90))
    return Latency(median_ms=median, p90_ms=p90, threads=threads, runs=len(ms))


def fixed_input(session: Session) -> NDArray[Any]:
    """Return one image of noise, always the same, in the artifact's layout and type."""
    port = session.input
    noise = np.random.default_rng(0).standard_normal(port.shape)
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
