"""Write a report in the form that the ending of its file asks for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgecnn.errors import InputError
from edgecnn.escaping import csv_cell, printable_lines
from edgecnn.files import require_writable, write_atomic
from edgecnn.report.blocks import Document


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test case of JUnit.

    Attributes:
        name: of what was tested.
        said: the figure with its limit.
        failed: whether it did not hold.
        skipped: whether nothing was demanded.
    """

    name: str
    said: str
    failed: bool = False
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The test cases of one artifact on one device, and the seconds that they took."""

    name: str
    cases: tuple[Case, ...]
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Forms:
    """Hold a result in every form that it can be written in.

    Attributes:
        document: for a person: HTML and Markdown.
        suites: for a CI server: JUnit XML.
        rows: for a spreadsheet: CSV.
        record: for a program: JSON.
    """

    document: Document
    suites: tuple[Suite, ...]
    rows: Sequence[Mapping[str, Any]]
    record: Any

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all, in the form of its ending.

        Raises:
            InputError: the ending has no form, or the place cannot be written.
        """
        check_ending(path)
        write_atomic(path, WRITERS[path.suffix](self).encode(), remedy="choose another place")


def check_ending(path: Path) -> None:
    """Check that a file's ending has a form.

    Raises:
        InputError: it has none; names those that do.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"a report is not written as {path}; give a file that ends in {', '.join(WRITERS)}")


def require_places(paths: Iterable[Path]) -> None:
    """Check, before work starts, that reports can be written.

    Raises:
        InputError: an ending has no form, or a folder cannot be written.
    """
    for path in paths:
        check_ending(path)
        require_writable(path.parent)


def junit(suites: Iterable[Suite]) -> str:
    """Return JUnit XML, as CI servers read it: a test case per check."""
    suites = tuple(suites)
    counts = _counts([case for suite in suites for case in suite.cases])
    root = ElementTree.Element("testsuites", {"name": "edgecnn", **counts})
    for suite in suites:
        about = {"name": _xml(suite.name), "time": f"{suite.seconds:.3f}", **_counts(suite.cases)}
        element = ElementTree.SubElement(root, "testsuite", about)
        for case in suite.cases:
            one = ElementTree.SubElement(element, "testcase", classname=_xml(suite.name), name=_xml(case.name))
            if case.failed or case.skipped:
                kind = "failure" if case.failed else "skipped"
                ElementTree.SubElement(one, kind, message=_xml(case.said)).text = _xml(case.said)
            else:
                ElementTree.SubElement(one, "system-out").text = _xml(case.said)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return CSV: a header of all keys and a line per row. An absent figure is empty, and text is never a formula."""
    text = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    counts = {"tests": len(cases), "failures": sum(c.failed for c in cases), "skipped": sum(c.skipped for c in cases)}
    return {name: str(count) for name, count in counts.items()}


def _xml(text: str) -> str:
    """Return text of characters that are seen and that XML can hold (XML 1.0, production 2)."""
    return printable_lines(text).translate({0xFFFE: "\ufffd", 0xFFFF: "\ufffd"})


def _json(forms: Forms) -> str:
    return json.dumps(forms.record, indent=2, allow_nan=False) + "\n"


def _html(forms: Forms) -> str:
    from edgecnn.report.page import html

    return html(forms.document)


def _markdown(forms: Forms) -> str:
    from edgecnn.report.markdown import markdown

    return markdown(forms.document)


WRITERS: Mapping[str, Callable[[Forms], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".xml": lambda forms: junit(forms.suites),
    ".csv": lambda forms: table(forms.rows),
    ".json": _json,
}
"""Ending of a file to its form."""
