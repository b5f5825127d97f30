"""Run a graph in torch: the float reference, and what calibration observes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgecnn.graph.batch import Batch
from edgecnn.graph.execution import execute, released
from edgecnn.graph.ir import Graph, Node, QuantizedConstant

Observer = Callable[[str, torch.Tensor], torch.Tensor | None]
Kernel = Callable[[Mapping[str, Any], list[torch.Tensor]], torch.Tensor]


class TorchGraph:
    """A graph ready to run in torch. Constants are laid out once; an activation is freed after its last consumer.

    Args:
        graph: float, or quantized: then its float values are used, unless ``integers``.
        integers: use the integers' real values for constants that have integers.
        device: where it computes; inputs must be there.
    """

    def __init__(self, graph: Graph, *, integers: bool = False, device: torch.device | None = None) -> None:
        self.graph = graph
        self.constants: dict[str, torch.Tensor] = {}
        for t in graph.constants():
            real = t.quant.dequantize(t.integers) if integers and isinstance(t, QuantizedConstant) else t.value
            self.constants[t.name] = laid_out(real).to(device)
        self._expired = released(graph)

    def __call__(self, x: torch.Tensor, observe: Observer | None = None) -> torch.Tensor:
        """Run a batch through a graph of one input and one output; see ``run``."""
        (source,), (result,) = self.graph.inputs, self.graph.outputs
        return self.run({source: x}, observe)[result]

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, torch.Tensor], observe: Observer | None = None) -> dict[str, torch.Tensor]:
        """Run a batch.

        Args:
            inputs: of each input (N, ...) float32, NHWC where it has 4 dimensions.
            observe: called with every activation (the inputs first); what it returns, if anything, takes its place.

        Returns:
            The outputs by name, (N, ...), NHWC where they have 4 dimensions.
        """

        def compute(node: Node, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return self._observed(observe, node.output, run_node(node, [values[i] for i in node.inputs]))

        fed = {name: self._observed(observe, name, _nchw(inputs[name].contiguous())) for name in self.graph.inputs}
        made = execute(self.graph, {**self.constants, **fed}, compute, self._expired)
        return {name: _nhwc(made[name]) for name in self.graph.outputs}

    @staticmethod
    def _observed(observe: Observer | None, name: str, value: torch.Tensor) -> torch.Tensor:
        replaced = observe(name, value) if observe is not None else None
        return value if replaced is None else replaced


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """Return the arrays of a batch as torch has them, by name."""
    return {name: torch.from_numpy(array) for name, array in batch.arrays.items()}


def laid_out(array: NDArray[np.float32]) -> torch.Tensor:
    """Return a constant as torch takes it: OHWI (or NHWC) becomes OIHW (NCHW) with channels last, a view."""
    tensor = torch.from_numpy(array)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def without_activation(node: Node) -> Node:
    """Return the node without the activation fused into it."""
    return replace(node, attrs={**node.attrs, "activation": "none"}) if "activation" in node.attrs else node


def run_node(node: Node, arguments: list[torch.Tensor]) -> torch.Tensor:
    """Run one op on NCHW (channels-last in memory) or NC tensors; convolution weights OIHW."""
    return activated(KERNELS[node.op](node.attrs, arguments), node.attrs.get("activation", "none"))


def activated(x: torch.Tensor, activation: object) -> torch.Tensor:
    """Apply the fused activation, in place."""
    match activation:
        case "relu":
            return x.relu_()
        case "relu6":
            return F.hardtanh_(x, 0.0, 6.0)
    return x


def _padded(x: torch.Tensor, padding: tuple[int, int, int, int], fill: float = 0.0) -> torch.Tensor:
    """Do as ``F.pad``, which writes everything twice."""
    if not any(padding):
        return x
    top, bottom, left, right = padding
    n, c, height, width = x.shape
    shape = (n, c, top + height + bottom, left + width + right)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out[:, :, top : top + height, left : left + width] = x
    for border in (out[:, :, :top], out[:, :, top + height :], out[..., :left], out[..., left + width :]):
        border.fill_(fill)
    return out


def _conv(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    top, bottom, left, right = a["padding"]
    source, inside = x[0], (top, left)
    if top != bottom or left != right:
        source, inside = _padded(source, a["padding"]), (0, 0)
    return F.conv2d(source, x[1], x[2], a["stride"], inside, a["dilation"], a["groups"])


def _avg_pool(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    total = F.avg_pool2d(_padded(x[0], a["padding"]), a["kernel"], a["stride"])
    if not any(a["padding"]):
        return total
    inside = F.avg_pool2d(_padded(torch.ones_like(x[0][:1, :1]), a["padding"]), a["kernel"], a["stride"])
    return total / inside


def _pad(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    (top, bottom, left, right), (front, back) = a["padding"], a["channels"]
    return F.pad(x[0], (left, right, top, bottom, front, back))


def _nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _reshape(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    return _nchw(_nhwc(x[0]).reshape(x[0].shape[0], *a["shape"][1:]))


def _slice(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    places = tuple(slice(*each) for each in zip(a["begin"], a["end"], a["step"], strict=True))
    return _nchw(_nhwc(x[0])[(slice(None), *places)])


def _gather(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    source = _nhwc(x[0])
    return _nchw(source.index_select(a["axis"], torch.tensor(a["indices"], device=source.device)))


def _places(size: int, made: int, a: Mapping[str, Any]) -> torch.Tensor:
    """Return where, in pixels of the source, each pixel of a resized side lies."""
    k = torch.arange(made, dtype=torch.float32)
    scale = (size - 1) / (made - 1) if a["align_corners"] and made > 1 else size / made
    return (k + 0.5) * scale - (0.5 if a["mode"] == "bilinear" else 0) if a["half_pixel"] else k * scale


def _resized(x: torch.Tensor, axis: int, made: int, a: Mapping[str, Any]) -> torch.Tensor:
    size = x.shape[axis]
    places = _places(size, made, a)
    if a["mode"] == "nearest":
        nearest = torch.floor(places + 0.5) if a["align_corners"] else torch.floor(places)
        return x.index_select(axis, nearest.long().clamp(0, size - 1).to(x.device))
    places = places.clamp(min=0)
    low = places.floor().long().clamp(max=size - 1)
    share = (places - low).to(x.device).view([-1 if k == axis else 1 for k in range(x.ndim)])
    above, below = (x.index_select(axis, k.to(x.device)) for k in (low, (low + 1).clamp(max=size - 1)))
    return above + (below - above) * share


def _resize(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    """TensorFlow's three places of a pixel; half_pixel is torch's ``align_corners=False``."""
    height, width = a["size"]
    return _resized(_resized(x[0], 2, height, a), 3, width, a)


def _depth_to_space(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    block, (n, h, w, c) = a["block"], _nhwc(x[0]).shape
    split = _nhwc(x[0]).reshape(n, h, w, block, block, c // block**2).permute(0, 1, 3, 2, 4, 5)
    return _nchw(split.reshape(n, h * block, w * block, c // block**2))


def _space_to_depth(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    block, (n, h, w, c) = a["block"], _nhwc(x[0]).shape
    split = _nhwc(x[0]).reshape(n, h // block, block, w // block, block, c).permute(0, 1, 3, 2, 4, 5)
    return _nchw(split.reshape(n, h // block, w // block, c * block**2))


def _batch_matmul(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    left, right = (_nhwc(v) for v in x)
    return _nchw(left @ (right.transpose(-1, -2) if a["transpose_b"] else right))


def _concat(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    n = max(len(v) for v in x)  # a constant's is 1
    x = [v.expand(n, *v.shape[1:]) for v in x]
    return torch.cat(x, dim={1: 2, 2: 3, 3: 1}[a["axis"]] if x[0].ndim == 4 else a["axis"])


def _alike(x: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return operands that broadcast: beside an image, those of fewer dimensions have the graph's order."""
    if len({v.ndim for v in x}) == 1 or max(v.ndim for v in x) != 4:
        return x
    return [v if v.ndim == 4 else _nchw(v.reshape((1,) * (4 - v.ndim) + v.shape)) for v in x]


