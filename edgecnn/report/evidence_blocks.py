"""What was collected about artifacts, as blocks: layers, classes that changed, images, recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from edgecnn.report.blocks import Block, Cell, Code, Fold, Gallery, Picture, Prose, Table
from edgecnn.report.charts import layer_errors
from edgecnn.report.evidence import Disagreement, Evidence, LayerCost, LayerError, unit_of
from edgecnn.report.record import ReportEntry

WORST = 10  # layers in a table; the others are shown on request
PAIRS = 12  # of classes
PICTURES = 24  # images of one network
Entries = Sequence[ReportEntry]
T = TypeVar("T")


def layers(entries: Entries) -> Iterator[Block]:
    """Yield the error of each layer of each network, and what each op costs on each device."""
    for names, errors in _distinct(entries, lambda evidence: evidence.errors, lambda e: f"{e.model} {e.precision}"):
        about = f"Error of each layer of {names[0]}, integer oracle beside fp32"
        if chart := layer_errors(errors, f"{names[0]}: error by layer"):
            yield chart
        worst = sorted((e for e in errors if e.sqnr_db is not None), key=lambda e: e.sqnr_db or 0.0)[:WORST]
        yield _errors(worst, errors, f"{about}: the {len(worst)} worst")
        if len(errors) > len(worst):
            yield Fold(title=f"All {len(errors)} layers", blocks=(_errors(errors, errors, about),), printed=False)
    for names, costs in _distinct(entries, lambda evidence: evidence.costs, lambda e: e.place):
        unit = unit_of(costs)
        most = sorted(costs, key=lambda c: -(getattr(c, unit) or 0))[:WORST]
        yield _costs(most, costs, unit, f"{names[0]}: the {len(most)} ops that cost most, in {unit}")
        if len(costs) > len(most):
            whole = _costs(costs, costs, unit, f"Ops of {names[0]}")
            yield Fold(title=f"All {len(costs)} ops", blocks=(whole,), printed=False)


def classes(entries: Entries) -> Iterator[Block]:
    """Yield which class fp32 picks, which the artifact picks instead, and how often."""
    for names, changes in _distinct(entries, lambda evidence: evidence.changes, _title):
        labelled = any(change.won is not None for change in changes)
        more = ("only fp32 right", "only the artifact right") if labelled else ()
        rows = [
            (c.fp32, c.artifact, Cell(text=f"{c.images:,}", share=c.images / changes[0].images))
            + ((str(c.lost), str(c.won)) if labelled else ())
            for c in changes
        ]
        headings = ("fp32 says", "the artifact says", "images", *more)
        table = Table(headings=headings, rows=tuple(rows[:PAIRS]), right=headings[2:], caption=", ".join(names))
        yield table
        if len(rows) > PAIRS:
            whole = Table(headings=headings, rows=tuple(rows), right=headings[2:], caption=", ".join(names))
            yield Fold(title=f"All {len(rows)} pairs of classes", blocks=(whole,), printed=False)


def images(entries: Entries) -> Iterator[Block]:
    """Yield the images on which an artifact and fp32 part, each once, with what every artifact says of it."""
    found: dict[tuple[str, str], dict[str, Disagreement]] = {}
    for entry in entries:
        for one in entry.evidence.disagreements if entry.evidence is not None else ():
            found.setdefault((entry.model, one.image), {})[_title(entry)] = one
    if not found:
        return
    for model in dict.fromkeys(model for model, _ in found):
        own = [rows for (name, _), rows in found.items() if name == model]
        ordered = sorted(own, key=lambda rows: (-len(rows), -max(one.margin for one in rows.values())))
        most = max(e.evidence.differing for e in entries if e.model == model and e.evidence is not None)
        shown = ordered[:PICTURES]
        counted = f"{most:,} image{'s' if most != 1 else ''}"
        yield Prose(
            text=f"{model}: they part on {counted}; {len(shown)} are shown, those that fp32 was most sure of first."
        )
        yield Gallery(pictures=tuple(map(_picture, shown)))


def recipes(entries: Entries) -> Iterator[Block]:
    """Yield each recipe once, as a file."""
    for names, recipe in _distinct(entries, lambda evidence: evidence.recipe, lambda e: f"{e.model} {e.precision}"):
        yield Fold(title=f"Recipe of {', '.join(names)}", blocks=(Code(text=recipe),))


def _distinct(
    entries: Entries, of: Callable[[Evidence], T], name: Callable[[ReportEntry], str]
) -> Iterator[tuple[list[str], T]]:
    """Yield each thing that is not empty once, with the names of the entries that have it."""
    found: list[tuple[list[str], T]] = []
    for entry in entries:
        thing = of(entry.evidence) if entry.evidence is not None else None
        if not thing:
            continue
        names = next((names for names, other in found if other == thing), None)
        if names is None:
            found.append(([name(entry)], thing))
        elif name(entry) not in names:
            names.append(name(entry))
    yield from found


def _title(entry: ReportEntry) -> str:
    return f"{entry.target} {entry.precision}" + (f" on {entry.device}" if entry.device else "")


def _picture(rows: dict[str, Disagreement]) -> Picture:
    """Return one image with the answers of fp32 and of every artifact; equal answers of several are one line."""
    first = next(iter(rows.values()))
    said: dict[str, list[str]] = {}
    for name, one in rows.items():
        said.setdefault(one.artifact, []).append(name)
    lines = [("label", first.label)] if first.label is not None else []
    lines.append(("fp32", first.fp32))
    if len(said) == 1:
        lines.append((next(iter(rows)).split()[1], first.artifact))
    else:
        lines += [(", ".join(names), answer) for answer, names in said.items()]
    return Picture(data=first.thumbnail, name=first.image, rows=tuple(lines))


def _errors(shown: Sequence[LayerError], errors: Sequence[LayerError], caption: str) -> Table:
    """Return a table whose bars show noise: the longer, the worse."""
    known = [e.sqnr_db for e in errors if e.sqnr_db is not None and e.op != "input"] or [0.0]
    low, high = min(known), max(known)
    numbers = {e.name: k for k, e in enumerate(errors)}  # inputs come first
    rows = tuple(
        (
            str(numbers[e.name]),
            e.name,
            e.op,
            "exact"
            if e.sqnr_db is None
            else Cell(text=f"{e.sqnr_db:.1f}", share=(high - e.sqnr_db) / (high - low) if high > low else None),
        )
        for e in shown
    )
    return Table(headings=("#", "tensor", "op", "SQNR, dB"), rows=rows, right=("#", "SQNR, dB"), caption=caption)


def _costs(shown: Sequence[LayerCost], costs: Sequence[LayerCost], unit: str, caption: str) -> Table:
    total = sum(getattr(c, unit) or 0 for c in costs) or 1
    most = max(getattr(c, unit) or 0 for c in costs) or 1
    rows = []
    for cost in shown:
        value = getattr(cost, unit)
        said = "-" if value is None else f"{value:.4f}" if unit == "ms" else f"{value:,}"
        figure = Cell(text=said, share=(value or 0) / most)
        rows.append((cost.name, cost.op, cost.place or "-", figure, f"{100 * (value or 0) / total:.1f}"))
    headings = ("tensor", "op", "place", unit, "% of all")
    return Table(headings=headings, rows=tuple(rows), right=(unit, "% of all"), caption=caption)
