"""Two artifacts side by side: the same integers or which tensor differs, and how far apart their outputs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS, read_manifest
from edgecnn.data import open_images
from edgecnn.data.feed import Feed
from edgecnn.errors import InputError, unknown
from edgecnn.evaluation.collector import Collector
from edgecnn.evaluation.references import Reference, float_reference, renormalised
from edgecnn.files import scratch
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Metadata, QParams, Quantized, QuantizedConstant
from edgecnn.graph.oracle import ARITHMETICS, run
from edgecnn.graph.serialize import load
from edgecnn.image_inputs import overridden
from edgecnn.network import Artifact, Network
from edgecnn.preprocess import Preprocess
from edgecnn.progress import Progress, track, use
from edgecnn.report.evidence import Evidence
from edgecnn.report.record import OutputFigures
from edgecnn_converters.registry import converter
from edgecnn_targets.accuracy_meter import OutputMeter, is_vector
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import outputs
from edgecnn_targets.registry import activations, open_session, runtime_of

BATCH = 10
SCALE_STEP = 3e-7  # OpenVINO holds the ends of a grid, from which its scale comes back within one float32 step
Integers = Mapping[str, tuple[QParams, NDArray[Any] | None]]


@dataclass(frozen=True, kw_only=True)
class LayerDistance:
    """One activation of both artifacts, in steps of its grid."""

    name: str
    max_lsb: int
    mean_lsb: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold what two artifacts have in common.

    Attributes:
        a, b: their paths.
        same_integers: whether every quantized tensor of one is in the other, with equal integers, scales and zero
            points; ``None`` where one of them has none.
        differing: names of tensors that differ, or that one of them lacks.
        n: images they were run on.
        agreement: images on which both pick the same class, in percent; ``None`` where the output is not one vector.
        sqnr_db: of B's outputs beside A's, the lowest.
        max_lsb, mean_lsb: distance of their outputs in steps of A's output grids; ``None`` where A's outputs are float.
        outputs: the same of each output.
        layers: on request, how far each activation is apart on one image, in the network's order.
        findings: what to know about how the runtimes ran, one line each.
        evidence: on request, the images on which A (as ``fp32``) and B pick different classes.
    """

    a: str
    b: str
    same_integers: bool | None
    differing: tuple[str, ...]
    n: int
    agreement: float | None
    sqnr_db: float
    max_lsb: int | None
    mean_lsb: float | None
    outputs: tuple[OutputFigures, ...] = ()
    layers: tuple[LayerDistance, ...] = ()
    findings: tuple[str, ...] = ()
    evidence: Evidence | None = None

    def save(self, path: str | Path) -> None:
        """Write the comparison in the form of the file's ending; see ``Report.save``.

        Raises:
            InputError: the ending has no form, or the place cannot be written.
        """
        from edgecnn.evaluation.comparison_forms import forms

        forms(self).save(Path(path))

    def to_json(self) -> dict[str, Any]:
        """JSON values; ``parts_at`` is the first layer that differs at all."""
        parts_at = next((layer.name for layer in self.layers if layer.max_lsb > 0), None)
        evidence = None if self.evidence is None else self.evidence.to_json()
        return {**asdict(replace(self, evidence=None)), "evidence": evidence, "parts_at": parts_at}


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One artifact, open."""

    path: Path
    metadata: Metadata
    integers: Integers
    shapes: Mapping[str, tuple[int, ...]]  # of a sample of each input, in the graph's layout
    grids: Mapping[str, QParams]  # of the outputs that are quantized
    run: Reference
    findings: tuple[str, ...]
    inside: Callable[[Batch, Mapping[str, QParams]], Mapping[str, NDArray[np.float32]]]


def compare(
    a: Artifact | Network | str | Path,
    b: Artifact | Network | str | Path,
    data: Any,
    *,
    limit: int | None = None,
    preprocess: Preprocess | str | None = None,
    skip_bad_images: bool = False,
    by_layer: bool = False,
    exact_kernels: bool = False,
    arithmetic: str = "litert",
    evidence: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two artifacts of any formats, or networks: an int8 network runs in the integer oracle.

    Args:
        a, b: main files, ``.edgecnn`` files, artifacts or networks in memory.
        data: images as for ``edgecnn.validate``; labels are not needed.
        limit: at most so many images.
        preprocess: ``KEY=VALUE,…`` over what A says.
        skip_bad_images: leave unreadable images out.
        by_layer: also compare every activation, on the first image.
        exact_kernels: run kernels whose sums are exact on every CPU, instead of the fastest.
        arithmetic: whose rounding the integer oracle has, a key of ``ARITHMETICS``.
        evidence: also collect the images on which they pick different classes.
        progress: shows progress; ``Progress()`` is silent.

    Raises:
        InputError: a file is wrong, or they take different inputs or have different outputs.
        MissingDependencyError: a runtime is not installed.

    Example:
        >>> edgecnn.compare("out/net.tflite", "out/net.onnx", "val/").max_lsb
        0
    """
    if arithmetic not in ARITHMETICS:
        raise InputError(unknown("arithmetic", arithmetic, ARITHMETICS))
    with use(progress), scratch() as folder:
        paths = [_file(thing, folder / side) for thing, side in ((a, "a"), (b, "b"))]
        left, right = (_open(path, exact_kernels, arithmetic) for path in paths)
        if list(left.shapes.values()) != list(right.shapes.values()):
            mine, theirs = (" and ".join(map(str, side.shapes.values())) for side in (left, right))
            raise InputError(
                f"{left.path} takes images of {mine} and {right.path} of {theirs}; only equal inputs can be compared"
            )
        metadata = overridden(left.metadata, preprocess)
        fed = metadata.preprocess or right.metadata.preprocess
        if fed is None and any(len(shape) == 3 for shape in left.shapes.values()):
            neither = f"neither {left.path} nor {right.path} says how images are fed"
            raise InputError(f"{neither}; pass --preprocess resize=HxW,mean=…,std=…")
        feed = Feed(preprocess=fed or Preprocess.as_is(), others=metadata.other_preprocess, shapes=left.shapes)
        own = right.metadata.preprocess if preprocess is None else None
        images = open_images(data, demo_split="test", labelled=False, limit=limit, skip_bad=skip_bad_images)
        meter, apart = OutputMeter(), {name: _Apart() for name in left.grids}
        layers: tuple[LayerDistance, ...] = ()
        collector = Collector(metadata)
        batches = images.batches(feed, BATCH)
        for samples, _ in track(batches, "compare", len(images) or None, unit="images", each=BATCH):
            x = feed.inputs(samples)
            y = renormalised(x, feed.preprocess, own)
            if by_layer and not layers:
                layers = _by_layer(left, right, x[:1], y[:1])
            ours, made = left.run(x), right.run(y)
            if len(ours) != len(made):
                raise InputError(f"{left.path} has outputs {', '.join(ours)}, {right.path} {', '.join(made)}")
            found = dict(zip(ours, made.values(), strict=True))  # B's may have other names
            meter.update(found, None, ours)
            if evidence and is_vector(ours):
                b_logits, a_logits = (next(iter(side.values())).reshape(len(x), -1) for side in (found, ours))
                collector.update(b_logits, a_logits, None, images.names, feed.image_of(samples))
            for name, distance in apart.items():
                distance.update(left.grids[name], ours[name], found[name])
        figures, decibels = meter.result(), meter.sqnr_db()
        assert figures.sqnr_db is not None
        seen = list(apart.values())
        differing = differences(left.integers, right.integers)
        return Comparison(
            a=str(left.path),
            b=str(right.path),
            same_integers=not differing if left.integers and right.integers else None,
            differing=differing if left.integers and right.integers else (),
            n=figures.n,
            agreement=figures.agreement,
            sqnr_db=figures.sqnr_db,
            max_lsb=max((each.worst for each in seen), default=None),
            mean_lsb=sum(each.total for each in seen) / sum(each.count for each in seen) if seen else None,
            outputs=tuple(
                OutputFigures(
                    name=name,
                    sqnr_db=value,
                    max_lsb=apart[name].worst if name in apart else None,
                    mean_lsb=apart[name].total / apart[name].count if name in apart else None,
                )
                for name, value in decibels.items()
            ),
            layers=layers,
            findings=tuple(f"{side.path}: {finding}" for side in (left, right) for finding in side.findings),
            evidence=collector.gathered() if evidence else None,
        )


