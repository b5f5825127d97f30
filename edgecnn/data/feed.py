"""How samples become the inputs of a network: images by the preprocessing, everything else as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.decode import resize_arrays
from edgecnn.errors import InputError
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph
from edgecnn.preprocess import Preprocess

Given = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Samples: of a network of one input its array, of several an array for each by name; images are not normalised yet."""
IMAGE = "image"  # the input of which nothing but the preprocessing is known


@dataclass(frozen=True, kw_only=True, eq=False)
class Feed:
    """Say how samples become inputs.

    Attributes:
        preprocess: of the image input, the first whose samples have 3 dimensions.
        others: preprocessing of other inputs that are images, by name.
        shapes: input to the shape of one sample, images (height, width, channels); empty: one RGB image of any size.

    Raises:
        InputError: the preprocessing is for another number of channels, or of an input that is none.
    """

    preprocess: Preprocess
    others: Mapping[str, Preprocess] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shapes and self.image is not None:
            self.preprocess.check_channels(self.channels)
        for name, how in self.others.items():
            if len(self.shapes.get(name, ())) != 3:
                raise InputError(f"preprocessing is of images; of the inputs {', '.join(self.names)}, {name!r} is none")
            how.check_channels(self.shapes[name][-1])

    @classmethod
    def of(cls, graph: Graph, preprocess: Preprocess | None = None) -> Feed:
        """Return how samples become the inputs of a graph, by its metadata unless told.

        Raises:
            InputError: nothing says how images are fed to it.
        """
        shapes = {name: graph.tensors[name].shape[1:] for name in graph.inputs}
        fed = preprocess or graph.metadata.preprocess
        if fed is None and graph.image_input is not None:
            model = graph.metadata.model
            raise InputError(f"nothing says how images are fed to {model}; pass --preprocess resize=HxW,mean=…,std=…")
        return cls(preprocess=fed or Preprocess.as_is(), others=graph.metadata.other_preprocess, shapes=shapes)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the inputs."""
        return tuple(self.shapes) or (IMAGE,)

    @property
    def image(self) -> str | None:
        """Return the input that is an image, or ``None``."""
        return next((name for name, shape in self.shapes.items() if len(shape) == 3), None) if self.shapes else IMAGE

    @property
    def channels(self) -> int:
        """Return the channels of the image."""
        return self.shapes[self.image][-1] if self.shapes and self.image is not None else 3

    def preprocess_of(self, name: str) -> Preprocess | None:
        """Return how images become an input; ``None`` where it is fed as it is."""
        return self.preprocess if name == self.image else self.others.get(name)

    def rank(self, name: str) -> int:
        """Return the dimensions of one sample of an input."""
        return len(self.shapes[name]) if self.shapes else 3

    def taken(self, given: Given) -> Given:
        """Return samples as the network takes them, images resized, cropped and not yet normalised.

        Args:
            given: (N, ...); images NHWC.

        Raises:
            InputError: an input is missing, or an array is of another shape or type.
        """
        if isinstance(given, Mapping):
            if set(given) != set(self.names):
                raise InputError(f"the network's inputs are {', '.join(self.names)}; got {', '.join(map(str, given))}")
            made = {name: self._taken(name, np.asarray(given[name])) for name in self.names}
            return made if len(made) > 1 else made[self.names[0]]
        if len(self.names) > 1:
            raise InputError(
                f"the network has inputs {', '.join(self.names)}: give an array for each, as a mapping by name, a "
                "tuple in that order, or FILE.npz with an array of each name"
            )
        return self._taken(self.names[0], given)

    def inputs(self, taken: Given) -> Batch:
        """Return the network inputs of what ``taken`` returns: float32, images normalised."""
        arrays = dict(taken) if isinstance(taken, Mapping) else {self.names[0]: taken}
        return Batch({name: self._normalised(name, array) for name, array in arrays.items()})

    def _normalised(self, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
        how = self.preprocess_of(name)
        return array.astype(np.float32, copy=False) if how is None else how.normalise(array)

    def image_of(self, taken: Given) -> NDArray[Any] | None:
        """Return the images among samples, where there are some."""
        if not isinstance(taken, Mapping):
            return taken if self.image is not None else None
        return taken[self.image] if self.image is not None else None

    def _taken(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        how = self.preprocess_of(name)
        return self.fitting(name, self._numbers(name, array) if how is None else self._images(name, array, how))

    def fitting(self, name: str, made: NDArray[Any]) -> NDArray[Any]:
        """Return samples of an input, resized and cropped, if they are of its shape.

        Raises:
            InputError: they are not.
        """
        wanted = self.shapes.get(name)
        if wanted is not None and made.shape[1:] != wanted:
            how = self.preprocess_of(name)
            if how is not None and not how.as_given:
                takes = f"the network takes images of {wanted} (height, width, channels)"
                raise InputError(f"{takes}, the preprocessing makes {made.shape[1:]}")
            turned = len(wanted) == 3 and made.shape[1:] == (wanted[2], *wanted[:2])
            hint = ", channels last: array.transpose(0, 2, 3, 1)" if turned else ""
            raise InputError(f"samples of {name!r} are {made.shape[1:]}; the network takes {wanted}{hint}")
        return made

    def _numbers(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype.kind not in "uifb":
            raise InputError(f"samples of {name!r} are {array.dtype}; give numbers")
        return array.astype(np.float32, copy=False)

    def _images(self, name: str, pixels: NDArray[Any], how: Preprocess) -> NDArray[Any]:
        channels = self.channels if name == self.image else self.shapes[name][-1]
        if pixels.ndim != 4:
            given = f"images are {pixels.dtype} {pixels.shape}"
            raise InputError(f"{given}; give uint8 levels of shape (N, height, width, {channels})")
        if how.as_given:
            if pixels.dtype.kind != "f":
                raise InputError(
                    f"images are {pixels.dtype}; this network is fed arrays as they are (Preprocess.as_is()): give "
                    "float32"
                )
            return pixels.astype(np.float32, copy=False)
        if pixels.dtype != np.uint8:
            raise InputError(
                f"images are {pixels.dtype} from {pixels.min():.4g} to {pixels.max():.4g}; give uint8 levels of "
                "0..255, or load the network with preprocess=Preprocess.as_is() where they are its inputs already"
            )
        if pixels.shape[3] != channels:
            raise InputError(f"images have {pixels.shape[3]} channels, last; give (N, height, width, {channels})")
        return resize_arrays(pixels, how)


def feed_of(how: Preprocess | Feed) -> Feed:
    """Return how samples are fed; preprocessing alone is of one RGB image."""
    return how if isinstance(how, Feed) else Feed(preprocess=how)
