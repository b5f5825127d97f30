"""How the inputs of a network are fed: what its weights, its file or its module say, and what the caller changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.errors import InputError, unknown
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.labels import labels_of
from edgecnn.network import Network
from edgecnn.preprocess import Preprocess, by_input, says_levels
from edgecnn.progress import say

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.models.carried import Transforms

InputShape = Sequence[int] | Mapping[str, Sequence[int]]
HOW_FED = (
    "pass --preprocess resize=HEIGHTxWIDTH,mean=R/G/B,std=R/G/B (pixel units, 0..255; or mean=imagenet) to say how it "
    "is fed; in Python input_shape=(channels, height, width) and preprocess=edgecnn.Preprocess(mean=…, std=…)"
)


def overridden(
    metadata: Metadata,
    preprocess: Preprocess | str | None = None,
    label_offset: int | None = None,
    labels: Sequence[str] | str | Path | None = None,
) -> Metadata:
    """Return the metadata with what the user gave in place of what the weights or the file say.

    A text may name inputs, ``NAME:KEY=VALUE,…``, of which the metadata has the preprocessing.
    """
    if isinstance(preprocess, str):
        each, others = by_input(preprocess), dict(metadata.other_preprocess)
        for name in sorted(set(each) - {""}):
            if name not in others:
                raise InputError(unknown("image input with a preprocessing of its own", name, others or ["none"]))
            others[name] = others[name].override(each[name])
        metadata, preprocess = replace(metadata, other_preprocess=others), each.get("")
    if isinstance(preprocess, str):
        preprocess = (metadata.preprocess or Preprocess()).override(preprocess)
    if preprocess is not None:
        if preprocess.resize is None and preprocess.crop is None and metadata.preprocess and not preprocess.as_given:
            preprocess = replace(preprocess, resize=metadata.preprocess.resize, crop=metadata.preprocess.crop)
        metadata = replace(metadata, preprocess=preprocess)
    if label_offset is not None:
        metadata = replace(metadata, label_offset=label_offset)
    return metadata if labels is None else replace(metadata, labels=labels_of(labels))


def require_preprocess(metadata: Metadata) -> Preprocess:
    """Return how images are fed.

    Raises:
        InputError: nothing says it.
    """
    if metadata.preprocess is None:
        model = metadata.model
        raise InputError(f"nothing says how images are fed to {model}; pass --preprocess resize=HxW,mean=…,std=…")
    return metadata.preprocess


def each_preprocess(
    given: Preprocess | Transforms | str | Mapping[str, Preprocess | str] | None,
) -> Mapping[str, Preprocess | str]:
    """Return what the caller says of each input; of the image input under no name, where it is not named."""
    if isinstance(given, Mapping):
        return given
    own = _own_preprocess(given)
    return {} if own is None else by_input(own) if isinstance(own, str) else {"": own}


def _own_preprocess(given: Preprocess | Transforms | str | None) -> Preprocess | str | None:
    """Return what the caller says of the preprocessing; torchvision's transforms as ours."""
    if given is None or isinstance(given, Preprocess | str):
        return given
    from edgecnn.models.carried import is_transforms, of_transforms

    if not is_transforms(given):
        allowed = "an edgecnn.Preprocess, a text KEY=VALUE,…, or weights.transforms() of torchvision's classifiers"
        raise InputError(f"preprocess is a {type(given).__name__}; give {allowed}")
    return of_transforms(given)


