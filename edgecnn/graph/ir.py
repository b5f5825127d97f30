"""The graph: nodes of a small closed op set over named tensors. Knows no runtime, no file format, no torch.

Conventions, everywhere:

- Activations are NHWC (or NC after the spatial dimensions are gone). Dimension 0 is the batch; it is 1 in the
  graph, and an interpreter takes any batch.
- Convolution weights are OHWI: ``(out_channels, kernel_h, kernel_w, in_channels / groups)``; fully connected weights
  are ``(out_features, in_features)``. The quantization axis of a weight or bias is therefore always 0.
- A tensor's class says what is known of it: ``Tensor`` (an activation in float), ``Constant`` (with its ``value``),
  ``Quantized`` (with ``quant``) or ``QuantizedConstant`` (with all of these, and ``integers``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.ops import ACTIVATIONS, Attr, Node, need, output_shape
from edgecnn.preprocess import Preprocess
from edgecnn.records import read_record

__all__ = ["Attr", "Constant", "Graph", "Metadata", "Node", "QParams", "Quantized", "QuantizedConstant", "Tensor"]


@dataclass(frozen=True, kw_only=True, eq=False)
class QParams:
    """Quantization parameters: ``real = scale * (integer - zero_point)``.

    Attributes:
        scale: float32, shape ``(1,)`` per tensor or ``(channels,)``; finite and above 0.
        zero_point: int64, the shape of ``scale``.
        dtype: the integer type, one of ``TYPES``.
        axis: the channel dimension, or ``None`` for per tensor. One scale is always per tensor: no file tells a single
            channel from it.

    Source of the scheme: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", eq. 1; LiteRT 8-bit quantization specification.
    """

    TYPES: ClassVar = ("int8", "int16", "int32", "int64")
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    dtype: str
    axis: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.atleast_1d(np.asarray(self.scale, np.float32)))
        object.__setattr__(self, "zero_point", np.atleast_1d(np.asarray(self.zero_point, np.int64)))
        if self.dtype not in self.TYPES:
            raise InputError(f"quantized type {self.dtype!r}; allowed: {', '.join(self.TYPES)}")
        if self.scale.ndim != 1 or self.scale.shape != self.zero_point.shape:
            raise InputError(f"scale {self.scale.shape} and zero point {self.zero_point.shape} must be equal vectors")
        if self.scale.size == 1:
            object.__setattr__(self, "axis", None)
        elif self.axis is None:
            raise InputError(f"{self.scale.size} scales without a channel axis; per-tensor parameters have one")
        if not np.all(np.isfinite(self.scale)) or np.any(self.scale <= 0):
            raise InputError("a quantization scale is not a finite number above 0")
        low, high = self.limits
        if np.any(self.zero_point < low) or np.any(self.zero_point > high):
            raise InputError(f"a zero point is outside {self.dtype}'s [{low}, {high}]")

    @property
    def limits(self) -> tuple[int, int]:
        """Return the smallest and largest integer of the type."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    def _along(self, values: NDArray[Any], ndim: int) -> NDArray[Any]:
        shape = [1] * ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return values.reshape(shape) if ndim else values.reshape(())

    def quantize(self, real: NDArray[Any]) -> NDArray[Any]:
        """Return the nearest integers (ties to even), clipped to the type's range."""
        scaled = np.rint(real.astype(np.float64) / self._along(self.scale.astype(np.float64), real.ndim))
        shifted = scaled + self._along(self.zero_point, real.ndim)
        return np.asarray(np.clip(shifted, *self.limits), self.dtype)

    def dequantize(self, integers: NDArray[Any]) -> NDArray[np.float32]:
        """Return the real values of integers, float32."""
        centred = integers.astype(np.int64) - self._along(self.zero_point, integers.ndim)
        real = centred * self._along(self.scale.astype(np.float64), integers.ndim)
        return np.asarray(real, np.float32)

    def same_as(self, other: QParams | None) -> bool:
        """Whether both are exactly the same parameters."""
        return other is not None and all(np.array_equal(a, vars(other)[name]) for name, a in vars(self).items())


