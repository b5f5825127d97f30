"""A document as Markdown, for a job summary or a comment on a pull request. It has no pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from edgecnn.escaping import printable, printable_lines
from edgecnn.report.blocks import (
    Block,
    Card,
    Cell,
    Chart,
    Code,
    Document,
    Facts,
    Fold,
    Gallery,
    Notes,
    Prose,
    Table,
)

MARKS = {"passed": "✅ ", "failed": "❌ ", "warning": "⚠️ ", "info": "", "": ""}
SPECIAL = re.compile(r"([\\`*\[\]<>|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^[-+#=])")
LINKED = re.compile(r"(@|#|://|www\.)(?=\w)")
"""What GitHub makes a mention or a link, whatever stands before it."""


def markdown(document: Document) -> str:
    """Return the document, in the form that GitHub reads; what needs a picture is left out."""
    state = f"**{MARKS[document.state]}{text(document.verdict)}**"
    parts = [f"## {text(document.title)}", f"{text(document.kicker)}: {state}", text(" · ".join(document.facts))]
    for section in document.sections:
        blocks = list(_blocks(section.blocks))
        parts += [f"### {text(section.title)}", *blocks] if blocks else []
    return "\n\n".join(parts) + "\n"


def text(value: str) -> str:
    """Return text in which nothing is markup, a mention or a link, in one line."""
    plain = printable(" ".join(value.split()))
    return LINKED.sub("\\1\u200b", SPECIAL.sub(r"\\\1", plain.replace("&", "&amp;")))


def _blocks(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Prose():
                yield text(block.text)
            case Code():
                yield _code(block.text)
            case Facts():
                yield _table(("", ""), block.rows, ())
            case Notes():
                yield "\n".join(f"- **{text(severity)}** {text(said)}" for severity, said in block.rows)
            case Table():
                yield from ([f"{text(block.caption)}:"] if block.caption else [])
                yield _table(block.headings, block.rows, block.right)
            case Gallery():
                rows = [(p.name, "; ".join(" ".join(row) for row in p.rows)) for p in block.pictures]
                yield _table(("image", "answers"), rows, ())
            case Fold():
                if inside := list(_blocks(block.blocks)):
                    title = LINKED.sub("\\1\u200b", escape(printable(block.title), quote=False))
                    yield "\n\n".join((f"<details><summary>{title}</summary>", *inside, "</details>"))
            case Card():
                yield f"#### {text(block.title)}: {MARKS[block.state]}{text(block.verdict)}"
                yield from _blocks(block.blocks)
            case Chart():
                pass


def _table(headings: Iterable[str], rows: Iterable[Iterable[Cell | str]], right: Iterable[str]) -> str:
    headings, right = tuple(headings), set(right)
    ends = ("---:" if heading in right else "---" for heading in headings)
    lines = [map(text, headings), ends, *(map(_cell, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell | str) -> str:
    return text(cell) if isinstance(cell, str) else f"{MARKS[cell.state]}{text(cell.text)}"


def _code(content: str) -> str:
    """Return a block of code, in a fence that is longer than any in it."""
    ticks = max(map(len, re.findall("`+", content)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}\n{printable_lines(content.rstrip())}\n{fence}"
