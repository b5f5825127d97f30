"""``edgecnn validate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli.dry_run import add_dry_run, planned
from edgecnn.cli.options import add_checking, checking, reported, taken
from edgecnn.progress import Terminal

if TYPE_CHECKING:
    from edgecnn.report.record import Report

HELP = "run an artifact over labelled images and check it against limits"
EXAMPLES = (
    "edgecnn validate out/mobilenet_v2.tflite --data DIR --max-drop 1",
    "edgecnn validate out/mobilenet_v2.tflite --data DIR --device cortex-a72,cortex-a76",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("artifact", type=Path, metavar="ARTIFACT", help="its main file, as export wrote it")
    parser.add_argument(
        "--reference", metavar="ARTIFACT|none", help="fp32 reference; default: NAME.edgecnn beside the artifact"
    )
    add_checking(parser)
    add_dry_run(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn validate``."""
    if options.dry_run:
        from edgecnn.planning import plan_validation

        return planned([plan_validation(options.artifact, **given(options))], options)
    report = validated(options, options.artifact)
    return reported(report, options)


def validated(options: argparse.Namespace, artifact: Path) -> Report:
    """Validate an artifact as the options say."""
    from edgecnn.evaluation.validate import validate

    return validate(artifact, progress=Terminal(), **given(options))


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options as arguments of ``edgecnn.validate``."""
    return taken(options, "reference preprocess label_offset class_names") | checking(options)
