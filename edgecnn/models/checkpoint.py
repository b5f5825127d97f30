"""Weights from files: formats, and the key maps people bring. Nothing here executes what a file holds."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from edgecnn.errors import InputError
from edgecnn.files import write_atomic
from edgecnn.models.classifier import AUXILIARY, Classifier, build
from edgecnn.models.key_maps import KeyMap, has_statistics, key_map_of
from edgecnn.models.key_maps.sources import TensorSource
from edgecnn.models.shipped import shipped_names, shipped_weights
from edgecnn.models.spec import ModelSpec
from edgecnn.models.weightfile import Tensors, read_tensors
from edgecnn.own_code import own_code
from edgecnn.plugins import imported
from edgecnn.preprocess import Preprocess
from edgecnn.records import read_record


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """Hold what a weight file says beside its tensors.

    Attributes:
        spec: the model as the weights need it: classes, padding, folding.
        preprocess: how its images are fed.
        labels: class names, or ``None``.
        label_offset: data class ``k`` is logit ``k + label_offset``.
        digest: SHA-256 of the file; ``None`` for random weights.
    """

    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...] | None = None
    label_offset: int = 0
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The record that ``save_weights`` leaves in a file."""

    spec: ModelSpec
    preprocess: Preprocess
    labels: tuple[str, ...] | None


def default_preprocess(resolution: int) -> Preprocess:
    """Resize to the model's side, pixels to -1..1: how the MobileNets were trained."""
    return Preprocess(resize=(resolution, resolution))


