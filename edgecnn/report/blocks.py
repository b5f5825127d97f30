"""What a report shows, before it is HTML or Markdown: sections of a few kinds of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edgecnn.errors import InputError, unknown

STATES = ("passed", "failed", "warning", "info", "")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: what it says.
        state: one of ``STATES``; coloured, and told from others by its text.
        share: length of a bar behind the figure, 0 to 1; ``None``: no bar.
    """

    text: str
    state: str = ""
    share: float | None = None

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise InputError(unknown("state", self.state, STATES))


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under headings; ``right`` names the headings of figures, and ``caption`` says what the table is."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    right: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Pairs of a label and a text; a label that is repeated is said once."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing, with what it shows in words for those who do not see it; ``natural``: in its own size."""

    svg: str
    alt: str
    caption: str = ""
    natural: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a gallery: encoded as PNG or JPEG, or empty; its name, and lines of a label and a text."""

    data: bytes
    name: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures side by side."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Lines of a severity (``error``, ``warning``, ``info``) and a text."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """Commands or a file, to be copied."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks that are shown on request.

    Attributes:
        anchor: what a link in the page leads to, or empty.
        printed: whether paper has the blocks too; else it has the title, and that the page shows more.
    """

    title: str
    blocks: tuple[Block, ...]
    anchor: str = ""
    printed: bool = True


@dataclass(frozen=True, kw_only=True)
class Card:
    """Blocks about one thing, with its state; neighbouring cards stand side by side where there is room."""

    title: str
    state: str
    verdict: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Table | Facts | Chart | Gallery | Notes | Prose | Code | Fold | Card


@dataclass(frozen=True, kw_only=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """Hold one report.

    Attributes:
        title: what it is about.
        kicker: the command, in a line above the title.
        state: ``passed``, ``failed``, or empty where nothing was demanded.
        verdict: the result in a sentence.
        facts: when and where it was made.
        sections: in the order in which they are read; one without blocks is left out.
    """

    title: str
    kicker: str
    state: str
    verdict: str
    facts: tuple[str, ...]
    sections: tuple[Section, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sections", tuple(section for section in self.sections if section.blocks))
