"""A report as sections, test cases and rows: what each form of it is written from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgecnn.report import card
from edgecnn.report.blocks import Block, Card, Cell, Code, Document, Facts, Fold, Notes, Prose, Section, Table
from edgecnn.report.charts import trade_offs
from edgecnn.report.document import made_again, readable
from edgecnn.report.evidence_blocks import classes, images, layers, recipes
from edgecnn.report.forms import Case, Forms, Suite
from edgecnn.report.record import Finding, Report, ReportEntry
from edgecnn.report.table import COUNTS, FIGURES, HEADINGS, cells

MANY_CARDS = 6  # above, cards are shown on request: the table has their figures
SEVERITIES = ("error", "warning", "info")
NAMED = 12  # images at fault that a line names


def forms(report: Report) -> Forms:
    """Return the report in every form."""
    return Forms(
        document=document(report),
        suites=tuple(_suite(entry) for entry in report.entries),
        rows=[_row(entry) for entry in report.entries],
        record=report.to_dict(),
    )


def document(report: Report) -> Document:
    """Return what a page shows, in the order in which it is read."""
    entries, shared = report.entries, _shared(report.entries)
    sections = (
        Section(title="What failed", blocks=tuple(_failures(report))),
        Section(title="Results", blocks=tuple(_results(entries))),
        Section(title="Accuracy against cost", blocks=tuple(trade_offs(entries))),
        Section(title="Each result" if len(entries) > 1 else "Result", blocks=tuple(_cards(report, shared))),
        Section(title="Findings", blocks=tuple(notes(shared))),
        Section(title="Layers", blocks=tuple(layers(entries))),
        Section(title="Classes that changed", blocks=tuple(classes(entries))),
        Section(title="Images on which fp32 and the artifact part", blocks=tuple(images(entries))),
        Section(title="Recipe", blocks=tuple(recipes(entries))),
        Section(title="Make it again", blocks=tuple(_again(report))),
    )
    models = list(dict.fromkeys(entry.model for entry in entries))
    title = ", ".join(models) if 0 < len(models) <= 3 else f"{len(models)} networks"
    made = f"edgecnn {report.versions.get('edgecnn', '')} on {report.host.get('cpu') or report.host.get('machine')}"
    return Document(
        title=title,
        kicker=f"edgecnn {report.command}",
        state=state(report),
        verdict=verdict(report),
        facts=(readable(report.date), made),
        sections=sections,
    )


def state(report: Report) -> str:
    """Return ``passed``, ``failed``, or nothing where no limit was checked."""
    checked = any(entry.checks for entry in report.entries)
    return "failed" if not report.passed else "passed" if checked else ""


def verdict(report: Report) -> str:
    """Return the result in a sentence."""
    checks = [check for entry in report.entries for check in entry.checks]
    results = f"{len(report.entries)} result{'s' if len(report.entries) != 1 else ''}"
    if not report.passed:
        failed = sum(bool(entry.failures) for entry in report.entries)
        return f"failed: {failed} of {results}" if len(report.entries) > 1 else f"failed: {len(report.failures)} checks"
    if not checks:
        return f"not checked: {results}, no limit was given"
    return f"passed: {len(checks)} checks hold on {results}"


def notes(findings: tuple[Finding, ...]) -> Iterator[Block]:
    """Yield findings by severity, the worst first, each with the images at fault."""
    rows = [(f.severity, _said(f)) for severity in SEVERITIES for f in findings if f.severity == severity]
    if rows:
        yield Notes(rows=tuple(rows))


def _said(finding: Finding) -> str:
    if not finding.images:
        return finding.text
    more = len(finding.images) - NAMED
    named = ", ".join(finding.images[:NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"{finding.text} (images at fault: {named})"


def _failures(report: Report) -> Iterator[Block]:
    if report.failures:
        yield Notes(rows=tuple(("error", line) for line in report.failures))


def _results(entries: tuple[ReportEntry, ...]) -> Iterator[Block]:
    """Yield the table of several results; constant columns are said in a line above it."""
    if len(entries) < 2:
        return
    rows = [("#", "model", *HEADINGS[1:])] + [(str(k), *cells(entry)) for k, entry in enumerate(entries, start=1)]
    columns = [column for column in zip(*rows, strict=True) if any(cell != "-" for cell in column[1:])]
    alike = [c for c in columns if len(set(c[1:])) == 1 and c[0] not in ("#", "result")]
    if alike:
        yield Prose(text="All: " + ", ".join(f"{c[0]} {c[1]}" for c in alike) + ".")
    shown = [c for c in columns if c not in alike]
    headings = tuple(c[0] for c in shown)
    body = tuple(tuple(_result(c[0], c[k]) for c in shown) for k in range(1, len(rows)))
    yield Table(headings=headings, rows=body, right=("#", *FIGURES, *COUNTS), caption="One row per artifact and device")


def _result(heading: str, text: str) -> Cell | str:
    if heading != "result":
        return text
    return Cell(text=text, state="passed" if text == "passed" else "failed" if text.endswith("failed") else "")


def _shared(entries: tuple[ReportEntry, ...]) -> tuple[Finding, ...]:
    """Return the findings that all of several entries have."""
    if len(entries) < 2:
        return ()
    return tuple(f for f in entries[0].findings if all(f in entry.findings for entry in entries))


def _cards(report: Report, shared: tuple[Finding, ...]) -> Iterator[Block]:
    made = tuple(_card(entry, report.command, shared) for entry in report.entries)
    if len(made) <= MANY_CARDS:
        yield from made
        return
    failed = [card for card in made if card.state == "failed"]
    yield from failed[:MANY_CARDS]
    yield Fold(title=f"All {len(made)} results", blocks=made, printed=False)


def _card(entry: ReportEntry, command: str, shared: tuple[Finding, ...]) -> Card:
    blocks: list[Block] = [Facts(rows=tuple(card.lines(entry)))]
    rows = tuple(
        (name, figure, limit, Cell(text=said.lower(), state=said.lower()))
        for name, figure, limit, said in card.checks(entry)
    )
    if rows:
        blocks.append(Table(headings=("check", "figure", "limit", ""), rows=rows, right=("figure", "limit")))
    blocks += notes(tuple(f for f in entry.findings if f not in shared))
    if following := card.following(entry, command):
        blocks += [Prose(text="Next:"), Code(text=following)]
    failed = "failed" if entry.failures else "passed" if entry.checks else ""
    return Card(title=card.title(entry), state=failed, verdict=card.verdict(entry), blocks=tuple(blocks))


def _again(report: Report) -> Iterator[Block]:
    yield Code(text=made_again(report.versions, report.invocation))
    host = ((key, str(value)) for key, value in report.host.items() if value)
    yield Fold(title="Machine and versions", blocks=(Facts(rows=(*host, *report.versions.items())),))


def _suite(entry: ReportEntry) -> Suite:
    cases = [Case(name=c.name, said=str(c), failed=not c.passed) for c in entry.checks]
    cases += [Case(name=f.code, said=f.text, failed=True) for f in entry.findings if f.severity == "error"]
    if not cases:
        cases.append(Case(name="checks", said="no limit was given", skipped=True))
    name = " ".join(card.title(entry).split())
    return Suite(name=name, cases=tuple(cases), seconds=entry.seconds.get("validate") or 0.0)


def _row(entry: ReportEntry) -> Mapping[str, Any]:
    """Return the figures of one entry, without what is a list or belongs to a page."""
    whole = entry.to_json()
    plain = {k: whole[k] for k in ("model", "target", "precision", "device", "artifact", "size_bytes", "task")}
    ended = {"result": card.verdict(entry), "failures": "; ".join(entry.failures)}
    groups = {k: whole[k] for k in ("accuracy", "latency", "parity", "beside_host", "resources")}
    figures = {f"{group}.{name}": value for group, row in groups.items() for name, value in row.items()}
    low, high = figures.pop("accuracy.drop_ci95") or (None, None)
    for several in ("resources.instruction_mix", "resources.cache_misses"):
        del figures[several]
    return {**plain, **ended, **figures, "accuracy.drop_ci95_low": low, "accuracy.drop_ci95_high": high}
