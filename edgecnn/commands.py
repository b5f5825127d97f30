"""What each command does: options in, exit status out. Tables go to stderr, ``--json`` documents to stdout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.progress import Stopwatch
from edgecnn.report import ReportEntry, exit_status, render, to_json, write
from edgecnn.source import Source

Row = Mapping[str, Any]


def export(options: argparse.Namespace) -> int:
    """``edgecnn export``."""
    from edgecnn.pipeline import Export
    from edgecnn.pipeline import export as run

    request = Export(
        source=_source(options),
        target=options.target,
        quantize=options.quantize,
        output=options.output,
        checking=_checking(options),
        calibration=options.calibration,
        calibration_images=options.calibration_images,
        recipe=options.recipe,
        reduce_range=options.reduce_range,
        io=options.io,
        skip_bad_images=options.skip_bad_images,
        seed=options.seed,
    )
    return _reported(run(request, Stopwatch()), options)


def validate(options: argparse.Namespace) -> int:
    """``edgecnn validate``."""
    from edgecnn.pipeline import Validate
    from edgecnn.pipeline import validate as run

    request = Validate(
        artifact=options.artifact,
        checking=_checking(options),
        reference=options.reference,
        preprocess=options.preprocess,
        label_offset=options.label_offset,
    )
    entries = run(request, Stopwatch())
    if options.report is not None:
        write(entries, options.report)
    return _reported(entries, options)


def _source(options: argparse.Namespace) -> Source:
    return Source(
        model=options.model,
        weights=options.weights,
        padding=options.padding,
        preprocess=options.preprocess,
        label_offset=options.label_offset,
        seed=options.seed,
    )


def _checking(options: argparse.Namespace) -> Any:
    from edgecnn.checking import Checking, Limits

    limits = Limits(
        max_drop=options.max_drop, min_agreement=options.min_agreement, max_latency_ms=options.max_latency_ms
    )
    return Checking(
        data=options.data,
        limit=options.limit,
        skip_bad_images=options.skip_bad_images,
        devices=tuple(filter(None, options.device.split(","))),
        threads=options.threads,
        limits=limits,
        allow_float=options.allow_float,
    )


def _reported(entries: Sequence[ReportEntry], options: argparse.Namespace) -> int:
    if options.json:
        _print_json(to_json(entries))
    else:
        render(entries)
    return exit_status(entries)


def compare(options: argparse.Namespace) -> int:
    """``edgecnn compare``: status 1 when both hold integers and they are not the same."""
    from edgecnn.compare import compare as run

    found = run(
        options.a,
        options.b,
        options.data,
        limit=options.limit,
        preprocess=options.preprocess,
        skip_bad=options.skip_bad_images,
        by_layer=options.layers,
    )
    figures = found.to_json()
    if options.json:
        _print_json(figures)
    else:
        layers = figures.pop("layers")
        _table([{"figure": k.replace("_", " "), "value": _shown(v)} for k, v in figures.items()], to=sys.stdout)
        if layers:
            _table([{k: _shown(v) for k, v in layer.items()} for layer in layers], to=sys.stdout)
    return 1 if found.same_integers is False else 0


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)}: {', '.join(value[:5])}" if value else "none"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def benchmark(options: argparse.Namespace) -> int:
    """``edgecnn benchmark``: status 1 when a cell failed."""
    from dataclasses import asdict

    from edgecnn.benchmark import Matrix
    from edgecnn.benchmark import benchmark as run
    from edgecnn_converters.registry import CONVERTERS

    weights = dict(item.split("=", 1) if "=" in item else ("", item) for item in options.weights)
    matrix = Matrix(
        models=options.models,
        targets=list(CONVERTERS) if options.targets == "all" else options.targets.split(","),
        precisions=options.precisions.split(","),
        checking=_checking(options),
        output=options.output,
        weights=weights,
        calibration=options.calibration,
        preprocess=options.preprocess,
        seed=options.seed,
    )
    cells = [asdict(cell) for cell in run(matrix, Stopwatch())]
    shown = [{key: _shown(value) for key, value in cell.items()} for cell in cells]
    figures = ("size_mb", "top1", "fp32_top1", "agreement", "median_ms", "images_per_s")
    failed = any(cell["status"] != "ok" for cell in cells)
    return max(_listed(cells, shown, options, right=figures), int(failed))


def inspect(options: argparse.Namespace) -> int:
    """``edgecnn inspect``: a model's graph, a ``.edgecnn`` file, or an artifact."""
    from dataclasses import asdict

    found = _layers(options)
    if options.json:
        _print_json([asdict(layer) for layer in found])
        return 0
    rows = [
        {
            "op": layer.op,
            "output": "x".join(map(str, layer.output)),
            "type": layer.dtype,
            "scale": "" if layer.scale is None else f"{layer.scale:.4g}",
            "zero": "" if layer.zero_point is None else str(layer.zero_point),
            "weights": layer.weight,
            "weight scales": _span(layer.weight_scales),
            "bytes": f"{layer.weight_bytes:,}" if layer.weight_bytes else "",
            "MACs": f"{layer.macs:,}" if layer.macs else "",
            "name": layer.name,
            "details": layer.details,
        }
        for layer in found
    ]
    _table(rows, right=("scale", "zero", "bytes", "MACs"), to=sys.stdout)
    total, size = sum(layer.macs for layer in found), sum(layer.weight_bytes for layer in found)
    sys.stdout.write(f"{len(found)} ops, {total:,} MACs, {size:,} bytes of weights\n")
    return 0


def _span(scales: tuple[float, float, int] | None) -> str:
    return "" if scales is None else f"{scales[0]:.2g}..{scales[1]:.2g} ({scales[2]})"


