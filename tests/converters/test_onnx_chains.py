"""Hold ONNX files of tokens, and of random chains of ops, to the oracle and to torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from int8_builder import Int8Builder, random_images, weight_only_graph
from onnx_held import FUNCTIONS, POSITIVE, close, ended, held, placed, session
from runtimes import assert_integers_are_the_graphs

from edgecnn.graph.interpreter import TorchGraph
from edgecnn_converters.onnx import convert


def tokens(activation="none"):
    """Linear layers on tokens, of rank 3, as convolutions of one pixel."""
    b = Int8Builder((1, 4, 6, 8))
    x = b.op("reshape", b.input, shape=(1, 24, 8))
    for outputs in (16, 8):
        image = b.op("reshape", x, shape=(1, 1, 24, b.shape(x)[2]))
        made = b.weighted("conv2d", image, (outputs, 1, 1, b.shape(image)[3]), activation=activation)
        x = b.op("reshape", made, shape=(1, 24, outputs))
    return ended(b)


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_linear_layers_on_tokens_are_products_of_matrices(activation, tmp_path):
    kinds = close(tokens(activation), tmp_path)
    assert not {"Conv", "FusedConv"} & set(kinds)
    assert kinds.count("Transpose") == 1  # of the image
    close(tokens(activation), tmp_path, precision="fp16", rtol=5e-3)
    held(tokens(activation), tmp_path)


def test_weights_of_8_bits_on_tokens_are_read_back_as_they_are(tmp_path):
    graph = tokens()
    converted = convert(weight_only_graph(graph), precision="w8")
    assert_integers_are_the_graphs(weight_only_graph(graph), "onnx", converted)
    opened, _ = session(converted.files[".onnx"], tmp_path)
    image = graph.quant(graph.inputs[0]).dequantize(random_images(graph, 1))
    (made,) = opened.run(None, {graph.inputs[0]: placed(image)})
    want = TorchGraph(weight_only_graph(graph), integers=True)(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def chain(seed):
    """Random ops of this file, one after the other, each on what the one before made."""
    rng = np.random.default_rng(seed)
    b = Int8Builder((1, 8, 6, 4), seed)
    x = b.input
    for _ in range(7):
        shape = b.shape(x)
        kinds = ["function", "move", "reshape", "product", "slice", "gather", "add", "relu"]
        kinds += ["conv", "resize", "blocks", "pool"] if len(shape) == 4 else []
        match str(rng.choice(kinds)):
            case "function":
                op = str(rng.choice([name for name in FUNCTIONS if name not in POSITIVE]))
                x = b.op(op, x, out=b.grid(float(b.quant(x).scale[0])), **FUNCTIONS[op][0])
            case "move":
                order = (0, *(int(k) + 1 for k in rng.permutation(len(shape) - 1)))
                x = b.op("transpose", x, perm=order)
            case "reshape":
                count = int(np.prod(shape))
                small = next(k for k in (2, 3, 5, 1) if count % k == 0)
                wanted = [(1, count), (1, small, count // small), (1, shape[-1], count // shape[-1], 1),
                          (1, small, 1, count // small), (1, *shape[:0:-1])]  # fmt: skip
                x = b.op("reshape", x, shape=wanted[int(rng.integers(len(wanted)))])
            case "product" if len(shape) > 2:
                x = b.op("batch_matmul", x, x, transpose_b=True, out=b.grid(float(b.quant(x).scale[0]) * 9))
            case "slice":
                end = tuple(max(1, d - int(rng.integers(2))) for d in shape[1:])
                x = b.op("slice", x, begin=(0,) * len(end), end=end, step=(1,) * len(end))
            case "gather":
                axis = int(rng.integers(1, len(shape)))
                x = b.op("gather", x, axis=axis, indices=tuple(int(k) for k in rng.permutation(shape[axis])))
            case "add":
                x = b.op("add", x, b.constant((1, *(d if rng.random() < 0.5 else 1 for d in shape[1:]))))
            case "relu":
                x = b.op("relu", x, out=b.quant(x))
            case "conv":
                x = b.weighted("conv2d", x, (int(rng.integers(1, 7)), 1, 1, shape[3]))
            case "resize":
                mode = str(rng.choice(["nearest", "bilinear"]))
                size = tuple(int(k) for k in rng.integers(1, 14, 2))
                x = b.op("resize", x, size=size, mode=mode, half_pixel=bool(rng.random() < 0.5))
            case "blocks" if shape[3] % 4 == 0:
                x = b.op("depth_to_space", x, block=2)
            case "blocks" if shape[1] % 2 == shape[2] % 2 == 0:
                x = b.op("space_to_depth", x, block=2)
            case "pool" if min(shape[1:3]) > 1:
                x = b.op("max_pool2d", x, kernel=(2, 2), stride=(1, 1))
    if not b.nodes:
        b.op("relu", x, out=b.quant(x))
    return ended(b)


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_make_the_oracles_integers(seed, tmp_path):
    graph = chain(seed)
    held(graph, tmp_path)
    if not {"exp", "pow"} & {node.op for node in graph}:  # which leave the range of float32
        close(graph, tmp_path, rtol=1e-4)
