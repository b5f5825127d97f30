"""A comparison of two artifacts in every form that it can be written in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgecnn.evaluation.compare import Comparison
from edgecnn.report.blocks import (
    Block,
    Cell,
    Code,
    Document,
    Facts,
    Fold,
    Gallery,
    Notes,
    Picture,
    Prose,
    Section,
    Table,
)
from edgecnn.report.document import document, made_again, now, readable, this_machine
from edgecnn.report.forms import Case, Forms, Suite
from edgecnn.report.record import SQNR_CEILING_DB
from edgecnn.sbom import library_versions

SHOWN = 12  # rows of a table; the others are shown on request


def forms(found: Comparison, invocation: str | None = None) -> Forms:
    """Return a comparison in every form.

    Args:
        found: what ``edgecnn.compare`` returns.
        invocation: the command line that makes it again, where there was one.
    """
    record = found.to_json()
    said = verdict(found)
    case = Case(
        name="same_integers", said=said, failed=found.same_integers is False, skipped=found.same_integers is None
    )
    several = ("differing", "outputs", "layers", "findings", "evidence")
    row = {key: value for key, value in record.items() if key not in several}
    return Forms(
        document=_document(found, said, invocation),
        suites=(Suite(name=f"{found.a} and {found.b}", cases=(case,)),),
        rows=[row],
        record=document("compare", record),
    )


def verdict(found: Comparison) -> str:
    """Return the result in a sentence."""
    if found.same_integers is None:
        return "not compared by integers: one of them has none"
    if found.same_integers:
        return "the same integers"
    return f"not the same integers: {len(found.differing)} tensors differ"


def _document(found: Comparison, said: str, invocation: str | None) -> Document:
    host, versions = this_machine(), library_versions()
    state = {True: "passed", False: "failed", None: ""}[found.same_integers]
    notes = tuple(("info", finding) for finding in found.findings)
    sections = (
        Section(title="Figures", blocks=(Facts(rows=tuple(_facts(found))), *_outputs(found))),
        Section(title="Findings", blocks=(Notes(rows=notes),) if notes else ()),
        Section(title="Tensors that differ", blocks=tuple(_differing(found))),
        Section(title="Where the layers part", blocks=tuple(_layers(found))),
        Section(title="Images on which they part", blocks=tuple(_images(found))),
        Section(title="Make it again", blocks=(Code(text=made_again(versions, invocation)),)),
    )
    facts = (readable(now()), f"edgecnn {versions['edgecnn']} on {host['cpu']}")
    title = f"{found.a} beside {found.b}"
    return Document(title=title, kicker="edgecnn compare", state=state, verdict=said, facts=facts, sections=sections)


def lines(found: Comparison) -> Iterator[tuple[str, str]]:
    """Yield label and text of what a person reads on a terminal."""
    yield "A", found.a
    yield "B", found.b
    yield from _facts(found)
    if found.differing:
        yield "differing", _names(found.differing)
    if found.layers:
        yield "parts at", _first(found)
    yield from (("info", finding) for finding in found.findings)


def _facts(found: Comparison) -> Iterator[tuple[str, str]]:
    yield "images", f"{found.n:,}"
    if found.agreement is not None:
        yield "agreement", f"{found.agreement:.2f} % of the images get the same class"
    yield "outputs", "equal" if found.sqnr_db >= SQNR_CEILING_DB else f"SQNR {found.sqnr_db:.1f} dB, B's beside A's"
    if found.max_lsb is not None:
        yield "distance", f"{found.max_lsb} LSB at most, {found.mean_lsb:.3g} in the mean"


def _outputs(found: Comparison) -> Iterator[Block]:
    if len(found.outputs) > 1:
        rows = tuple((o.name, f"{o.sqnr_db:.1f}", "-" if o.max_lsb is None else str(o.max_lsb)) for o in found.outputs)
        yield Table(headings=("output", "SQNR, dB", "LSB"), rows=rows, right=("SQNR, dB", "LSB"))


def _differing(found: Comparison) -> Iterator[Block]:
    if found.differing:
        yield Prose(text=_names(found.differing))


def _names(of: Sequence[str]) -> str:
    names = ", ".join(of[:SHOWN])
    return names if len(of) <= SHOWN else f"{names} and {len(of) - SHOWN} more"


def _first(found: Comparison) -> str:
    """Return the first layer that differs, or ``none``."""
    return next((layer.name for layer in found.layers if layer.max_lsb), "none")


def _layers(found: Comparison) -> Iterator[Block]:
    if not found.layers:
        return
    yield Prose(text=f"The first layer that differs, on one image: {_first(found)}.")
    most = max(layer.max_lsb for layer in found.layers) or 1
    rows = tuple(
        (layer.name, Cell(text=str(layer.max_lsb), share=layer.max_lsb / most), f"{layer.mean_lsb:.4f}")
        for layer in found.layers
    )
    figures = ("most, LSB", "mean, LSB")
    table = Table(headings=("tensor", *figures), rows=rows, right=figures)
    yield Fold(title=f"All {len(rows)} layers", blocks=(table,))


def _images(found: Comparison) -> Iterator[Block]:
    if found.evidence is not None and found.evidence.disagreements:
        yield Gallery(
            pictures=tuple(
                Picture(data=one.thumbnail, name=one.image, rows=(("A", one.fp32), ("B", one.artifact)))
                for one in found.evidence.disagreements
            )
        )
