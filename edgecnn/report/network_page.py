"""A network as a page: its modules, the ops in each, coloured by bits, error or cost."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgecnn.graph.summary import Layer
from edgecnn.report.blocks import Chart, Document, Fold, Prose, Section, Table
from edgecnn.report.drawing import SHADES, Box, drawing

COLOURS = ("bits", "error", "time")
TOGETHER = 16  # ops of a module, above which its parts are modules
BITS = {"float32": 32, "float16": 16, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8}
OF_BITS = {8: 1, 16: 2, 32: 3}
"""Shade of an op by the bits of its output."""


@dataclass(frozen=True, kw_only=True)
class NetworkView:
    """Hold a network layer by layer, with what is known of each.

    Attributes:
        title: of the network.
        facts: about it, short.
        layers: in order; the inputs are not among them.
        reads: layer to the layers that it reads.
        errors: layer to its SQNR in dB; ``None`` where nothing differs. Empty where it was not measured.
        costs: layer to its cost; empty where it was not measured.
        unit: of the costs.
        place: what measured the costs.
    """

    title: str
    facts: tuple[str, ...]
    layers: tuple[Layer, ...]
    reads: Mapping[str, tuple[str, ...]]
    errors: Mapping[str, float | None] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    place: str = ""

    @property
    def colours(self) -> tuple[str, ...]:
        """Return what ops can be coloured by."""
        known = {"bits": True, "error": bool(self.errors), "time": bool(self.costs)}
        return tuple(colour for colour in COLOURS if known[colour])

    def value(self, name: str, colour: str) -> float | None:
        """Return a layer's bits, its SQNR in dB or its cost; ``None`` where it is not known."""
        if colour == "bits":
            return next(BITS.get(layer.dtype) for layer in self.layers if layer.name == name)
        return self.errors.get(name) if colour == "error" else self.costs.get(name)


def document(view: NetworkView, colour: str) -> Document:
    """Return what the page shows.

    Args:
        view: of a network with one layer at least.
        colour: one of ``view.colours``.
    """
    modules = list(_modules([layer.name for layer in view.layers]))
    shades = _shades(colour, {layer.name: _harm(view, (layer.name,), colour) for layer in view.layers})
    of_modules = _shades(colour, {title: _harm(view, names, colour) for title, names in modules})
    anchors = {title: f"module-{k}" for k, (title, _) in enumerate(modules)}
    of = {name: title for title, names in modules for name in names}
    boxes = []
    for title, names in modules:
        read = dict.fromkeys(of[i] for name in names for i in view.reads[name] if i in of and of[i] != title)
        about = f"{len(names)} op{'s' if len(names) != 1 else ''} · {_said(view, names, colour)}"
        boxes.append(
            Box(
                name=title,
                inputs=tuple(read),
                lines=(title, about),
                title=f"{title}: {about}",
                shade=of_modules[title],
                link=f"#{anchors[title]}",
            )
        )
    alt = f"The network as {len(modules)} modules from input to output; the list below has the same."
    overview = Chart(svg=drawing(boxes), alt=alt, natural=True)
    folds = tuple(_fold(view, title, names, shades, colour, anchors[title]) for title, names in modules)
    return Document(
        title=view.title,
        kicker="edgecnn inspect",
        state="",
        verdict=f"{len(view.layers)} ops in {len(modules)} modules, coloured by {colour}",
        facts=view.facts,
        sections=(
            Section(title="Modules", blocks=(Prose(text=_legend(view, colour)), overview)),
            Section(title="Ops of each module", blocks=folds),
        ),
    )


def parts(name: str) -> list[str]:
    """Return the components of a tensor's name, modules first."""
    return [part for part in re.split(r"[./]", name) if part]


