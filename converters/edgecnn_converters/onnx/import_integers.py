"""Take the integers of a ``.onnx`` file with QuantizeLinear and DequantizeLinear into the graph that was made of it.

These two cost no node: they put a value on a grid, see ``Translation.grids``. What the numerics contract does not allow
is refused with its tensor and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.contract import FIXED, check_integers
from edgecnn.graph.ir import Constant, Graph, Node, QParams, Quantized, QuantizedConstant, Tensor
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import make_node, need
from edgecnn.graph.oracle import mlas
from edgecnn_converters.layout import UINT8_OFFSET
from edgecnn_converters.onnx.model_file import Call
from edgecnn_converters.onnx.translation import Stored, Translation

ACTIVATED = ("relu", "relu6")
MOST_NUDGED = float(mlas.NUDGES[-1]) + 2.0**-23


def quantize_linear(t: Translation, call: Call) -> Value:
    """Put an activation on a grid: it stays the same value."""
    x = t.value(call)
    _put(t, x, call, grid_of(t, call))
    return x


def dequantize_linear(t: Translation, call: Call) -> Value:
    """Leave an activation as it is; an integer input of the file is put on its grid."""
    x = t.value(call)
    _put(t, x, call, grid_of(t, call))
    return x


def real_ends(t: Translation, call: Call, x: Value, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the real values that a Clip of integers ends at: infinite where the type ends there too."""
    bounds = [np.asarray(t.values[call.inputs[k]]) for k in (1, 2) if t.given(call, k)]
    if not bounds or bounds[0].dtype not in (np.int8, np.uint8) or x.name not in t.grids:
        return ends
    info, quant = np.iinfo(bounds[0].dtype), t.grids[x.name]
    zero = quant.zero_point[0] + (UINT8_OFFSET if bounds[0].dtype == np.uint8 else 0)
    low, high = (float((end - zero) * quant.scale[0]) for end in np.clip(ends, info.min, info.max))
    return -np.inf if ends[0] <= info.min else low, np.inf if ends[1] >= info.max else high


def _put(t: Translation, x: Value, call: Call, quant: QParams) -> None:
    held = t.grids.setdefault(x.name, quant)
    if call.op == "DequantizeLinear" and held.zero_point[0] == quant.zero_point[0]:
        nudge = abs(float(held.scale[0]) / float(quant.scale[0]) - 1)  # of a product: ``mlas.product_scale``
        held = t.grids[x.name] = quant if nudge <= MOST_NUDGED else held
    need(
        held.same_as(quant),
        f"{call.inputs[0]!r} is quantized by scale {quant.scale[0]:.6g}, zero point {quant.zero_point[0]}, and "
        f"elsewhere by {held.scale[0]:.6g}, {held.zero_point[0]}; one grid is supported",
    )


def grid_of(t: Translation, call: Call) -> QParams:
    """Return the grid of an activation: int8, or uint8 shifted, with one scale."""
    scale = t.known(call, 1, "the scale").reshape(-1)
    zeros = t.known(call, 2, "the zero point").reshape(-1) if t.given(call, 2) else np.zeros(1, np.uint8)
    need(scale.size == 1, f"{call.inputs[0]!r} has {scale.size} scales; an activation has one")
    need(zeros.dtype in (np.int8, np.uint8), f"{call.inputs[0]!r} is {zeros.dtype}; int8 and uint8 are supported")
    shift = UINT8_OFFSET if zeros.dtype == np.uint8 else 0
    return QParams(scale=scale.astype(np.float32), zero_point=zeros.astype(np.int64) - shift, dtype="int8")


def note_constant(t: Translation, call: Call) -> None:
    """Keep the integers of a constant behind a DequantizeLinear."""
    integers, scale = np.asarray(t.values[call.inputs[0]]), np.asarray(t.values[call.inputs[1]])
    zeros = np.asarray(t.values[call.inputs[2]]) if t.given(call, 2) else np.zeros(scale.shape, integers.dtype)
    axis = int(call.attrs.get("axis", 1))
    t.integers[call.outputs[0]] = Stored(integers=integers, scale=scale, zeros=zeros, axis=axis % max(integers.ndim, 1))


