"""The embedded data set: road signs drawn by code, the same bytes on every machine.

Image ``i`` of a split depends on ``(seed, split, i)`` alone (Philox counter-based random numbers). Pixels come from
signed distance functions with only the operations that IEEE 754 rounds exactly (+ - * / sqrt), so no maths library can
change them. It is made to be hard enough that a good small network stays below 97 % and a bad quantizer shows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown

VERSION = 1  # of the drawing: another one gives other pixels
SIZE = 96  # pixels, both sides
SPLITS = {"train": 0, "val": 1, "test": 2, "calibration": 3}
TEST_IMAGES = 2000
CALIBRATION_IMAGES = 512

Plane = NDArray[np.float32]  # (SIZE, SIZE)
Colour = tuple[float, float, float]  # red, green, blue in 0..1

RED, BLUE, YELLOW = (0.74, 0.10, 0.12), (0.08, 0.27, 0.66), (0.93, 0.74, 0.10)
WHITE, BLACK = (0.93, 0.93, 0.91), (0.09, 0.09, 0.10)


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One class: an outline with a rim, and a pictogram. Coordinates: the sign spans about -1..1, y points down."""

    name: str
    outline: Callable[[Plane, Plane], Plane]
    rim: Colour
    fill: Colour
    rim_width: float
    pictogram: Callable[[Plane, Plane], Plane]
    ink: Colour


def _disc(x: Plane, y: Plane, cx: float = 0.0, cy: float = 0.0, r: float = 1.0) -> Plane:
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return np.sqrt(dx * dx + dy * dy) - np.float32(r)


def _box(x: Plane, y: Plane, cx: float, cy: float, w: float, h: float) -> Plane:
    return np.maximum(np.abs(x - np.float32(cx)) - np.float32(w), np.abs(y - np.float32(cy)) - np.float32(h))


def _stroke(x: Plane, y: Plane, ax: float, ay: float, bx: float, by: float, r: float) -> Plane:
    """Distance to the segment a-b, less the half width r."""
    px, py = x - np.float32(ax), y - np.float32(ay)
    vx, vy = np.float32(bx - ax), np.float32(by - ay)
    t = np.clip((px * vx + py * vy) / (vx * vx + vy * vy), np.float32(0), np.float32(1))
    dx, dy = px - t * vx, py - t * vy
    return np.sqrt(dx * dx + dy * dy) - np.float32(r)


def _strokes(*segments: tuple[float, float, float, float], r: float = 0.11) -> Callable[[Plane, Plane], Plane]:
    return lambda x, y: functools.reduce(np.minimum, (_stroke(x, y, *s, r) for s in segments))


def _triangle(x: Plane, y: Plane) -> Plane:
    side = np.abs(x) * np.float32(0.866) - y * np.float32(0.5) - np.float32(0.5)
    return np.maximum(side, y - np.float32(0.62))


def _yield(x: Plane, y: Plane) -> Plane:
    return _triangle(x, -y)


def _octagon(x: Plane, y: Plane) -> Plane:
    ax, ay = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(ax, ay), (ax + ay) * np.float32(0.7071)) - np.float32(0.92)


def _diamond(x: Plane, y: Plane) -> Plane:
    return (np.abs(x) + np.abs(y)) * np.float32(0.7071) - np.float32(0.72)


def _square(x: Plane, y: Plane) -> Plane:
    return _box(x, y, 0, 0, 0.82, 0.82)


# Seven segments of a digit: top, upper left, upper right, middle, lower left, lower right, bottom
_L, _R, _T, _M, _B = -0.27, 0.27, -0.46, 0.0, 0.46
_SEGMENTS = (
    (_L, _T, _R, _T), (_L, _T, _L, _M), (_R, _T, _R, _M), (_L, _M, _R, _M), (_L, _M, _L, _B), (_R, _M, _R, _B),
    (_L, _B, _R, _B),
)  # fmt: skip


def _digit(segments: str) -> Callable[[Plane, Plane], Plane]:
    return _strokes(*(s for s, on in zip(_SEGMENTS, segments, strict=True) if on == "1"))


def _ahead(x: Plane, y: Plane) -> Plane:
    return _strokes((0, 0.55, 0, -0.5), (0, -0.55, -0.32, -0.18), (0, -0.55, 0.32, -0.18))(x, y)


