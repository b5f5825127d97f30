"""One artifact on one device: what is found out about it, image by image, until the device breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.data import Images
from edgecnn.errors import DeviceFault, EdgecnnError, InputError, MissingDependencyError
from edgecnn.evaluation.collector import Collector
from edgecnn.evaluation.metrics import Classes, MetricMeter
from edgecnn.evaluation.own_metric import Gathered
from edgecnn.evaluation.references import beside_host, compare_with_oracle, worst
from edgecnn.evaluation.subject import Checking, Subject, executes
from edgecnn.evaluation.verdict import quantization_loss
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph
from edgecnn.progress import detail
from edgecnn.report.record import Accuracy, BesideHost, Check, Finding, OutputFigures, Parity, ReportEntry
from edgecnn_targets.accuracy_meter import OutputMeter, Values, is_vector
from edgecnn_targets.evaluate import outputs
from edgecnn_targets.interface import Device, Op, Session, Usage
from edgecnn_targets.registry import kind_of, open_session, runtime
from edgecnn_targets.runtimes.saturation import instruction_set

INT8_STEP = 256  # LSB of an int16x8 artifact, whose kernels the oracle does not model: measured 3 at most
Shown = tuple[Sequence[str], NDArray[Any] | None]  # names and pixels of a batch of images


def class_logits(outputs: Values) -> NDArray[np.float32]:
    """Return the only output, ``(n, classes)``."""
    (values,) = outputs.values()
    return values.reshape(len(values), -1)


class DeviceRun:
    """Hold an artifact open on a device, and what was found out about it until the device broke."""

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
                self.metrics.update(class_logits(made), labels, None if expected is None else class_logits(expected))
            if self.collector is not None and expected is not None and is_vector(made):
                self.collector.update(class_logits(made), class_logits(expected), labels, *shown)

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
