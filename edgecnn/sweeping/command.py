"""The command that reproduces a combination: ``edgecnn export`` with all that the sweep sets."""

from __future__ import annotations

import shlex
from pathlib import Path

from edgecnn.evaluation.limits import ROWS
from edgecnn.export_job import PRECISIONS
from edgecnn.files import sha256, write_atomic
from edgecnn.sweeping.plan import Row
from edgecnn.sweeping.spec import Sweep
from edgecnn.sweeping.stages import chain


def reproducing(row: Row, sweep: Sweep, folder: Path, number: int) -> str:
    """Return the command of a row; a recipe with other settings is written into ``FOLDER/recipes``."""
    stages = {stage.kind: stage.settings for stage in chain(row.stage)}
    captured, converted, validated = stages["capture"], stages["convert"], stages["validate"]
    names = {precision: name for name, precision in PRECISIONS.items()}
    words = ["edgecnn", "export", captured["model"], "--target", converted["target"]]
    words += [
        "--quantize",
        names[converted["precision"]],
        "--device",
        ",".join(filter(None, (*validated["devices"], validated["witness"]))),
    ]
    words += ["--seed", str(validated["seed"])]
    options = {
        "--weights": captured.get("weights"), "--preprocess": sweep.preprocess, "--label-offset": sweep.label_offset,
        "--io": converted.get("io"), "--data": validated["data"], "--limit": sweep.limit,
    }  # fmt: skip
    if "quantize" in stages:
        quantized = stages["quantize"]
        options |= {"--calibration": quantized["calibration"], "--calibration-images": quantized["calibration_images"]}
        options["--recipe"] = _recipe(row, quantized["recipe"], folder)
    for limit in ROWS:
        options[limit.option] = getattr(sweep.limits, limit.field)
    if sweep.threads != 1:
        options["--threads"] = sweep.threads
    words += [word for option, value in options.items() if value is not None for word in (option, str(value))]
    words += [word for text in sweep.limits.require for word in ("--require", text)]
    words += [f"--{name.replace('_', '-')}" for name in ("allow_float", "allow_loss") if getattr(sweep, name)]
    return shlex.join([*words, "-o", f"out-{number}"])


def _recipe(row: Row, text: str, folder: Path) -> str:
    """Return the recipe's name, or a file where an axis changes a setting of it."""
    name = str(row.point.get("recipe", "fast"))
    if not any("." in axis and value is not None for axis, value in row.point.items()):
        return name
    path = folder / "recipes" / f"{Path(name).stem}-{sha256(text.encode())[:8]}.toml"
    if not path.exists():
        write_atomic(path, text.encode())
    return str(path)