def _turn(x: Plane, y: Plane) -> Plane:
    """An arrow that comes from below and leaves to the left."""
    return _strokes((0.2, 0.52, 0.2, -0.12), (0.2, -0.12, -0.5, -0.12), (-0.5, -0.12, -0.22, -0.4), (-0.5, -0.12, -0.22, 0.16))(x, y)  # fmt: skip  # noqa: E501  # one glyph, one line


def _mirrored(glyph: Callable[[Plane, Plane], Plane]) -> Callable[[Plane, Plane], Plane]:
    return lambda x, y: glyph(-x, y)


def _small(glyph: Callable[[Plane, Plane], Plane], factor: float, dy: float) -> Callable[[Plane, Plane], Plane]:
    return lambda x, y: glyph(x / np.float32(factor), (y - np.float32(dy)) / np.float32(factor)) * np.float32(factor)


def _bar(x: Plane, y: Plane) -> Plane:
    return _box(x, y, 0, 0, 0.58, 0.15)


def _bang(x: Plane, y: Plane) -> Plane:
    return np.minimum(_stroke(x, y, 0, -0.28, 0, 0.16, 0.1), _disc(x, y, 0, 0.42, 0.11))


def _humps(x: Plane, y: Plane) -> Plane:
    humps = np.minimum(_disc(x, y, -0.22, 0.36, 0.2), _disc(x, y, 0.22, 0.36, 0.2))
    return np.minimum(np.maximum(humps, y - np.float32(0.38)), _box(x, y, 0, 0.42, 0.48, 0.06))


def _letter_p(x: Plane, y: Plane) -> Plane:
    return _strokes((-0.22, -0.5, -0.22, 0.52), (-0.22, -0.5, 0.2, -0.42), (0.2, -0.42, 0.2, -0.08), (0.2, -0.08, -0.22, 0.0))(x, y)  # fmt: skip  # noqa: E501  # one glyph, one line


def _walker(x: Plane, y: Plane) -> Plane:
    body = _strokes(
        (0, -0.18, 0, 0.14), (0, 0.14, -0.22, 0.55), (0, 0.14, 0.22, 0.55), (-0.26, 0.08, 0.26, -0.14), r=0.09
    )
    return np.minimum(_disc(x, y, 0, -0.42, 0.15), body(x, y))


def _nothing(x: Plane, y: Plane) -> Plane:
    return np.ones_like(x)


def _red_ring(name: str, segments: str) -> Sign:
    return Sign(name=name, outline=_disc, rim=RED, fill=WHITE, rim_width=0.2, pictogram=_digit(segments), ink=BLACK)


def _blue(name: str, outline: Callable[[Plane, Plane], Plane], pictogram: Callable[[Plane, Plane], Plane]) -> Sign:
    return Sign(name=name, outline=outline, rim=WHITE, fill=BLUE, rim_width=0.07, pictogram=pictogram, ink=WHITE)


def _warning(name: str, pictogram: Callable[[Plane, Plane], Plane]) -> Sign:
    return Sign(name=name, outline=_triangle, rim=RED, fill=WHITE, rim_width=0.17, pictogram=pictogram, ink=BLACK)


SIGNS: tuple[Sign, ...] = (
    _red_ring("limit_3", "1011011"),
    _red_ring("limit_5", "1101011"),
    _red_ring("limit_6", "1101111"),
    _red_ring("limit_8", "1111111"),
    _blue("ahead", _disc, _ahead),
    _blue("turn_left", _disc, _turn),
    _blue("turn_right", _disc, _mirrored(_turn)),
    Sign(name="no_entry", outline=_disc, rim=WHITE, fill=RED, rim_width=0.05, pictogram=_bar, ink=WHITE),
    Sign(name="stop", outline=_octagon, rim=WHITE, fill=RED, rim_width=0.08, pictogram=_bar, ink=WHITE),
    Sign(name="yield", outline=_yield, rim=RED, fill=WHITE, rim_width=0.2, pictogram=_nothing, ink=WHITE),
    _warning("danger", _bang),
    _warning("bumps", _humps),
    _warning("bend", _small(_turn, 0.55, 0.22)),
    Sign(name="priority", outline=_diamond, rim=WHITE, fill=YELLOW, rim_width=0.16, pictogram=_nothing, ink=WHITE),
    _blue("parking", _square, _letter_p),
    _blue("crossing", _square, _walker),
)
CLASSES: tuple[str, ...] = tuple(sign.name for sign in SIGNS)


