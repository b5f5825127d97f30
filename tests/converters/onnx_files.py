"""Small ONNX files, made node by node: one or a few for each op that the importer reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class File:
    """Makes a model: nodes in order, each the reader of the one before unless told."""

    def __init__(self, shape: Sequence[Any] = (1, 6, 9, 8), opset: int = 17, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", FLOAT, list(shape))]
        self.opset, self.last = opset, "x"

    def add(self, op: str, *more: Any, outputs: Sequence[str] = (), first: bool = True, **attrs: Any) -> str:
        """Add a node; arrays among ``more`` become initializers."""
        names = [self.last] if first else []
        names += [self.store(each) if isinstance(each, np.ndarray | np.generic) else each for each in more]
        made = list(outputs) or [f"{op.lower()}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(op, names, made, name=f"node_{len(self.nodes)}", **attrs))
        self.last = made[0]
        return self.last

    def store(self, array: np.ndarray) -> str:
        name = f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def model(self, outputs: Sequence[str] = ()) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs or [self.last]]
        graph = helper.make_graph(self.nodes, "g", self.inputs, ends, self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def save(self, folder: Path, outputs: Sequence[str] = ()) -> Path:
        path = folder / "m.onnx"
        onnx.save(self.model(outputs), path)
        return path


@dataclass
class Op:
    """One op: what is fed, and how the file is made."""

    id: str
    build: Callable[[File], Any]
    shape: tuple[int, ...] = (1, 6, 9, 8)
    opset: int = 17
    nodes: set[str] | None = field(default=None)  # ops of the simplified graph, where they matter


def op(name: str, *more: Any, id: str | None = None, **fields: Any) -> Op:
    attrs = {k: v for k, v in fields.items() if k not in ("shape", "opset", "nodes")}
    own = {k: v for k, v in fields.items() if k in ("shape", "opset", "nodes")}
    label = id or "-".join([name, *(f"{k}{v}".replace(" ", "") for k, v in (attrs | own).items() if k != "nodes")])
    return Op(id=label, build=lambda f: f.add(name, *more, **attrs), **own)


def conv(groups: int = 1, kernel: tuple[int, ...] = (3, 3), bias: bool = True, made: int = 4, **attrs: Any) -> Op:
    own = {k: attrs.pop(k) for k in ("shape", "opset") if k in attrs}

    def build(f: File) -> None:
        channels = own.get("shape", (1, 6))[1]
        weight = f.normal(made * groups, channels // groups, *kernel)
        f.add("Conv", weight, *([f.normal(made * groups)] if bias else []), group=groups, **attrs)

    return Op(id=f"conv-{groups}-{kernel}-{attrs}", build=build, nodes=None, **own)


def deconv(groups: int = 1, kernel: tuple[int, ...] = (3, 3), **attrs: Any) -> Op:
    own = {k: attrs.pop(k) for k in ("shape", "opset") if k in attrs}

    def build(f: File) -> None:
        f.add("ConvTranspose", f.normal(6, 2, *kernel), f.normal(2 * groups), group=groups, **attrs)

    return Op(id=f"deconv-{groups}-{kernel}-{attrs}", build=build, **own)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def reals(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def rand(*shape: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def norm(name: str, channels: int, **attrs: Any) -> Op:
    own = {k: attrs.pop(k) for k in ("shape", "opset") if k in attrs}
    return Op(
        id=f"{name}-{channels}-{attrs}-{own}",
        build=lambda f: f.add(name, f.normal(channels), f.normal(channels), **attrs),
        **own,
    )


def resize(mode: str, how: str, *, sizes: Sequence[int] = (), scales: Sequence[float] = (), **attrs: Any) -> Op:
    def build(f: File) -> None:
        more: list[Any] = ["", f.store(reals(*scales))] if scales else ["", "", f.store(ints(*sizes))]
        f.add("Resize", *more, mode=mode, coordinate_transformation_mode=how, **attrs)

    return Op(id=f"resize-{mode}-{how}-{tuple(sizes or scales)}-{attrs}", build=build)


def positive(name: str, **attrs: Any) -> Op:
    """Of a number above 0."""

    def build(f: File) -> None:
        f.add("Abs")
        f.add("Add", reals(0.1))
        f.add(name, **attrs)

    return Op(id=name, build=build)


def spelled(name: str, build: Callable[[File], Any], node: str) -> Op:
    return Op(id=name, build=build, nodes={node})


def erf_gelu(order: int) -> Callable[[File], None]:
    def build(f: File) -> None:
        x = f.last
        f.add("Div" if order % 2 else "Mul", reals(2**0.5 if order % 2 else 0.5**0.5))
        f.add("Erf")
        f.add("Add", reals(1))
        if order < 2:
            f.add("Mul", x)
            f.add("Mul", reals(0.5))
        else:
            half = f.last
            f.last = x
            f.add("Mul", reals(0.5))
            f.add("Mul", half)

    return build


def tanh_gelu(f: File) -> None:
    x = f.last
    f.add("Pow", reals(3))
    f.add("Mul", reals(0.044715))
    f.add("Add", x)
    f.add("Mul", reals((2 / np.pi) ** 0.5))
    f.add("Tanh")
    f.add("Add", reals(1))
    f.add("Mul", x)
    f.add("Mul", reals(0.5))


def hard_swish(f: File) -> None:
    x = f.last
    f.add("HardSigmoid", alpha=1 / 6, beta=0.5)
    f.add("Mul", x)


def mish(f: File) -> None:
    x = f.last
    f.add("Softplus")
    f.add("Tanh")
    f.add("Mul", x)


def two(name: str, left: Sequence[int], right: Sequence[int]) -> Op:
    """Two activations that broadcast."""

    def build(f: File) -> None:
        f.inputs.append(helper.make_tensor_value_info("other", FLOAT, list(right)))
        f.add(name, "other")

    return Op(id=f"{name}-{left}-{right}", build=build, shape=tuple(left))


def attention(f: File) -> None:
    """(N, tokens, 3 heads dim) to heads and back, as exporters spell it."""
    f.add("Reshape", ints(1, 10, 3, 2, 4))
    f.add("Transpose", perm=[2, 0, 3, 1, 4])
    whole = f.last
    parts = [f.add("Gather", np.array(k, np.int64), axis=0) if k == 0 else "" for k in range(1)]
    for k in (1, 2):
        f.last = whole
        parts.append(f.add("Gather", np.array(k, np.int64), axis=0))
    f.last = parts[1]
    key = f.add("Transpose", perm=[0, 1, 3, 2])
    f.last = parts[0]
    f.add("MatMul", key)
    f.add("Mul", reals(0.5))
    f.add("Softmax", axis=-1)
    f.add("MatMul", parts[2])
    f.add("Transpose", perm=[0, 2, 1, 3])
    f.add("Reshape", ints(1, 10, 8))


def folded(f: File) -> None:
    """A shape computed from the input's, as torch exports ``x.view(x.size(0), -1, 2)``."""
    x = f.last
    f.add("Shape")
    f.add("Gather", np.array(0, np.int64), axis=0)
    f.add("Unsqueeze", ints(0))
    batch = f.last
    f.add("Concat", batch, f.store(ints(-1)), f.store(ints(2)), first=False, axis=0)
    shape = f.last
    f.last = x
    f.add("Reshape", shape)


