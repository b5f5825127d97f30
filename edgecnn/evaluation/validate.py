"""An artifact that is already written, from its manifest and what lies beside it to a report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.allocator import keep_freed_memory
from edgecnn.artifact import INTEGER_PRECISIONS, graph_path, read_manifest
from edgecnn.errors import InputError
from edgecnn.evaluation.check import Checking, Subject, check
from edgecnn.evaluation.references import Reference, fed_as, float_reference, session_reference
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.serialize import load
from edgecnn.progress import Stopwatch
from edgecnn.report.record import ReportEntry
from edgecnn.source import with_overrides
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device
from edgecnn_targets.registry import open_session, runtime_of


@dataclass(frozen=True, kw_only=True)
class Validate:
    """What to validate.

    Attributes:
        artifact: its main file.
        checking: how; with ``data``, or with a device or a limit that needs none.
        reference: an ``.edgecnn`` file, a float artifact or ``none``; ``None`` is ``NAME.edgecnn`` beside the artifact.
        preprocess: ``KEY=VALUE,…`` over what the artifact says.
        label_offset: over what the artifact says.
    """

    artifact: Path
    checking: Checking
    reference: str | None = None
    preprocess: str | None = None
    label_offset: int | None = None


def validate(request: Validate, watch: Stopwatch) -> list[ReportEntry]:
    """Run an artifact over labelled images and compare it with its fp32 reference and the integer oracle.

    Raises:
        InputError: the artifact, its manifest, the reference or the data is wrong.
        MissingDependencyError: a device lacks a library.
    """
    keep_freed_memory()
    path = request.artifact
    row = runtime_of(path)
    if not request.checking.runs_anything:
        raise InputError("validate needs labelled images to check on; pass --data DIR or demo")
    if not path.is_file():
        raise InputError(f"no artifact at {path}; give a file that `edgecnn export` wrote")
    manifest = read_manifest(path, row.target)
    _, precision, embedded = converter(row.target).described(path)
    request.checking.places([row.target], precision)
    metadata = manifest.metadata if manifest is not None else embedded or Metadata(model=path.stem)
    metadata = with_overrides(metadata, request.preprocess, request.label_offset)
    images = request.checking.open_images()
    reference, oracle, findings = _reference(request, metadata, precision) if images is not None else (None, None, ())
    size = sum(file.stat().st_size for file in converter(row.target).files(path) if file.is_file())
    subject = Subject(path=path, target=row.target, precision=precision, size_bytes=size, metadata=metadata)
    with watch.step("validate") as notes:
        entries = check([subject], request.checking, images, reference=reference, oracle=oracle)
        notes.append(f"{max(entry.accuracy.n for entry in entries)} images" if images is not None else "no images")
    return [replace(e, seconds=dict(watch.seconds), findings=(*findings, *e.findings)) for e in entries]


def _reference(
    request: Validate, metadata: Metadata, precision: str
) -> tuple[Reference | None, Graph | None, tuple[str, ...]]:
    """fp32, the integer oracle, and what to tell the user about them."""
    fed = metadata.preprocess if request.preprocess is None else None
    comparing = request.checking.limits.comparing
    beside = graph_path(request.artifact)
    given = request.reference
    if given == "none" or (given is None and not beside.exists()):
        if comparing:
            missing = "--reference none was given" if given else f"there is no {beside}"
            raise InputError(
                f"{' and '.join(comparing)} needs the fp32 reference, but {missing}; pass --reference ARTIFACT"
            )
        said = () if given else (f"not compared with fp32: there is no {beside.name} beside it; see --reference",)
        return None, None, said
    path = beside if given is None else Path(given)
    if path.suffix != ".edgecnn":
        target = runtime_of(path).target
        manifest = read_manifest(path, target)
        theirs = manifest.metadata if manifest is not None else converter(target).described(path)[2]
        session = open_session(device("host"), path, threads=1)
        return fed_as(session_reference(session), fed, theirs.preprocess if theirs is not None else None), None, ()
    graph = load(path)
    theirs = graph.metadata
    exact = fed_as(float_reference(graph), fed, theirs.preprocess)
    if given is None and metadata.weights_sha256 is not None and theirs.weights_sha256 != metadata.weights_sha256:
        raise InputError(f"{path} holds other weights than {request.artifact}; export again, or pass --reference")
    same = metadata.quantization is not None and theirs.quantization == metadata.quantization
    integer = precision in INTEGER_PRECISIONS
    oracle = graph if integer and precision == graph.precision and same else None
    if integer and oracle is None:
        said = (f"not compared with the integer oracle: {path.name} is of another quantization",)
        return exact, None, said
    return exact, oracle, ()