def load_weights(
    spec: ModelSpec, path: Path, padding: str | None = None, convention: str | None = None
) -> tuple[Classifier, WeightSource]:
    """Return the model of ``spec`` with the weights of a file; the head's size comes from the file.

    Attributes of the file (its key map, or what ``save_weights`` noted) set padding, preprocessing and label offset;
    ``padding`` overrides. Where the file has no batch norm, it was folded, and each convolution has a bias.

    Args:
        convention: whose names the file has, one of ``key_maps.CONVENTIONS``; needed where the names fit several.

    Raises:
        InputError: not a checkpoint; a pickle with code; tensors missing, extra, of a wrong shape or not finite;
            weights of another model, or of several that differ in what the names cannot tell.
    """
    tensors, header = read_tensors(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if "edgecnn" in header:
        return _own(spec, path, tensors, header["edgecnn"], padding, digest)
    key_map = key_map_of(spec.family, spec.name, tensors, convention, str(path))
    if key_map is not None:
        return _foreign(spec, path, tensors, key_map, padding, digest)
    head = tensors.get("classifier.weight")
    classes = int(head.shape[0]) if head is not None and head.ndim == 2 else spec.num_classes
    folded = spec.folded or _is_folded(spec, tensors)
    plain = replace(spec, padding=padding or spec.padding, num_classes=classes, folded=folded)
    source = WeightSource(spec=plain, preprocess=default_preprocess(spec.resolution), digest=digest)
    return _filled(plain, tensors, path), source


def _own(
    spec: ModelSpec, path: Path, tensors: Tensors, record: str, padding: str | None, digest: str
) -> tuple[Classifier, WeightSource]:
    try:
        facts = read_record(_Header, json.loads(record), "its edgecnn header")
    except (ValueError, InputError) as error:
        raise InputError(f"{path} is damaged ({error}); train or save it again") from None
    saved, preprocess = facts.spec, facts.preprocess
    if (saved.family, saved.width, saved.depth) != (spec.family, spec.width, spec.depth):
        raise InputError(f"{path} holds weights of {saved.name}, not of {spec.name}")
    wanted = replace(saved, name=spec.name, resolution=spec.resolution, padding=padding or saved.padding)
    if spec.resolution != saved.resolution:
        preprocess = default_preprocess(spec.resolution)
    source = WeightSource(spec=wanted, preprocess=preprocess, labels=facts.labels, digest=digest)
    return _filled(wanted, tensors, path), source


def _foreign(
    spec: ModelSpec, path: Path, tensors: Tensors, key_map: KeyMap, padding: str | None, digest: str
) -> tuple[Classifier, WeightSource]:
    classes = key_map.classes(tensors)
    wanted = replace(
        spec, num_classes=classes, padding=padding or key_map.padding, bn_eps=key_map.bn_eps,
        folded=key_map.folded or _is_folded(spec, tensors), stride_in=key_map.stride_in,
    )  # fmt: skip
    shapes = {k: v.shape for k, v in _skeleton(wanted).state_dict().items()}
    sources = key_map.sources(wanted, shapes)
    used = list(dict.fromkeys(name for source in sources.values() for name in source.names))
    spare = (*key_map.unused, *(k for k in tensors if k.endswith("num_batches_tracked")))
    _require_all(path, used, [k for k in tensors if not k.startswith(spare)])
    renamed = {ours: _made(theirs, tensors, shapes[ours], path) for ours, theirs in sources.items()}
    preprocess, offset = key_map.preprocess(spec.resolution, tensors), int(classes == key_map.background)
    source = WeightSource(spec=wanted, preprocess=preprocess, label_offset=offset, digest=digest)
    return _filled(wanted, renamed, path), source


def _is_folded(spec: ModelSpec, tensors: Tensors) -> bool:
    """Tell whether a model has batch norms, and a file of its weights none: they are folded into the convolutions."""
    return has_statistics(_skeleton(spec).state_dict()) and not has_statistics(tensors)


def _made(source: TensorSource, tensors: Tensors, shape: torch.Size, path: Path) -> torch.Tensor:
    given = [tensors[name] for name in source.names]
    try:
        out: torch.Tensor = source.make(*given)
    except (RuntimeError, IndexError):
        out = given[0]
    if out.shape != shape:
        raise InputError(
            f"{path}: tensor {source.names[0]!r} has shape {tuple(given[0].shape)}, which does not fit {tuple(shape)}"
        )
    return out


def _skeleton(spec: ModelSpec) -> Classifier:
    """Return the module without memory for its weights, which need no initial values."""
    with torch.device("meta"):
        return Classifier(spec).eval()


def _filled(spec: ModelSpec, tensors: Tensors, path: Path) -> Classifier:
    module = _skeleton(spec)
    assign(module, tensors, path)
    return module


def assign(module: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into a module of the same names; batch counters are not needed.

    Raises:
        InputError: one is missing, extra, of a wrong shape, or holds NaN or infinity; the message names it.
    """
    state = module.state_dict()
    counters = {k for k in (*state, *tensors) if k.endswith("num_batches_tracked")}
    _require_all(path, [k for k in state if k not in counters], [k for k in tensors if k not in counters])
    for name, tensor in tensors.items():
        if name in counters:
            continue
        if tensor.shape != state[name].shape:
            got, want = tuple(tensor.shape), tuple(state[name].shape)
            raise InputError(f"{path}: tensor {name!r} has shape {got}, the model needs {want}")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise InputError(f"{path}: tensor {name!r} holds NaN or infinity; the file is damaged or training diverged")
    # In torch's own layout: kernels, and so the last bit of what they make, depend on it.
    plain = torch.contiguous_format
    given = {k: v.float().clone(memory_format=plain) for k, v in tensors.items() if k not in counters}
    zeros = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in state.items() if k in counters}
    skeleton = any(v.is_meta for v in state.values())  # then it has no memory to copy into
    module.load_state_dict({**state, **zeros, **given}, assign=skeleton)


def _require_all(path: Path, wanted: Sequence[str], given: Sequence[str]) -> None:
    """Check that the names are the same.

    Raises:
        InputError: one is missing or extra; with the nearest name of the other side.
    """
    absent, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if not absent and not extra:
        return

    def some(names: list[str], others: list[str]) -> str:
        near = difflib.get_close_matches(names[0], others, n=1)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{names[0]!r}{f' (nearest: {near[0]!r})' if near else ''}{more}"

    parts = [f"lacks tensor {some(absent, extra or list(given))}"] if absent else []
    parts += [f"has unexpected tensor {some(extra, absent or list(wanted))}"] if extra else []
    raise InputError(f"{path} {' and '.join(parts)}; is it a checkpoint of this model and width?")


def save_weights(
    module: nn.Module, spec: ModelSpec, path: Path, *, preprocess: Preprocess, labels: tuple[str, ...] | None
) -> None:
    """Write a safetensors file in our own names, with what is needed to use it in its header. Atomic.

    Raises:
        InputError: the place cannot be written.
    """
    from safetensors.torch import save

    facts = asdict(_Header(spec=spec, preprocess=preprocess, labels=labels))
    tensors = {
        k: v.detach().cpu().contiguous()
        for k, v in module.state_dict().items()
        if v.is_floating_point() and not k.startswith(AUXILIARY)
    }
    write_atomic(path, save(tensors, metadata={"edgecnn": json.dumps(facts, sort_keys=True)}))


def random_weights(spec: ModelSpec, seed: int = 0) -> tuple[Classifier, WeightSource]:
    """Return a seeded initialisation: only for someone who asked for random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(spec)
    return module, WeightSource(spec=spec, preprocess=default_preprocess(spec.resolution))


def demo_weights(spec: ModelSpec) -> tuple[Classifier, WeightSource]:
    """Return the weights that ship with the package, trained on the demo data.

    Raises:
        InputError: this model has none; names those that do.
    """
    shipped = shipped_names()
    if spec.name not in shipped:
        raise InputError(f"{spec.name} needs --weights FILE (or random); demo weights exist for: {', '.join(shipped)}")
    with resources.as_file(shipped_weights(spec.name)) as path:
        return load_weights(spec, path)


def load_factory(reference: str, weights: Path | None = None) -> tuple[nn.Module, str | None]:
    """Return the module that ``package.module:factory`` returns, in evaluation mode, and its weight file's digest.

    Raises:
        InputError: it cannot be imported or called, or returns no ``nn.Module``; or see ``assign``.
    """
    factory = imported(reference, "a model")
    if not callable(factory):
        raise InputError(f"{reference} is a {type(factory).__name__}, not a function that returns an nn.Module")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InputError(f"{reference} cannot be called without arguments: {error}") from None
    except ValueError:  # it does not say what it takes; calling it will
        pass
    with own_code(reference):
        module = factory()
    if not isinstance(module, nn.Module):
        raise InputError(f"{reference} returned a {type(module).__name__}, not an nn.Module")
    for name, parameter in module.state_dict().items():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise InputError(f"{reference}: parameter {name!r} holds NaN or infinity")
    digest = None
    if weights is not None:
        tensors, _ = read_tensors(weights)
        assign(module, tensors, weights)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return module.eval(), digest
