"""The results of the stages: a network, the same network quantized, and an artifact of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgecnn.artifact import ConvertedModel, manifest_path, read_manifest, write_artifact
from edgecnn.errors import InputError
from edgecnn.files import write_json
from edgecnn.graph.ir import Graph
from edgecnn.graph.serialize import save
from edgecnn.preprocess import Preprocess
from edgecnn.report.record import Finding, ReportEntry
from edgecnn.report.table import html_table

KEPT = "kept"  # in the quantization record: the tensors of the layers that a mixed int8 network keeps out of 8 bits


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A network with weights and preprocessing: what ``edgecnn.load`` returns and ``edgecnn.quantize`` takes.

    Attributes:
        graph: nodes and tensors, activations NHWC; ``graph.metadata`` has preprocessing, labels and label offset.
        name: of the artifacts that it becomes.
        path: the ``.edgecnn`` file that it was read from, or ``None``.
        findings: what was found while it was imported, or quantized.

    Example:
        >>> edgecnn.load("mobilenet_v2_0.35_96", weights="demo")
        Network mobilenet_v2_0.35_96: fp32, input 96x96x3, 16 outputs, 64 ops, 10.7 M MACs, 0.41 M weights
    """

    graph: Graph
    name: str
    path: Path | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def precision(self) -> str:
        """One of ``fp32``, ``w8``, ``int8`` and ``int16x8``."""
        return self.graph.precision

    @property
    def preprocess(self) -> Preprocess | None:
        """How an image becomes the input, where it is known."""
        return self.graph.metadata.preprocess

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names, where they are known."""
        return self.graph.metadata.labels

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        """Inputs and their shapes, without the batch; of images (height, width, channels)."""
        return {name: self.graph.tensors[name].shape[1:] for name in self.graph.inputs}

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Outputs and their shapes, without the batch; (height, width, channels) where they have 3 dimensions."""
        return {name: self.graph.tensors[name].shape[1:] for name in self.graph.outputs}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the only input; see ``inputs``.

        Raises:
            InputError: there are several.
        """
        if len(self.inputs) != 1:
            raise InputError(f"{self.name} has inputs {', '.join(self.inputs)}; see Network.inputs")
        return next(iter(self.inputs.values()))

    @property
    def classes(self) -> int | None:
        """How many numbers the only output has, where it is a vector: the logits of a classifier; else ``None``."""
        shapes = list(self.outputs.values())
        count = math.prod(shapes[0])
        return count if len(shapes) == 1 and max(shapes[0]) == count else None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(self.graph.macs(node) for node in self.graph)

    def as_float(self) -> Network:
        """Return the network without quantization: the float values that stand beside the integers."""
        return Network(graph=self.graph.as_float(), name=self.name, path=self.path, findings=self.findings)

    def facts(self) -> tuple[str, ...]:
        """Return precision, ports, ops and counts, each in a few words."""
        return tuple(self._facts())

    def save(self, folder: str | Path) -> Path:
        """Write ``NAME.edgecnn``, from which ``edgecnn.load`` reads the network again; return its path.

        Raises:
            InputError: the folder cannot be written.
        """
        path = Path(folder) / f"{self.name}.edgecnn"
        if not (self.path is not None and path.exists() and path.samefile(self.path)):
            save(self.graph, path)
        return path

    def _facts(self) -> list[str]:
        size = sum(t.value.size for t in self.graph.constants())
        ops = f"{len(self.graph.nodes)} ops"
        counts = [f"{self.macs / 1e6:.1f} M MACs", f"{size / 1e6:.2f} M weights"]
        made = f"{self.classes} outputs" if self.classes is not None else _shapes("output", self.outputs)
        return [self.precision, _shapes("input", self.inputs), made, ops, *counts]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name}: {', '.join(self._facts())}"

    def _repr_html_(self) -> str:
        return html_table([f"{type(self).__name__} {self.name}"], ([fact] for fact in self._facts()))


def _shapes(side: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return ``input 96x96x3``, or ``inputs image 96x96x3 and meta 4``."""
    sizes = {name: "x".join(map(str, shape)) for name, shape in shapes.items()}
    if len(sizes) == 1:
        return f"{side} {next(iter(sizes.values()))}"
    return f"{side}s " + " and ".join(f"{name} {size}" for name, size in sizes.items())


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class QuantizedNetwork(Network):
    """A network with integers: what ``edgecnn.quantize`` returns and ``edgecnn.convert`` takes.

    Attributes:
        given: the float network that was quantized, as it was given; ``None`` where it was read from a file.
        int8_alone: with ``mixed``, the same network with all layers in 8 bits, where some are kept out of them.
    """

    given: Network | None = None
    int8_alone: Graph | None = None

    @property
    def recipe(self) -> str:
        """Name of the recipe, or an empty string where the file does not say."""
        return str((self.graph.metadata.quantization or {}).get("recipe", {}).get("name", ""))

    def _facts(self) -> list[str]:
        facts = super()._facts()
        facts[0] = f"{facts[0]} by recipe {self.recipe}" if self.recipe else facts[0]
        return [*facts, *(f"{finding.severity}: {finding}" for finding in self.findings)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """One network in one format: what ``edgecnn.convert`` returns and ``edgecnn.validate`` takes.

    Attributes:
        network: what it was converted from.
        converted: the files in memory, with the ports.
        path: the main file, once ``save`` has written it.

    Example:
        >>> artifact = edgecnn.convert(int8, "tflite").save("out/")
        >>> artifact.path
        PosixPath('out/mobilenet_v2.tflite')
    """

    network: Network
    converted: ConvertedModel = field(repr=False)
    path: Path | None = None

    @property
    def target(self) -> str:
        """The format."""
        return self.converted.target

    @property
    def precision(self) -> str:
        """One of ``edgecnn.artifact.PRECISIONS``."""
        return self.converted.precision

    @property
    def files(self) -> Mapping[str, bytes]:
        """Suffix to content; the main file first."""
        return self.converted.files

    @property
    def size_bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(map(len, self.files.values()))

    def save(self, folder: str | Path) -> Artifact:
        """Write the files, the manifest and ``NAME.edgecnn``; return the artifact with its path.

        A kill at any moment leaves an artifact whole, or none.

        Raises:
            InputError: the folder cannot be written.
        """
        self.network.save(folder)
        return self.write(folder)

    def write(self, folder: str | Path) -> Artifact:
        """Write as ``save`` does, without ``NAME.edgecnn``, which is there once for all formats."""
        name, metadata = self.network.name, self.network.graph.metadata
        return replace(self, path=write_artifact(Path(folder), name, self.converted, metadata))

    def record(self, entries: Sequence[ReportEntry]) -> None:
        """Write into the manifest what was found about the artifact."""
        if self.path is None:
            raise InputError("the artifact is not written yet; save it first")
        manifest = read_manifest(self.path, self.target)
        assert manifest is not None
        mine = tuple(replace(entry, evidence=None).to_json() for entry in entries if entry.artifact == str(self.path))
        write_json(manifest_path(self.path, self.target), replace(manifest, figures=mine).to_json())

    def __repr__(self) -> str:
        where = f" at {self.path}" if self.path is not None else ", not saved"
        return f"Artifact {self.network.name}: {self.target} {self.precision}, {self.size_bytes / 1e6:.2f} MB{where}"