def from_tensorflow(f: File) -> None:
    """NHWC in and out, with transposes around, as tf2onnx writes."""
    f.add("Transpose", perm=[0, 3, 1, 2])
    f.add("Conv", f.normal(5, 3, 3, 3), f.normal(5), pads=[1, 1, 1, 1])
    f.add("Transpose", perm=[0, 2, 3, 1])
    f.add("Mul", f.normal(5))
    f.add("Transpose", perm=[0, 3, 1, 2])
    f.add("Conv", f.normal(4, 5, 1, 1), f.normal(4))
    f.add("Relu")
    f.add("Transpose", perm=[0, 2, 3, 1])


ROW = (1, 6, 20)
FLAT = (1, 10)
OPS = [
    conv(), conv(2, pads=[1, 0, 2, 1], strides=[2, 1]), conv(6, (5, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    conv(auto_pad="SAME_LOWER", strides=[2, 3]), conv(auto_pad="VALID"), conv(bias=False, dilations=[2, 1]),
    conv(kernel=(5,), shape=ROW, pads=[2, 1], strides=[2]), conv(3, (3,), shape=ROW, dilations=[2]), conv(opset=7),
    deconv(), deconv(2, (4, 4), strides=[2, 2], pads=[1, 1, 1, 1]), deconv(1, (3, 2), strides=[2, 3], dilations=[2, 1]),
    deconv(kernel=(2, 2), strides=[2, 2], output_padding=[1, 0]), deconv(auto_pad="SAME_UPPER", strides=[2, 2]),
    deconv(auto_pad="SAME_LOWER", strides=[2, 2]), deconv(output_shape=[19, 17], strides=[2, 2]),
    deconv(kernel=(4,), shape=ROW, strides=[2], pads=[1, 1]),
    op("Gemm", rand(10, 5), rand(5), shape=FLAT), op("Gemm", rand(5, 10), rand(1, 5), shape=FLAT, transB=1, alpha=0.5),
    op("Gemm", rand(10, 5), shape=FLAT, beta=2.0), op("Gemm", rand(10, 5), rand(1), shape=FLAT, beta=2.0, id="Gemm-1"),
    op("MatMul", rand(10, 5), shape=FLAT), op("MatMul", rand(8, 5)), op("MatMul", rand(20, 4), shape=ROW),
    op("MatMul", rand(20), shape=ROW, id="MatMul-vector"), op("MatMul", rand(1, 6, 8, 5), id="MatMul-heads"),
    Op("MatMul-left", lambda f: f.add("MatMul", f.store(rand(5, 6)), "x", first=False), shape=ROW),
    two("MatMul", (1, 3, 4, 5), (1, 3, 5, 2)), two("MatMul", (1, 4, 5), (1, 5, 6)),
    Op("BatchNormalization", lambda f: f.add("BatchNormalization", *(np.abs(f.normal(6)) + 0.5 for _ in range(4)))),
    norm("InstanceNormalization", 6), norm("GroupNormalization", 6, num_groups=3, opset=21),
    norm("LayerNormalization", 8), norm("LayerNormalization", 20, shape=ROW),
    norm("LayerNormalization", 10, shape=FLAT),
    op("LpNormalization", axis=1), op("LpNormalization", axis=-1, p=1),
    *(op(name) for name in ("Relu", "Tanh", "Sigmoid", "HardSwish", "Abs", "Softplus", "Exp", "Neg", "Elu", "Selu")),
    op("Mish", opset=18), op("Gelu", opset=20), op("Gelu", opset=20, approximate="tanh"), op("Celu", alpha=0.7),
    op("LeakyRelu"), op("LeakyRelu", alpha=0.2), op("Elu", alpha=0.5), op("HardSigmoid"), op("Softsign"),
    op("HardSigmoid", alpha=1 / 6, beta=0.5, id="HardSigmoid-torch"), positive("Log"), positive("Sqrt"),
    positive("Reciprocal"), op("Clip", reals(0)[0], reals(6)[0], id="Clip-relu6"), op("Clip", "", reals(0.5)[0]),
    op("Clip", reals(-1)[0], id="Clip-low"), op("Clip", min=-0.5, max=2.0, opset=10), op("PRelu", rand(6, 1, 1)),
    op("PRelu", rand(1), id="PRelu-1"), op("PRelu", rand(9, 8), id="PRelu-map"), op("Clip", min=0.0, opset=6 + 1),
    op("Softmax"), op("Softmax", axis=1), op("Softmax", opset=11), op("Softmax", opset=11, axis=3),
    op("Softmax", opset=11, shape=FLAT), op("LogSoftmax", axis=1), op("LogSoftmax", shape=FLAT),
    *(op(name, rand(6, 1, 1), id=f"{name}-channels") for name in ("Add", "Sub", "Mul")),
    *(op(name, rand(9, 8), id=f"{name}-map") for name in ("Add", "Sub", "Mul", "Min", "Max")),
    op("Div", reals(2)), op("Div", np.abs(rand(8)) + 1, id="Div-last"), op("Min", reals(0.5)), op("Max", reals(0.1)),
    Op("Sub-from", lambda f: f.add("Sub", f.store(reals(1)), "x", first=False)),
    two("Add", (1, 6, 9, 8), (1, 6, 1, 1)), two("Mul", (1, 6, 1, 1), (1, 6, 9, 8)), two("Sub", (1, 4, 8), (1, 1, 8)),
    two("Max", (1, 6, 4, 4), (1, 6, 4, 4)), two("Min", (1, 6, 4, 4), (1, 1, 4, 1)), two("Add", (1, 5, 3, 4), (1, 3, 4)),
    op("Pow", reals(2)), op("Pow", reals(3)), Op("Pow-base", lambda f: f.add("Pow", f.store(reals(2)),
    "x", first=False)),
    op("Sum", "x", "x"), op("Mean", "x", rand(8)),
    Op("Where", lambda f: f.add("Where", f.store(rand(9, 8) > 0), "x", f.store(rand(9, 8)), first=False)),
    op("ReduceMean", axes=[2, 3]), op("ReduceMean", axes=[1], keepdims=0), op("ReduceMean", ints(-1), opset=18),
    op("ReduceMean", id="ReduceMean-all"), op("ReduceMean", shape=ROW, axes=[-1]), op("ReduceSum", ints(1, 2)),
    op("ReduceSum", axes=[3], keepdims=0, opset=11), op("ReduceMax", axes=[2, 3]), op("ReduceMin", axes=[1]),
    op("ReduceL2", axes=[1]), op("ReduceL1", axes=[2]), op("ReduceSumSquare", axes=[3]), op("ReduceMax", axes=[1, 3]),
    op("LRN", size=5, alpha=0.3, beta=0.75, bias=2.0), op("LRN", size=3), op("ReduceLogSumExp", axes=[1]),
    Op("ReduceLogSum", lambda f: (f.add("Exp"), f.add("ReduceLogSum", axes=[2]))),
    op("ReduceSum", noop_with_empty_axes=1), op("GlobalAveragePool"), op("GlobalMaxPool"),
    op("GlobalAveragePool", shape=ROW), op("GlobalMaxPool", shape=ROW),
    op("MaxPool", kernel_shape=[3, 2], strides=[2, 2]), op("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    op("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], ceil_mode=1),
    op("MaxPool", kernel_shape=[3, 4], strides=[2, 3], auto_pad="SAME_UPPER"),
    op("MaxPool", kernel_shape=[3], shape=ROW),
    op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 0, 1]), op("AveragePool", kernel_shape=[2, 2], ceil_mode=1),
    op("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2]),
    op("AveragePool", kernel_shape=[3, 3], auto_pad="SAME_LOWER", strides=[2, 2]),
    op("AveragePool", kernel_shape=[4], strides=[2], pads=[1, 1], shape=ROW),
    op("Concat", "x", axis=1), op("Concat", rand(1, 2, 9, 8), axis=1, id="Concat-constant"), op("Concat", "x", axis=-1),
    op("Slice", ints(1, 2), ints(5, 100), ints(1, 3)), op("Slice", ints(-3), ints(-1), ints(2)),
    op("Slice", ints(0), ints(9), ints(2), ints(2), id="Slice-step"),
    op("Slice", starts=[1], ends=[4], axes=[1], opset=9),
    op("Slice", ints(-1), ints(-100), ints(3), ints(-2), id="Slice-back"),
    op("Gather", ints(3, 0, 0, -1), axis=1), op("Gather", np.array(2, np.int64), axis=2, id="Gather-one"),
    op("Gather", ints(0, 2, 1, 3).reshape(2, 2), axis=3, id="Gather-table"),
    op("Transpose", perm=[0, 2, 3, 1]), op("Transpose", perm=[0, 1, 3, 2]), op("Transpose", perm=[0, 2, 1], shape=ROW),
    op("Reshape", ints(0, -1)), op("Reshape", ints(1, 3, 2, 72)), op("Reshape", ints(1, 6, -1)), op("Flatten"),
    op("Flatten", axis=2), op("Squeeze", ints(1), shape=(1, 1, 9, 8)),
    op("Squeeze", axes=[1], opset=11, shape=(1, 1, 9, 8)),
    op("Unsqueeze", ints(1, 4)), op("Unsqueeze", axes=[1], opset=11, shape=ROW),
    op("Expand", ints(1, 6, 9, 8), shape=(1, 6, 1, 8)), op("Tile", ints(1, 2, 1, 3)),
    *(op("Pad", ints(0, 1, 2, 0, 0, 0, 1, 3), mode=mode) for mode in ("constant", "reflect", "edge")),
    op("Pad", ints(0, 0, 1, 1, 0, 0, 1, 1), reals(1.5)[0], id="Pad-value"),
    op("Pad", pads=[0, 0, 1, 1, 0, 0, 2, 0], opset=10),
    op("Pad", ints(1, 2), "", ints(3), opset=18, id="Pad-axes"), op("Pad", ints(0, 0, -1, 1, 0, 0, 0, 0),
    id="Pad-crop"),
    *(
        resize("nearest", how, scales=[1, 1, 2, 2], nearest_mode=near)
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for near in ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
    ),
    resize("nearest", "asymmetric", sizes=[1, 6, 5, 11], nearest_mode="floor"),
    *(
        resize("linear", how, sizes=[1, 6, 18, 12])
        for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    resize("linear", "half_pixel", scales=[1, 1, 1.7, 0.6]), resize("linear", "half_pixel", sizes=[1, 6, 4, 3]),
    resize("cubic", "half_pixel", sizes=[1, 6, 18, 16]), resize("cubic", "align_corners", sizes=[1, 6, 5, 12]),
    op("Resize", reals(1, 1, 2, 2), opset=10, mode="nearest"), op("Resize", reals(1, 1, 2, 2), opset=10, mode="linear"),
    op("Upsample", scales=[1.0, 1.0, 2.0, 3.0], opset=7), op("Upsample", reals(1, 1, 2, 2), opset=9, mode="linear"),
    op("DepthToSpace", blocksize=2, shape=(1, 8, 3, 4)),
    op("DepthToSpace", blocksize=2, mode="CRD", shape=(1, 8, 3, 4)),
    op("SpaceToDepth", blocksize=2, shape=(1, 3, 4, 6)), op("Dropout"), op("Identity"), op("Cast", to=FLOAT),
    spelled("gelu-0", erf_gelu(0), "gelu"), spelled("gelu-1", erf_gelu(1), "gelu"), spelled("gelu-2", erf_gelu(2),
    "gelu"),
    spelled("gelu-3", erf_gelu(3), "gelu"), spelled("gelu-tanh", tanh_gelu, "gelu"), spelled("mish", mish, "mish"),
    spelled("hard-swish", hard_swish, "hard_swish"), Op("attention", attention, shape=(1, 10, 24)),
    Op("shape-of-input", folded, shape=(1, 4, 6)),
    Op("tensorflow", from_tensorflow, shape=(1, 9, 8, 3), nodes={"conv2d"}),
]  # fmt: skip
