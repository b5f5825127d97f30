"""Artifacts beside their fp32 reference and the integer oracle, on the devices they ship to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Port
from edgecnn.data import Images, match_labels, open_images
from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.progress import track
from edgecnn.report import Accuracy, Check, Latency, Parity, ReportEntry
from edgecnn_targets.devices import Device, select
from edgecnn_targets.evaluate import latency, logits
from edgecnn_targets.metrics import AccuracyMeter, parity
from edgecnn_targets.registry import missing, open_session
from edgecnn_targets.session import Session

BATCH = 10  # images in memory at a time
PARITY_IMAGES = 16  # how many images the integer oracle looks at: it is exact, and slow

Reference = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""fp32 logits ``(n, classes)`` of network inputs, NHWC."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a user demands; ``None`` demands nothing.

    Attributes:
        max_drop: fp32 top-1 minus artifact top-1, in points.
        min_agreement: images on which artifact and fp32 pick the same class, in percent.
        max_latency_ms: median of one inference, in milliseconds.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    max_latency_ms: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not math.isfinite(value):
                raise InputError(f"--{name.replace('_', '-')} {value}: give a finite number")

    @property
    def comparing(self) -> list[str]:
        """The options given that compare with fp32, and so need images and a reference."""
        given = {"--max-drop": self.max_drop, "--min-agreement": self.min_agreement}
        return [option for option, value in given.items() if value is not None]

    def checks(self, accuracy: Accuracy, timing: Latency) -> Iterator[Check]:
        """The limits given, beside the figures."""
        if self.max_drop is not None:
            yield Check.at_most("drop", accuracy.drop, self.max_drop, "points")
        if self.min_agreement is not None:
            yield Check.at_least("agreement", accuracy.agreement, self.min_agreement, "percent")
        if self.max_latency_ms is not None:
            yield Check.at_most("latency", timing.median_ms, self.max_latency_ms, "ms")


@dataclass(frozen=True, kw_only=True)
class Checking:
    """On what, where and against which limits artifacts are checked.

    Attributes:
        data: a labelled folder, or ``demo``; ``None`` checks nothing that needs images.
        limit: at most so many images.
        skip_bad_images: leave unreadable ones out.
        devices: names.
        threads: of each runtime.
        limits: what is demanded.
        allow_float: accept ops that compute in float in an int8 artifact; they are listed all the same.
    """

    data: str | None
    limit: int | None = None
    skip_bad_images: bool = False
    devices: tuple[str, ...] = ("host",)
    threads: int = 1
    limits: Limits = Limits()
    allow_float: bool = False

    def __post_init__(self) -> None:
        if self.data is None and self.limits.comparing:
            raise InputError(f"{' and '.join(self.limits.comparing)} needs labelled images to compare on; pass --data")

    @property
    def runs_anything(self) -> bool:
        """Whether artifacts are executed at all."""
        return self.data is not None or self.limits.max_latency_ms is not None

    def places(self, targets: Sequence[str]) -> list[tuple[str, Device]]:
        """Each target with each device that takes it.

        Raises:
            InputError: no such device, or none of them takes a target.
            MissingDependencyError: a device lacks a library or a tool; the message installs it.
        """
        found = []
        for target in targets:
            takes = [device for device in select(self.devices) if target in device.targets]
            if not takes:
                raise InputError(f"--device {','.join(self.devices)} does not run {target}; see `edgecnn devices`")
            found += [(target, device) for device in takes]
        for target, device in found:
            command = missing(device, target)
            if command is not None:
                raise MissingDependencyError(
                    f"{device.name} cannot run {target} here; install what it needs: {command}"
                )
        return found

    def onnx_activations(self) -> str:
        """How an int8 ONNX file carries activations so that the devices run it fastest.

        Raises:
            InputError: no such device, or they want it differently.
        """
        wanted = {device.onnx_activations: device.name for device in select(self.devices) if "onnx" in device.targets}
        if len(wanted) > 1:
            said = ", ".join(f"{name} wants {kind}" for kind, name in wanted.items())
            raise InputError(f"one ONNX file cannot suit every --device: {said}; export for one of them at a time")
        return next(iter(wanted), "uint8")

    def open_images(self) -> Images | None:
        """The images to check on."""
        if self.data is None:
            return None
        return open_images(self.data, demo_split="test", labelled=True, limit=self.limit, skip_bad=self.skip_bad_images)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One artifact to check.

    Attributes:
        path: its main file.
        target: its format.
        precision: one of ``artifact.PRECISIONS``.
        size_bytes: of all its files.
        metadata: how it is fed.
    """

    path: Path
    target: str
    precision: str
    size_bytes: int
    metadata: Metadata


