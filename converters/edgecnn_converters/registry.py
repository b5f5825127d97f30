"""One row per converter. Its module is imported on use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgecnn.artifact import PRECISIONS, Emission
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.graph.ir import Graph, Metadata, QParams
from edgecnn.graph.summary import Layer


@dataclass(frozen=True, kw_only=True)
class Converter:
    """What writes and reads one format.

    Attributes:
        target: the format.
        module: has ``convert(graph, *, precision, io) -> Emission``,
            ``unsupported(graph, precision) -> [(node, reason)]``, and what reads files back:
            ``describe(main_file) -> (precision, Metadata or None)`` and
            ``integers(*files) -> {tensor: (parameters, integers)}``, and ``layers(*files) -> [Layer]``.
        precisions: what it writes, of ``artifact.PRECISIONS``.
        suffixes: of an artifact's files, the main one first.
        in_all: whether ``--target all`` writes it.
        refusals: precision to the reason why it is not written.
    """

    target: str
    module: str
    precisions: tuple[str, ...]
    suffixes: tuple[str, ...]
    in_all: bool = True
    refusals: Mapping[str, str] = field(default_factory=dict)

    def files(self, main: Path) -> list[Path]:
        """All files of the artifact with that main file."""
        return [main.with_name(f"{main.name.removesuffix(self.suffixes[0])}{suffix}") for suffix in self.suffixes]

    def read(self, main: Path) -> list[bytes]:
        """What those files hold.

        Raises:
            InputError: one cannot be read.
        """
        try:
            return [file.read_bytes() for file in self.files(main)]
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None

    def described(self, main: Path) -> tuple[list[bytes], str, Metadata | None]:
        """What those files hold, and what ``describe`` says of them.

        Raises:
            InputError: one cannot be read, or is not of the format; names the main file.
        """
        held = self.read(main)
        try:
            return held, *self.describe(held[0])
        except InputError as error:
            raise InputError(f"{main}: {error}") from None

    @property
    def convert(self) -> Callable[..., Emission]:
        """The module's ``convert``."""
        function: Callable[..., Emission] = import_module(self.module).convert
        return function

    @property
    def unsupported(self) -> Callable[[Graph, str], list[tuple[str, str]]]:
        """The module's ``unsupported``."""
        function: Callable[[Graph, str], list[tuple[str, str]]] = import_module(self.module).unsupported
        return function

    @property
    def describe(self) -> Callable[[bytes], tuple[str, Metadata | None]]:
        """The module's ``describe``."""
        function: Callable[[bytes], tuple[str, Metadata | None]] = import_module(self.module).describe
        return function

    @property
    def integers(self) -> Callable[..., dict[str, tuple[QParams, NDArray[Any] | None]]]:
        """The module's ``integers``."""
        function: Callable[..., dict[str, tuple[QParams, NDArray[Any] | None]]] = import_module(self.module).integers
        return function

    @property
    def layers(self) -> Callable[..., list[Layer]]:
        """The module's ``layers``."""
        function: Callable[..., list[Layer]] = import_module(self.module).layers
        return function

    def require(self, precision: str) -> None:
        """Nothing, where the converter writes that precision.

        Raises:
            UnsupportedError: it does not; says why, and lists what it writes.
        """
        if precision not in self.precisions:
            why = f": {self.refusals[precision]}" if precision in self.refusals else ""
            raise UnsupportedError(
                f"{self.target} is not written in {precision}{why}; it takes: {', '.join(self.precisions)}"
            )


IN_8_BITS = ("fp32", "fp16", "w8", "int8")
CONVERTERS = {
    row.target: row
    for row in (
        Converter(target="tflite", module="edgecnn_converters.tflite", precisions=PRECISIONS, suffixes=(".tflite",)),
        Converter(
            target="onnx",
            module="edgecnn_converters.onnx",
            precisions=IN_8_BITS,
            suffixes=(".onnx",),
            refusals={"int16x8": "ONNX Runtime computes in float between 16-bit QuantizeLinear and DequantizeLinear"},
        ),
        Converter(
            target="openvino",
            module="edgecnn_converters.openvino",
            precisions=IN_8_BITS,
            suffixes=(".xml", ".bin"),
            refusals={"int16x8": "OpenVINO's CPU plugin computes in float after a FakeQuantize of 65,536 levels"},
        ),
        Converter(
            target="c",
            module="edgecnn_converters.c",
            precisions=("int8",),
            suffixes=(".c", ".h", "_weights.h"),
            in_all=False,
        ),
    )
}
TFLITE, ONNX, OPENVINO, C = CONVERTERS.values()
TARGETS_OF_ALL = tuple(target for target, row in CONVERTERS.items() if row.in_all)
"""What ``--target all`` writes: the formats that every precision and runtime on a desk has. C is for bare metal."""


def converter(target: str) -> Converter:
    """The converter of a target.

    Raises:
        InputError: no such target.
    """
    if target not in CONVERTERS:
        raise InputError(unknown("target", target, CONVERTERS))
    return CONVERTERS[target]
