"""Tensors out of weight files, by name. Nothing here executes what a file holds.

safetensors; torch state dicts, with ``weights_only=True``; Keras' ``.weights.h5``, ``.keras`` and older ``.h5``, of
which only the arrays are read: their tensors are named ``LAYER/VARIABLE``, ``conv1/kernel``.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgecnn.budget import budget, require_members
from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.hdf5 import probe
from edgecnn.reading import reading

Tensors = dict[str, torch.Tensor]
KERAS_WEIGHTS = "model.weights.h5"  # in a .keras archive

# Variables of a Keras 3 layer in the order of its file, by the snake case of its class. Source: ``keras/src/layers``.
_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "normalization": ("mean", "variance", "count"),
}
_STATELESS = ("seed_generator", "optimizer")  # parts of a file that no network needs


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Read tensors and header (of a safetensors file) of a weight file.

    Raises:
        InputError: no such file, not a checkpoint, truncated, or a pickle that holds more than tensors.
        MissingDependencyError: a Keras file, and h5py is not there.
    """
    if not path.is_file():
        raise InputError(
            f"no weight file at {path}; give a safetensors file, a torch state dict, or a Keras .keras or .h5 file"
        )
    with reading(path, remedy="save it again"):
        return _read(path)


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    header: dict[str, str] = {}
    if path.suffix == ".safetensors":
        tensors, header = _safetensors(path)
    elif path.suffix == ".keras":
        tensors = _keras_archive(path)
    elif path.suffix in (".h5", ".hdf5"):
        tensors = _hdf5(path, lambda h5py: h5py.File(path, "r"))
    else:
        tensors = _torch(path)
    budget().require_count(len(tensors), f"tensors in {path}")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())  # strides may repeat a few bytes
    budget().require(size, str(path), file_bytes=path.stat().st_size)
    return {_canonical(k): v for k, v in tensors.items()}, header


def _canonical(name: str) -> str:
    """Remove what depends on how a network was wrapped or which Keras wrote it."""
    return re.sub("/depthwise_kernel$", "/kernel", name.removeprefix("module."))


def _safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file, or is cut short ({error})") from None


def _torch(path: Path) -> Tensors:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            require_members(archive, archive.namelist(), path)
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
    return {str(k): v for k, v in state.items()}


def _keras_archive(path: Path) -> Tensors:
    try:
        with zipfile.ZipFile(path) as archive:
            require_members(archive, [KERAS_WEIGHTS], path)
            data = archive.read(KERAS_WEIGHTS)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is not a .keras file with {KERAS_WEIGHTS} inside ({_line(error)})") from None
    return _hdf5(path, lambda h5py: h5py.File(io.BytesIO(data), "r"), data)


def _hdf5(path: Path, opened: Callable[[Any], Any], content: bytes | None = None) -> Tensors:
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("Keras weight files need h5py: pip install 'edgecnn[keras]'") from None
    found: Tensors = {}
    probe(path, content)
    try:
        with opened(h5py) as file:
            root = file.get("model_weights", file)  # a whole model in one .h5 keeps its weights there
            old = "layer_names" in root.attrs

            def visit(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and not any(part in _STATELESS for part in name.split("/")):
                    parts = name.split("/")  # LAYER/…/VARIABLE:0 in Keras' first format
                    key = f"{parts[0]}/{parts[-1].partition(':')[0]}" if old else _new_name(name, item, path)
                    found[key] = torch.from_numpy(np.asarray(item[()]))

            root.visititems(visit)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not an HDF5 file of Keras weights, or is cut short ({_line(error)})") from None
    if not found:
        raise InputError(f"{path} holds no weights; save them with model.save or model.save_weights")
    return found


def _new_name(name: str, item: Any, path: Path) -> str:
    """Name ``layers/KIND_7/vars/0`` of Keras 3, whose ``vars`` says the layer's name."""
    layer = item.parent.attrs.get("name")
    if layer is None:
        raise InputError(
            f"{path} does not name its layers (Keras before 3.10 did not); save it again with a newer Keras"
        )
    *_, kind, _, index = name.split("/")
    variables, count = _VARIABLES.get(re.sub(r"_\d+$", "", kind)), len(item.parent)
    if variables is None or (kind.startswith("batch_normalization") and count != len(variables)):
        return f"{layer}/{index}"
    return f"{layer}/{variables[int(index)]}"


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
