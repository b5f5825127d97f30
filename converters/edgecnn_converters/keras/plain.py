"""Keras layers without weights in ops of the graph: pools, merges, shapes, resizing, and those that training needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn_converters.keras import activations
from edgecnn_converters.keras.translation import Made, Step, pair
from edgecnn_converters.keras.weighted import axes_of, padding_of, sides

IDENTITIES = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "ActivityRegularization", "Identity", "StochasticDepth",
    "AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration",
    "RandomColorJitter", "RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip",
    "RandomGaussianBlur", "RandomGrayscale", "RandomHeight", "RandomHue", "RandomInvert", "RandomPerspective",
    "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear",
    "RandomTranslation", "RandomWidth", "RandomZoom",
)  # fmt: skip
"""Layers that give back their input when a network runs."""
MAX_REPEATS = 4096


def activation(step: Step) -> Value:
    """Add Activation."""
    return activations.activated(step.b, step.x, step.config.get("activation"), step.b.keras)


def _activation_layer(step: Step) -> Value:
    return activations.LAYERS[step.layer.kind](step.b, step.x, step.config)


# --- pools ---


def pool(step: Step, largest: bool) -> Value:
    """Add a pool of windows; an average is over the pixels inside the image."""
    x = step.inward(step.x)
    rows = len(step.b.shape(x)) == 3
    kernel = pair(step.config.get("pool_size", 2), rows)
    given = step.config.get("strides")
    stride = kernel if given is None else pair(given, rows)
    padding = padding_of(str(step.config.get("padding", "valid")), sides(step, x), kernel, stride)
    made = layers.max_pool if largest else layers.avg_pool
    return step.outward(made(step.b, x, kernel, stride, padding))


def global_pool(step: Step, largest: bool) -> Value:
    """Add a pool of all pixels."""
    x = step.x
    rank = len(step.b.shape(x))
    dims = [*range(1, rank - 1)] if step.last else [*range(2, rank)]
    made = reductions.largest if largest else reductions.mean
    return made(step.b, x, dims, keepdims=bool(step.config.get("keepdims", False)))


# --- shapes ---


def _widths(given: Any) -> list[tuple[int, int]]:
    """Return (before, behind) for each side of what ZeroPadding and Cropping are given."""
    sides = [*given] if isinstance(given, list | tuple) else [given]
    if sides and all(isinstance(side, list | tuple) for side in sides):
        return [(int(before), int(behind)) for before, behind in sides]
    return [(int(side), int(side)) for side in sides]


def border(step: Step, key: str, sign: int) -> Value:
    """Add ZeroPadding or Cropping."""
    rank = len(step.b.shape(step.x))
    widths = _widths(step.config[key])
    if rank == 3 and not isinstance(step.config[key], int):  # of a row: (before, behind)
        flat = [n for pair_ in widths for n in pair_]
        widths = [(flat[0], flat[-1])]
    if len(widths) == 1 and rank == 4:
        widths *= 2
    inside = [(sign * before, sign * behind) for before, behind in widths]
    every = [(0, 0), *inside, (0, 0)] if step.last else [(0, 0), (0, 0), *inside]
    need(len(every) == rank, f"{key} {step.config[key]} for an input of {rank} dimensions")
    return step.b.pad(step.x, every)


def flatten(step: Step) -> Value:
    """Add Flatten, in the order of channels last."""
    b, x = step.b, step.x
    rank = len(b.shape(x))
    if not step.last and rank > 2:
        x = b.transpose(x, (0, *range(2, rank), 1))
    return b.reshape(x, (1, int(np.prod(b.shape(x)[1:]))))


def reshaped(step: Step, x: Value, shape: list[int]) -> Value:
    """Return the value in a shape, of which one dimension may be -1."""
    total = int(np.prod(step.b.shape(x)))
    if shape.count(-1) == 1:
        known = int(np.prod([d for d in shape if d != -1]))
        need(known > 0 and total % known == 0, f"{step.b.shape(x)} to {shape}: not as many elements")
        shape = [total // known if d == -1 else d for d in shape]
    return step.b.reshape(x, shape)


def reshape(step: Step) -> Value:
    """Add Reshape."""
    return reshaped(step, step.x, [1, *(int(d) for d in step.config["target_shape"])])


def permute(step: Step) -> Value:
    """Add Permute."""
    return step.b.transpose(step.x, (0, *(int(d) for d in step.config["dims"])))


def repeat_vector(step: Step) -> Value:
    """Add RepeatVector."""
    shape, count = step.b.shape(step.x), int(step.config["n"])
    need(0 < count <= MAX_REPEATS, f"{count} repeats; at most {MAX_REPEATS} are supported")
    return step.b.gather(step.b.reshape(step.x, (shape[0], 1, *shape[1:])), 1, [0] * count)


# --- resizing ---


def resized(step: Step, x: Value, size: tuple[int, int], mode: str) -> Value:
    """Return an image of another size, in the builder's order; pixels lie at half places."""
    need(mode in ("nearest", "bilinear"), f"interpolation {mode!r}; allowed: bilinear, nearest")
    need(min(size) > 0, f"a size of {size}")
    have = sides(step, x)
    whole = all(to % of == 0 for to, of in zip(size, have, strict=True))
    half_pixel = not (mode == "nearest" and whole)  # alike there
    return layers.resize(step.b, x, size, mode, half_pixel=half_pixel)


