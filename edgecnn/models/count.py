"""Parameters and multiply-accumulates of a model, counted from its rows: no torch, no weights, no data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from edgecnn.models import rows
from edgecnn.models.rows import make_divisible
from edgecnn.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Size:
    """How big a model is.

    Attributes:
        parameters: trained numbers, as papers count: batch norm's scale and shift included, its statistics not.
        macs: multiply-accumulates of convolutions and linear layers for one image.
        activations: numbers that these layers put out for one image.
    """

    parameters: int
    macs: int
    activations: int


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A convolution, or a linear layer on a map of one pixel.

    Attributes:
        inputs: channels that an output channel reads; 1 if depthwise.
        outputs: channels.
        kernel: its side, in pixels.
        side: of the output map, in pixels.
        beside: trained numbers of an output channel beside its kernel: 1 for a bias, 2 for batch norm.
    """

    inputs: int
    outputs: int
    kernel: int = 1
    side: int = 1
    beside: int = 1


@lru_cache(maxsize=1024)  # a study asks for the same models again
def size_of(spec: ModelSpec) -> Size:
    """Return the size of a model at its resolution; auxiliary classifiers, which only training needs, not counted."""
    layers = list(_layers(spec))
    return Size(
        parameters=sum((n.inputs * n.kernel**2 + n.beside) * n.outputs for n in layers),
        macs=sum(n.inputs * n.kernel**2 * n.outputs * n.side**2 for n in layers),
        activations=sum(n.outputs * n.side**2 for n in layers),
    )


def _layers(spec: ModelSpec) -> Iterator[_Layer]:
    channels, sides = 3, iter(zip(spec.sides, spec.sides[1:], strict=False))
    features = None
    for row in spec.rows:
        if isinstance(row, rows.LinearRow):
            features = features or channels * spec.grid**2
            yield _Layer(inputs=features, outputs=row.features)
            features = row.features
        else:
            yield from _of_row(spec, row, channels, *next(sides))
            channels = channels if isinstance(row, rows.PoolRow) else row.channels
    yield _Layer(inputs=features or channels * spec.grid**2, outputs=spec.num_classes)


def _of_row(spec: ModelSpec, row: rows.Row, channels: int, before: int, after: int) -> Iterator[_Layer]:
    """Yield the layers of a row that reads a map of ``channels`` and ``before`` pixels a side."""

    def conv(inputs: int, outputs: int, kernel: int = 1, side: int = after) -> _Layer:
        return _Layer(inputs=inputs, outputs=outputs, kernel=kernel, side=side, beside=1 if spec.folded else 2)

    match row:
        case rows.ConvRow():
            normed = row.norm and not spec.folded
            beside = 2 * normed + (row.bias or not normed)
            yield _Layer(inputs=channels, outputs=row.channels, kernel=row.kernel, side=after, beside=beside)
        case rows.SeparableRow():
            yield conv(1, channels, 3)
            yield conv(channels, row.channels)
        case rows.InceptionRow():
            yield from (conv(channels, n) for n in (row.one, row.three_reduce, row.five_reduce, row.pool))
            yield from (conv(row.three_reduce, row.three, 3), conv(row.five_reduce, row.five, 3))
        case rows.InvertedRow():
            for _ in range(row.repeats):
                hidden = channels if row.expand == 1 else make_divisible(channels * row.expand)
                if row.expand != 1:
                    yield conv(channels, hidden, side=before)
                yield conv(1, hidden, row.kernel)
                if row.squeeze is not None:
                    inside = row.squeeze.channels(channels, hidden)
                    yield from (_Layer(inputs=hidden, outputs=inside), _Layer(inputs=inside, outputs=hidden))
                yield conv(hidden, row.channels)
                channels, before = row.channels, after
        case rows.BasicRow() | rows.BottleneckRow():
            wider = row.stride != 1 or channels != row.channels
            if wider and (isinstance(row, rows.BottleneckRow) or row.shortcut == "conv"):
                yield conv(channels, row.channels)
            for _ in range(row.repeats):
                if isinstance(row, rows.BasicRow):
                    yield from (conv(channels, row.channels, 3), conv(row.channels, row.channels, 3))
                else:
                    yield conv(channels, row.inner, side=after if spec.stride_in == "1x1" else before)
                    yield from (conv(row.inner, row.inner, 3), conv(row.inner, row.channels))
                channels, before = row.channels, after
