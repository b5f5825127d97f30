"""Artifacts beside their fp32 reference and the integer oracle, on the devices they ship to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.data import Images, match_labels
from edgecnn.data.feed import Feed
from edgecnn.errors import InputError
from edgecnn.evaluation.collector import layer_errors
from edgecnn.evaluation.device_run import DeviceRun, class_logits
from edgecnn.evaluation.own_metric import FP32, Gathered, figures
from edgecnn.evaluation.references import Reference
from edgecnn.evaluation.subject import Checking, Subject
from edgecnn.evaluation.verdict import ReferenceMeter, signal_floors
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph, Metadata, Quantized
from edgecnn.image_inputs import require_preprocess
from edgecnn.preprocess import Preprocess
from edgecnn.progress import track
from edgecnn.report.record import Finding, ReportEntry
from edgecnn_targets.accuracy_meter import is_vector
from edgecnn_targets.interface import Session

BATCH = 10  # images in memory at a time
PARITY_IMAGES = 16  # how many images the integer oracle looks at: it is exact, and slow


def check(
    subjects: Sequence[Subject],
    checking: Checking,
    images: Images | None,
    *,
    reference: Reference | None,
    oracle: Graph | None,
) -> list[ReportEntry]:
    """Run the artifacts, which all take the same images, and compare: one entry per artifact and device.

    Args:
        subjects: made from one network.
        checking: where, and against which limits.
        images: with labels or without; without images, integer artifacts are compared with the oracle on noise.
        reference: fp32, or ``None`` where there is none to compare with.
        oracle: the quantized graph, or ``None``; the int8 artifacts are compared with it, integer by integer.

    Of several formats, one that cannot be run has a finding that says so.

    Raises:
        InputError: images, labels and network do not fit together, or the only format cannot be run.
    """
    by_target = {s.target: s for s in subjects}
    precision = subjects[0].precision
    runs = [DeviceRun(by_target[t], device, checking) for t, device in checking.places(list(by_target), precision)]
    executing = [run for run in runs if run.executes]
    found: tuple[Finding, ...] = ()
    with ThreadPoolExecutor(len(runs)) as pool:
        try:
            _each(pool, runs, DeviceRun.attempt)
            _require_another(runs)
            if executing and images is not None:
                found = _over_images(executing, images, reference, oracle, pool)
            elif executing and oracle is not None:
                noise = _noise(oracle)
                for run in executing:
                    run.compare(noise, oracle)
            _each(pool, runs, DeviceRun.measure)
            floors = signal_floors(oracle) if oracle is not None else ()
            return [run.entry(images, found if run.executes else (), floors) for run in runs]
        finally:
            for run in runs:
                run.close()


def _require_another(runs: Sequence[DeviceRun]) -> None:
    """Check that an artifact which cannot be run is one of several formats, of which another can.

    Raises:
        EdgecnnError: it is not; why it cannot be run.
    """
    open_targets = {run.subject.target for run in runs if run.refusal is None}
    for run in runs:
        if run.refusal is not None and not open_targets - {run.subject.target}:
            raise run.refusal


def _over_images(
    runs: Sequence[DeviceRun], images: Images, reference: Reference | None, oracle: Graph | None, pool: Executor
) -> tuple[Finding, ...]:
    """Run all images; return what is to be said of fp32."""
    metadata = runs[0].subject.metadata
    sessions = [run.session for run in runs if run.session is not None]
    if not sessions:
        return ()
    feed = _feed(sessions[0], metadata)
    logits = [math.prod(session.outputs[0].shape[1:]) for session in sessions]
    single = len(sessions[0].outputs) == 1 and max(sessions[0].output.sample) == logits[0]
    if runs[0].checking.limits.labelled and not single:
        names = ", ".join(f"{port.name} {port.sample}" for port in sessions[0].outputs)
        raise InputError(
            f"--max-drop and --min-top1 are of classes, but the network puts out {names}: limit --min-sqnr or --max-lsb"
        )
    classes = match_labels(images, metadata.labels, min(logits), metadata.label_offset) if single else None
    seen: list[Batch] = []
    references, given_labels = Gathered(), list[NDArray[np.integer[Any]]]()
    busy: list[Future[None]] = []  # devices work on one batch while fp32 works on the next
    total = len(images)
    meter = ReferenceMeter(metadata, total)
    for samples, given in track(images.batches(feed, BATCH), "validate", total or None, unit="images", each=BATCH):
        labels = given if given is None or classes is None else classes[given]
        labels = labels if single else None
        x, pixels = feed.inputs(samples), feed.image_of(samples)
        expected = reference(x) if reference is not None else None
        if runs[0].checking.metrics:
            given_labels += [] if labels is None else [labels]
            if expected is not None:
                references.add(expected)
        _wait(busy)
        shown = images.names, pixels
        busy = [pool.submit(run.count, x, labels, expected, total, shown) for run in runs]
        if labels is not None and expected is not None and pixels is not None and is_vector(expected):
            meter.update(pixels, labels, class_logits(expected))
        if sum(map(len, seen)) < PARITY_IMAGES:
            seen.append(x)
    _wait(busy)
    if metrics := runs[0].checking.metrics:
        exact_outputs = references.whole()
        every = np.concatenate(given_labels) if given_labels else None
        of_fp32 = {} if exact_outputs is None else figures(metrics, exact_outputs, exact_outputs, every, prefix=FP32)
        for run in runs:
            if run.stopped is None and run.fault is None and (made := run.gathered.whole()) is not None:
                run.own = figures(metrics, made, exact_outputs, every) | of_fp32
    looked_at = Batch.joined(seen)[:PARITY_IMAGES]
    errors = layer_errors(oracle, looked_at) if runs[0].checking.evidence and oracle is not None else ()
    for run in runs:
        run.compare(looked_at, oracle)
        if run.collector is not None:
            run.collector.errors = errors
    if reference is None:
        return ()
    checking = runs[0].checking

    def exact(fed: NDArray[np.float32]) -> NDArray[np.float32]:
        return class_logits(reference(Batch({feed.names[0]: fed})))

    return tuple(meter.finding(exact, void=checking.limits.max_drop is not None, allow_loss=checking.allow_loss))


def _feed(session: Session, metadata: Metadata) -> Feed:
    """Return how samples become the inputs of an artifact.

    Raises:
        InputError: nothing says how images are fed.
    """
    shapes = {port.name: port.sample for port in session.inputs}
    image = any(len(shape) == 3 for shape in shapes.values())
    fed = require_preprocess(metadata) if image else Preprocess.as_is()
    return Feed(preprocess=fed, others=metadata.other_preprocess, shapes=shapes)


def _noise(oracle: Graph) -> Batch:
    """Inputs of every integer that there is, drawn evenly: ``PARITY_IMAGES``, always the same."""
    random, made = np.random.default_rng(0), {}
    for name in oracle.inputs:
        source = Quantized.of(oracle.tensors[name])
        low, high = source.quant.limits
        shape = (PARITY_IMAGES, *source.shape[1:])
        integers = random.integers(low, high + 1, shape).astype(source.quant.dtype)
        made[name] = source.quant.dequantize(integers)
    return Batch(made)


def _each(pool: Executor, runs: Sequence[DeviceRun], work: Callable[[DeviceRun], None]) -> None:
    """Do the work on all runs at once, but on those that go by the clock one after another."""
    busy = [pool.submit(work, run) for run in runs if not run.by_the_clock]
    for run in runs:
        if run.by_the_clock:
            work(run)
    _wait(busy)


def _wait(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()
