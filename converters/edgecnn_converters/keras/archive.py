"""Read a Keras file: the architecture as JSON, the weights by layer. Nothing here executes what a file holds.

A ``.keras`` file is a zip of ``config.json``, ``metadata.json`` and ``model.weights.h5``; its arrays are named by the
class and the place of their layer. An ``.h5`` file holds the architecture in an attribute and names arrays by layer.
Sources: ``keras/src/saving/saving_lib.py`` and ``keras/src/legacy/saving/legacy_h5_format.py`` of Keras 3.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.budget import budget, require_members
from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.graph.node_builder import Array
from edgecnn.hdf5 import probe

WEIGHTS, CONFIG, METADATA = "model.weights.h5", "config.json", "metadata.json"
MAX_JSON_BYTES = 128 * 2**20
FREE_BYTES = 16 * 2**20  # below this nothing is asked
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # of Keras 3 and 2.13, and of 2.12
DAMAGED = (
    KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, OSError, RuntimeError, EOFError,
)  # fmt: skip
"""What json, zipfile, h5py and conversions raise for what is not as it should be."""
ALIASES: Mapping[str, tuple[str, ...]] = {"kernel": ("kernel", "depthwise_kernel")}
SAVE = "save the whole network with model.save('FILE.keras') and give that"


@dataclass(frozen=True)
class Place:
    """Say where a layer stands.

    Attributes:
        names: of the models around it, outermost first and without the file's own, and of the layer.
        groups: the same in a ``.keras`` file, where a layer is named by its class.
        others: ``groups`` of layers of the same name, of which one has the weights where several models share a layer.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    others: tuple[tuple[str, ...], ...] = ()

    def part(self, name: str, attribute: str) -> Place:
        """Return the place of a layer inside this one: its name, and the attribute of the outer one that holds it.

        Keras 2 files have the attribute's private name.
        """
        outer = (self.groups, *self.others)
        every = [(*groups, f"@{spelling}") for groups in outer for spelling in (attribute, f"_{attribute}")]
        return Place((*self.names, name), every[0], tuple(every[1:]))


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Hold an open file.

    Attributes:
        path: of the file.
        config: the architecture: ``class_name``, ``config``.
        keras: the major version of Keras that wrote it.
        root: the HDF5 group of the weights.
        by_name: whether ``root`` names its groups by layer, as ``.h5`` files do.
    """

    path: Path
    config: Mapping[str, Any]
    keras: int
    root: Any
    by_name: bool
    _named: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)

    def arrays(self, place: Place, variables: Sequence[str]) -> list[Array]:
        """Return the arrays of a layer, which are in this order in the file, as float32.

        Raises:
            InputError: one is missing, damaged, holds NaN, or claims far more bytes than the file has.
        """
        found = self._by_layer(place, variables) if self.by_name else self._by_group(place)
        if len(found) != len(variables):
            raise InputError(
                f"the file has {len(found)} arrays for it, it needs {len(variables)}: {', '.join(variables)}"
            )
        return [self._read(name, item) for name, item in zip(variables, found, strict=True)]

    def _by_group(self, place: Place) -> list[Any]:
        container = next((c for c in CONTAINERS if c in self.root), CONTAINERS[0])
        for groups in (place.groups, *place.others):
            steps = [g[1:] if g.startswith("@") else f"{container}/{g}" for g in groups]
            held = _entry(self.root, "/".join([*steps, "vars"]))
            if held is not None and len(held):
                return [item for k in range(len(held)) if (item := _entry(held, str(k))) is not None]
        return []

    def _below(self, layer: str) -> list[tuple[str, Any]]:
        """Return the arrays in the group of a layer, by name and in the file's order."""
        if layer not in self._named:
            found: list[tuple[str, Any]] = []
            group = _entry(self.root, layer)

            def visit(name: str, item: Any) -> None:
                if hasattr(item, "dtype"):
                    found.append((name, item))

            if group is not None and hasattr(group, "visititems"):
                group.visititems(visit)
                order = {name: k for k, name in enumerate(_attribute(group, "weight_names"))}
                found.sort(key=lambda each: order.get(each[0], len(order)))
            self._named[layer] = [(name.partition(":")[0], item) for name, item in found]
        return self._named[layer]

    def _by_layer(self, place: Place, variables: Sequence[str]) -> list[Any]:
        held = self._below(place.names[0])
        found = [self._match(held, place.names, variable) for variable in variables]
        if all(item is not None for item in found):
            return found
        if len(place.names) == 1 and len(held) == len(variables):  # the layer was renamed after it was built
            return [item for _, item in held]
        return [item for item in found if item is not None]

    @staticmethod
    def _match(held: list[tuple[str, Any]], names: tuple[str, ...], variable: str) -> Any:
        spellings = ALIASES.get(variable, (variable,))
        for first in range(len(names)):  # a layer's variables have the names of some of the models around it, or none
            wanted = {"/".join([*names[first:], spelling]) for spelling in spellings}
            if found := [item for name, item in held if name in wanted]:
                return found[0]
        tails = [f"/{names[-1]}/{spelling}" for spelling in spellings]
        found = [item for name, item in held if any(name.endswith(tail) for tail in tails)]
        if not found and len(names) == 1:
            found = [item for name, item in held if name.rpartition("/")[2] in spellings]
        return found[0] if len(found) == 1 else None

    def _read(self, name: str, item: Any) -> Array:
        if item.is_virtual or item.external:
            raise InputError(f"{name} lies in another file; {SAVE}")
        budget().require(int(item.nbytes), name, file_bytes=self.path.stat().st_size)
        if item.dtype.kind not in "fiu" and item.dtype.name != "bfloat16":
            raise InputError(f"{name} is of type {item.dtype}; numbers are needed")
        value = np.asarray(item[()], np.float32)
        if not np.isfinite(value).all():
            raise InputError(f"{name} holds NaN or infinity; the file is damaged or training diverged")
        return value