def _layers(options: argparse.Namespace) -> list[Any]:
    path = Path(options.model)
    from edgecnn_converters.registry import converter
    from edgecnn_targets.registry import RUNTIMES

    target = next((row.target for row in RUNTIMES.values() if row.suffix == path.suffix), None)
    if target is not None:
        reader = converter(target)
        files = (path, path.with_suffix(".bin"))[: reader.files]
        try:
            return reader.layers(*(file.read_bytes() for file in files))
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None
    from edgecnn.graph.summary import layers
    from edgecnn.source import load_graph

    source = Source(model=options.model, weights=options.weights, preprocess=options.preprocess)
    if source.weights is None and not source.is_file and not source.is_factory:
        source = replace(source, weights="random")
    return layers(load_graph(source))


def train(options: argparse.Namespace) -> int:
    """``edgecnn train``."""
    from dataclasses import fields

    from edgecnn.train import TrainConfig
    from edgecnn.train import train as run

    given = {
        f.name: getattr(options, f.name) for f in fields(TrainConfig) if getattr(options, f.name, None) is not None
    }
    result = run(TrainConfig(**given))
    if options.json:
        _print_json({"weights": str(result.weights), "val_top1": result.val_top1, "seconds": round(result.seconds, 1)})
    else:
        sys.stderr.write(f"{result.weights}: {result.val_top1:.2f} % on held-out images, {result.seconds:.0f} s\n")
        sys.stderr.write(f"next: edgecnn export {options.model} --target tflite --weights {result.weights} ")
        sys.stderr.write(f"--calibration {options.data} --data {options.data}\n")
    return 0


def models(options: argparse.Namespace) -> int:
    """``edgecnn models``."""
    from edgecnn.models import FAMILIES, resolve
    from edgecnn.models.checkpoint import demo_names
    from edgecnn.models.count import size_of

    shipped = demo_names()
    names = dict.fromkeys(name for family in FAMILIES.values() for name in (family.name, *family.listed))
    rows: list[dict[str, Any]] = []
    for name in names:
        spec = resolve(name)
        size = size_of(spec)
        rows.append(
            {
                "name": name,
                "parameters": size.parameters,
                "macs": size.macs,
                "resolution": spec.resolution,
                "demo_weights": spec.name in shipped,
            }
        )
    shown = [
        {
            **row,
            "parameters": f"{row['parameters'] / 1e6:.2f} M",
            "macs": f"{row['macs'] / 1e6:.1f} M",
            "resolution": str(row["resolution"]),
            "demo_weights": "yes" if row["demo_weights"] else "",
        }
        for row in rows
    ]
    return _listed(rows, shown, options, right=("parameters", "macs", "resolution"))


def targets(options: argparse.Namespace) -> int:
    """``edgecnn targets``."""
    from edgecnn_converters.registry import CONVERTERS
    from edgecnn_targets.registry import runtime

    rows: list[dict[str, Any]] = []
    for name, row in CONVERTERS.items():
        runs = runtime(name)
        rows.append(
            {
                "name": name,
                "description": runs.description,
                "precisions": list(row.precisions),
                "missing": runs.missing(),
            }
        )
    shown = [{**row, "precisions": ", ".join(row["precisions"]), "missing": row["missing"] or "-"} for row in rows]
    return _listed(rows, shown, options)


def devices(options: argparse.Namespace) -> int:
    """``edgecnn devices``."""
    from edgecnn_targets.devices import devices as known
    from edgecnn_targets.registry import missing

    rows = []
    for device in known():
        ready = [t for t in device.targets if missing(device, t) is None]
        rows.append(
            {
                "name": device.name,
                "kind": device.kind,
                "description": device.description,
                "targets": list(device.targets),
                "ready": ready,
            }
        )
    shown = [{**row, "targets": ", ".join(row["targets"]), "ready": ", ".join(row["ready"]) or "no"} for row in rows]
    return _listed(rows, shown, options)


def recipes(options: argparse.Namespace) -> int:
    """``edgecnn recipes``."""
    from edgecnn.recipe import RECIPES

    rows = [r.to_json() for r in RECIPES.values()]
    return _listed(rows, [{k: str(v) for k, v in row.items()} for row in rows], options)


def doctor(options: argparse.Namespace) -> int:
    """``edgecnn doctor``: what is installed and what is missing; status 3 when no target can be exported."""
    import os
    import platform
    from importlib import metadata

    from edgecnn.pipeline import LIBRARIES
    from edgecnn_targets.registry import RUNTIMES

    rows: list[Row] = [
        {"what": "python", "found": platform.python_version(), "missing": ""},
        {"what": "machine", "found": f"{platform.machine()}, {os.cpu_count()} cores", "missing": ""},
    ]
    for library in LIBRARIES:
        try:
            rows.append({"what": library, "found": metadata.version(library), "missing": ""})
        except metadata.PackageNotFoundError:
            rows.append({"what": library, "found": "", "missing": "not installed"})
    for row in RUNTIMES.values():
        command = row.missing()
        rows.append({"what": f"target {row.target}", "found": "" if command else "ready", "missing": command or ""})
    _listed(rows, rows, options)
    return 0 if any(row.missing() is None for row in RUNTIMES.values()) else 3


def _listed(rows: Sequence[Row], shown: Sequence[Row], options: argparse.Namespace, right: Sequence[str] = ()) -> int:
    if options.json:
        _print_json(rows)
    else:
        _table(shown, right=right, to=sys.stdout)
    return 0


def _table(rows: Sequence[Row], *, right: Sequence[str] = (), to: Any = None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in rows[0] if rows else ():
        table.add_column(heading.replace("_", " "), justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console(file=to, width=None if to.isatty() else 240, highlight=False).print(table)


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
