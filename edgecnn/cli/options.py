"""Options that several commands take, and what becomes of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.budget import parsed
from edgecnn.cli.printing import print_document
from edgecnn.cli.streams import until_closed
from edgecnn.errors import InputError
from edgecnn.evaluation.limits import ROWS, Limits

if TYPE_CHECKING:
    from edgecnn.report.record import Report


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json`` and ``--wide``."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_wide(parser)


def add_wide(parser: argparse.ArgumentParser) -> None:
    """``--wide``."""
    parser.add_argument("--wide", action="store_true", help="all columns of a table, however wide")


def add_report(parser: argparse.ArgumentParser) -> None:
    """``--report``."""
    parser.add_argument(
        "--report", action="append", default=[], type=report_file, metavar="FILE",
        help="also write a report: .html a page, .md for a comment, .xml JUnit, .csv, .json; may be repeated",
    )  # fmt: skip


def shows_evidence(options: argparse.Namespace) -> bool:
    """Return whether a report has room for images and layers."""
    return any(path.suffix in (".html", ".md") for path in options.report)


def report_file(text: str) -> Path:
    """The place of a report; a type for ``add_argument``."""
    from edgecnn.report.forms import require_places

    try:
        require_places([Path(text)])
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def add_memory(parser: argparse.ArgumentParser) -> None:
    """``--max-memory``."""
    parser.add_argument(
        "--max-memory", type=parsed, metavar="SIZE",
        help="what one file may take once it is unpacked (default 512MiB, or as much as the file has)",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number above 0; a type for ``add_argument``."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def add_numbers(parser: argparse._ActionsContainer, *rows: tuple[str, Callable[[str], float], str]) -> None:
    """Add an option for each row of name, type and help."""
    for name, kind, text in rows:
        parser.add_argument(f"--{name}", type=kind, metavar="X" if kind is float else "N", help=text)


def add_convention(parser: argparse._ActionsContainer) -> None:
    """``--convention``."""
    parser.add_argument(
        "--convention", metavar="NAME",
        help="where the weights' names come from, when they fit several: torchvision, timm, timm-tf, keras, …",
    )  # fmt: skip


def add_input_shape(parser: argparse._ActionsContainer) -> None:
    """``--input-shape``."""
    parser.add_argument(
        "--input-shape", action="append", type=_named_shape, metavar="[NAME=]CxHxW",
        help="of a file whose input has dynamic dimensions, without the batch, in the file's order; may be repeated",
    )  # fmt: skip


def _named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; give 3x640x640, or images=3x640x640")
    return name, shape


def input_shapes(options: argparse.Namespace) -> dict[str, Any]:
    """Return the shapes of ``--input-shape`` as the argument ``input_shape`` of ``edgecnn.load``."""
    given: list[tuple[str, tuple[int, ...]]] | None = options.input_shape
    if given is None:
        return {"input_shape": None}
    return {"input_shape": given[0][1] if len(given) == 1 and not given[0][0] else dict(given)}


def add_exact_kernels(parser: argparse._ActionsContainer) -> None:
    """``--exact-kernels``."""
    parser.add_argument(
        "--exact-kernels", action="store_true",
        help="run kernels whose sums cannot saturate: on x86 without VNNI, slower ones than an application gets",
    )  # fmt: skip


def add_checking(parser: argparse.ArgumentParser, *, data_required: bool = False) -> None:
    """On what, where and against which limits artifacts are checked."""
    data = parser.add_argument_group("checking")
    add = data.add_argument
    add(
        "--data",
        required=data_required,
        metavar="DIR|FILE.npz:SPLIT|demo",
        help="labelled images to check on",
    )
    add("--limit", type=positive, metavar="N", help="at most N images of --data, of every class its share")
    add("--label-offset", type=int, metavar="K", help="class k is logit k + K (1: background class in front)")
    add(
        "--preprocess",
        metavar="KEY=VALUE,…",
        help="override: resize=HxW,crop=HxW|none,interpolation=…,mean=…|imagenet,std=…; torchvision, timm or keras: "
        "that library's evaluation; of several images NAME:KEY=VALUE,…;NAME:…",
    )
    add("--labels", dest="class_names", metavar="FILE", help="the network's class names: one per line, or JSON")
    add(
        "--class-map",
        metavar="FILE",
        help="class of --data to class of the network: JSON object, or CSV of two columns",
    )
    add("--skip-bad-images", action="store_true", help="leave unreadable images out, and count them")
    add(
        "--device",
        default="host",
        metavar="NAME[,NAME]",
        help="names from `edgecnn devices`, or FILE.toml (default host)",
    )
    add_exact_kernels(data)
    add(
        "--metric", action="append", metavar="MODULE:FUNCTION",
        help="figures of your own: a function of all outputs and fp32's that returns names to numbers",
    )  # fmt: skip
    add("--threads", type=positive, default=1, metavar="N", help="runtime threads (default 1)")
    limits = parser.add_argument_group(
        "limits (exit status 1 when one is missed, or an integer artifact is far from fp32)"
    )
    for row in ROWS:
        limits.add_argument(row.option, type=float, metavar=row.unit.upper(), help=row.help)
    limits.add_argument(
        "--require", action="append", default=[], metavar="NAME>=VALUE", help="of any figure of accuracy, or a metric"
    )
    limits.add_argument(
        "--allow-float", action="store_true", help="accept ops in an int8 artifact that the runtime computes in float"
    )
    limits.add_argument(
        "--allow-loss", action="store_true",
        help="accept an integer artifact that is far from fp32, and --max-drop beside an fp32 at chance",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random choice (default 0)")
    add_report(parser)
    parser.add_argument("--json", action="store_true", help="the report as one JSON document on stdout")
    add_wide(parser)


def taken(options: argparse.Namespace, names: str) -> dict[str, Any]:
    """The options of these names, as arguments of the same names."""
    return {name: getattr(options, name) for name in names.split()}


def checking(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``add_checking`` as arguments of ``edgecnn.validate``."""
    return {
        "evidence": shows_evidence(options),
        "devices": tuple(filter(None, options.device.split(","))),
        "limits": Limits(require=options.require, **taken(options, " ".join(row.field for row in ROWS))),
        **taken(
            options, "data limit class_map skip_bad_images seed threads allow_float allow_loss exact_kernels metric"
        ),
    }


def save(report: Report, options: argparse.Namespace) -> Report:
    """Write the report wherever ``--report`` says; return it with the command line that made it."""
    made = replace(report, invocation=options.invocation)
    for path in options.report:
        made.save(path)
    return made


def reported(report: Report, options: argparse.Namespace) -> int:
    """Print the report; return the exit status it means."""
    from edgecnn.report.table import render

    report = save(report, options)
    with until_closed(sys.stdout):
        if options.json:
            print_document(report.to_dict())
        else:
            render(report, wide=options.wide and not options.verbose, verbose=options.verbose)
    return int(not report.passed)
