"""``edgecnn.load``: a name, a file, ``package.module:factory`` or a module of the caller becomes a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgecnn.errors import InputError
from edgecnn.graph.importers import Importer, importer_of
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.image_inputs import InputShape, each_preprocess, fed, fed_images, image_of, overridden, with_others
from edgecnn.labels import fitting, labels_of
from edgecnn.network import Network, QuantizedNetwork
from edgecnn.preprocess import Preprocess
from edgecnn.progress import say
from edgecnn.report.record import Finding

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.models.carried import Transforms

IMPORT = "import"  # code of the finding that says how far an import is from its file
RANDOM = "random"  # of --weights; in the metadata of such a network, in place of a digest


def load(
    model: str | Path | nn.Module,
    *,
    weights: str | Path | None = None,
    input_shape: InputShape | None = None,
    preprocess: Preprocess | Transforms | str | Mapping[str, Preprocess | str] | None = None,
    labels: Sequence[str] | str | Path | None = None,
    label_offset: int | None = None,
    padding: str | None = None,
    convention: str | None = None,
    classes: int | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Network:
    """Load a network: capture a model with its weights, or import a file.

    Args:
        model: a name from ``edgecnn models``, the path of a file (``.edgecnn``, ``.onnx`` …),
            ``package.module:factory``, or a ``torch.nn.Module`` on the CPU and in evaluation mode.
        weights: of a registered model or a factory: a file, ``demo`` or ``random``. ``None`` takes the demo weights of
            a model that has some, and a factory's own.
        input_shape: of a module or a factory, the shape of its input as torch has it, without the batch: of images
            (channels, height, width); of several inputs a mapping from the name of each to its shape. Likewise of a
            file that leaves it open.
        preprocess: how an image becomes the first input of three dimensions, in place of what weights or file say; or
            ``KEY=VALUE,…`` that changes some of it, or a preset: ``torchvision``, ``timm``, ``keras``; or what
            ``weights.transforms()`` of torchvision returns. A module's ``pretrained_cfg`` (timm's) or ``transforms`` is
            taken where this is ``None``. Of several images a mapping from the name of each input to one of these, or a
            text ``NAME:KEY=VALUE,…;NAME:KEY=VALUE,…``. Inputs that are not named are fed as they are.
        labels: class names, one per class; or the path of a file of them: a name per line, or JSON.
        label_offset: class ``k`` is logit ``k + label_offset``.
        padding: ``same`` or ``symmetric``; ``None`` is what the weights say.
        convention: whose key names the weights have; ``None`` is what the names say.
        classes: of random weights; ``None`` is as many as the model has.
        name: of the artifacts; by default the model's, the factory's, the module's or the file's.
        seed: of random weights.

    Returns:
        A float network; a ``QuantizedNetwork`` where the file holds integers.

    Raises:
        InputError: there is no such model or file, weights do not fit, or the module is not ready: in training mode,
            on another device, with NaN in its parameters, or with an op that is not supported.

    Example:
        >>> edgecnn.load("mobilenet_v2", weights="mobilenet_v2.safetensors")
        >>> edgecnn.load(module, input_shape=(3, 96, 96), preprocess=edgecnn.Preprocess(mean=127.5, std=127.5))
    """
    held = {"weights": weights, "padding": padding, "convention": convention}
    each = each_preprocess(preprocess)
    if not isinstance(model, str | Path):
        _refuse({**held, "classes": classes}, "a module, which has weights and a form of its own")
        module = _ready(model)
        preprocess = each.get(image_of(input_shape), each.get(""))
        found, shape, metadata = module, *fed(module, type(module).__name__, None, input_shape, preprocess)
        name = name or re.sub(r"\W", "_", type(module).__name__).lower()
    elif (importer := importer_of(Path(model))) is not None:
        _refuse({**held, "classes": classes}, f"{model}: it holds its weights already")
        network = _imported(Path(model), importer, input_shape, name or Path(model).stem)
        preprocess = each.get(network.graph.image_input or "", each.get(""))
        metadata = fed_images(network, preprocess)
        graph = replace(network.graph, metadata=overridden(metadata, preprocess, label_offset))
        graph = with_others(graph, each)
        return with_labels(replace(network, graph=graph), labels)
    elif is_factory(str(model)):
        preprocess = each.get(image_of(input_shape), each.get(""))
        found, shape, metadata = _factory(str(model), weights, input_shape, preprocess)
    else:
        _refuse({"input_shape": input_shape}, f"{model}: its name says its resolution")
        preprocess = each.get("")
        found, size, metadata = _registered(str(model), weights, padding, convention, classes, seed)
        shape = (3, *size)
    name = name or name_of(str(model))
    metadata = overridden(replace(metadata, model=name), preprocess, label_offset)
    own = not isinstance(model, str | Path) or is_factory(str(model))
    graph = with_others(_captured(found, shape, metadata, own=own), each)
    return with_labels(Network(graph=graph, name=name), labels)


def with_labels(network: Network, labels: Sequence[str] | str | Path | None) -> Network:
    """Return the network with class names in place of its own, where some are given.

    Raises:
        InputError: there are not as many as it has classes, or their file cannot be read.
    """
    if labels is None:
        return network
    metadata = network.graph.metadata
    names = fitting(labels_of(labels), network.classes, metadata.label_offset)
    return replace(network, graph=replace(network.graph, metadata=replace(metadata, labels=names)))


def _captured(module: nn.Module, shape: InputShape, metadata: Metadata, *, own: bool) -> Graph:
    """Capture a module; of a user's ``own``, compare graph and module on one random input."""
    from edgecnn.graph import capture
    from edgecnn.import_check import check_import

    if not own:
        return capture.capture(module, shape, metadata)
    imported = capture.imported(module, shape, metadata)
    graph = capture.simplified(imported.graph)
    say(check_import(imported, graph).text)
    return graph


