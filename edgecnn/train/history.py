"""Record what a run measures: one JSON line per epoch, and the curves as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgecnn.files import write_atomic
from edgecnn.reading import reading
from edgecnn.report.plot import Panel, Series, line_chart

Row = dict[str, Any]


def log(path: Path, row: Row) -> None:
    """Add an epoch's figures; those of a run that went further before it was stopped are replaced. Atomic."""
    kept = [old for old in read(path) if old["epoch"] < row["epoch"]]
    write_atomic(path, "".join(json.dumps(r) + "\n" for r in [*kept, row]).encode())


def read(path: Path) -> list[Row]:
    """Return the rows of a metrics file; none where there is no file."""
    with reading(path, remedy="delete it"):
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def draw(path: Path, title: str, rows: list[Row]) -> None:
    """Draw loss, and accuracy on training and held-out images, over the epochs, as SVG. Atomic."""

    def series(key: str, name: str) -> Series:
        return Series(name=name, points=tuple((float(r["epoch"]), float(r[key])) for r in rows))

    loss = Panel(title=f"{title}: loss", x="epoch", y="loss", series=(series("loss", "training"),))
    both = (series("train_top1", "training (augmented)"), series("val_top1", "held out"))
    top1 = Panel(title="top-1", x="epoch", y="percent", series=both)
    write_atomic(path, line_chart(loss, top1).encode())