def quantized(t: Translation, graph: Graph) -> Graph:
    """Return the graph with the file's integers.

    Raises:
        UnsupportedError: a tensor is float, or breaks the numerics contract; all of these are listed.
    """
    work = _Work(t=t, nodes=list(graph.nodes), tensors=dict(graph.tensors), outputs=graph.outputs)
    work.fuse()
    for name in graph.inputs:
        if name in t.grids:
            work.put(name, t.grids[name])
        else:
            work.faults.append(f"input {name!r} has no QuantizeLinear")
    for node in list(work.nodes):
        try:
            work.settle(node)
        except InputError as error:
            file = t.origin.get(node.output, (node.output,))[0]
            work.faults.append(f"{node.op} that makes {file!r}: {error}")
            if not isinstance(work.tensors[node.output], Quantized):
                work.put(node.output, FIXED)
    if work.faults:
        listed = "; ".join(work.faults)
        raise UnsupportedError(f"its integers are not taken: {listed}. Give the float file, to quantize it here")
    made = replace(graph, nodes=tuple(work.nodes), tensors=work.read())
    try:
        check_integers(made)
    except InputError as error:
        raise UnsupportedError(f"its integers break the numerics contract: {error}; give the float file") from None
    return made


@dataclass(kw_only=True)
class _Work:
    """Nodes and tensors that get their integers."""

    t: Translation
    nodes: list[Node]
    tensors: dict[str, Tensor]
    outputs: tuple[str, ...]
    faults: list[str] = field(default_factory=list)

    def put(self, name: str, quant: QParams) -> None:
        self.tensors[name] = Quantized(name=name, shape=self.tensors[name].shape, quant=quant)

    def read(self) -> dict[str, Tensor]:
        """Return the tensors that nodes have."""
        used = {name for node in self.nodes for name in (*node.inputs, node.output)}
        return {k: v for k, v in self.tensors.items() if k in used}

    def readers(self, name: str) -> list[Node]:
        return [node for node in self.nodes if name in node.inputs]

    def fuse(self) -> None:
        """Fuse an activation into the node before it, where the file has no integers between them."""
        for node in list(self.nodes):
            readers = self.readers(node.output)
            fits = node.attrs.get("activation") == "none" and node.output not in self.t.grids
            if fits and len(readers) == 1 and readers[0].op in ACTIVATED and node.output not in self.outputs:
                last = readers[0]
                merged = replace(node, output=last.output, attrs={**node.attrs, "activation": last.op})
                self.nodes = [merged if n is node else n for n in self.nodes if n is not last]

    def settle(self, node: Node) -> None:
        """Put a node's output on a grid, and take the integers of its constants."""
        wanted, kind = self._wanted(node.output), node.spec.scale
        if kind == "same":
            self._settle_moved(node, wanted)
            return
        need(wanted is not None, "the file has no integers of it: there is no QuantizeLinear behind it")
        assert wanted is not None
        need(
            kind != "fixed" or wanted.same_as(FIXED),
            f"scale {wanted.scale[0]:.6g} and zero point {wanted.zero_point[0]}; scale 1/256 and -128 are supported",
        )
        self.put(node.output, wanted)
        if node.weighted:
            self._weights(node)
        for name in node.inputs[:1] if node.weighted else node.inputs:
            self._operand(node, name)

    def _wanted(self, name: str) -> QParams | None:
        """Return the grid of a tensor; where the file says none, that of what is moved from it."""
        while name not in self.t.grids:
            readers = self.readers(name)
            if len(readers) != 1 or readers[0].spec.scale != "same" or readers[0].op == "concat":
                return None
            name = readers[0].output
        return self.t.grids[name]

    def _settle_moved(self, node: Node, wanted: QParams | None) -> None:
        """Elements that only move keep their grid; to another one they are requantized, which the file does too."""
        held = [Quantized.of(self.tensors[name]).quant for name in node.inputs]
        made = wanted or held[0]
        if node.op == "concat":
            need(wanted is not None or all(h.same_as(made) for h in held), "its inputs are on several grids")
            swap = {n: self._on(n, made) for n, h in zip(node.inputs, held, strict=True) if not h.same_as(made)}
            self._swap(node, replace(node, inputs=tuple(swap.get(n, n) for n in node.inputs)), list(swap))
            self.put(node.output, made)
            return
        self.put(node.output, made)
        if made.same_as(held[0]):
            return
        need(node.op != "avg_pool2d", "an average pool onto another grid; its input's is supported")
        self._swap(node, replace(node, inputs=(self._on(node.inputs[0], made), *node.inputs[1:])), [node.inputs[0]])

    def _on(self, name: str, quant: QParams) -> str:
        """Return the name of a copy on another grid."""
        copy = next(n for k in range(len(self.tensors) + 1) if (n := f"{name}.copy_{k}") not in self.tensors)
        self.tensors[copy] = Quantized(name=copy, shape=self.tensors[name].shape, quant=quant)
        return copy

    def _swap(self, old: Node, new: Node, sources: list[str]) -> None:
        """Replace a node; before it, requantize what it now reads in place of ``sources``."""
        place = next(k for k, node in enumerate(self.nodes) if node is old)
        pairs = [(a, b) for a, b in zip(old.inputs, new.inputs, strict=True) if a != b and a in sources]
        copies = [make_node("requantize", (a,), b, old.source, to="int8") for a, b in dict(pairs).items()]
        self.nodes[place : place + 1] = [*copies, new]

    def _operand(self, node: Node, name: str) -> None:
        """Take the integers of a constant operand: those of the constant that the same node of the file reads."""
        tensor = self.tensors[name]
        if not isinstance(tensor, Constant) or isinstance(tensor, QuantizedConstant):
            return
        found = [self.t.integers[i] for i in self.t.reads.get(node.output, ()) if i in self.t.integers]
        need(len(found) == 1, f"its constant {name!r} is float; it must be behind a DequantizeLinear")
        stored = found[0]
        need(stored.scale.size == 1 and stored.integers.dtype in (np.int8, np.uint8), "a constant that is not 8 bits")
        shift = UINT8_OFFSET if stored.integers.dtype == np.uint8 else 0
        zero = stored.zeros.reshape(-1).astype(np.int64) - shift
        quant = QParams(scale=stored.scale.reshape(-1), zero_point=zero, dtype="int8")
        self.tensors[name] = tensor.quantized(quant, _exact(quant, tensor.value, "int8"))

    def _weights(self, node: Node) -> None:
        need(node.output in self.t.weights, "its weights are not those of the file")
        (weight_name, channels), bias_name = self.t.weights[node.output]
        x, weight, bias = (self.tensors[name] for name in node.inputs)
        assert isinstance(weight, Constant)
        assert isinstance(bias, Constant)
        stored = self.t.integers.get(weight_name)
        if stored is None:
            raise InputError(f"its weight {weight_name!r} is float; it must be behind a DequantizeLinear")
        need(stored.integers.dtype == np.int8, f"its weight {weight_name!r} is {stored.integers.dtype}, not int8")
        need(not np.any(stored.zeros), f"its weight {weight_name!r} is asymmetric: its zero points are not all 0")
        scale = stored.scale.reshape(-1).astype(np.float32)
        need(scale.size == 1 or stored.axis == channels, f"its weight {weight_name!r} has scales of its inputs")
        zeros = np.zeros(scale.size, np.int64)
        quant = QParams(scale=scale, zero_point=zeros, dtype="int8", axis=None if scale.size == 1 else 0)
        self.tensors[weight.name] = weight.quantized(quant, _exact(quant, weight.value, "int8"))
        read = Quantized.of(x).quant
        product = (read.scale.astype(np.float64) * quant.scale).astype(np.float32)
        grid = QParams(scale=product, zero_point=zeros, dtype="int32", axis=quant.axis)
        if bias_name is None:
            self.tensors[bias.name] = bias.quantized(grid, np.zeros(bias.shape, np.int32))
            return
        shift = self.t.integers.get(bias_name)
        if shift is None or shift.integers.dtype != np.int32:
            raise InputError(f"its bias {bias_name!r} is not int32 behind a DequantizeLinear")
        own = np.broadcast_to(shift.scale.reshape(-1).astype(np.float32), product.shape)
        grid = replace(grid, scale=np.ascontiguousarray(own))
        integers = np.broadcast_to(shift.integers.reshape(-1), bias.shape)
        self.tensors[bias.name] = bias.quantized(grid, np.ascontiguousarray(integers))


def _exact(quant: QParams, values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return the integers that give these values, which were made of integers.

    Raises:
        InputError: they were changed since.
    """
    found = quant.quantize(values)
    kept = np.allclose(quant.dequantize(found), values, rtol=1e-5, atol=0)
    need(kept, "its constant is changed on the way, such as by a norm that is folded into it")
    return found.astype(dtype)


INTEGER_HANDLERS: Mapping[str, Any] = {"QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear}
