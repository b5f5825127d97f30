"""``edgecnn study``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgecnn.cli.options import add_json, add_numbers, positive
from edgecnn.cli.printing import command, listed, print_document, table
from edgecnn.cli.streams import write_result

HELP = "see what makes the networks work: each idea measured"
EXAMPLES = (
    "edgecnn study blocks",
    "edgecnn study residual --depths 20,56",
    "edgecnn study blocks --channels 32 --side 14 --device cortex-m4",
    "edgecnn study residual --data images -o residual",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the studies."""
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    said = "standard, depthwise separable, bottleneck and inverted residual at equal input and output"
    blocks = studies.add_parser("blocks", help=said, description=said)
    blocks.add_argument("--channels", type=positive, default=64, metavar="N", help="of input and output (default 64)")
    blocks.add_argument("--side", type=positive, default=28, metavar="PIXELS", help="of the map (default 28)")
    blocks.add_argument("--kernel", type=positive, default=3, metavar="K", help="of the convolutions (default 3)")
    blocks.add_argument("--expand", type=positive, default=6, metavar="T", help="of the inverted residual (default 6)")
    blocks.add_argument("--device", metavar="NAME", help="count the instructions of each block's int8 form there")
    add_json(blocks)
    said = "plain and residual networks of growing depth: errors and gradients; and how hard the identity is to learn"
    residual = studies.add_parser("residual", help=said, description=said)
    residual.add_argument(
        "--data", metavar="DIR|FILE.npz|demo", help="images to learn from, as of `train` (default demo)"
    )
    residual.add_argument("--full", action="store_true", help="the paper's width, and many more steps")
    residual.add_argument("--depths", type=_depths, metavar="N,N,…", help="layers (default 20,32,44,56)")
    add_numbers(
        residual,
        ("width", float, "of the channels 16, 32, 64 (default 0.5)"),
        ("resolution", positive, "of the images, in pixels (default 32)"),
        ("steps", positive, "of each training, rounded to whole epochs"),
        ("batch", positive, "images per step"),
        ("images", positive, "training images of the demo data"),
        ("val-images", positive, "held-out images of the demo data"),
        ("lr", float, "peak learning rate"),
        ("seed", int, "of every random choice (default 0)"),
        ("workers", positive, "trainings at once (default: one a core)"),
    )
    residual.add_argument(
        "-o", "--output", type=Path, default=Path("study-residual"), metavar="DIR",
        help="residual.json, the plot, and each training's result: the same command goes on from them "
        "(default study-residual)",
    )  # fmt: skip
    add_json(residual)


def _depths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 20,56") from None


def run(options: argparse.Namespace) -> int:
    """Run one study."""
    return {"blocks": _blocks, "residual": _residual}[options.study](options)


def _blocks(options: argparse.Namespace) -> int:
    from edgecnn.lab.building_blocks import Setting, costs

    setting = Setting(channels=options.channels, side=options.side, kernel=options.kernel, expand=options.expand)
    made = [asdict(cost) for cost in costs(setting, options.device)]
    rows = [{k: v for k, v in row.items() if options.device or not k.startswith("instruction")} for row in made]
    shown = [{k: _figure(v) for k, v in row.items()} for row in rows]
    right = ("parameters", "macs", "ratio", "theory", "instructions", "instruction_ratio")
    return listed(rows, shown, options, right=right)


def _residual(options: argparse.Namespace) -> int:
    from dataclasses import fields, replace

    from edgecnn.files import write_atomic, write_json
    from edgecnn.lab.claims import chart
    from edgecnn.lab.residual import FULL, Setup, study
    from edgecnn.progress import Terminal
    from edgecnn.report.document import document

    given = {f.name: v for f in fields(Setup) if (v := getattr(options, f.name, None)) is not None}
    setup = replace(FULL if options.full else Setup(), **given)
    found = study(setup, folder=options.output, workers=options.workers, progress=Terminal().say)
    write_atomic(options.output / "residual.svg", chart(found.networks, found.deepened).encode())
    made = document(command(options), {"setup": asdict(setup), **asdict(found)})
    write_json(options.output / "residual.json", made)
    if options.json:
        print_document(made)
        return 0
    stages = ("stem", "1", "2", "3")
    rows = [
        {
            "network": n.model,
            "training error %": f"{n.training_error:.1f}",
            "test error %": f"{n.test_error:.1f}",
            **{f"gradient {s}": f"{v:.2g}" for s, v in zip(stages, n.gradients[0].norms, strict=True)},
            **{f"in training {s}": f"{v:.2g}" for s, v in zip(stages, n.later(), strict=False)},
        }
        for n in found.networks
    ]
    table(rows, right=list(rows[0])[1:])
    first, on = found.deepened_epochs
    more = [
        {
            "added to the shallow one": row.added,
            "layers": row.layers,
            "epochs": first if row is found.deepened[0] else f"{first} + {on}",
            "training error %": f"{row.training_error:.1f}",
            "test error %": f"{row.test_error:.1f}",
        }
        for row in found.deepened
    ]
    table(more, right=list(more[0])[1:])
    for claim in found.claims:
        write_result(f"{'shown' if claim.shown else 'NOT shown'}: {claim.says}: {claim.figures}")
    return 0


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