def _modules(names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield modules in the order of their first op; neighbours of one op each are taken together."""
    of: dict[str, str] = {}
    _split(list(names), 0, of)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(of[name], []).append(name)
    single: list[str] = []
    for module, members in groups.items():
        if len(members) == 1 and len(single) < TOGETHER:
            single += members
            continue
        if single:
            yield _span(single), tuple(single)
        single = members if len(members) == 1 else []
        if len(members) > 1:
            yield module, tuple(members)
    if single:
        yield _span(single), tuple(single)


def _split(names: list[str], depth: int, of: dict[str, str]) -> None:
    """Say for each name in which module it is: the shortest prefix that few enough names share."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(parts(name)[: depth + 1]), []).append(name)
    for module, members in groups.items():
        if len(members) > TOGETHER and any(len(parts(name)) > depth + 1 for name in members):
            _split(members, depth + 1, of)
        else:
            of |= dict.fromkeys(members, module)


def _span(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _harm(view: NetworkView, names: Sequence[str], colour: str) -> float | None:
    """Return the bits of the widest of some layers, the noise of the worst, or the cost of all; ``None``: unknown."""
    known = [value for name in names if (value := view.value(name, colour)) is not None]
    if not known:
        return None
    if colour == "time":
        return sum(known)
    return max(known) if colour == "bits" else -min(known)


def _shades(colour: str, harms: Mapping[str, float | None]) -> dict[str, int]:
    """Return shades: of bits by ``OF_BITS``, else by the fifth of all in which a harm is."""
    if colour == "bits":
        return {name: OF_BITS.get(int(bits or 0), 0) for name, bits in harms.items()}
    ordered = sorted(harm for harm in harms.values() if harm is not None)
    return {
        name: 0 if harm is None else len(SHADES) * bisect_left(ordered, harm) // len(ordered)
        for name, harm in harms.items()
    }


def _legend(view: NetworkView, colour: str) -> str:
    if colour == "bits":
        found = sorted({layer.dtype for layer in view.layers})
        return f"Each box says the type of its output ({', '.join(found)}). Warmer boxes have more bits."
    if colour == "error":
        what = "Each box says the SQNR of its output, int8 beside float, in dB"
        return f"{what}. The warmer, the more error: a shade for each fifth."
    return f"Each box says its {view.unit} on {view.place}. The warmer, the more it takes: a shade for each fifth."


def _said(view: NetworkView, names: Sequence[str], colour: str) -> str:
    harm = _harm(view, names, colour)
    if harm is None:
        return "exact" if colour == "error" else "-"
    if colour == "bits":
        return f"{harm:g} bits"
    return f"{-harm:.1f} dB" if colour == "error" else f"{_short(harm)} {view.unit}"


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _fold(
    view: NetworkView, title: str, names: tuple[str, ...], shades: Mapping[str, int], colour: str, anchor: str
) -> Fold:
    layers = {layer.name: layer for layer in view.layers}
    boxes = []
    for name in names:
        layer = layers[name]
        what = f"{layer.op} {_shape(layer)}"
        boxes.append(
            Box(
                name=name,
                inputs=view.reads[name],
                lines=(".".join(parts(name)[-2:]), f"{what} · {_said(view, (name,), colour)}"),
                title=f"{name}: {what} {layer.dtype} {layer.details}".rstrip(),
                shade=shades[name],
            )
        )
    chart = Chart(svg=drawing(boxes), alt=f"Ops of {title}; the table has the same.", natural=True)
    about = f"{title}: {len(names)} op{'s' if len(names) != 1 else ''}, {_said(view, names, colour)}"
    return Fold(title=about, blocks=(chart, _table(view, names, layers)), anchor=anchor)


def _table(view: NetworkView, names: Sequence[str], layers: Mapping[str, Layer]) -> Table:
    figures = [c for c in view.colours if c != "bits"]
    more = {"error": "SQNR, dB", "time": view.unit}
    headings = ("tensor", "op", "output", "type", "weights", "MACs", *(more[c] for c in figures))
    rows = []
    for name in names:
        layer = layers[name]
        own = [view.value(name, c) for c in figures]
        forms = (",.1f" if c == "error" else ",.4f" if view.unit == "ms" else ",.0f" for c in figures)
        said = ["-" if v is None else format(v, form) for v, form in zip(own, forms, strict=True)]
        macs = f"{layer.macs:,}" if layer.macs else "-"
        rows.append((name, layer.op, _shape(layer), layer.dtype, layer.weight or "-", macs, *said))
    return Table(headings=headings, rows=tuple(rows), right=headings[5:])


def _shape(layer: Layer) -> str:
    return "x".join(map(str, layer.output))