def _added(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    left, right = _alike(x)
    return left + right


def _multiplied(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    left, right = _alike(x)
    return left * right


def _prelu(a: Mapping[str, Any], x: list[torch.Tensor]) -> torch.Tensor:
    slope = x[1].view(-1, 1, 1) if x[0].ndim == 4 else x[1]
    return torch.where(x[0] < 0, x[0] * slope, x[0])


KERNELS: Mapping[str, Kernel] = {
    "conv2d": _conv,
    "fully_connected": lambda a, x: F.linear(x[0], x[1], x[2]),
    "add": _added,
    "mul": _multiplied,
    "max_pool2d": lambda a, x: F.max_pool2d(_padded(x[0], a["padding"], float("-inf")), a["kernel"], a["stride"]),
    "avg_pool2d": _avg_pool,
    "mean": lambda a, x: x[0].mean(dim=(2, 3), keepdim=a["keepdims"]),
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "requantize": lambda a, x: x[0].clone(),
    "relu": lambda a, x: x[0].relu(),
    "relu6": lambda a, x: F.hardtanh(x[0], 0.0, 6.0),
    "hard_swish": lambda a, x: F.hardswish(x[0]),
    "sigmoid": lambda a, x: x[0].sigmoid(),
    "softmax": lambda a, x: x[0].softmax(1 if x[0].ndim == 4 else -1),
    "argmax": lambda a, x: x[0].argmax(1 if x[0].ndim == 4 else -1, keepdim=True).to(x[0].dtype),
    "transpose": lambda a, x: _nchw(_nhwc(x[0]).permute(a["perm"])),
    "slice": _slice,
    "gather": _gather,
    "resize": _resize,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "batch_matmul": _batch_matmul,
    "prelu": _prelu,
    "leaky_relu": lambda a, x: F.leaky_relu(x[0], a["alpha"]),
    "clamp": lambda a, x: x[0].clamp(a["low"], a["high"]),
    "tanh": lambda a, x: x[0].tanh(),
    "elu": lambda a, x: F.elu(x[0], a["alpha"]),
    "gelu": lambda a, x: F.gelu(x[0], approximate="tanh" if a["approximate"] else "none"),
    "softplus": lambda a, x: F.softplus(x[0]),
    "mish": lambda a, x: F.mish(x[0]),
    "hard_sigmoid": lambda a, x: (x[0] * a["alpha"] + a["beta"]).clamp_(0, 1),
    "abs": lambda a, x: x[0].abs(),
    "erf": lambda a, x: x[0].erf(),
    "exp": lambda a, x: x[0].exp(),
    "log": lambda a, x: x[0].log(),
    "pow": lambda a, x: x[0].pow(a["exponent"]),
}