def up_sampling(step: Step) -> Value:
    """Add UpSampling1D or UpSampling2D."""
    x = step.inward(step.x)
    rows = len(step.b.shape(x)) == 3
    factors = pair(step.config["size"], rows)
    height, width = (side * factor for side, factor in zip(sides(step, x), factors, strict=True))
    mode = str(step.config.get("interpolation", "nearest"))
    return step.outward(resized(step, x, (height, width), mode))


def resizing(step: Step) -> Value:
    """Add Resizing: pixels lie at half places."""
    for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        need(not step.config.get(key), f"{key}; without it is supported")
    size = (int(step.config["height"]), int(step.config["width"]))
    mode = str(step.config.get("interpolation", "bilinear"))
    return step.outward(resized(step, step.inward(step.x), size, mode))


def center_crop(step: Step) -> Value:
    """Add CenterCrop of an image that is not smaller."""
    x = step.inward(step.x)
    for dim, size, wanted in zip(
        (1, 2) if step.b.channels_last else (2, 3),
        sides(step, x),
        (int(step.config["height"]), int(step.config["width"])),
        strict=True,
    ):
        need(wanted <= size, f"{wanted} of {size} pixels")
        first = (size - wanted) // 2
        x = step.b.slice(x, dim, first, first + wanted)
    return step.outward(x)


def rescaling(step: Step) -> Value:
    """Add Rescaling: a factor and an offset, each one number or one for each channel."""
    scale, offset = (
        np.asarray(step.config.get(key, default), np.float32) for key, default in (("scale", 1.0), ("offset", 0.0))
    )
    return step.b.binary("add", step.b.binary("mul", step.x, scale), offset)


# --- merges ---


def _alike(step: Step) -> list[Value]:
    """Return the inputs with as many dimensions; Keras adds those that are missing behind the batch."""
    b, values = step.b, step.inputs
    rank = max(len(b.shape(v)) for v in values)
    return [b.reshape(v, (1, *[1] * (rank - len(b.shape(v))), *b.shape(v)[1:])) for v in values]


def merge(step: Step, op: str) -> Value:
    """Add Add, Multiply, Subtract, Maximum or Minimum."""
    values = _alike(step)
    need(op != "sub" or len(values) == 2, f"{len(values)} inputs; 2 are needed")
    return reduce(partial(step.b.binary, op), values)


def average(step: Step) -> Value:
    """Add Average."""
    values = _alike(step)
    return step.b.binary("mul", reduce(partial(step.b.binary, "add"), values), 1 / len(values))


def concatenate(step: Step) -> Value:
    """Add Concatenate."""
    rank = len(step.b.shape(step.inputs[0]))
    return step.b.concat(step.inputs, int(step.config.get("axis", -1)) % rank)


def unit_norm(step: Step) -> Value:
    """Add UnitNormalization."""
    return reductions.l2_normalize(step.b, step.x, axes_of(step, step.x), 1e-12)


def scale_and_add(step: Step) -> Value:
    """Add CustomScaleLayer of InceptionResNetV2 in ``keras.applications``: ``a + scale b``."""
    left, right = step.inputs
    return step.b.binary("add", left, step.b.binary("mul", right, float(step.config["scale"])))


PLAIN: Mapping[str, Callable[[Step], Made]] = {
    "Activation": activation,
    **dict.fromkeys(activations.LAYERS, _activation_layer),
    **dict.fromkeys(IDENTITIES, lambda step: step.x),
    **{f"MaxPooling{n}D": partial(pool, largest=True) for n in (1, 2)},
    **{f"MaxPool{n}D": partial(pool, largest=True) for n in (1, 2)},
    **{f"AveragePooling{n}D": partial(pool, largest=False) for n in (1, 2)},
    **{f"AvgPool{n}D": partial(pool, largest=False) for n in (1, 2)},
    **{f"GlobalMaxPooling{n}D": partial(global_pool, largest=True) for n in (1, 2)},
    **{f"GlobalMaxPool{n}D": partial(global_pool, largest=True) for n in (1, 2)},
    **{f"GlobalAveragePooling{n}D": partial(global_pool, largest=False) for n in (1, 2)},
    **{f"GlobalAvgPool{n}D": partial(global_pool, largest=False) for n in (1, 2)},
    **{f"ZeroPadding{n}D": partial(border, key="padding", sign=1) for n in (1, 2)},
    **{f"Cropping{n}D": partial(border, key="cropping", sign=-1) for n in (1, 2)},
    "UpSampling1D": up_sampling,
    "UpSampling2D": up_sampling,
    "Resizing": resizing,
    "CenterCrop": center_crop,
    "Rescaling": rescaling,
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "RepeatVector": repeat_vector,
    "Add": partial(merge, op="add"),
    "Subtract": partial(merge, op="sub"),
    "Multiply": partial(merge, op="mul"),
    "Maximum": partial(merge, op="maximum"),
    "Minimum": partial(merge, op="minimum"),
    "Average": average,
    "Concatenate": concatenate,
    "UnitNormalization": unit_norm,
    "CustomScaleLayer": scale_and_add,
}
"""Class to what it adds."""
