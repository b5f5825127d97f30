"""Build HTML in which every text is escaped, whoever wrote it."""

from __future__ import annotations

from base64 import b64encode
from html import escape

from edgecnn.escaping import printable_lines

EMPTY = ("br", "col", "hr", "img", "input", "link", "meta")
"""Elements without content and without an end tag."""


class Html(str):
    """Markup that is escaped already; any other string is text."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: ``Html`` as it is, other strings escaped.
        attributes: values are escaped. ``None`` and ``False`` leave one out, ``True`` gives it without a value. A
            trailing underscore is dropped (``class_``), others become hyphens (``aria_label``).
    """
    inside = "".join(map(_attribute, attributes, attributes.values()))
    if name in EMPTY:
        return Html(f"<{name}{inside}>")
    return Html(f"<{name}{inside}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Return children one after another; text is escaped."""
    return Html("".join(child if isinstance(child, Html) else text(child) for child in children))


def text(value: str) -> str:
    """Return text escaped; characters that are not seen are named."""
    return escape(printable_lines(value))


def image(data: bytes, alt: str, **attributes: object) -> Html:
    """Return a PNG or JPEG image that the page itself holds."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return tag("img", src=f"data:image/{kind};base64,{b64encode(data).decode()}", alt=alt, **attributes)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    plain = name.rstrip("_").replace("_", "-")
    return f" {plain}" if value is True else f' {plain}="{text(str(value))}"'
