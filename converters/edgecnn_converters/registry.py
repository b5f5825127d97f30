"""The registry of converters: entry points ``edgecnn.converters``, of edgecnn and of any other installed package.

A row is light: it holds functions that import a format's library when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgecnn.artifact import PRECISIONS, ConvertedModel
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.graph.ir import Graph, Metadata, QParams
from edgecnn.graph.summary import Layer
from edgecnn.plugins import INTERFACE, registry
from edgecnn.reading import checked, reading

IN_8_BITS = ("fp32", "fp16", "w8", "int8")
ORDER = ("tflite", "onnx", "openvino", "c")  # of listings; other packages' converters follow


@dataclass(frozen=True, kw_only=True)
class Converter:
    """Write and read one format.

    Attributes:
        target: the format; the name of the entry point.
        precisions: what it writes, of ``artifact.PRECISIONS``.
        suffixes: of an artifact's files, the main one first.
        convert: ``(graph, *, precision, io=…)`` to the artifact in memory. The graph has one NHWC input and one output
            and is float for fp32 and fp16, has integers in its weights for w8, and is all integers otherwise; ``io`` is
            the type of its input and output. The same graph gives the same bytes. Raises ``InputError`` for a graph
            that is not of that precision or breaks the numerics contract, and ``UnsupportedError`` that lists all that
            the format cannot hold.
        unsupported: ``(graph, precision)`` to what the format cannot hold: ``[(node, reason)]``, in order.
        describe: the main file to its precision and the metadata in it, or ``None`` in another's file.
        integers: all files to ``{graph tensor: (parameters, integers)}``, so that formats can be compared. Weights are
            OHWI with the channels on axis 0; activations have no integers; what the writer added is left out.
        layers: all files to every op that computes, with what it stores and what it costs. Shapes are the file's.
            This, ``describe`` and ``integers`` raise ``InputError`` for a file that is not of the format, or damaged.
            Whatever needs a library that is not installed raises ``MissingDependencyError``.
        io: precision to the types of input and output that ``convert`` takes. ``convert`` finds what is not there.
        options: keywords of ``convert`` beside ``io``: ``name`` (of the files), ``activations`` (their type).
        in_all: whether ``--target all`` writes it.
        refusals: precision to the reason why it is not written.
        gather: the main file to what ``describe``, ``integers`` and ``layers`` take, where it is not just what the
            files hold.
        folder: ending of the folder that holds the files (``_c``: ``NAME_c``), or empty: they stand beside others'.
        interface: version of this interface that the converter is written for.

    Raises:
        InputError: a precision is not known, or there is no suffix.
    """

    target: str
    precisions: tuple[str, ...]
    suffixes: tuple[str, ...]
    convert: Callable[..., ConvertedModel]
    unsupported: Callable[[Graph, str], list[tuple[str, str]]]
    describe: Callable[[bytes], tuple[str, Metadata | None]]
    integers: Callable[..., dict[str, tuple[QParams, NDArray[Any] | None]]]
    layers: Callable[..., list[Layer]]
    io: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    in_all: bool = True
    refusals: Mapping[str, str] = field(default_factory=dict)
    gather: Callable[[Path], list[bytes]] | None = None
    folder: str = ""
    interface: int = INTERFACE

    def __post_init__(self) -> None:
        for name in ("describe", "integers", "layers"):
            object.__setattr__(self, name, checked(getattr(self, name), f"the {self.target} file"))
        for precision in (*self.precisions, *self.refusals):
            if precision not in PRECISIONS:
                raise InputError(f"converter {self.target}: {unknown('precision', precision, PRECISIONS)}")
        if not self.suffixes:
            raise InputError(f"converter {self.target} names no suffix; give that of its main file, such as '.tflite'")

    def files(self, main: Path) -> list[Path]:
        """Return all files of the artifact with that main file."""
        return [main.with_name(f"{main.name.removesuffix(self.suffixes[0])}{suffix}") for suffix in self.suffixes]

    def read(self, main: Path) -> list[bytes]:
        """Return what those files hold.

        Raises:
            InputError: one cannot be read.
        """
        try:
            if self.gather is not None:
                with reading(main):
                    return self.gather(main)
            return [file.read_bytes() for file in self.files(main)]
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {error.strerror}") from None

    def described(self, main: Path) -> tuple[list[bytes], str, Metadata | None]:
        """Return what those files hold, and what ``describe`` says of them.

        Raises:
            InputError: one cannot be read, or is not of the format; names the main file.
        """
        held = self.read(main)
        try:
            return held, *self.describe(held[0])
        except InputError as error:
            raise InputError(f"{main}: {error}") from None

    def require(self, precision: str) -> None:
        """Check that the converter writes a precision.

        Raises:
            UnsupportedError: it does not; says why, and lists what it writes.
        """
        if precision not in self.precisions:
            why = f": {self.refusals[precision]}" if precision in self.refusals else ""
            raise UnsupportedError(
                f"{self.target} is not written in {precision}{why}; it takes: {', '.join(self.precisions)}"
            )


def converters() -> Mapping[str, Converter]:
    """Return every installed converter by target, edgecnn's own first.

    Raises:
        InputError: a plugin cannot be used; names it.
    """
    rows = registry("converters", Converter)
    for name, row in rows.items():
        if name != row.target:
            raise InputError(f"plugin {name!r} of edgecnn.converters writes {row.target!r}; name it after its target")
    return {name: rows[name] for name in sorted(rows, key=lambda name: (*ORDER, name).index(name))}


def targets_of_all() -> tuple[str, ...]:
    """Return what ``--target all`` writes: the formats that run on a desk. C is for bare metal, so it is not in it."""
    return tuple(target for target, row in converters().items() if row.in_all)


def converter(target: str) -> Converter:
    """Return the converter of a target.

    Raises:
        InputError: no such target, or a plugin cannot be used.
    """
    rows = converters()
    if target not in rows:
        raise InputError(unknown("target", target, rows))
    return rows[target]
