"""Artifacts beside their fp32 reference and the integer oracle, on the devices they ship to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.data import Images, match_labels
from edgecnn.data.feed import Feed
from edgecnn.errors import DeviceFault, EdgecnnError, InputError, MissingDependencyError
from edgecnn.evaluation.collector import Collector, layer_errors
from edgecnn.evaluation.metrics import Classes, MetricMeter
from edgecnn.evaluation.own_metric import FP32, Gathered, figures
from edgecnn.evaluation.references import Reference, beside_host, compare_with_oracle, worst
from edgecnn.evaluation.subject import Checking, Subject, executes
from edgecnn.evaluation.verdict import ReferenceMeter, quantization_loss, signal_floors
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph, Metadata, Quantized
from edgecnn.image_inputs import require_preprocess
from edgecnn.preprocess import Preprocess
from edgecnn.progress import detail, track
from edgecnn.report.record import Accuracy, BesideHost, Check, Finding, OutputFigures, Parity, ReportEntry
from edgecnn_targets.accuracy_meter import OutputMeter, Values, is_vector
from edgecnn_targets.evaluate import outputs
from edgecnn_targets.interface import Device, Op, Session, Usage
from edgecnn_targets.registry import kind_of, open_session, runtime
from edgecnn_targets.runtimes.saturation import instruction_set

BATCH = 10  # images in memory at a time
INT8_STEP = 256  # LSB of an int16x8 artifact, whose kernels the oracle does not model: measured 3 at most
Shown = tuple[Sequence[str], NDArray[Any] | None]  # names and pixels of a batch of images
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
    runs = [_Run(by_target[t], device, checking) for t, device in checking.places(list(by_target), precision)]
    executing = [run for run in runs if run.executes]
    found: tuple[Finding, ...] = ()
    with ThreadPoolExecutor(len(runs)) as pool:
        try:
            _each(pool, runs, _Run.attempt)
            _require_another(runs)
            if executing and images is not None:
                found = _over_images(executing, images, reference, oracle, pool)
            elif executing and oracle is not None:
                noise = _noise(oracle)
                for run in executing:
                    run.compare(noise, oracle)
            _each(pool, runs, _Run.measure)
            floors = signal_floors(oracle) if oracle is not None else ()
            return [run.entry(images, found if run.executes else (), floors) for run in runs]
        finally:
            for run in runs:
                run.close()


def _require_another(runs: Sequence[_Run]) -> None:
    """Check that an artifact which cannot be run is one of several formats, of which another can.

    Raises:
        EdgecnnError: it is not; why it cannot be run.
    """
    open_targets = {run.subject.target for run in runs if run.refusal is None}
    for run in runs:
        if run.refusal is not None and not open_targets - {run.subject.target}:
            raise run.refusal


class _Run:
    """An artifact open on a device, and what was found out about it until the device broke."""

    def __init__(self, subject: Subject, device: Device, checking: Checking) -> None:
        self.subject, self.device, self.checking = subject, device, checking
        self.figures = kind_of(device).figures
        self.kernels = runtime(subject.target).exact if checking.exact_kernels else None
        self.meter, self.metrics = OutputMeter(subject.metadata.label_offset), MetricMeter()
        self.gathered, self.own = Gathered(), dict[str, float]()
        self.collector = Collector(subject.metadata) if checking.evidence else None
        self.parities: dict[str, Parity] = {}
        self.parity, self.beside_host, self.usage = Parity(), BesideHost(), Usage()
        self.session: Session | None = None
        self.float_ops: list[Op] = []
        self.fault: DeviceFault | None = None
        self.refusal: EdgecnnError | None = None
        self.stopped: str | None = None

    @property
    def executes(self) -> bool:
        return executes(self.device)

    @property
    def by_the_clock(self) -> bool:
        """Whether nothing else may run while it measures."""
        return "latency" in self.figures and not kind_of(self.device).elsewhere

    @property
    def unbounded(self) -> str | None:
        """Why its distance from the oracle has no bound; ``None`` where it may have one."""
        if self.session is not None and self.session.saturates:
            return "int8 sums can saturate here"
        return "other kernels run the layers that are kept out of 8 bits" if self.subject.kept else None

    def attempt(self, work: Callable[[Session], None] = lambda session: None) -> None:
        """Open the session and do some work on it; nothing, once the device is broken or has refused the artifact."""
        if self.fault is not None or self.refusal is not None:
            return
        try:
            if self.session is None:
                try:
                    self.session = self._open(self.kernels)
                    self.float_ops = self._float_ops(self.session)
                except (InputError, MissingDependencyError) as error:
                    self.refusal = error
                    return
            work(self.session)
        except DeviceFault as fault:
            self.fault = fault
            self.close()

    def _open(self, kernels: str | None) -> Session:
        return open_session(self.device, self.subject.path, threads=self.checking.threads, kernels=kernels)

    def _float_ops(self, session: Session) -> list[Op]:
        """Return the ops of an integer artifact that the runtime computes in float, in the kernels of an application.

        The exact kernels that were asked for may be float ones altogether.
        """
        if self.subject.precision not in INTEGER_PRECISIONS:
            return []
        found = [op for op in session.ops if op.is_float]
        if found and self.kernels is not None:
            usual = self._open(None)
            found = [op for op in usual.ops if op.is_float]
            usual.close()
        return found

    def close(self) -> None:
        if self.session is not None:
            self.session.close()

    def count(self, x: Batch, labels: Classes, expected: Values | None, total: int, shown: Shown) -> None:
        """Some images more; none on a slow device, once a limit cannot hold any more."""
        if self.stopped is not None:
            return

        def work(session: Session) -> None:
            made = outputs(session, x)
            self.meter.update(made, labels, expected)
            if self.checking.metrics:
                self.gathered.add(made if expected is None else dict(zip(expected, made.values(), strict=True)))
            if len(made) == 1:  # a metric is of one output
                self.metrics.update(_logits(made), labels, None if expected is None else _logits(expected))
            if self.collector is not None and expected is not None and is_vector(made):
                self.collector.update(_logits(made), _logits(expected), labels, *shown)

        self.attempt(work)
        if self.fault is None and not self.by_the_clock and total:
            accuracy = self.meter.result()
            option = self.checking.limits.lost(accuracy, total)
            if option is not None and accuracy.n < total:
                self.stopped = f"stopped after {accuracy.n} of {total} images: {option} cannot hold any more"

    def compare(self, inputs: Batch, oracle: Graph | None) -> None:
        """Hold an integer artifact beside the oracle, and beside the same artifact on this machine."""

        def work(session: Session) -> None:
            if oracle is not None:
                self.parities = compare_with_oracle(session, oracle, inputs)
                self.parity = worst(self.parities, session)
            if self.device.kind != "host":
                self.beside_host = beside_host(self.subject.path, self.subject.target, inputs, session)

        if self.subject.precision in INTEGER_PRECISIONS:
            self.attempt(work)

    def measure(self) -> None:
        def work(session: Session) -> None:
            self.usage = kind_of(self.device).measure(self.device, session)

        self.attempt(work)

    def entry(self, images: Images | None, found: Sequence[Finding], floors: Sequence[float]) -> ReportEntry:
        """Return what was found; ``found`` is of fp32 on the same images, ``floors`` the outputs' least signals."""
        findings = [Finding(code="kernels", text=line) for line in self.session.findings] if self.session else []
        if images is not None and images.bad:
            text = f"{len(images.bad)} unreadable images were left out"
            findings.append(Finding(code="unreadable_images", text=text))
        if self.unbounded is not None and self.parity.max_lsb is not None and self.checking.limits.max_lsb is None:
            text = f"the distance from the integer oracle is not checked: {self.unbounded}"
            findings.append(Finding(code="not_checked", text=text))
        if self.stopped is not None:
            findings.append(Finding(code="stopped_early", text=self.stopped))
        findings += [Finding(code="not_checked", text=line) for line in self.checking.limits.left_out(self.figures)]
        if self.fault is not None:
            findings.append(Finding(code="device_fault", text=f"the device broke: {self.fault}", severity="error"))
        if self.refusal is not None:
            findings.append(Finding(code="not_run", text=f"cannot be run: {self.refusal}", severity="error"))
        accuracy = Accuracy()
        if self.executes and images is not None and self.fault is None and self.refusal is None:
            accuracy = replace(self.meter.result(), metrics=self.metrics.result() | self.own)
        findings += found
        if self.session is not None:
            subject, checking = self.subject, self.checking
            judged = self.meter.sqnr_db(floors)
            findings += quantization_loss(
                subject.precision, accuracy, subject.metadata, checking.limits, checking.allow_loss, judged
            )
        entry = replace(
            self.subject.entry(self.device.name),
            accuracy=accuracy,
            latency=self.usage.latency,
            parity=self.parity,
            beside_host=self.beside_host,
            resources=self.usage.resources,
            float_ops=tuple(map(str, self.float_ops)),
            findings=tuple(findings),
            task="custom" if accuracy.top1 is None else "classification",
            outputs=tuple(self._outputs()),
        )
        detail(f"device    {self.device.name}: {self.subject.path}, {accuracy.n} images")
        evidence = None
        if self.collector is not None and self.session is not None:
            evidence = self.collector.result(self.subject, self.device)
        return replace(entry, checks=tuple(self._checks(entry)), evidence=evidence)

    def _outputs(self) -> Iterator[OutputFigures]:
        """Yield the figures of each output, where any of them has some."""
        sqnr = self.meter.sqnr_db()
        for port in self.session.outputs if self.session is not None and (sqnr or self.parities) else ():
            parity = self.parities.get(port.name, Parity())
            decibels = sqnr.get(port.name)
            yield OutputFigures(name=port.name, sqnr_db=decibels, max_lsb=parity.max_lsb, mean_lsb=parity.mean_lsb)

    def _from_oracle(self) -> int | None:
        """Return the LSB that it may be from the oracle; ``None`` without a bound, or where the user gave a limit."""
        bound = self.device.tolerances.from_oracle(self.subject.target, instruction_set())
        if bound is None or self.unbounded is not None or self.checking.limits.max_lsb is not None:
            return None
        return bound if self.subject.precision == "int8" else INT8_STEP

    def _checks(self, entry: ReportEntry) -> Iterator[Check]:
        device, limits = self.device, self.checking.limits
        if self.fault is not None:
            yield Check.at_most("device_faults", 1, 0, "faults")
        own = {
            "max_sram_kib": device.limits.sram_kib,
            "max_flash_kib": device.limits.flash_kib,
            "npu_coverage": device.limits.npu_coverage,
        }
        has: dict[str, Any] = {field: value for field, value in own.items() if getattr(limits, field) is None}
        yield from replace(limits, **has).checks(entry, self.figures)
        if entry.precision not in INTEGER_PRECISIONS:
            return
        if not self.checking.allow_float:
            undeclared = sum(not self.subject.declared(op) for op in self.float_ops)
            yield Check.at_most("float_ops", undeclared, 0, "ops")
        if self.executes:
            for name, found, allowed in (
                ("host_lsb", entry.beside_host.max_lsb, device.tolerances.host_lsb.get(entry.target)),
                ("oracle_lsb", entry.parity.max_lsb, self._from_oracle()),
            ):
                if found is not None and allowed is not None:
                    yield Check.at_most(name, found, allowed, "LSB")
            agreement, needed = entry.beside_host.agreement, device.tolerances.host_agreement.get(entry.target)
            if agreement is not None and needed is not None:
                yield Check.at_least("host_agreement", agreement, needed, "percent")


def _over_images(
    runs: Sequence[_Run], images: Images, reference: Reference | None, oracle: Graph | None, pool: Executor
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
            meter.update(pixels, labels, _logits(expected))
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
        return _logits(reference(Batch({feed.names[0]: fed})))

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


def _logits(outputs: Values) -> NDArray[np.float32]:
    """Return the only output, ``(n, classes)``."""
    (values,) = outputs.values()
    return values.reshape(len(values), -1)


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


def _each(pool: Executor, runs: Sequence[_Run], work: Callable[[_Run], None]) -> None:
    """Do the work on all runs at once, but on those that go by the clock one after another."""
    busy = [pool.submit(work, run) for run in runs if not run.by_the_clock]
    for run in runs:
        if run.by_the_clock:
            work(run)
    _wait(busy)


def _wait(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.result()