def _imported(path: Path, importer: Importer, input_shape: InputShape | None, name: str) -> Network:
    """Read a file, check the import beside the runtime of the file, and simplify the graph.

    Raises:
        InputError: the file is damaged, which its importer says, or the graph differs from it.
    """
    if input_shape is not None and not importer.sized:
        raise InputError(f"{path} says the shapes of its inputs; leave input_shape out")
    shapes = None if input_shape is None else input_shape if isinstance(input_shape, Mapping) else {"": input_shape}
    imported = importer.read(path) if shapes is None else importer.read(path, shapes)
    imported = replace(imported, reference=importer.reference(path, imported, shapes))
    graph = imported.graph
    if path.suffix == ".edgecnn":
        kind = Network if graph.precision == "fp32" else QuantizedNetwork
        return kind(graph=graph, name=name, path=path)
    from edgecnn.graph import passes
    from edgecnn.import_check import check_import

    if graph.precision == "fp32":
        graph = passes.simplify(graph)
    checked = check_import(imported, graph)
    say(checked.text)
    graph = passes.rename(graph, dict(zip(graph.outputs, imported.graph.outputs, strict=True)))
    graph = replace(graph, metadata=replace(graph.metadata, model=graph.metadata.model or name))
    severity = "warning" if checked.differences is None else "info"
    finding = Finding(code=IMPORT, text=checked.text, severity=severity)
    kind = Network if graph.precision == "fp32" else QuantizedNetwork
    return kind(graph=graph, name=name, findings=(finding,))


def is_file(model: str) -> bool:
    """Whether the model is a file that an importer reads, by its suffix."""
    return importer_of(Path(model)) is not None


def is_factory(model: str) -> bool:
    """Whether the model is the user's own ``package.module:factory``."""
    return ":" in model and not is_file(model)


def name_of(model: str) -> str:
    """Return the name of the artifacts: the model's, the factory's, or the file's."""
    return Path(model).stem if is_file(model) else model.rpartition(":")[2]


def _refuse(given: Mapping[str, object], why: str) -> None:
    strange = [f"--{key.replace('_', '-')}" for key, value in given.items() if value is not None]
    if strange:
        raise InputError(f"{' and '.join(strange)} cannot change {why}")


def _ready(module: object) -> nn.Module:
    """The module, if it can be captured as it stands."""
    import torch

    if type(module).__name__ == "ExportedProgram":
        exported: nn.Module = cast(Any, module).module()
        exported.training = False  # it has no other mode
        module = exported
    if not isinstance(module, torch.nn.Module):
        allowed = "a name, a .edgecnn file, package.module:factory, an nn.Module or an ExportedProgram"
        raise InputError(f"the model is a {type(module).__name__}; give {allowed}")
    if module.training:
        raise InputError(f"{type(module).__name__} is in training mode; call its eval() first")
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if value.device.type != "cpu":
            raise InputError(f"{type(module).__name__}: {name!r} is on {value.device}; move it with cpu() first")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{type(module).__name__}: parameter {name!r} holds NaN or infinity")
    return module


def _registered(
    model: str, weights: str | Path | None, padding: str | None, convention: str | None, classes: int | None, seed: int
) -> tuple[nn.Module, tuple[int, int], Metadata]:
    from edgecnn.models import checkpoint, resolve

    spec = resolve(model, classes)
    if padding is not None:
        spec = replace(spec, padding=padding)
    if weights in (None, "demo"):
        module, found = checkpoint.demo_weights(spec)
    elif weights == RANDOM:
        module, found = checkpoint.random_weights(spec, seed)
    else:
        assert weights is not None
        module, found = checkpoint.load_weights(spec, Path(weights), padding=padding, convention=convention)
    metadata = Metadata(
        preprocess=found.preprocess,
        labels=found.labels,
        label_offset=found.label_offset,
        weights_sha256=RANDOM if weights == RANDOM else found.digest,
    )
    return module, (found.spec.resolution, found.spec.resolution), metadata


def _factory(
    model: str, weights: str | Path | None, input_shape: InputShape | None, preprocess: Preprocess | str | None
) -> tuple[nn.Module, InputShape, Metadata]:
    from edgecnn.models.checkpoint import load_factory

    if weights in ("demo", "random"):
        raise InputError(f"--weights {weights} is for registered models; {model} brings its own, or a FILE")
    module, digest = load_factory(model, Path(weights) if weights else None)
    return module, *fed(module, model, digest, input_shape, preprocess)
