"""The matrix model x target x precision x device: one calibration per model, a line per cell, failing ones too."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgecnn.errors import EdgecnnError, InputError, unknown
from edgecnn.evaluation.check import Checking
from edgecnn.files import write_atomic, write_json
from edgecnn.pipeline import PRECISIONS, Export, export
from edgecnn.progress import Stopwatch
from edgecnn.report.record import ReportEntry
from edgecnn.source import Source
from edgecnn_converters.registry import converters, targets_of_all
from edgecnn_targets.devices import device

QUANTIZE = {precision: name for name, precision in PRECISIONS.items()}


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """What to measure.

    Attributes:
        models: names, factories or ``.edgecnn`` files.
        targets: formats; none is all of ``export --target all``, each on the devices that take it.
        precisions: of ``artifact.PRECISIONS``.
        checking: images, devices, threads.
        output: the directory.
        weights: model to weights; the key ``""`` is for every other model.
        calibration: a folder, or ``demo``; needed for int8.
        preprocess: for factories.
        seed: of every random choice.

    Raises:
        InputError: an unknown target or precision.
    """

    models: Sequence[str]
    targets: Sequence[str]
    precisions: Sequence[str]
    checking: Checking
    output: Path
    weights: Mapping[str, str]
    calibration: str | None = None
    preprocess: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, given, allowed in (
            ("target", self.targets, converters()),
            ("precision", self.precisions, QUANTIZE),
        ):
            for name in given:
                if name not in allowed:
                    raise InputError(unknown(kind, name, allowed))
        strange = sorted(set(self.weights) - {"", *self.models})
        if strange:
            raise InputError(unknown("model in --weights", strange[0], self.models))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One line of the table; figures are ``None`` where the cell failed.

    Attributes:
        status: ``ok``, or ``failed``.
        size_mb: of the artifact, 10**6 bytes.
        top1, fp32_top1, agreement: percent.
        median_ms: of one inference.
        images_per_s: one at a time.
        instructions: of one inference, counted on an emulated device.
        cycles: of one inference, of a microcontroller or an NPU.
        error: what failed.
    """

    model: str
    target: str
    precision: str
    device: str
    status: str = "ok"
    size_mb: float | None = None
    top1: float | None = None
    fp32_top1: float | None = None
    agreement: float | None = None
    median_ms: float | None = None
    images_per_s: float | None = None
    instructions: int | None = None
    cycles: int | None = None
    error: str = ""


def benchmark(matrix: Matrix, watch: Stopwatch) -> list[Cell]:
    """Measure every cell; writes ``benchmark.json`` and ``benchmark.csv``.

    Raises:
        InputError: the output cannot be written. What goes wrong in a cell is in its line.
    """
    targets = matrix.targets or targets_of_all()
    places = [
        (target, precision, name)
        for target in targets
        for precision in matrix.precisions
        for name in matrix.checking.devices
        if matrix.targets or target in device(name).targets
    ]
    cells = []
    for model in matrix.models:
        try:
            source = _prepared(matrix, model)
        except EdgecnnError as error:
            cells += [
                Cell(model=model, target=t, precision=p, device=d, status="failed", error=str(error))
                for t, p, d in places
            ]
            watch.say(f"{model}: failed: {error}")
            continue
        for target, precision, name in places:
            cells.append(_cell(matrix, source, model, target, precision, name))
            watch.say(f"{model} {target} {precision} {name}: {cells[-1].status} {cells[-1].error}")
    write_json(matrix.output / "benchmark.json", [asdict(cell) for cell in cells])
    write_atomic(matrix.output / "benchmark.csv", to_csv(cells).encode())
    return cells


def _prepared(matrix: Matrix, model: str) -> Source:
    """The ``.edgecnn`` file that every cell of a model is emitted from: captured and calibrated once."""
    weights = matrix.weights.get(model, matrix.weights.get(""))
    source = Source(model=model, weights=weights, preprocess=matrix.preprocess, seed=matrix.seed)
    if source.is_file:
        return source
    folder = matrix.output / source.name
    quantize = "int8" if "int8" in matrix.precisions else "none"
    request = Export(
        source=source,
        target=(matrix.targets or targets_of_all())[0],
        quantize=quantize,
        output=folder,
        checking=replace(matrix.checking, data=None),
        calibration=matrix.calibration if quantize == "int8" else None,
        seed=matrix.seed,
    )
    export(request, Stopwatch(quiet=True))
    return Source(model=str(folder / f"{source.name}.edgecnn"), seed=matrix.seed)


def _cell(matrix: Matrix, source: Source, model: str, target: str, precision: str, device: str) -> Cell:
    request = Export(
        source=source,
        target=target,
        quantize=QUANTIZE[precision],
        output=matrix.output / source.name / precision,
        calibration=matrix.calibration if precision == "int16x8" else None,
        checking=replace(matrix.checking, devices=(device,)),
        seed=matrix.seed,
    )
    try:
        (entry,) = export(request, Stopwatch(quiet=True))
    except EdgecnnError as error:
        return Cell(model=model, target=target, precision=precision, device=device, status="failed", error=str(error))
    return _measured(model, precision, device, entry)


def _measured(model: str, precision: str, device: str, entry: ReportEntry) -> Cell:
    median = entry.latency.median_ms
    failed = "; ".join(str(check) for check in entry.checks if not check.passed)
    return Cell(
        model=model,
        target=entry.target,
        precision=precision,
        device=device,
        status="failed" if failed else "ok",
        size_mb=entry.size_bytes / 1e6,
        top1=entry.accuracy.top1,
        fp32_top1=entry.accuracy.fp32_top1,
        agreement=entry.accuracy.agreement,
        median_ms=median,
        images_per_s=None if median is None else 1000 / median,
        instructions=entry.latency.instructions,
        cycles=entry.resources.cycles,
        error=failed,
    )


def to_csv(cells: Sequence[Cell]) -> str:
    """A header and one line per cell; an absent figure is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Cell.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cell) for cell in cells)
    return text.getvalue()