@dataclass(frozen=True, kw_only=True, eq=False)
class Tensor:
    """One tensor of a graph. Where it is of no subclass, it is an activation in float."""

    name: str  # unique in the graph
    shape: tuple[int, ...]  # see the module's conventions; batch 1

    def __post_init__(self) -> None:
        if any(d < 1 for d in self.shape):
            raise InputError(f"tensor {self.name!r} has shape {self.shape}; every dimension must be at least 1")

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return a tensor known to be of this class; raise ``ValueError`` where it is not: a fault of the caller."""
        if not isinstance(tensor, cls):
            raise ValueError(f"tensor {tensor.name!r} is a {type(tensor).__name__}; it must be a {cls.__name__}")
        return tensor

    def as_float(self) -> Tensor:
        """Return the tensor without quantization."""
        return Tensor(name=self.name, shape=self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant(Tensor):
    """A tensor that is known before the graph runs."""

    shape: tuple[int, ...] = field(init=False)  # of the value
    value: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", self.value.shape)
        super().__post_init__()

    def quantized(self, quant: QParams, integers: NDArray[Any]) -> QuantizedConstant:
        """Return the constant with these integers; their float value stays beside them."""
        return QuantizedConstant(name=self.name, value=self.value, quant=quant, integers=integers)

    def as_float(self) -> Constant:
        """Return the constant without its integers."""
        return Constant(name=self.name, value=self.value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized(Tensor):
    """A tensor whose integers mean what ``quant`` says."""

    quant: QParams


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedConstant(Constant, Quantized):
    """A constant in float and in integers, which need not be the nearest to it."""

    integers: NDArray[Any]  # of the type and on the grid of ``quant``

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.integers.shape != self.shape or self.integers.dtype != np.dtype(self.quant.dtype):
            raise InputError(f"tensor {self.name!r}: integers must be {self.quant.dtype} of shape {self.shape}")
        if self.quant.axis is not None and self.quant.scale.size != self.shape[self.quant.axis]:
            raise InputError(f"tensor {self.name!r}: {self.quant.scale.size} scales for {self.shape}")


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """Hold what travels with the network through every format.

    Attributes:
        model: the name the user asked for.
        preprocess: how an image becomes ``Graph.image_input``, or ``None`` when unknown.
        other_preprocess: likewise of other inputs, by name; those that are not named are fed as they are.
        labels: class names, one per class, or ``None``.
        label_offset: data class ``k`` is logit ``k + label_offset`` (1 for a head with a background class in front).
        weights_sha256: digest of the weight file, ``random``, or ``None`` where that is not known.
        quantization: recipe, calibration digest and seed, as JSON values; ``None`` for a float graph.
    """

    model: str = ""
    preprocess: Preprocess | None = None
    other_preprocess: Mapping[str, Preprocess] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    label_offset: int = 0
    weights_sha256: str | None = None
    quantization: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``from_json`` reads them back."""
        fields = {**asdict(self), "preprocess": self.preprocess.to_json() if self.preprocess else None}
        others = {name: each.to_json() for name, each in self.other_preprocess.items()}
        del fields["other_preprocess"]
        return fields | ({"other_preprocess": others} if others else {})

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Metadata:
        """Read what ``to_json`` returned; raise ``InputError`` for an unknown key, or wrong preprocessing."""
        return read_record(cls, fields, "metadata record")


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """Nodes in execution order. Immutable: a pass returns another graph.

    Raises:
        InputError: a node uses a tensor before it is made, an unknown op, or shapes that do not fit; the
            message names the node.
    """

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Metadata = field(default_factory=Metadata)

    def __post_init__(self) -> None:
        missing = [n for n in (*self.inputs, *self.outputs) if n not in self.tensors]
        need(not missing, f"graph names undefined tensors: {', '.join(missing)}")
        known = {*self.inputs, *(t.name for t in self.constants())}
        for node in self.nodes:
            need(set(node.attrs) == set(node.spec.attrs), f"{node} has attributes {sorted(node.attrs)}")
            activation = node.attrs.get("activation", "none")
            need(activation in ACTIVATIONS, f"{node.output!r}: activation {activation!r}; allowed: {ACTIVATIONS}")
            late = [i for i in node.inputs if i not in known]
            need(not late, f"{node} reads {late} before anything makes it")
            need(node.output in self.tensors and node.output not in known, f"{node.output!r} is not made exactly once")
            shape = output_shape(node, [self.tensors[i].shape for i in node.inputs])
            got = self.tensors[node.output].shape
            need(shape == got, f"{node} makes {shape} but its tensor is {got}")
            known.add(node.output)
        need(set(self.outputs) <= known, f"outputs {self.outputs} are not made by any node")

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def consumers(self, name: str) -> list[Node]:
        """Return the nodes that read the tensor, in order."""
        return [n for n in self.nodes if name in n.inputs]

    def producer(self, name: str) -> Node | None:
        """Return the node that makes the tensor, or ``None`` for an input or a constant."""
        return next((n for n in self.nodes if n.output == name), None)

    def constants(self) -> list[Constant]:
        """Return the constants."""
        return [t for t in self.tensors.values() if isinstance(t, Constant)]

    def constant(self, name: str) -> Constant:
        """Return a tensor known to be a constant; see ``Tensor.of``."""
        return Constant.of(self.tensors[name])

    def quant(self, name: str) -> QParams:
        """Return the parameters of a tensor known to be quantized; see ``Tensor.of``."""
        return Quantized.of(self.tensors[name]).quant

    @property
    def image_input(self) -> str | None:
        """Return the input that ``metadata.preprocess`` is of: the first of 4 dimensions, or ``None``.

        All other inputs are fed as they are, but for those of ``metadata.other_preprocess``.
        """
        return next((name for name in self.inputs if len(self.tensors[name].shape) == 4), None)

    def is_wide(self, name: str) -> bool:
        """Tell whether a tensor is in 16 bits."""
        tensor = self.tensors[name]
        return isinstance(tensor, Quantized) and tensor.quant.dtype == "int16"

    def macs(self, node: Node) -> int:
        """Return the multiply-accumulates of one node for one image."""
        return node.spec.macs([self.tensors[i].shape for i in node.inputs], self.tensors[node.output].shape)

    def activations(self) -> list[Tensor]:
        """Return the graph inputs, then every node's output, in execution order."""
        return [self.tensors[n] for n in (*self.inputs, *(node.output for node in self.nodes))]

    @property
    def precision(self) -> str:
        """``fp32``, ``w8`` (weights only), ``int8`` (but for what is ``kept``) or ``int16x8``: read off the tensors."""
        types = {t.quant.dtype for t in self.activations() if isinstance(t, Quantized)}
        if types:
            return "int16x8" if types == {"int16"} else "int8"
        return "w8" if any(isinstance(t, Quantized) for t in self.tensors.values()) else "fp32"

    @property
    def kept(self) -> tuple[str, ...]:
        """Return the nodes of an int8 graph that compute in 16 bits, or in float where a target has no int16."""
        if self.precision != "int8":
            return ()
        return tuple(n.output for n in self.nodes if n.op != "requantize" and self.is_wide(n.output))

    @property
    def kept_tensors(self) -> tuple[str, ...]:
        """Return all tensors of the nodes that are ``kept``, and both sides of their borders."""
        kept, names = set(self.kept), set[str]()
        for node in self.nodes:
            if node.output in kept or (node.op == "requantize" and kept):
                names |= {*node.inputs, node.output}
        return tuple(sorted(names))

    def as_float(self) -> Graph:
        """Return the same network without quantization: the float values that stand beside the integers."""
        same: dict[str, str] = {}  # a requantize's 16-bit side is, in float, its 8-bit side; of one type, its input
        for node in self.nodes:
            if node.op == "requantize":
                source = same.get(node.inputs[0], node.inputs[0])
                narrowing = node.attrs["to"] == "int8" and self.is_wide(node.inputs[0]) and source == node.inputs[0]
                kept, gone = (node.output, source) if narrowing else (source, node.output)
                same = {name: kept if now == gone else now for name, now in same.items()} | {gone: kept}
        nodes = tuple(
            replace(n, inputs=tuple(same.get(i, i) for i in n.inputs), output=same.get(n.output, n.output))
            for n in self.nodes
            if n.op != "requantize"
        )
        tensors = {name: t.as_float() for name, t in self.tensors.items() if name not in same}
        outputs = tuple(same.get(name, name) for name in self.outputs)
        metadata = replace(self.metadata, quantization=None)
        return replace(self, nodes=nodes, tensors=tensors, outputs=outputs, metadata=metadata)

    def with_tensors(self, *changed: Tensor) -> Graph:
        """Return a copy in which the given tensors replace those of the same name."""
        return replace(self, tensors={**self.tensors, **{t.name: t for t in changed}})