def float_reference(graph: Graph) -> Reference:
    """The float values of a graph, run in torch."""
    import torch

    from edgecnn.graph.interpreter import TorchGraph

    run = TorchGraph(graph)

    def reference(x: NDArray[np.float32]) -> NDArray[np.float32]:
        made: NDArray[np.float32] = run(torch.from_numpy(x)).numpy()
        return made.reshape(len(x), -1)

    return reference


def session_reference(session: Session) -> Reference:
    """A float artifact, run where it was opened."""
    return lambda x: logits(session, x)


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
        images: labelled, or ``None``.
        reference: fp32, or ``None`` where there is none to compare with.
        oracle: the quantized graph, or ``None``; the int8 artifacts are compared with it, integer by integer.

    Raises:
        InputError: images, labels and network do not fit together, or an artifact cannot be run.
    """
    by_target = {s.target: s for s in subjects}
    runs = [_Run(by_target[target], device, checking) for target, device in checking.places(list(by_target))]
    if images is not None:
        _over_images(runs, images, subjects[0].metadata, reference, oracle)
    return [run.entry(checking, images) for run in runs]


class _Run:
    """An artifact open on a device, and what was counted of it."""

    def __init__(self, subject: Subject, device: Device, checking: Checking) -> None:
        self.subject, self.device = subject, device
        self.session = open_session(device, subject.path, threads=checking.threads)
        self.meter = AccuracyMeter(subject.metadata.label_offset)
        self.parity = Parity()

    def entry(self, checking: Checking, images: Images | None) -> ReportEntry:
        accuracy = self.meter.result() if images is not None else Accuracy()
        timing = latency(self.session)
        float_ops = tuple(str(op) for op in self.session.ops if op.is_float)
        checks = list(checking.limits.checks(accuracy, timing))
        if self.subject.precision == "int8" and not checking.allow_float:
            checks.append(Check.at_most("float_ops", len(float_ops), 0, "ops"))
        skipped = (f"{len(images.bad)} unreadable images were left out",) if images is not None and images.bad else ()
        return ReportEntry(
            model=self.subject.metadata.model,
            target=self.subject.target,
            device=self.device.name,
            artifact=str(self.subject.path),
            size_bytes=self.subject.size_bytes,
            precision=self.subject.precision,
            accuracy=accuracy,
            latency=timing,
            parity=self.parity,
            checks=tuple(checks),
            float_ops=float_ops if self.subject.precision == "int8" else (),
            findings=(*self.session.findings, *skipped),
        )


def _over_images(
    runs: Sequence[_Run], images: Images, metadata: Metadata, reference: Reference | None, oracle: Graph | None
) -> None:
    preprocess = metadata.preprocess
    if preprocess is None:
        raise InputError(
            f"nothing says how images are fed to {metadata.model}; pass --preprocess resize=HxW,mean=…,std=…"
        )
    outputs = {math.prod(run.session.output.shape) for run in runs}
    classes = match_labels(images, metadata.labels, min(outputs), metadata.label_offset)
    seen: list[NDArray[np.float32]] = []
    for pixels, labels in track(images.batches(preprocess, BATCH), "validate", math.ceil(len(images) / BATCH)):
        assert labels is not None
        x = preprocess.normalise(pixels)
        expected = reference(x) if reference is not None else None
        for run in runs:
            run.meter.update(logits(run.session, x), classes[labels], expected)
        if sum(map(len, seen)) < PARITY_IMAGES:
            seen.append(x)
    if oracle is not None:
        first = np.concatenate(seen)[:PARITY_IMAGES]
        for run in runs:
            if run.subject.precision == "int8":
                run.parity = compare_with_oracle(run.session, oracle, first)


def compare_with_oracle(session: Session, oracle: Graph, inputs: NDArray[np.float32]) -> Parity:
    """How far an int8 artifact's outputs are from the integer oracle's, on the same input integers."""
    from edgecnn.quant.reference import run

    into, out = (oracle.tensors[name].quant for name in (oracle.inputs[0], oracle.outputs[0]))
    assert into is not None
    assert out is not None
    fed = session.input.encode(inputs)
    exact = run(oracle, into.quantize(_real(session.input, fed)))[oracle.outputs[0]]
    got = out.quantize(_real(session.output, session.run(fed))).reshape(exact.shape)
    return parity(got, exact)


def _real(port: Port, raw: NDArray[Any]) -> NDArray[np.float32]:
    return port.decode(raw)