class _Apart:
    """Count by how many steps of a grid the values of an output differ."""

    def __init__(self) -> None:
        self.worst = self.total = self.count = 0

    def update(self, grid: QParams, mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
        apart = np.abs(grid.quantize(mine).astype(np.int64) - grid.quantize(theirs.reshape(mine.shape)))
        self.worst = max(self.worst, int(apart.max()))
        self.total, self.count = self.total + int(apart.sum()), self.count + apart.size


def _file(thing: Artifact | Network | str | Path, folder: Path) -> Path:
    """Where a thing lies, or is written to."""
    if isinstance(thing, Network):
        return thing.save(folder)
    if isinstance(thing, Artifact):
        written = thing if thing.path is not None else thing.write(folder)
        assert written.path is not None
        return written.path
    return Path(thing)


def _by_layer(left: _Side, right: _Side, x: Batch, y: Batch) -> tuple[LayerDistance, ...]:
    """Every activation that both have, in the order of A's file; one image, as A takes it and as B does."""
    if not (left.grids and right.grids):
        raise InputError("--layers compares integers: both artifacts must be int8")
    grids = {k: quant for k, (quant, values) in left.integers.items() if values is None and k in right.integers}
    mine, theirs = left.inside(x, grids), right.inside(y, grids)
    found = []
    for name in (k for k in grids if k in mine and k in theirs):
        a, b = (grids[name].quantize(side[name]).astype(np.int64) for side in (mine, theirs))
        apart = np.abs(a - b.reshape(a.shape))
        found.append(LayerDistance(name=name, max_lsb=int(apart.max()), mean_lsb=float(apart.mean())))
    return tuple(found)


def differences(a: Integers, b: Integers) -> tuple[str, ...]:
    """Names of the quantized tensors that are not the same in both, in order."""
    return tuple(name for name in dict.fromkeys([*a, *b]) if not (name in a and name in b and _equal(a[name], b[name])))


def _equal(a: tuple[QParams, NDArray[Any] | None], b: tuple[QParams, NDArray[Any] | None]) -> bool:
    (grid, values), (other, others) = a, b
    same_grid = (
        grid.dtype == other.dtype
        and grid.scale.shape == other.scale.shape
        and np.allclose(grid.scale, other.scale, rtol=SCALE_STEP, atol=0)
        and np.array_equal(grid.zero_point, other.zero_point)
    )
    if values is None or others is None:
        return same_grid and values is others
    return same_grid and np.array_equal(values.reshape(-1), others.reshape(-1))


def _open(path: Path, exact_kernels: bool, arithmetic: str) -> _Side:
    if path.suffix == ".edgecnn":
        return _open_graph(path, arithmetic)
    row = runtime_of(path)
    if not path.is_file():
        raise InputError(f"no artifact at {path}; give a file that `edgecnn export` wrote")
    read_manifest(path, row.target)
    reader = converter(row.target)
    files, precision, metadata = reader.described(path)
    integers = reader.integers(*files) if precision in (*INTEGER_PRECISIONS, "w8") else {}
    kernels = row.exact if exact_kernels else None
    session = open_session(device("host"), path, kernels=kernels)
    integer = precision in INTEGER_PRECISIONS

    def inside(x: Batch, grids: Mapping[str, QParams]) -> Mapping[str, NDArray[np.float32]]:
        plain = {name: (float(quant.scale[0]), int(quant.zero_point[0])) for name, quant in grids.items()}
        return activations(row.target, path, x.arrays, plain, kernels=kernels)

    return _Side(
        path=path,
        metadata=metadata or Metadata(model=path.stem),
        integers=integers,
        shapes={port.name: port.sample for port in session.inputs},
        grids={p.name: integers[p.name][0] for p in session.outputs if integer and p.name in integers},
        run=partial(outputs, session),
        findings=session.findings,
        inside=inside,
    )


def _open_graph(path: Path, arithmetic: str) -> _Side:
    graph = load(path)
    ordered = {t.name: t for t in (*graph.activations(), *graph.tensors.values())}  # activations as they are made
    quantized = [t for t in ordered.values() if isinstance(t, Quantized)]
    ends = {t.name: t.quant for t in (graph.tensors[n] for n in graph.outputs) if isinstance(t, Quantized)}

    def inside(x: Batch, grids: Mapping[str, QParams]) -> Mapping[str, NDArray[np.float32]]:
        names = [t.name for t in graph.activations() if t.name in grids]
        fed = {name: graph.quant(name).quantize(array) for name, array in x.renamed(graph.inputs).arrays.items()}
        found = run(graph, fed, keep=names, arithmetic=arithmetic)
        return {name: grids[name].dequantize(found[name]) for name in names}

    def oracle(x: Batch) -> Mapping[str, NDArray[np.float32]]:
        found = inside(x, ends)
        return {name: found[name] for name in graph.outputs}

    return _Side(
        path=path,
        metadata=graph.metadata,
        integers={t.name: (t.quant, t.integers if isinstance(t, QuantizedConstant) else None) for t in quantized},
        shapes={name: graph.tensors[name].shape[1:] for name in graph.inputs},
        grids=ends,
        run=oracle if ends else float_reference(graph),
        findings=(f"the integer oracle rounds as {arithmetic} does",) if ends else (),
        inside=inside,
    )
