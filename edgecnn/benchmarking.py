"""``edgecnn.benchmark``: models by formats, precisions and devices; a line per cell, failing ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.errors import EdgecnnError, InputError, unknown
from edgecnn.export_job import PRECISIONS, training_part
from edgecnn.exporting import export
from edgecnn.files import write_atomic, write_json
from edgecnn.jobs import Executor, InProcess, LocalExecutor, Status, Task
from edgecnn.loading import is_file, load, name_of
from edgecnn.preprocess import Preprocess
from edgecnn.progress import Progress, say, use
from edgecnn.quantizing import quantize
from edgecnn.report.document import document
from edgecnn.report.forms import table
from edgecnn.report.record import Finding, Report, ReportEntry
from edgecnn_converters.registry import converters, targets_of_all
from edgecnn_targets.devices import device

QUANTIZE = {precision: name for name, precision in PRECISIONS.items()}


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


_Place = tuple[str, str, str]  # target, precision, device
_Line = tuple[Cell, ReportEntry]


class Cells(list[Cell]):
    """The lines of the table, and the report that they are of."""

    def __init__(self, cells: Sequence[Cell], report: Report) -> None:
        super().__init__(cells)
        self.report = report

    def to_dict(self) -> dict[str, Any]:
        """Return what ``benchmark.json`` holds and ``--json`` prints."""
        date, host = self.report.date, dict(self.report.host)
        return document("benchmark", {"date": date, "host": host, "entries": [asdict(cell) for cell in self]})


def benchmark(
    models: Sequence[str],
    *,
    data: Any,
    targets: Sequence[str] = (),
    precisions: Sequence[str] = ("fp32", "int8"),
    devices: Sequence[str] = ("host",),
    weights: Mapping[str, str] | str | None = None,
    calibration: Any = None,
    output: str | Path = "out",
    preprocess: Preprocess | str | None = None,
    label_offset: int | None = None,
    class_names: Sequence[str] | str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **checking: Any,
) -> Cells:
    """Measure every model in every format and precision on every device; writes ``benchmark.json`` and ``.csv``.

    Args:
        models: as for ``edgecnn.load``.
        data: as for ``edgecnn.validate``.
        targets: formats; none is all of ``export(target="all")``, each on the devices that take it.
        precisions: of ``fp32``, ``fp16``, ``w8``, ``int8`` and ``int16x8``.
        devices: names from ``edgecnn devices``.
        weights: model to weights, where the key ``""`` is for every other model; or one for all.
        calibration: as for ``edgecnn.quantize``; a model is calibrated once. Without it, ``train/`` of ``data`` is
            taken where ``data`` has it beside ``val/``.
        output: the folder.
        preprocess, label_offset: as for ``edgecnn.load``; ``class_names`` as its ``labels``.
        seed: of every random choice.
        progress: shows progress; ``Progress()`` is silent.
        checking: as for ``edgecnn.validate``: ``limit``, ``limits``, ``threads``, ``allow_float``, ``allow_loss``,
            ``exact_kernels``, ``skip_bad_images``, ``evidence``.

    Returns:
        A cell per model, format, precision and device. What goes wrong in a cell is in its line. ``report`` has all of
        it, and saves itself as a page.

    Raises:
        InputError: an unknown target or precision, or the output cannot be written.

    Example:
        >>> edgecnn.benchmark(["mobilenet_v2_0.35_96"], data="demo", calibration="demo", targets=["tflite", "onnx"])
    """
    for kind, given, allowed in (("target", targets, converters()), ("precision", precisions, QUANTIZE)):
        for name in given:
            if name not in allowed:
                raise InputError(unknown(kind, name, allowed))
    of_model = {"": weights} if isinstance(weights, str) else dict(weights or {})
    strange = sorted(set(of_model) - {"", *models})
    if strange:
        raise InputError(unknown("model in --weights", strange[0], models))
    calibration = training_part(data) if calibration is None else calibration
    folder = Path(output)
    places = [
        (target, precision, name)
        for target in targets or targets_of_all()
        for precision in precisions
        for name in devices
        if targets or target in device(name).targets
    ]
    loading = {"preprocess": preprocess, "label_offset": label_offset, "labels": class_names, "seed": seed}
    checking = {**checking, "data": data, "seed": seed}
    lines: dict[str, list[_Line]] = {}
    with use(progress), _executor(data, calibration, checking.get("metric")) as executor:
        for model in dict.fromkeys(models):
            own = None if is_file(model) else of_model.get(model, of_model.get(""))
            arguments = (model, places, {**loading, "weights": own}, calibration, checking, folder)
            executor.submit(Task(key=model, call=_measure, arguments=arguments, name=model))
        while len(lines) < len(set(models)):
            for ended in executor.completed():
                good = ended.status is Status.OK
                lines[ended.key] = ended.value if good else [_failed(ended.key, *at, ended.text) for at in places]
                for cell, _ in lines[ended.key]:
                    said = f"{cell.status} {cell.error}".strip()
                    say(f"{cell.model} {cell.target} {cell.precision} {cell.device}: {said}")
    found = [line for model in models for line in lines[model]]
    report = Report(command="benchmark", entries=tuple(entry for _, entry in found))
    cells = Cells([cell for cell, _ in found], report)
    write_json(folder / "benchmark.json", cells.to_dict())
    write_atomic(folder / "benchmark.csv", table([asdict(cell) for cell in cells]).encode())
    return cells


def _executor(data: Any, calibration: Any, metric: Any) -> Executor:
    """Return what runs the models, one after another: a process each, or this one for objects that cannot leave it."""
    images = all(given is None or isinstance(given, str | Path | np.ndarray) for given in (data, calibration))
    named = all(isinstance(each, str) for each in (metric if isinstance(metric, list | tuple) else [metric or ""]))
    return LocalExecutor(workers=1) if images and named else InProcess()


def _measure(
    model: str,
    places: Sequence[_Place],
    loading: Mapping[str, Any],
    calibration: Any,
    checking: Mapping[str, Any],
    folder: Path,
) -> list[_Line]:
    """Measure a model everywhere; it is calibrated once for all int8 cells."""
    lines = []
    with use(Progress()):
        network = load(model, **loading)
        if any(precision == "int8" for _, precision, _ in places) and not is_file(model):
            network = quantize(network, calibration, seed=loading["seed"])
        for target, precision, name in places:
            try:
                report = export(
                    network,
                    target=target,
                    quantize=QUANTIZE[precision],
                    output=folder / name_of(model) / precision,
                    calibration=calibration if precision == "int16x8" else None,
                    devices=(name,),
                    **checking,
                )
                lines.append((_measured(model, precision, name, report.entries[0]), report.entries[0]))
            except EdgecnnError as error:
                lines.append(_failed(model, target, precision, name, str(error)))
    return lines


def _failed(model: str, target: str, precision: str, device: str, error: str) -> _Line:
    finding = Finding(code="not_measured", text=error, severity="error")
    entry = ReportEntry(
        model=name_of(model), target=target, device=device, artifact=None, size_bytes=0, precision=precision,
        findings=(finding,),
    )  # fmt: skip
    return Cell(model=model, target=target, precision=precision, device=device, status="failed", error=error), entry


def _measured(model: str, precision: str, device: str, entry: ReportEntry) -> Cell:
    median = entry.latency.median_ms
    failed = "; ".join(entry.failures)
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
