"""``edgecnn.validate``: an artifact on the devices it ships to, beside fp32 and the integer oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgecnn.allocator import keep_freed_memory
from edgecnn.artifact import INTEGER_PRECISIONS, graph_path, read_manifest
from edgecnn.data import Images, open_images
from edgecnn.errors import InputError
from edgecnn.evaluation.check import check
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.own_metric import own_metrics
from edgecnn.evaluation.references import Reference, fed_as, float_reference
from edgecnn.evaluation.subject import Checking, Subject
from edgecnn.files import scratch
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.serialize import load
from edgecnn.image_inputs import overridden
from edgecnn.labels import class_map_of
from edgecnn.network import Artifact, Network, QuantizedNetwork
from edgecnn.preprocess import Preprocess
from edgecnn.progress import Progress, Stopwatch, use
from edgecnn.report.record import Finding, Report
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import outputs
from edgecnn_targets.registry import open_session, runtime_of


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Hold what an artifact is compared with; ``None`` where there is none."""

    reference: Reference | None = None
    oracle: Graph | None = None
    findings: tuple[Finding, ...] = ()


def validate(
    artifact: Artifact | str | Path,
    data: Any = None,
    *,
    labels: Any = None,
    class_names: Sequence[str] | str | Path | None = None,
    class_map: Mapping[str, str] | str | Path | None = None,
    devices: str | Sequence[str] = ("host",),
    limits: Limits | None = None,
    reference: str | Path | None = None,
    limit: int | None = None,
    threads: int = 1,
    preprocess: Preprocess | str | None = None,
    label_offset: int | None = None,
    allow_float: bool = False,
    allow_loss: bool = False,
    exact_kernels: bool = False,
    metric: Any = None,
    skip_bad_images: bool = False,
    seed: int = 0,
    evidence: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run an artifact on devices, compare it with fp32 and the integer oracle, and check limits.

    Args:
        artifact: from ``edgecnn.convert``, or the main file of one.
        data: images: a folder, ``FILE.npz:SPLIT``, ``demo``, an array of levels (N, H, W, C) uint8, an iterable of
            arrays, a torch ``Dataset`` or ``DataLoader``; of several inputs as for ``edgecnn.quantize``. With labels,
            accuracy is measured too. Without images, latency, counts, memory and, on noise, the distance from the
            oracle are.
        labels: (N,) class indices of an array of images.
        class_names: the network's labels, in place of those in the artifact; or a file of them.
        class_map: class of the data to label of the network, or a file that says it, where their names differ.
        devices: names from ``edgecnn devices``.
        limits: what is demanded.
        reference: an ``.edgecnn`` file or a float artifact to compare with, or ``none``; by default the network of the
            artifact, or ``NAME.edgecnn`` beside the file.
        limit: at most so many images; of each class its share.
        threads: of each runtime.
        preprocess: how images are fed, in place of what the artifact says; or ``KEY=VALUE,…`` that changes some of it.
        label_offset: class ``k`` is logit ``k + label_offset``.
        allow_float: accept ops that compute in float in an integer artifact.
        allow_loss: accept an integer artifact that is far from fp32, and ``limits.max_drop`` beside an fp32 at chance.
        exact_kernels: run kernels whose sums are exact on every CPU, instead of the fastest.
        metric: figures of your own: a function of all outputs and fp32's (and labels, as a third argument), each an
            array (n, …), or of several outputs a mapping of names to these; it returns names to numbers, which
            ``limits.require`` can bound. Or ``package.module:function``, or several.
        skip_bad_images: leave unreadable images out, instead of stopping.
        seed: which images, where there are more than ``limit``.
        evidence: also collect what a page shows: the images on which artifact and fp32 part, the error of each layer,
            what each op costs on the devices that say it.
        progress: shows progress; ``Progress()`` is silent.

    Returns:
        One entry per device. ``Report.passed`` says whether every check held and no finding is an error.

    Raises:
        InputError: the artifact, its manifest, the reference or the data is wrong.
        MissingDependencyError: a device lacks a library; the message installs it.

    Example:
        >>> limits = edgecnn.Limits(max_drop=1)
        >>> edgecnn.validate("out/net.tflite", "val/", devices=["host", "cortex-a72"], limits=limits)
    """
    keep_freed_memory()
    limits = limits or Limits()
    places = (devices,) if isinstance(devices, str) else tuple(devices)
    checking = Checking(
        devices=places,
        threads=threads,
        limits=limits,
        allow_float=allow_float,
        allow_loss=allow_loss,
        exact_kernels=exact_kernels,
        metrics=own_metrics(metric),
        evidence=evidence,
    )
    checking.need(data)
    watch = Stopwatch()
    with use(progress), ExitStack() as stack:
        if isinstance(artifact, Artifact):
            if artifact.path is None:
                artifact = artifact.write(stack.enter_context(scratch()))
            assert artifact.path is not None
            path, held = artifact.path, artifact
        else:
            path, held = Path(artifact), None
        subject = _subject(path, checking)
        metadata = overridden(subject.metadata, preprocess, label_offset, class_names)
        subject = replace(subject, metadata=metadata)
        images = open_validation(data, labels, limits, limit, seed, skip_bad_images, class_map)
        own = preprocess is not None
        if held is not None and reference is None:
            beside = beside_network(held.network, None if own else metadata.preprocess)
        else:
            beside = _beside_file(path, reference, metadata, subject.precision, own, limits)
        if images is None:
            beside = replace(beside, reference=None, findings=())
        with watch.step("validate") as notes:
            entries = check([subject], checking, images, reference=beside.reference, oracle=beside.oracle)
            notes.append(f"{max(entry.accuracy.n for entry in entries)} images" if images is not None else "no images")
    seconds = dict(watch.seconds)
    made = (replace(e, seconds=seconds, findings=(*beside.findings, *e.findings)) for e in entries)
    return Report(command="validate", entries=tuple(made))


def open_validation(
    data: Any,
    labels: Any,
    limits: Limits,
    limit: int | None,
    seed: int,
    skip_bad: bool,
    class_map: Mapping[str, str] | str | Path | None = None,
) -> Images | None:
    """Return the images to check on, if any, with labels where there are some or a limit needs them.

    Raises:
        InputError: see ``edgecnn.data.open_images``.
    """
    if data is None:
        return None
    return open_images(
        data,
        demo_split="test",
        labelled=True if limits.labelled else None,
        labels=labels,
        class_map=None if class_map is None else class_map_of(class_map),
        limit=limit,
        seed=seed,
        skip_bad=skip_bad,
    )


def beside_network(network: Network, fed: Preprocess | None) -> Beside:
    """Return what an artifact of a network is compared with: the float network as it was given, and the oracle.

    Args:
        network: in memory.
        fed: how the artifact's inputs were normalised; ``None`` where the caller says how images are fed.
    """
    given = network.given if isinstance(network, QuantizedNetwork) and network.given is not None else network
    reference = fed_as(float_reference(given.graph), fed, given.preprocess)
    oracle = network.graph if network.precision in INTEGER_PRECISIONS else None
    return Beside(reference=reference, oracle=oracle)


def _subject(path: Path, checking: Checking) -> Subject:
    row = runtime_of(path)
    if not path.is_file():
        raise InputError(f"no artifact at {path}; give a file that `edgecnn export` wrote")
    manifest = read_manifest(path, row.target)
    _, precision, embedded = converter(row.target).described(path)
    checking.places([row.target], precision)
    metadata = manifest.metadata if manifest is not None else embedded or Metadata(model=path.stem)
    size = sum(file.stat().st_size for file in converter(row.target).files(path) if file.is_file())
    return Subject(path=path, target=row.target, precision=precision, size_bytes=size, metadata=metadata)


def _beside_file(
    artifact: Path, given: str | Path | None, metadata: Metadata, precision: str, own: bool, limits: Limits
) -> Beside:
    """Read what an artifact is compared with from files; ``own`` is whether the user says how images are fed."""
    fed = None if own else metadata.preprocess
    path = graph_path(artifact)
    if given is not None and str(given) != "none":
        path = Path(given)
    elif given is not None or not path.exists():
        if limits.comparing:
            missing = "--reference none was given" if given else f"there is no {path}"
            needs = " and ".join(limits.comparing)
            raise InputError(f"{needs} needs the fp32 reference, but {missing}; pass --reference ARTIFACT")
        said = f"not compared with fp32: there is no {path.name} beside it; see --reference"
        return Beside(findings=() if given else (Finding(code="no_reference", text=said),))
    if path.suffix != ".edgecnn":
        target = runtime_of(path).target
        manifest = read_manifest(path, target)
        theirs = manifest.metadata if manifest is not None else converter(target).described(path)[2]
        session = open_session(device("host"), path, threads=1)
        feed = theirs.preprocess if theirs is not None else None
        return Beside(reference=fed_as(partial(outputs, session), fed, feed))
    graph = load(path)
    other = graph.metadata
    exact = fed_as(float_reference(graph), fed, other.preprocess)
    if given is None and metadata.weights_sha256 is not None and other.weights_sha256 != metadata.weights_sha256:
        raise InputError(f"{path} holds other weights than {artifact}; export again, or pass --reference")
    same = metadata.quantization is not None and other.quantization == metadata.quantization
    integer = precision in INTEGER_PRECISIONS
    oracle = graph if integer and precision == graph.precision and same else None
    if integer and oracle is None:
        said = f"not compared with the integer oracle: {path.name} is of another quantization"
        return Beside(reference=exact, findings=(Finding(code="no_oracle", text=said),))
    return Beside(reference=exact, oracle=oracle)
