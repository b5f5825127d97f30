"""Make what the lowerings of all ops share: constants, grids, and the operations that keep the plugin exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset8 as ops

from edgecnn.graph.ir import Constant, Graph, Node, Quantized, QuantizedConstant
from edgecnn_converters import layout
from edgecnn_converters.layout import nchw
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts

Order = tuple[int, ...]  # of dimensions
ELEMENTWISE = ("add", "mul", "hard_swish", "relu", "relu6", "sigmoid")


class Emitter:
    """Make operations of a graph's nodes. Every one is named: the same graph gives the same bytes.

    Attributes:
        held: what stands for each activation, by name: one value in each order of its dimensions that is needed.
    """

    def __init__(self, graph: Graph, precision: str) -> None:
        self.graph, self.precision = graph, precision
        self.held: dict[str, dict[Order, Any]] = {}
        self.slope: Any = None
        self.six: Any = None

    def value(self, name: str, order: Order | None = None) -> Any:
        """Return an activation with its dimensions in an order: by default channels first, as images are in the file.

        Dimension ``k`` of the value is dimension ``order[k]`` of the graph's tensor.
        """
        held = self.held[name]
        order = order or channels_first(len(self.graph.tensors[name].shape))
        if order not in held:
            made, value = next(iter(held.items()))
            held[order] = self.permuted(
                value, tuple(made.index(d) for d in order), part(name, facts.ORDERED + _digits(order))
            )
        return held[order]

    def first_order(self, name: str) -> Order:
        """Return the order of dimensions in which an activation was made."""
        return next(iter(self.held[name]))

    def permuted(self, value: Any, places: Order, name: str) -> Any:
        """Return a value with its dimensions permuted; dimension ``k`` of it is dimension ``places[k]`` before."""
        shape = [int(d) for d in value.output(0).shape]
        if places == tuple(range(len(shape))):
            return value
        if in_memory_order(shape, places):  # only dimensions of 1 move
            return self.reshaped(value, [shape[k] for k in places], name)
        return ops.transpose(value, self.plain(np.array(places, np.int64), f"{name}_order"), name=name)

    def reshaped(self, value: Any, shape: Sequence[int], name: str) -> Any:
        """Return a value in another shape, of any batch."""
        return ops.reshape(value, self.plain(np.array([-1, *shape[1:]], np.int64), f"{name}_shape"), False, name=name)

    def relu6(self, node: Node, value: Any) -> Any:
        """Return a value held between 0 and 6.

        A clamp merges into the FakeQuantize after it. Only where both become post-operations of a convolution or a
        linear layer does the plugin then round as it does without.
        """
        if self.precision != "int8" or node.weighted:
            return ops.clamp(value, 0.0, 6.0, name=part(node.output, "relu6"))
        if self.six is None:  # one constant serves all
            self.six = self.plain(np.float32(6), "relu6/six")
        positive = ops.relu(value, name=part(node.output, "relu"))
        return ops.minimum(positive, self.six, name=part(node.output, "relu6"))

    def at_most_six(self, node: Node, value: Any) -> Any:
        """Return whole steps held between those of 0 and 6. A clamp beyond the grid would not hold the lower end."""
        quant, name = self.graph.quant(node.output), part(node.output, "relu6")
        most = float(np.rint(np.float32(6) / quant.scale[0]))
        beyond = most >= quant.limits[1] - quant.zero_point[0]
        return ops.relu(value, name=name) if beyond else ops.clamp(value, 0.0, most, name=name)

    def apart(self, node: Node, value: Any) -> Any:
        """Put a PReLU of slope 1 before a FakeQuantize that the plugin would otherwise fuse in a way that is wrong.

        It computes nothing. Of OpenVINO 2026.4's CPU plugin see:

        - A convolution that only an elementwise op reads: its FakeQuantize, the op and the op's FakeQuantize become
          post-operations, of which the first is clipped, not rounded ("drop rounding one special residual pattern").
        - A linear layer that another reads: both become one op of snippets, which computes in float.
        - A product with constants of which some are negative, and a sum with constants: they are folded into a
          FakeQuantize before it, whose zero point is then rounded again.
        - A product with constants behind a max-pool: both become a FakeQuantize that makes floats, and so does what
          reads it.
        """
        made = self.graph.tensors[node.output]
        if not isinstance(made, Quantized) or made.quant.dtype != "int8":
            return value
        consumers = [n.op for n in self.graph.consumers(node.output)]
        pooled = any(made is not None and made.op == "max_pool2d" for made in map(self.graph.producer, node.inputs))
        constants = [t.value for t in map(self.graph.tensors.get, node.inputs) if isinstance(t, Constant)]
        fused = {
            "conv2d": len(consumers) == 1 and consumers[0] in ELEMENTWISE and node.output not in self.graph.outputs,
            "fully_connected": "fully_connected" in consumers,
            "mul": any(pooled or bool(np.any(constant < 0)) for constant in constants),
            "add": bool(constants),
        }
        return self.identity(node, value) if fused.get(node.op) else value

    def identity(self, node: Node, value: Any) -> Any:
        """Return a value as it is, by an operation that the plugin does not see through: a PReLU of slope 1."""
        if self.slope is None:  # one constant serves all
            self.slope = self.plain(np.ones(1, np.float32), "identity/slope")
        return ops.prelu(value, self.slope, name=part(node.output, facts.IDENTITY))

    def on_grid(
        self, name: str, value: Any, order: Order | None = None, *, in_steps: bool = False, past_halves: float = 0
    ) -> Any:
        """Return a value on the grid of an activation, in real values.

        Args:
            name: of the activation.
            value: real, or in steps of the grid above its zero point.
            order: of its dimensions; by default channels first.
            in_steps: whether it is the latter.
            past_halves: share of its integer by which it is raised before it is rounded: so small that it takes halves
                away from zero, and nothing else across one.
        """
        tensor = self.graph.tensors[name]
        if not isinstance(tensor, Quantized) or tensor.quant.dtype == "int16":  # kept in 16 bits: float here
            return value
        reals = zip((facts.LOW, facts.HIGH), layout.grid_ends(tensor.quant), strict=True)
        ends = taken = [self.plain(np.float32(real), part(name, end)) for end, real in reals]
        scale, zero = float(tensor.quant.scale[0]), int(tensor.quant.zero_point[0])
        if in_steps or past_halves:
            limits = (limit / (1 + past_halves) - zero for limit in tensor.quant.limits)
            reals = zip(("from", "to"), (limit if in_steps else limit * scale for limit in limits), strict=True)
            taken = [self.plain(np.float32(real), part(name, end)) for end, real in reals]
        made = facts.maker(name, facts.QUANTIZED, order)
        return ops.fake_quantize(value, *taken, *ends, facts.LEVELS, name=made)

    def plain(self, array: Any, name: str) -> Any:
        """Return a constant as it is."""
        return ops.constant(np.array(array, order="C"), name=name)

    def constant(
        self, name: str, shape: tuple[int, ...], axes: tuple[int, ...] | None = None, affine: bool = False
    ) -> Any:
        """Return a constant of the graph in the file's precision, permuted (with ones in front), then reshaped.

        ``affine`` ones have a zero point, as activations do.
        """
        tensor = self.graph.constant(name)

        def placed(array: NDArray[Any]) -> NDArray[Any]:
            if axes is None:
                return array.reshape(shape)
            ones = (1,) * (len(axes) - array.ndim)
            return array.reshape(ones + array.shape).transpose(axes).reshape(shape)

        if not isinstance(tensor, QuantizedConstant) or tensor.quant.dtype == "int16":
            if self.precision == "fp16" and len(tensor.shape) > 1:
                half = self.plain(placed(tensor.value).astype(np.float16), part(name, "half"))
                return ops.convert(half, "f32", name=name)
            return self.plain(placed(tensor.value), name)
        quant = tensor.quant
        scale = quant.scale[0] if quant.axis is None else quant.scale.reshape(_channels_first(shape, quant.scale.size))
        zero = int(quant.zero_point[0]) if affine else None
        steps = self.steps(placed(tensor.integers), name, facts.INTEGERS + facts.IN_ORDER * (axes == (0, 1, 2, 3)))
        return self._real(steps, scale, name, zero)

    def dequantized(self, integers: NDArray[Any], scale: float, name: str, zero_point: int = 0) -> Any:
        """Return a constant of the file's own: integers less their zero point, times a scale."""
        steps = ops.convert(self.plain(integers, part(name, "integers")), "f32", name=part(name, "float"))
        return self._real(steps, np.float32(scale), name, zero_point or None)

    def _real(self, steps: Any, scale: Any, name: str, zero_point: int | None) -> Any:
        if zero_point is not None:
            zero = self.plain(np.float32(zero_point), part(name, facts.ZERO_POINT))
            steps = ops.subtract(steps, zero, name=part(name, "centred"))
        return ops.multiply(steps, self.plain(scale, part(name, facts.SCALE)), name=name)

    def steps(self, integers: NDArray[Any], name: str, what: str = facts.INTEGERS) -> Any:
        """Return the integers of a tensor of the graph, as float32."""
        return ops.convert(self.plain(integers, part(name, what)), "f32", name=part(name, "float"))

    def bias(self, node: Node, shape: tuple[int, ...], lead: float = 0) -> Any:
        """Return the bias of a conv2d or fully_connected, and ``lead`` of its steps more.

        Its scale is the input's times the weight's, written as these two: the file then stores the latter once, for the
        writer keeps equal data once.
        """
        source, bias = (self.graph.tensors[node.inputs[i]] for i in (0, 2))
        if not isinstance(source, Quantized) or not isinstance(bias, QuantizedConstant):
            return self.constant(bias.name, shape)
        real = self.steps(bias.integers.reshape(shape), bias.name)
        if lead:
            real = ops.add(real, self.plain(np.float32(lead), part(bias.name, "lead")), name=part(bias.name, "led"))
        weight = self.graph.quant(node.inputs[1])
        factors = weight.scale[0] if weight.axis is None else weight.scale.reshape(shape)
        scales = self.plain(factors, part(bias.name, facts.WEIGHT_SCALE))
        scaled = ops.multiply(real, scales, name=part(bias.name, "scaled"))
        step = self.plain(source.quant.scale[0], part(bias.name, facts.INPUT_SCALE))
        return ops.multiply(scaled, step, name=bias.name)

    def element(self, node: Node, name: str, order: Order) -> Any:
        """Return an activation for an elementwise node.

        The plugin leaves room in the kernel of an average pool for the operations after it, and then only puts the
        FakeQuantize there: the next one computes in float alone. It does not expect a Maximum, of the lowest value.
        """
        value, made = self.value(name, order), self.graph.producer(name)
        if made is None or made.op != "avg_pool2d" or self.precision != "int8" or self.graph.is_wide(name):
            return value
        low = self.plain(np.float32(layout.grid_ends(self.graph.quant(name))[0]), part(node.output, "pooled_low"))
        return ops.maximum(value, low, name=part(node.output, f"pooled_{node.inputs.index(name)}"))

    def operand(self, node: Node, name: str, order: Order) -> Any:
        """Return an activation, or a constant, that broadcasts over a node's output in some order of dimensions."""
        own = self.graph.tensors[name].shape
        shape = (1,) * (len(order) - len(own)) + own
        if name not in self.held:
            return self.constant(name, tuple(shape[d] for d in order), order, affine=True)
        if len(own) == len(order):
            return self.element(node, name, order)
        value = self.value(name, tuple(range(len(own))))
        source = part(node.output, f"operand_{node.inputs.index(name)}")
        return self.permuted(self.reshaped(value, shape, f"{source}_reshaped"), order, source)