def _entry(group: Any, path: str) -> Any:
    """Return what lies in a group under a path, or ``None``.

    Raises:
        InputError: a step of the path is a link, which may lead to another file.
    """
    for step in path.split("/"):
        if not hasattr(group, "keys") or step not in group:
            return None
        if type(group.get(step, getlink=True)).__name__ != "HardLink":
            raise InputError(f"{step!r} in the file is a link, which may lead to another file; {SAVE}")
        group = group[step]
    return group


def _attribute(group: Any, name: str) -> list[str]:
    """Return a list of names; a long one is split over ``name0``, ``name1``, …"""
    parts = [name] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(f"{name}{len(parts)}")
    return [n.decode("utf-8") if isinstance(n, bytes) else str(n) for part in parts for n in group.attrs[part]]


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open a whole network of Keras.

    Raises:
        InputError: no such file, not one of Keras, cut short, only weights, or it claims far more bytes than it has.
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("Keras files need h5py: pip install 'edgecnn[keras]'") from None
    if not path.is_file():
        raise InputError(f"no file at {path}; give a .keras or .h5 file of Keras")
    with ExitStack() as stack:
        try:
            made = _zipped(path, stack, h5py) if zipfile.is_zipfile(path) else _hdf5(path, stack, h5py)
        except (
            OSError,
            zipfile.BadZipFile,
            EOFError,
            KeyError,
            ValueError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            raise InputError(f"{path} is not a Keras file, or is cut short ({_line(error)})") from None
        yield made


def _zipped(path: Path, stack: ExitStack, h5py: Any) -> Archive:
    archive = stack.enter_context(zipfile.ZipFile(path))
    held = {info.filename: info for info in archive.infolist()}
    for name in (CONFIG, WEIGHTS):
        if name not in held:
            raise InputError(f"{path} has no {name} inside; {SAVE}")
    require_members(archive, [CONFIG, METADATA, WEIGHTS], path)
    config = _json(archive.read(CONFIG) if held[CONFIG].file_size <= MAX_JSON_BYTES else None, path)
    version = "3"
    if METADATA in held and held[METADATA].file_size <= FREE_BYTES:
        version = str(_json(archive.read(METADATA), path).get("keras_version", version))
    content = archive.read(WEIGHTS)
    probe(path, content)
    root = stack.enter_context(h5py.File(io.BytesIO(content), "r"))
    return Archive(path=path, config=config, keras=_major(version), root=root, by_name=False)


def _hdf5(path: Path, stack: ExitStack, h5py: Any) -> Archive:
    probe(path)
    file = stack.enter_context(h5py.File(path, "r"))
    if "model_config" not in file.attrs:
        raise InputError(f"{path} holds weights but no architecture; {SAVE}, or name a model that they are for")
    root = file.get("model_weights", file)
    version = file.attrs.get("keras_version", root.attrs.get("keras_version", "2"))
    version = version.decode("utf-8") if isinstance(version, bytes) else str(version)
    config = _json(file.attrs["model_config"], path)
    return Archive(path=path, config=config, keras=_major(version), root=root, by_name=True)


def _json(text: str | bytes | None, path: Path) -> Mapping[str, Any]:
    if text is None:
        raise InputError(f"{path}: its architecture has more than {MAX_JSON_BYTES} bytes; it is damaged")
    try:
        made = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its architecture is not JSON ({_line(error)})") from None
    if not isinstance(made, dict):
        raise InputError(f"{path}: its architecture is no JSON object; it is damaged")
    return made


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 2


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def fits(shape: Sequence[int]) -> bool:
    """Tell whether a tensor of a shape is one that a machine can hold: below 2**31 elements."""
    return math.prod(shape) < 2**31
