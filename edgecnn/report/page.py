"""A document as one HTML page: no script, nothing from a network, light and dark, readable on a phone and on paper."""

from __future__ import annotations

from functools import singledispatch
from importlib.resources import files
from itertools import groupby

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
    Picture,
    Prose,
    Section,
    Table,
)
from edgecnn.report.drawing import SHADES
from edgecnn.report.markup import Html, image, joined, tag
from edgecnn.report.plot import COLOURS

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A browser that opens the page loads nothing and runs no script, whatever stands in it."""
MARKS = {"passed": "✓ ", "failed": "✗ ", "warning": "! ", "info": "", "": ""}
ON_DARK = ("#6cb2f0", "#f0925e", "#7cc77f", "#bd93e0", "#d3bd3c", "#f0788f", "#5cc6c6", "#b0b0b0")
"""``plot.COLOURS``, as light as a dark page needs."""
DARK_SHADES = ("#22272e", "#1f3a52", "#4a4020", "#5c3f1d", "#6e3226")
"""``drawing.SHADES``, as dark as a dark page needs: light text is readable on each of them."""


def html(document: Document) -> str:
    """Return the page."""
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{document.title}: {document.verdict}"),
        tag("style", Html(style())),
    )
    header = tag(
        "header",
        tag("p", document.kicker, class_="kicker"),
        tag("h1", document.title),
        tag("p", badge(document.state, document.verdict), class_="verdict"),
        tag("p", " · ".join(document.facts), class_="dim"),
    )
    main = tag("main", *map(_section, document.sections))
    page = tag("html", tag("head", *head), tag("body", header, main), lang="en")
    return f"<!doctype html>\n{page}\n"


def style() -> str:
    """Return the style sheet of a page."""
    lines = [files("edgecnn.report").joinpath("page.css").read_text("utf-8")]
    dark = [
        f'svg [{what}="{light}"] {{ {what}: {other}; }}'
        for light, other in zip(COLOURS, ON_DARK, strict=True)
        for what in ("stroke", "fill")
    ]
    pairs = zip(SHADES, DARK_SHADES, strict=True)
    dark += [f'svg [fill="{light}"] {{ fill: {other}; }}' for light, other in pairs]
    return "\n".join([*lines, "@media screen and (prefers-color-scheme: dark) {", *dark, "}"])


def badge(state: str, text: str) -> Html:
    """Return a state, told by a sign and by words."""
    return tag("span", tag("span", MARKS[state], aria_hidden="true"), text, class_=f"badge {state or 'none'}")


def _section(section: Section) -> Html:
    return tag("section", tag("h2", section.title), *_blocks(section.blocks))


def _blocks(blocks: tuple[Block, ...]) -> list[Html]:
    """Return blocks; neighbouring cards and neighbouring charts stand in one grid."""
    made = []
    for kind, some in groupby(blocks, type):
        each = [_block(block) for block in some]
        grid = {Card: "cards", Chart: "charts"}.get(kind)
        made += [tag("div", *each, class_=grid)] if grid else each
    return made


@singledispatch
def _block(block: object) -> Html:
    raise TypeError(f"no block: {block!r}")


@_block.register
def _(block: Prose) -> Html:
    return tag("p", block.text)


@_block.register
def _(block: Code) -> Html:
    return tag("pre", tag("code", block.text), tabindex="0")


@_block.register
def _(block: Facts) -> Html:
    return _facts(block.rows)


def _facts(rows: tuple[tuple[str, str], ...]) -> Html:
    pairs = []
    for label, some in groupby(rows, lambda row: row[0]):
        pairs += [tag("dt", label), *(tag("dd", text) for _, text in some)]
    return tag("dl", *pairs)


@_block.register
def _(block: Notes) -> Html:
    items = [tag("li", tag("b", severity), " ", text, class_=severity) for severity, text in block.rows]
    return tag("ul", *items, class_="notes")


@_block.register
def _(block: Chart) -> Html:
    """Return a figure; the drawing has a name, and the caption stands below it."""
    name = joined(Html('<svg role="img" aria-label="'), block.alt, Html('" '))
    svg = block.svg.strip().replace("<svg ", name, 1)
    caption = (tag("figcaption", block.caption),) if block.caption else ()
    kind = {"class_": "drawing", "tabindex": "0"} if block.natural else {"class_": "chart"}
    return tag("figure", Html(svg), *caption, **kind)


@_block.register
def _(block: Gallery) -> Html:
    return tag("div", *map(_picture, block.pictures), class_="gallery")


def _picture(picture: Picture) -> Html:
    alt = f"{picture.name}: {'; '.join(' '.join(row) for row in picture.rows)}"
    shown = (image(picture.data, alt, loading="lazy"),) if picture.data else ()
    return tag("figure", *shown, tag("figcaption", tag("b", picture.name), _facts(picture.rows)))


@_block.register
def _(block: Fold) -> Html:
    inside = tag("div", *_blocks(block.blocks), id=block.anchor or None)
    return tag("details", tag("summary", block.title), inside, class_=None if block.printed else "unprinted")


@_block.register
def _(block: Card) -> Html:
    head = tag("h3", block.title, " ", badge(block.state, block.verdict))
    return tag("article", head, *_blocks(block.blocks), class_=f"card {block.state or 'none'}")


@_block.register
def _(block: Table) -> Html:
    right = [heading in block.right for heading in block.headings]
    caption = tag("p", block.caption, class_="dim") if block.caption else Html("")
    columns = list(zip(block.headings, right, strict=True))
    head = [tag("th", heading, scope="col", class_="right" if end else None) for heading, end in columns]
    rows = [tag("tr", *(_cell(c, r) for c, r in zip(row, right, strict=True))) for row in block.rows]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
    held = tag("div", table, class_="wide", tabindex="0", role="group", aria_label=block.caption or "table")
    return joined(caption, held)


def _cell(cell: Cell | str, right: bool) -> Html:
    if isinstance(cell, str):
        return tag("td", cell, class_="right" if right else None)
    names = " ".join(filter(None, ("right" if right else "", cell.state, "" if cell.share is None else "bar")))
    length = None if cell.share is None else f"--share: {100 * min(max(cell.share, 0.0), 1.0):.1f}%"
    mark = (tag("span", MARKS[cell.state], aria_hidden="true"),) if MARKS[cell.state] else ()
    return tag("td", *mark, cell.text, class_=names or None, style=length)
