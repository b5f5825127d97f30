"""Weights from files: formats, and the naming schemes people bring. Nothing here executes what a file holds."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecnn.errors import InputError
from edgecnn.files import write_atomic
from edgecnn.models.blocks import Classifier, build
from edgecnn.models.schemes import SCHEMES, Scheme
from edgecnn.models.spec import ModelSpec
from edgecnn.preprocess import Preprocess

Tensors = dict[str, torch.Tensor]
DEMO = "_demo.safetensors"  # after the model's name, in assets/


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """What a weight file says beside its tensors.

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


def default_preprocess(resolution: int) -> Preprocess:
    """Resize to the model's side, pixels to -1..1: how the MobileNets were trained."""
    return Preprocess(resize=(resolution, resolution))


def load_weights(spec: ModelSpec, path: Path, padding: str | None = None) -> tuple[Classifier, WeightSource]:
    """The model of ``spec`` with the weights of a file; the head's size comes from the file.

    Attributes of the file (its naming scheme, or what ``save_weights`` noted) set padding, folding, preprocessing and
    label offset; ``padding`` overrides.

    Raises:
        InputError: not a checkpoint; a pickle with code; tensors missing, extra, of a wrong shape or not finite.
    """
    tensors, header = read_tensors(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if "edgecnn" in header:
        return _own(spec, path, tensors, header["edgecnn"], padding, digest)
    scheme = next((s for s in SCHEMES if s.matches(tensors)), None)
    if scheme is None:
        plain = ModelSpec(
            **{**_fields(spec), "padding": padding or spec.padding, "num_classes": _classes(tensors, spec)}
        )
        module = build(plain)
        assign(module, tensors, path)
        return module, WeightSource(spec=plain, preprocess=default_preprocess(spec.resolution), digest=digest)
    if scheme.family != spec.family:
        raise InputError(f"{path} holds weights of {scheme.family} ({scheme.name}), not of {spec.name}")
    return _foreign(spec, path, tensors, scheme, padding, digest)


def _fields(spec: ModelSpec) -> dict[str, Any]:
    return dict(spec.to_json())


def _classes(tensors: Tensors, spec: ModelSpec) -> int:
    head = tensors.get("classifier.weight")
    return int(head.shape[0]) if head is not None and head.ndim == 2 else spec.num_classes


def _own(
    spec: ModelSpec, path: Path, tensors: Tensors, record: str, padding: str | None, digest: str
) -> tuple[Classifier, WeightSource]:
    try:
        facts = json.loads(record)
        saved = ModelSpec.from_json(facts["spec"])
        preprocess = Preprocess.from_json(facts["preprocess"])
        labels = tuple(facts["labels"]) if facts["labels"] is not None else None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} has a damaged edgecnn header ({error!r}); train or save it again") from None
    if (saved.family, saved.width) != (spec.family, spec.width):
        raise InputError(f"{path} holds weights of {saved.name}, not of {spec.name}")
    wanted = ModelSpec(**{**_fields(saved), "name": spec.name, "resolution": spec.resolution})
    wanted = replace(wanted, padding=padding) if padding else wanted
    if spec.resolution != saved.resolution:
        preprocess = default_preprocess(spec.resolution)
    module = build(wanted)
    assign(module, tensors, path)
    return module, WeightSource(spec=wanted, preprocess=preprocess, labels=labels, digest=digest)


def _foreign(
    spec: ModelSpec, path: Path, tensors: Tensors, scheme: Scheme, padding: str | None, digest: str
) -> tuple[Classifier, WeightSource]:
    classes = scheme.classes(tensors)
    wanted = ModelSpec(
        **{
            **_fields(spec),
            "num_classes": classes,
            "padding": padding or scheme.padding,
            "folded": scheme.folded,
            "bn_eps": scheme.bn_eps,
        }
    )
    module = build(wanted)
    names = scheme.names(wanted)
    state = module.state_dict()
    absent = [foreign for foreign, _ in names.values() if foreign not in tensors]
    used = {foreign for foreign, _ in names.values()}
    extra = sorted(k for k in tensors if k not in used)
    if absent or extra:
        raise InputError(_mismatch(path, absent, extra))
    renamed = {}
    for ours, (foreign, arrange) in names.items():
        renamed[ours] = _arranged(arrange, foreign, tensors[foreign], state[ours], path)
    assign(module, renamed, path)
    preprocess = scheme.preprocess(spec.resolution)
    return module, WeightSource(
        spec=wanted, preprocess=preprocess, label_offset=scheme.label_offset(classes), digest=digest
    )


def _arranged(arrange: Any, name: str, tensor: torch.Tensor, ours: torch.Tensor, path: Path) -> torch.Tensor:
    try:
        out: torch.Tensor = arrange(tensor)
    except (RuntimeError, IndexError):
        out = tensor
    if out.shape != ours.shape:
        raise InputError(
            f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, which does not fit {tuple(ours.shape)}"
        )
    return out