def channels_first(rank: int) -> Order:
    """Return the order of dimensions that tensors of a rank have in the file: images are NCHW."""
    return (0, 3, 1, 2) if rank == 4 else tuple(range(rank))


def in_memory_order(shape: Sequence[int], places: Order) -> bool:
    """Tell whether a permutation of dimensions leaves the elements where they are: it moves but dimensions of 1."""
    kept = [k for k in places if shape[k] > 1]
    return kept == sorted(kept)


def _digits(order: Order) -> str:
    return "".join(map(str, order))


def rounded(value: Any, name: str) -> Any:
    """Return a value rounded to whole numbers, halves to even."""
    return ops.round(value, "half_to_even", name=name)


def in_steps(name: str, value: Any, multiplier: Any) -> Any:
    """Return a value in whole steps of an activation's grid, before its zero point is added in float32."""
    return rounded(ops.multiply(value, multiplier, name=part(name, facts.SCALED)), part(name, facts.ROUNDED))


def _channels_first(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return the shape of scales that broadcast over a weight (O, ...), (G, O/G, ...) or a bias (1, O, ...)."""
    kept: list[int] = []
    left = count
    for size in shape:
        taken = size if left > 1 and left % size == 0 else 1
        kept.append(taken)
        left //= taken
    return tuple(kept)


def repeated(e: Emitter, node: Node, value: Any, times: int) -> Any:
    """Return a value with every channel repeated, so that a depthwise convolution with a multiplier is a plain one.

    On one thread OpenVINO 2026.4 runs the former with oneDNN's jit_gemm_I8, which takes the zero point for padding on
    the right: outputs were off by up to 29 LSB where the input's zero point is not its lowest integer.
    """
    channels = np.repeat(np.arange(e.graph.tensors[node.inputs[0]].shape[3]), times)
    return gathered(e, node, value, channels, "repeated")


def gathered(e: Emitter, node: Node, value: Any, channels: NDArray[Any], name: str) -> Any:
    """Return some channels of a value."""
    indices = e.plain(channels.astype(np.int64), part(node.output, f"{name}_channels"))
    axis = e.plain(np.int64(1), part(node.output, f"{name}_axis"))
    return ops.gather(value, indices, axis, name=part(node.output, name))


def between_zeros(e: Emitter, node: Node, sides: tuple[int, int], axis: int, name: str) -> Any:
    """Return a node's input between zeros along an axis (of NCHW), as a concatenation of integers on one grid."""
    quant, shape = e.graph.quant(node.inputs[0]), list(nchw(e.graph.tensors[node.inputs[0]].shape))
    joined, zero_point = [e.value(node.inputs[0])], quant.zero_point[0] + layout.UINT8_OFFSET
    for place, key, more in ((0, "front", sides[0]), (2, "back", sides[1])):
        if more:
            shape[axis] = more
            zeros = e.dequantized(
                np.full(shape, zero_point, np.uint8), quant.scale[0], part(node.output, key), zero_point
            )
            joined.insert(place, zeros)
    return ops.concat(joined, axis, name=name)
