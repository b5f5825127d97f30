"""MODEL, as a user names it, to a graph: a registered name, ``package.module:factory``, or a ``.edgecnn`` file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.errors import InputError
from edgecnn.graph.importers import importer_of
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the user says about the model.

    Attributes:
        model: a registered name, ``package.module:factory``, or the path of a ``.edgecnn`` file.
        weights: a file, ``demo``, ``random``, or ``None``: the demo weights where there are any; a factory's own.
        padding: ``same`` or ``symmetric``; ``None`` is what the weights say.
        convention: whose names and habits the weights have; ``None`` is what their names say.
        preprocess: ``KEY=VALUE,…`` over what the weights say.
        label_offset: over what the weights say.
        seed: of random weights.
        classes: of random weights; ``None`` is as many as the family has. Other weights say it themselves.
    """

    model: str
    weights: str | None = None
    padding: str | None = None
    convention: str | None = None
    preprocess: str | None = None
    label_offset: int | None = None
    seed: int = 0
    classes: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether the model is a file that an importer reads."""
        return importer_of(Path(self.model)) is not None

    @property
    def is_factory(self) -> bool:
        """Whether the model is the user's own ``package.module:factory``."""
        return ":" in self.model and not self.is_file

    @property
    def name(self) -> str:
        """The name of the artifacts: the model's, the factory's, or the file's."""
        return Path(self.model).stem if self.is_file else self.model.rpartition(":")[2]


def with_overrides(metadata: Metadata, preprocess: str | None, label_offset: int | None) -> Metadata:
    """The metadata, with what the user gave in place of what the weights or the file say."""
    if preprocess is not None:
        changed = (metadata.preprocess or Preprocess(resize=None)).override(preprocess)
        metadata = replace(metadata, preprocess=changed)
    if label_offset is not None:
        metadata = replace(metadata, label_offset=label_offset)
    return metadata


def load_graph(source: Source) -> Graph:
    """The graph of a model: captured, or read from a ``.edgecnn`` file (which may be quantized).

    Raises:
        InputError: see ``edgecnn.models`` and ``edgecnn.graph.capture``.
    """
    if source.is_file:
        return _read(source)
    module, size, metadata = _factory(source) if source.is_factory else _registered(source)
    from edgecnn.graph.capture import capture

    return capture(module, (3, *size), with_overrides(metadata, source.preprocess, source.label_offset))


def _read(source: Source) -> Graph:
    given = [f"--{k}" for k in ("weights", "padding", "convention") if getattr(source, k) is not None]
    if given:
        raise InputError(f"{' and '.join(given)} cannot change {source.model}: it holds its weights already")
    importer = importer_of(Path(source.model))
    if importer is None:
        raise InputError(f"no importer reads {source.model}")
    graph = importer.read(Path(source.model))
    return replace(graph, metadata=with_overrides(graph.metadata, source.preprocess, source.label_offset))


def _registered(source: Source) -> tuple[nn.Module, tuple[int, int], Metadata]:
    from edgecnn.models import checkpoint, resolve

    spec = resolve(source.model, source.classes)
    if source.padding is not None:
        spec = replace(spec, padding=source.padding)
    if source.weights in (None, "demo"):
        module, weights = checkpoint.demo_weights(spec)
    elif source.weights == "random":
        module, weights = checkpoint.random_weights(spec, source.seed)
    else:
        module, weights = checkpoint.load_weights(
            spec, Path(source.weights), padding=source.padding, convention=source.convention
        )
    size = (weights.spec.resolution, weights.spec.resolution)
    return (
        module,
        size,
        Metadata(
            model=source.name,
            preprocess=weights.preprocess,
            labels=weights.labels,
            label_offset=weights.label_offset,
            weights_sha256=weights.digest,
        ),
    )


def _factory(source: Source) -> tuple[nn.Module, tuple[int, int], Metadata]:
    from edgecnn.models.checkpoint import load_factory

    if source.weights in ("demo", "random"):
        raise InputError(
            f"--weights {source.weights} is for registered models; {source.model} brings its own, or a FILE"
        )
    needed = "pass --preprocess resize=HEIGHTxWIDTH,mean=R/G/B,std=R/G/B (pixel units, 0..255) to say how it is fed"
    if source.preprocess is None or not {"mean", "std"} <= {i.partition("=")[0] for i in source.preprocess.split(",")}:
        raise InputError(f"{source.model} does not say how images become its input; {needed}")
    size = input_size(Preprocess(resize=None).override(source.preprocess))
    if size is None:
        raise InputError(f"--preprocess {source.preprocess} does not fix the input size; {needed}")
    module, digest = load_factory(source.model, Path(source.weights) if source.weights else None)
    return module, size, Metadata(model=source.name, preprocess=Preprocess(resize=size), weights_sha256=digest)


def input_size(preprocess: Preprocess) -> tuple[int, int] | None:
    """Height and width that the preprocessing leaves, or ``None`` where it depends on the image."""
    size = preprocess.crop or preprocess.resize
    return (size[0], size[1]) if size is not None and len(size) == 2 else None
