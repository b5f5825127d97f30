"""``edgecnn inspect``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgecnn.cli.options import add_convention, add_input_shape, add_json, input_shapes, positive, taken
from edgecnn.cli.printing import listed, print_json, table
from edgecnn.errors import InputError

HELP = "print a graph or an artifact, layer by layer"
EXAMPLES = (
    "edgecnn inspect out/net.tflite",
    "edgecnn inspect out/net.edgecnn --sensitivity --data DIR",
    "edgecnn inspect out/net.tflite --html net.html --data DIR",
)


def page_file(text: str) -> Path:
    """Return the place of a page; a type for ``add_argument``."""
    if not text.endswith(".html"):
        raise argparse.ArgumentTypeError(f"{text!r} is no page; give a file that ends in .html")
    return Path(text)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("model", metavar="MODEL|ARTIFACT", help="a model name, package.module:factory, .edgecnn or .tflite")
    add("--weights", metavar="FILE|demo|random", help="default random: shapes only")
    add_convention(parser)
    add_input_shape(parser)
    add("--preprocess", metavar="KEY=VALUE,…", help="for package.module:factory: gives the input size")
    add("--device", metavar="NAME", help="what each op of an artifact costs there")
    add("--sensitivity", action="store_true", help="of an int8 .edgecnn: what each layer costs in accuracy, and why")
    add("--data", metavar="DIR|demo", help="images for --sensitivity; no labels needed")
    add("--limit", type=positive, default=16, metavar="N", help="at most N images (default 16)")
    add(
        "--html", type=page_file, metavar="FILE.html", help="draw the network; --data and --device add errors and costs"
    )
    add("--model-explorer", type=Path, metavar="FILE.json", help="write node data for Google's Model Explorer")
    add("--colour", choices=["bits", "error", "time"], help="by what ops are coloured (default: the last one known)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn inspect``: a model's graph, a ``.edgecnn`` file, or an artifact."""
    from dataclasses import asdict

    if options.html is not None or options.model_explorer is not None:
        return _drawn(options)
    if options.colour is not None:
        raise InputError("--colour is of --html and --model-explorer")
    if options.device is not None:
        return _costs(options)
    if options.sensitivity:
        return _sensitivity(options)
    if options.data is not None:
        raise InputError("--data is for --sensitivity and --html; without them, inspect runs nothing")
    from edgecnn.inspecting import inspect

    found: Any = inspect(options.model, **input_shapes(options), **taken(options, "weights convention preprocess"))
    if options.json:
        print_json(options, {"entries": [asdict(layer) for layer in found]})
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
    table(rows, right=("scale", "zero", "bytes", "MACs"))
    total, size = sum(layer.macs for layer in found), sum(layer.weight_bytes for layer in found)
    sys.stdout.write(f"{len(found)} ops, {total:,} MACs, {size:,} bytes of weights\n")
    return 0


def _drawn(options: argparse.Namespace) -> int:
    """Write the network as a page, as node data for Model Explorer, or as both."""
    from edgecnn.viewing import save_node_data, save_page, view

    own = taken(options, "data limit device weights convention preprocess") | input_shapes(options)
    shown = view(options.model, **own)
    colour = options.colour or shown.colours[-1]
    if colour not in shown.colours:
        needs = {"error": "--data DIR", "time": "--device NAME"}[colour]
        raise InputError(f"--colour {colour} needs {needs}; known: {', '.join(shown.colours)}")
    for path, save in ((options.html, save_page), (options.model_explorer, save_node_data)):
        if path is not None:
            save(shown, path, colour)
            sys.stdout.write(f"{path}: {len(shown.layers)} ops, coloured by {colour}\n")
    return 0


def _costs(options: argparse.Namespace) -> int:
    """Print what each op of an artifact costs on a device: the columns that the device has figures for."""
    from dataclasses import asdict

    from edgecnn.inspecting import inspect

    rows = [asdict(layer) for layer in inspect(options.model, device=options.device)]
    if options.json:
        print_json(options, {"entries": rows})
        return 0
    counts = ("instructions", "cycles", "ms")
    known = [key for key in rows[0] if any(row[key] is not None for row in rows)]
    shown = [{key: _cost(row[key]) for key in known} for row in rows]
    table(shown, right=counts)
    sums = [f"{_cost(sum(row[key] or 0 for row in rows))} {key}" for key in counts if key in known]
    sys.stdout.write(f"{len(rows)} ops, {', '.join(sums)}\n")
    return 0


def _cost(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value


def _sensitivity(options: argparse.Namespace) -> int:
    """Print what quantizing each layer costs, the worst first."""
    from edgecnn.data import open_images
    from edgecnn.data.feed import Feed
    from edgecnn.graph.batch import Batch
    from edgecnn.graph.serialize import load
    from edgecnn.image_inputs import overridden
    from edgecnn.quant.sensitivity import sensitivity

    path = Path(options.model)
    if path.suffix != ".edgecnn":
        raise InputError(f"--sensitivity is of NAME.edgecnn, as `edgecnn export --quantize int8` writes it; got {path}")
    if options.data is None:
        raise InputError("--sensitivity needs images to measure on: pass --data DIR (no labels needed) or demo")
    graph = load(path)
    feed = Feed.of(replace(graph, metadata=overridden(graph.metadata, options.preprocess)))
    images = open_images(options.data, demo_split="calibration", labelled=False, limit=options.limit)
    rows = sensitivity(graph, Batch.joined(feed.inputs(given) for given, _ in images.batches(feed, 4)))
    shown = [
        {
            "rank": rank,
            "layer": row.name,
            "op": row.op,
            "alone dB": _decibels(row.alone_db),
            "running dB": _decibels(row.running_db),
            "why": "; ".join(row.reasons),
        }
        for rank, row in enumerate(rows, start=1)
    ]
    return listed([vars(row) for row in rows], shown, options, right=("rank", "alone dB", "running dB"))


def _decibels(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f}"


def _span(scales: tuple[float, float, int] | None) -> str:
    return "" if scales is None else f"{scales[0]:.2g}..{scales[1]:.2g} ({scales[2]})"
