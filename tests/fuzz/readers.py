"""Read one file as the commands do, by its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


def _artifact(path: Path) -> None:
    """Read an artifact as ``inspect``, ``compare`` and ``validate`` do."""
    from edgecnn.artifact import read_manifest
    from edgecnn_converters.registry import converters

    row = next(row for row in converters().values() if row.suffixes[0] == path.suffix)
    _artifact_only(path)
    read_manifest(path, row.target)


def _artifact_only(path: Path) -> None:
    from edgecnn_converters.registry import converters

    row = next(row for row in converters().values() if row.suffixes[0] == path.suffix)
    files, _, _ = row.described(path)
    row.layers(*files)
    row.integers(*files)


def _manifest(path: Path) -> None:
    from edgecnn.artifact import read_manifest

    name, target, _ = path.name.split(".")
    suffix = {"openvino": "xml"}.get(target, target)
    read_manifest(path.with_name(f"{name}.{suffix}"), target)


def _network(path: Path) -> None:
    """Read a network as ``load`` does, up to the comparison with its runtime."""
    from edgecnn.graph import passes
    from edgecnn.graph.importers import importer_of

    importer = importer_of(path)
    assert importer is not None
    graph = importer.read(path).graph
    if graph.precision == "fp32":
        passes.simplify(graph)


def _weights(path: Path) -> None:
    from edgecnn.models import resolve
    from edgecnn.models.checkpoint import load_weights

    load_weights(resolve("mobilenet_v2_0.35_96"), path)


def _keras(path: Path) -> None:
    from edgecnn.models.weightfile import read_tensors

    _network(path)
    read_tensors(path)


def _image(path: Path) -> None:
    from edgecnn.data.decode import BadImageError, decode
    from edgecnn.errors import InputError
    from edgecnn.preprocess import Preprocess

    try:
        decode(path.read_bytes(), Preprocess(resize=(8, 8)))
    except BadImageError as error:
        raise InputError(str(error)) from error


def _arrays(path: Path) -> None:
    from edgecnn.data.arrays import array_splits, load_array_set

    array_splits(path)
    load_array_set(f"{path}:test", labelled=True)


def _recipe(path: Path) -> None:
    from edgecnn.quant.recipe import recipe

    recipe(str(path))


def _device(path: Path) -> None:
    from edgecnn_targets.devices import device

    device(str(path))


def _labels(path: Path) -> None:
    from edgecnn.data.folders import labelled_files

    images = path.parent / "images"
    images.mkdir(exist_ok=True)
    for k in range(8):
        (images / f"{k}.png").touch()
    labelled_files(path.parent)


def _record(path: Path) -> None:
    from edgecnn.artifact import Port
    from edgecnn.records import read_file

    read_file(Port, path)


def _runtime(path: Path) -> None:
    """Open and run an artifact on this machine, as ``validate`` does, once it can be read."""
    from edgecnn.errors import DeviceFault, InputError
    from edgecnn_targets.devices import device
    from edgecnn_targets.evaluate import fixed_input
    from edgecnn_targets.registry import open_session

    _artifact_only(path)
    try:
        session = open_session(device("host"), path)
        try:
            session.run(fixed_input(session))
        finally:
            session.close()
    except DeviceFault as fault:  # a failed check
        raise InputError(f"failed check: {fault}") from fault


READERS: Mapping[str, Callable[[Path], None]] = {
    "artifact": _artifact, "manifest": _manifest, "network": _network, "weights": _weights, "keras": _keras,
    "image": _image,
    "runtime": _runtime, "arrays": _arrays, "recipe": _recipe, "device": _device, "labels": _labels, "record": _record,
}  # fmt: skip