def fed(
    module: nn.Module,
    model: str,
    digest: str | None,
    input_shape: InputShape | None,
    preprocess: Preprocess | str | None,
) -> tuple[InputShape, Metadata]:
    """The shapes of the inputs of a user's own network, and how it is fed."""
    shapes = _shapes(input_shape)
    image = next((shape for shape in shapes.values() if len(shape) == 3), None)
    if input_shape is not None and image is None:
        if preprocess is not None and not (isinstance(preprocess, Preprocess) and preprocess.as_given):
            takes = " and ".join(map(str, shapes.values()))
            raise InputError(
                f"preprocessing is of images, but {model} takes {takes}, which is fed as it is; leave it out"
            )
        return input_shape, Metadata(preprocess=Preprocess.as_is(), weights_sha256=digest)
    wanted = None if image is None else (image[1], image[2])
    base = _carried(module, wanted) if isinstance(preprocess, str | None) else None
    if isinstance(preprocess, str):
        says = base is not None or says_levels(preprocess)
        preprocess = (base or Preprocess(resize=wanted)).override(preprocess) if says else None
    preprocess = preprocess or base
    if preprocess is None:
        raise InputError(f"{model} does not say how images become its input; {HOW_FED}")
    size = preprocess.size or wanted
    if size is None:
        raise InputError(f"the preprocessing of {model} does not fix the input size; {HOW_FED}")
    if image is not None and size != image[1:]:
        left = f"the preprocessing leaves {size[0]}x{size[1]} pixels"
        raise InputError(f"input_shape is {image}, but {left}")
    preprocess.check_channels(3 if image is None else image[0])
    metadata = Metadata(preprocess=base or Preprocess(resize=size), weights_sha256=digest)
    return (3, *size) if input_shape is None else input_shape, metadata


def _carried(module: nn.Module, size: tuple[int, int] | None) -> Preprocess | None:
    """Return the preprocessing that a module carries, and say where it was found."""
    from edgecnn.models.carried import carried

    found = carried(module, size)
    if found is not None:
        say(f"note: preprocessing of {found[1]}: {found[0]}")
    return None if found is None else found[0]


def _shapes(input_shape: InputShape | None) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input, by name, or of the only one; none where nothing is given.

    Raises:
        InputError: one is not of whole numbers above 0.
    """
    given = {} if input_shape is None else input_shape if isinstance(input_shape, Mapping) else {"": input_shape}
    shapes = {name: tuple(shape) for name, shape in given.items()}
    for shape in shapes.values():
        if not shape or not all(isinstance(d, int) and d > 0 for d in shape):
            raise InputError(
                f"input_shape is {shape}; give whole numbers above 0, (channels, height, width) of an image"
            )
    return shapes


def fed_images(network: Network, preprocess: Preprocess | str | None) -> Metadata:
    """Return the metadata; a text that says how images are fed changes what fits the input's size."""
    metadata, image = network.graph.metadata, network.graph.image_input
    if not isinstance(preprocess, str) or metadata.preprocess is not None or image is None:
        return metadata
    height, width, _ = network.inputs[image]
    return replace(metadata, preprocess=Preprocess(resize=(height, width)))


def image_of(input_shape: InputShape | None) -> str:
    """Return the first image among a module's inputs, where they have names."""
    shapes = input_shape.items() if isinstance(input_shape, Mapping) else ()
    return next((name for name, shape in shapes if len(shape) == 3), "")


def with_others(graph: Graph, given: Mapping[str, Preprocess | str]) -> Graph:
    """Return the graph with the preprocessing of its images but the first.

    Raises:
        InputError: an input is no image, or is fed by what does not fit it.
    """
    images, others = [name for name in graph.inputs if len(graph.tensors[name].shape) == 4], {}
    for name in sorted(set(given) - {"", str(graph.image_input)}):
        if name not in images:
            raise InputError(unknown("image input", name, images or ["none"]))
    for name in images:
        if name != graph.image_input and (how := given.get(name)) is not None:
            _, height, width, channels = graph.tensors[name].shape
            whole = Preprocess(resize=(height, width))
            others[name] = whole.override(how) if isinstance(how, str) else how
            size = others[name].size or (height, width)
            if size != (height, width):
                raise InputError(f"{name!r} takes {height}x{width} pixels, its preprocessing leaves {size}")
            others[name].check_channels(channels)
    return replace(graph, metadata=replace(graph.metadata, other_preprocess=others)) if others else graph