def assign(module: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors into a module of the same names; batch counters are not needed.

    Raises:
        InputError: one is missing, extra, of a wrong shape, or holds NaN or infinity; the message names it.
    """
    state = module.state_dict()
    counters = {k for k in (*state, *tensors) if k.endswith("num_batches_tracked")}
    absent = [k for k in state if k not in tensors and k not in counters]
    extra = [k for k in tensors if k not in state and k not in counters]
    if absent or extra:
        raise InputError(_mismatch(path, absent, extra))
    for name, tensor in tensors.items():
        if name in counters:
            continue
        if tensor.shape != state[name].shape:
            got, want = tuple(tensor.shape), tuple(state[name].shape)
            raise InputError(f"{path}: tensor {name!r} has shape {got}, the model needs {want}")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise InputError(f"{path}: tensor {name!r} holds NaN or infinity; the file is damaged or training diverged")
    module.load_state_dict({**state, **{k: v.float() for k, v in tensors.items() if k not in counters}})


def _mismatch(path: Path, absent: list[str], extra: list[str]) -> str:
    def some(names: list[str]) -> str:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{names[0]!r}{more}"

    parts = [f"lacks tensor {some(absent)}"] if absent else []
    parts += [f"has unexpected tensor {some(extra)}"] if extra else []
    return f"{path} {' and '.join(parts)}; is it a checkpoint of this model and width?"


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and header of a safetensors file, or of a torch state dict read with ``weights_only=True``.

    Raises:
        InputError: no such file, not a checkpoint, truncated, or a pickle that holds more than tensors.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no weight file at {path}; give a safetensors file or a torch state dict")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        except SafetensorError as error:
            raise InputError(f"{path} is not a safetensors file, or is cut short ({error})") from None
    try:
        with warnings.catch_warnings():  # torch's thoughts about pickle protocols; what matters is raised
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds Python objects, which could run code, or is no checkpoint; save only model.state_dict()"
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), "it is empty")
        raise InputError(f"{path} is no checkpoint, or is cut short ({reason})") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path} is not a dictionary of tensors; save model.state_dict()")
    return {str(k).removeprefix("module."): v for k, v in state.items()}, {}


def save_weights(
    module: nn.Module, spec: ModelSpec, path: Path, *, preprocess: Preprocess, labels: tuple[str, ...] | None
) -> None:
    """Write a safetensors file in our own names, with what is needed to use it in its header. Atomic.

    Raises:
        InputError: the place cannot be written.
    """
    from safetensors.torch import save

    facts = {"spec": spec.to_json(), "preprocess": preprocess.to_json(), "labels": labels}
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items() if v.is_floating_point()}
    write_atomic(path, save(tensors, metadata={"edgecnn": json.dumps(facts, sort_keys=True)}))


def random_weights(spec: ModelSpec, seed: int = 0) -> tuple[Classifier, WeightSource]:
    """A seeded initialisation: only for someone who asked for random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(spec)
    return module, WeightSource(spec=spec, preprocess=default_preprocess(spec.resolution))


def demo_weights(spec: ModelSpec) -> tuple[Classifier, WeightSource]:
    """The weights that ship with the package, trained on the demo data.

    Raises:
        InputError: this model has none; names those that do.
    """
    shipped = demo_names()
    if spec.name not in shipped:
        raise InputError(f"{spec.name} needs --weights FILE (or random); demo weights exist for: {', '.join(shipped)}")
    with resources.as_file(_assets() / f"{spec.name}{DEMO}") as path:
        return load_weights(spec, path)


def demo_names() -> list[str]:
    """Models that demo weights ship for."""
    return sorted(p.name.removesuffix(DEMO) for p in _assets().iterdir() if p.name.endswith(DEMO))


def _assets() -> Traversable:
    return resources.files("edgecnn") / "assets"


def load_factory(reference: str, weights: Path | None = None) -> tuple[nn.Module, str | None]:
    """The module that ``package.module:factory`` returns, in evaluation mode, and its weight file's digest.

    The current directory is searched first, as ``python -m`` does.

    Raises:
        InputError: it cannot be imported or called, or returns no ``nn.Module``; or see ``assign``.
    """
    module_name, _, attribute = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        factory = getattr(import_module(module_name), attribute)
    except (ImportError, SyntaxError) as error:
        raise InputError(
            f"cannot import {module_name!r} of {reference}: {error}; run where it can be imported"
        ) from None
    except AttributeError:
        raise InputError(f"module {module_name!r} has no {attribute!r}; give package.module:factory") from None
    if not callable(factory):
        raise InputError(f"{reference} is a {type(factory).__name__}, not a function that returns an nn.Module")
    try:
        module = factory()
    except TypeError as error:
        raise InputError(f"{reference} cannot be called without arguments: {error}") from None
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