def images(split: str, indices: Iterable[int], seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels ``(N, 96, 96, 3)`` RGB and class indices ``(N,)`` of some images of a split.

    Raises:
        InputError: no such split.
    """
    if split not in SPLITS:
        raise InputError(unknown("demo split", split, SPLITS))
    drawn = [_drawn(split, i, seed) for i in indices]
    pixels = np.stack([p for p, _ in drawn]) if drawn else np.zeros((0, SIZE, SIZE, 3), np.uint8)
    return pixels, np.array([label for _, label in drawn], np.int64)


def labels(split: str, indices: Iterable[int], seed: int = 0) -> NDArray[np.int64]:
    """The class indices of ``images``, without drawing them."""
    return np.array([_label(_rng(split, i, seed)) for i in indices], np.int64)


def _rng(split: str, index: int, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed * len(SPLITS) + SPLITS[split], index]))


def _label(rng: np.random.Generator) -> int:
    return int(rng.integers(len(SIGNS)))


@functools.lru_cache(maxsize=1024)  # 28 MB: commands and cells of one process ask for the same images
def _drawn(split: str, index: int, seed: int) -> tuple[NDArray[np.uint8], int]:
    return _draw(_rng(split, index, seed))


def _draw(rng: np.random.Generator) -> tuple[NDArray[np.uint8], int]:
    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(rng.random())

    label = _label(rng)
    sign = SIGNS[label]
    axis = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / SIZE) - np.float32(1)
    px, py = np.meshgrid(axis, axis)

    picture = _background(rng, px, py)
    # Where a pixel lies on the sign: the inverse of scale, rotation, shear and perspective.
    scale = uniform(0.23, 0.78)
    cx, cy = uniform(-1, 1) * (0.95 - scale), uniform(-1, 1) * (0.95 - scale)
    half = uniform(-0.13, 0.13)  # tangent of half the angle, so that sine and cosine need no maths library
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    squeeze, shear = uniform(0.75, 1.0), uniform(-0.2, 0.2)
    gx, gy = uniform(-0.22, 0.22), uniform(-0.22, 0.22)
    dx, dy = (px - np.float32(cx)) / np.float32(scale), (py - np.float32(cy)) / np.float32(scale)
    depth = np.float32(1) + np.float32(gx) * dx + np.float32(gy) * dy
    depth = np.maximum(depth, np.float32(0.2))
    x = (np.float32(cos) * dx + np.float32(sin) * dy) / depth / np.float32(squeeze)
    y = (np.float32(cos) * dy - np.float32(sin) * dx) / depth + np.float32(shear) * x
    soft = np.float32(scale * SIZE / 2)  # pixels per unit: edges are one pixel wide

    def cover(distance: Plane) -> Plane:
        return np.clip(np.float32(0.5) - distance * soft, np.float32(0), np.float32(1))

    def paint(mask: Plane, colour: Colour, strength: float = 1.0) -> None:
        for c in range(3):
            picture[c] += (np.float32(colour[c]) - picture[c]) * mask * np.float32(strength)

    fade = uniform(0.0, 0.4)  # old paint is pale
    grey = uniform(0.4, 0.8)

    def worn(colour: Colour) -> Colour:
        r, g, b = (v + (grey - v) * fade for v in colour)
        return r, g, b

    if uniform(0, 1) < 0.6:  # the post
        paint(cover(_box(x, y, 0, 1.9, 0.07, 1.2)), (grey, grey, grey))
    edge = sign.outline(x, y)
    paint(cover(edge), worn(sign.rim))
    inner = edge + np.float32(sign.rim_width)
    paint(cover(inner), worn(sign.fill))
    ink = np.maximum(sign.pictogram(x, y), inner)
    paint(cover(ink), worn(sign.ink))
    _occlude(rng, x, y, paint, cover)
    return _photograph(rng, picture, px, py), label


def _background(rng: np.random.Generator, px: Plane, py: Plane) -> list[Plane]:
    """Three colour planes: a gradient, blotches, and things that are no signs but have their colours."""
    top, bottom = rng.random(3), rng.random(3)
    blend = (py + np.float32(1)) * np.float32(0.5)
    planes = [np.float32(a) + np.float32(b - a) * blend for a, b in zip(top, bottom, strict=True)]
    for cells in (4, 12):
        noise = _upsample(rng.random((cells + 1, cells + 1), np.float32), cells)
        tint = rng.random(3) * 0.5
        for c in range(3):
            planes[c] = planes[c] + (noise - np.float32(0.5)) * np.float32(tint[c])
    palette = (RED, BLUE, WHITE, BLACK, YELLOW)
    for _ in range(int(rng.integers(2, 8))):
        cx, cy, w, h = (float(v) for v in rng.random(4) * (2.2, 2.2, 0.5, 0.5))
        kind, colour = int(rng.integers(3)), palette[int(rng.integers(len(palette)))]
        tone = 0.4 + 0.6 * float(rng.random())
        if kind == 0:
            shape = _box(px, py, cx - 1.1, cy - 1.1, w, h)
        elif kind == 1:
            shape = _disc(px, py, cx - 1.1, cy - 1.1, w * 0.7)
        else:
            shape = _stroke(px, py, cx - 1.1, cy - 1.1, cx - 1.1 + w - 0.25, cy - 1.1 + 4 * (h - 0.25), 0.04)
        mask = np.clip(np.float32(0.5) - shape * np.float32(SIZE / 2), np.float32(0), np.float32(1))
        for c in range(3):
            planes[c] = planes[c] + (np.float32(colour[c] * tone) - planes[c]) * mask
    return planes


def _upsample(grid: NDArray[np.float32], cells: int) -> Plane:
    """Bilinear interpolation of a (cells + 1)^2 grid to SIZE x SIZE."""
    at = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / SIZE)
    low = at.astype(np.int64)
    part = (at - low).astype(np.float32)
    rows = grid[low] + (grid[low + 1] - grid[low]) * part[:, None]
    out: Plane = rows[:, low] + (rows[:, low + 1] - rows[:, low]) * part[None, :]
    return out


def _occlude(
    rng: np.random.Generator, x: Plane, y: Plane, paint: Callable[..., None], cover: Callable[[Plane], Plane]
) -> None:
    """Branches, stickers and dirt over the sign."""
    for _ in range(int(rng.integers(0, 4))):
        ax, ay, bx, by, shade = (float(v) for v in rng.random(5))
        colour = (0.1 + 0.4 * shade, 0.15 + 0.45 * float(rng.random()), 0.08 + 0.3 * float(rng.random()))
        if rng.random() < 0.6:
            shape = _stroke(x, y, 3 * ax - 1.5, 3 * ay - 1.5, 3 * bx - 1.5, 3 * by - 1.5, 0.05 + 0.07 * shade)
        else:
            shape = _disc(x, y, 2 * ax - 1, 2 * ay - 1, 0.12 + 0.2 * bx)
        paint(cover(shape), colour, 0.9)


def _photograph(rng: np.random.Generator, planes: list[Plane], px: Plane, py: Plane) -> NDArray[np.uint8]:
    """Light, shadow, haze, blur, noise, 8 bits."""
    exposure, lx, ly = (float(v) for v in rng.random(3))
    light = np.float32(0.32 + 0.88 * exposure) * (
        np.float32(1) + np.float32(0.7 * (lx - 0.5)) * px + np.float32(0.7 * (ly - 0.5)) * py
    )
    if rng.random() < 0.35:  # the edge of a shadow
        a, b, c, depth = (float(v) for v in rng.random(4))
        line = np.float32(2 * a - 1) * px + np.float32(2 * b - 1) * py + np.float32(0.8 * c - 0.4)
        light = light * (np.float32(1) - np.float32(0.3 + 0.4 * depth) * np.clip(line * np.float32(12), 0, 1))
    haze, cast = 0.45 * float(rng.random()) ** 2, 0.8 + 0.4 * rng.random(3)
    image = np.stack([p * light * np.float32(k) for p, k in zip(planes, cast, strict=True)])
    image = image * np.float32(1 - haze) + np.float32(0.7 * haze)
    for axis in (1, 2):  # binomial blur, unequal along the axes: defocus and motion
        for _ in range(int(rng.integers(0, 5))):
            before, after = np.roll(image, 1, axis), np.roll(image, -1, axis)
            image = (before + image + image + after) * np.float32(0.25)
    grain = np.float32(0.02 + 0.1 * float(rng.random()) ** 2)
    image = image + (rng.random(image.shape, np.float32) + rng.random(image.shape, np.float32) - np.float32(1)) * (
        grain * np.float32(2)
    )
    pixels = np.clip(image * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))
