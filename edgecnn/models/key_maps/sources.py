"""How a weight file's names become ours: a template for each role that a layer has, a style for its tensors' layout.

Our own names are ``features.N.ROLE.conv.weight``, ``features.N.ROLE.bn.running_mean`` and so on,
``hidden.N.linear.weight`` and ``classifier.weight``. A key map's table gives, for each role, their names of the
convolution and of its batch norm, with places in braces that ``places`` fills in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch

from edgecnn.models.rows import ConvRow, InceptionRow, InvertedRow, LinearRow, PoolRow, SeparableRow
from edgecnn.models.spec import ModelSpec

Arrange = Callable[[torch.Tensor], torch.Tensor]
LayerNames = Mapping[str, tuple[str, str] | str]  # role: their convolution and batch norm, or their only layer


def _unchanged(t: torch.Tensor) -> torch.Tensor:
    return t


def _flat(t: torch.Tensor) -> torch.Tensor:
    return t.reshape(t.shape[0], -1)


@dataclass(frozen=True, kw_only=True)
class TensorSource:
    """The source of one of our tensors: their tensors, and what makes ours of them."""

    names: tuple[str, ...]
    make: Callable[..., torch.Tensor] = _unchanged


@dataclass(frozen=True, kw_only=True)
class Style:
    """Names and layouts of the tensors inside a layer.

    Attributes:
        between: between the name of a layer and that of its tensor.
        names: of ours.
        conv: their convolution weight to OIHW.
        depthwise: their depthwise weight to (O, 1, H, W).
        linear: their linear weight, or 1x1 convolution, to (outputs, inputs).
        image: their linear weight on a flattened map of (height, width) pixels to (outputs, inputs), channels first.
    """

    between: str
    names: Mapping[str, str]
    conv: Arrange = _unchanged
    depthwise: Arrange = _unchanged
    linear: Arrange = _flat
    image: Callable[[torch.Tensor, int], torch.Tensor] = lambda t, grid: t

    def name(self, layer: str, leaf: str) -> str:
        """Return their name of a layer's tensor."""
        return f"{layer}{self.between}{self.names[leaf]}"


def _flat_last(t: torch.Tensor) -> torch.Tensor:
    return t.reshape(-1, t.shape[-1]).T


def _flat_hwc(t: torch.Tensor, grid: int) -> torch.Tensor:
    return t.reshape(grid, grid, -1, t.shape[-1]).permute(3, 2, 0, 1).reshape(t.shape[-1], -1)


_TORCH_NAMES = {n: n for n in ("weight", "bias", "running_mean", "running_var")}
TORCH = Style(between=".", names={**_TORCH_NAMES, **{f"bn.{n}": n for n in _TORCH_NAMES}})
SLIM = replace(  # TensorFlow-slim: OHWI, depthwise 1HWC
    TORCH, conv=lambda t: t.permute(0, 3, 1, 2), depthwise=lambda t: t.permute(3, 0, 1, 2)
)
KERAS = Style(  # HWIO, depthwise HWC1
    between="/",
    names={
        "weight": "kernel", "bias": "bias", "bn.weight": "gamma", "bn.bias": "beta", "bn.running_mean": "moving_mean",
        "bn.running_var": "moving_variance",
    },
    conv=lambda t: t.permute(3, 2, 0, 1),
    depthwise=lambda t: t.permute(2, 3, 0, 1),
    linear=_flat_last,
    image=_flat_hwc,
)  # fmt: skip


def places(spec: ModelSpec) -> list[dict[str, int | str]]:
    """Return where each block of ``features`` stands, by every way of counting that a key map uses.

    ``flat``: in all; ``before``: one less; ``stage``, ``block``: row and block within it, from 0, among rows of blocks
    (rows of one block each and equal channels count as one row); ``layer``: stage + 1; ``group``: stage + 2;
    ``number``: block + 1; ``letter``: of the block; ``nth``: among convolutions, from 1; ``slot``: of the convolution
    in a torch ``Sequential``; ``after``: slot + 1; ``pooled``, ``since``: stage between poolings and convolution in
    it, from 1; ``inception``: ``3a`` and so on.
    """
    made: list[dict[str, int | str]] = []
    stage, nth, slot, unit, letters = -1, 0, 0, "", iter(("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))
    joins: InvertedRow | None = None  # the row before, where this one can join it
    block, pooled, since = 0, 1, 0
    for row in spec.rows:
        if isinstance(row, LinearRow):
            break
        if isinstance(row, ConvRow):
            nth, since = nth + 1, since + 1
        if isinstance(row, PoolRow):
            pooled, since = pooled + 1, 0
        if isinstance(row, InceptionRow):
            unit = next(letters)
        single = row if isinstance(row, InvertedRow) and row.repeats == 1 else None
        joined = single is not None and joins is not None and single.channels == joins.channels
        repeats = 1 if isinstance(row, ConvRow | PoolRow | SeparableRow | InceptionRow) else row.repeats
        if not isinstance(row, ConvRow | PoolRow) and not joined:
            stage, block = stage + 1, 0
        for _ in range(repeats):
            flat = len(made)
            made.append(
                {
                    "flat": flat, "before": flat - 1, "stage": stage, "block": block, "layer": stage + 1,
                    "group": stage + 2, "number": block + 1, "letter": chr(ord("a") + block % 26), "nth": nth,
                    "slot": slot, "after": slot + 1, "inception": unit,
                    "pooled": pooled, "since": since,
                }
            )  # fmt: skip
            block += 1
        slot += 1 if isinstance(row, PoolRow) else 3 if isinstance(row, ConvRow) and row.norm else 2
        joins = single
    return made


_OURS = re.compile(
    r"(?:features\.(?P<flat>\d+)\.?|(?P<top>hidden\.\d+|classifier)\.)"
    r"(?P<role>.*?)\.?(?P<part>conv|bn|linear)?\.?(?P<leaf>weight|bias|running_mean|running_var)"
)
_STEPS = ("expand", "depthwise", "squeeze", "project")  # of an inverted residual, in order


def tensor_sources(
    spec: ModelSpec, ours: Iterable[str], table: LayerNames, style: Style, *, biased: bool = False, bgr: bool = False
) -> dict[str, TensorSource]:
    """Map our tensor names to their sources.

    Args:
        spec: the model.
        ours: its tensor names.
        table: of the key map.
        style: of the key map.
        biased: convolutions have a bias before batch norm; it goes into the mean: ``(x + b) - m = x - (m - b)``.
        bgr: the network was trained on images with blue first; the first convolution's channels are turned round.
    """
    every, context = list(ours), places(spec)
    roles = {(m["flat"], m["role"].partition(".")[0]) for m in map(_OURS.fullmatch, every) if m}
    made: dict[str, TensorSource] = {}
    for own in every:
        match = _OURS.fullmatch(own)
        if match is None:
            continue  # batch counters
        flat, leaf, role = match["flat"], match["leaf"], match["role"]
        place: dict[str, int | str] = {} if flat is None else dict(context[int(flat)])
        if flat is None:
            role = match["top"]
        elif not role:
            role = f"conv.{place['nth']}" if f"conv.{place['nth']}" in table else "conv"
        step = role.partition(".")[0]
        if step in _STEPS:
            present = [s for s in _STEPS if (flat, s) in roles]
            place["at"] = present.index(step)
            place["next"] = present.index(step) + 1
            if "expand" not in present and f"first.{role}" in table:
                role = f"first.{role}"
        entry = table[role]
        layer, norm = (entry, entry) if isinstance(entry, str) else entry
        if match["part"] == "bn":
            theirs = style.name(norm.format(**place), f"bn.{leaf}")
            bias = style.name(layer.format(**place), "bias")
            shifted = biased and leaf == "running_mean"
            made[own] = TensorSource(names=(theirs, bias), make=torch.sub) if shifted else TensorSource(names=(theirs,))
            continue
        arrange: Arrange = _unchanged
        if leaf == "weight":
            if match["top"] == "hidden.0" and spec.grid > 1:
                arrange = lambda t: style.image(t, spec.grid)  # noqa: E731  # beside its alternatives
            elif match["top"]:
                arrange = style.linear
            else:
                arrange = style.depthwise if step == "depthwise" else style.conv
            if bgr and flat == "0":
                arrange = _turned(arrange)
        made[own] = TensorSource(names=(style.name(layer.format(**place), leaf),), make=arrange)
    return made


def _turned(arrange: Arrange) -> Arrange:
    return lambda t: arrange(t).flip(1)
