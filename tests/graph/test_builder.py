"""The builder: what an importer says in the source's dimensions computes what the source does, in the graph's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgecnn.graph import layers, passes, reductions
from edgecnn.graph.builder import Builder
from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata


def _divisors(n):
    return [k for k in range(1, n + 1) if n % k == 0]


class Both:
    """Does every op on a torch tensor and in a builder."""

    def __init__(self, seed, channels_last=False):
        self.rng = np.random.default_rng(seed)
        self.b = Builder(channels_last=channels_last)
        shape = (1, *(int(k) for k in self.rng.choice([1, 2, 3, 4, 6], size=self.rng.integers(1, 4))))
        self.x = torch.from_numpy(self.rng.standard_normal(shape).astype(np.float32))
        self.v = self.b.input("input", shape)
        self.first = self.x

    def transpose(self):
        perm = [int(k) for k in self.rng.permutation(self.x.ndim)]
        self.x, self.v = self.x.permute(perm), self.b.transpose(self.v, perm)

    def reshape(self):
        sizes, left = [], self.x.numel()
        while left > 1 and len(sizes) < 3:
            sizes.append(int(self.rng.choice(_divisors(left))))
            left //= sizes[-1]
        sizes.append(left)
        if self.rng.random() < 0.7:
            sizes.insert(0, 1)
        self.x, self.v = self.x.reshape(sizes), self.b.reshape(self.v, sizes)

    def slice(self):
        dims = [k for k, d in enumerate(self.x.shape) if d > 1]
        if dims:
            dim = int(self.rng.choice(dims))
            start = int(self.rng.integers(0, self.x.shape[dim] - 1))
            step = int(self.rng.integers(1, 3))
            places = tuple(slice(start, None, step) if k == dim else slice(None) for k in range(self.x.ndim))
            self.v, self.x = self.b.slice(self.v, dim, start, self.x.shape[dim], step), self.x[places]

    def gather(self):
        dims = [k for k, d in enumerate(self.x.shape) if d > 1]
        if dims:
            dim = int(self.rng.choice(dims))
            places = self.rng.integers(0, self.x.shape[dim], size=3).tolist()
            self.x, self.v = self.x.index_select(dim, torch.tensor(places)), self.b.gather(self.v, dim, places)

    def concat(self):
        dim = int(self.rng.integers(self.x.ndim))
        if self.x.numel() < 500:
            other = self.b.binary("mul", self.v, 2.0)
            self.x, self.v = torch.cat([self.x, 2 * self.x], dim), self.b.concat([self.v, other], dim)

    def add(self):
        shape = [d if self.rng.random() < 0.5 else 1 for d in self.x.shape]
        if self.rng.random() < 0.3:
            shape = shape[1:]
        value = self.rng.standard_normal(shape).astype(np.float32)
        self.x, self.v = self.x + torch.from_numpy(np.asarray(value)), self.b.binary("add", self.v, np.asarray(value))

    def turned(self):
        """Subtract itself in another order of dimensions."""
        perm = list(range(self.x.ndim))
        sides = [(i, j) for i in perm for j in perm[:i] if self.x.shape[i] == self.x.shape[j]]
        if sides:
            i, j = sides[0]
            perm[i], perm[j] = perm[j], perm[i]
        other = self.b.transpose(self.v, perm)
        self.x, self.v = (
            self.x - 0.5 * self.x.permute(perm),
            self.b.binary("sub", self.v, self.b.binary("mul", other, 0.5)),
        )

    def _dims(self):
        return sorted({int(k) for k in self.rng.integers(0, self.x.ndim, size=2)})

    def mean(self):
        dims, keep = self._dims(), bool(self.rng.random() < 0.6)
        if keep or len(dims) < self.x.ndim - 1:
            self.x, self.v = self.x.mean(dims, keep), reductions.mean(self.b, self.v, dims, keepdims=keep)

    def largest(self):
        dims = self._dims()
        self.x, self.v = self.x.amax(dims, True), reductions.largest(self.b, self.v, dims, keepdims=True)

    def minus_mean(self):
        dims = self._dims()
        mean = reductions.mean(self.b, self.v, dims, keepdims=True)
        self.x, self.v = self.x - self.x.mean(dims, True), self.b.binary("sub", self.v, mean)

    def softmax(self):
        dim = int(self.rng.integers(self.x.ndim))
        self.x, self.v = self.x.softmax(dim), reductions.softmax(self.b, self.v, dim)

    def linear(self):
        if self.x.ndim > 1:
            weight = self.rng.standard_normal((3, self.x.shape[-1])).astype(np.float32)
            self.x, self.v = F.linear(self.x, torch.from_numpy(weight)), layers.linear(self.b, self.v, weight, None)

    def pad(self):
        if self.x.ndim <= 4 and self.x.numel() < 500:
            dim = int(self.rng.integers(self.x.ndim))
            mode = str(self.rng.choice(["constant", "reflect", "replicate", "circular"]))
            fill, size = float(self.rng.choice([0, 0.5])), self.x.shape[dim]
            width = 1 if mode == "constant" else min(1, size - 1)
            widths = [(width, 0) if k == dim else (0, 0) for k in range(self.x.ndim)]
            kind = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
            more = {"constant_values": fill} if mode == "constant" else {}
            self.x = torch.from_numpy(np.pad(self.x.numpy(), widths, kind, **more))
            self.v = self.b.pad(self.v, widths, mode, fill)

    def product(self):
        """Multiply by its own transpose, as matrices."""
        if self.x.ndim > 1:
            turned = [*range(self.x.ndim - 2), self.x.ndim - 1, self.x.ndim - 2]
            other = self.b.transpose(self.v, turned)
            if self.rng.random() < 0.5:
                self.x, self.v = self.x @ self.x.permute(turned), reductions.matmul(self.b, self.v, other)
            else:
                self.x, self.v = self.x.permute(turned) @ self.x, reductions.matmul(self.b, other, self.v)
            self.x, self.v = self.x / 8, self.b.binary("div", self.v, 8.0)


OPS = [name for name in vars(Both) if not name.startswith("_")]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("start", range(0, 400, 20))
def test_any_sequence_computes_what_the_source_does(start, channels_last):
    for seed in range(start, start + 20):
        both, done = Both(seed, channels_last), []
        for _ in range(int(both.rng.integers(2, 9))):
            done.append(str(both.rng.choice(OPS)))
            getattr(both, done[-1])()
            assert both.b.shape(both.v) == tuple(both.x.shape), (seed, done)
        if both.x.ndim < 2 or both.x.shape[0] != 1:
            both.x, both.v = both.x.reshape(1, -1), both.b.reshape(both.v, (1, both.x.numel()))
        graph = both.b.graph([both.b.unary("abs", both.v)], Metadata())
        given, want = both.first, both.x.abs()
        if not channels_last:
            given, want = (t.permute(0, 2, 3, 1) if t.ndim == 4 else t for t in (given, want))
        for each in (graph, passes.simplify(graph)):
            got = TorchGraph(each)(given.contiguous())
            assert got.shape == want.shape, (seed, done)
            scale = max(1.0, float(want.abs().max()))
            assert torch.allclose(got / scale, want / scale, rtol=1e-4, atol=1e-5), (seed, done)


def _same(builder, value, want, given, tolerance=1e-4):
    graph = passes.simplify(builder.graph([value], Metadata()))
    given, want = (t.permute(0, 2, 3, 1) if t.ndim == 4 else t for t in (given, want))
    got = TorchGraph(graph)(given.contiguous())
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", range(60))
def test_a_transposed_convolution_of_any_kind(seed):
    rng = np.random.default_rng(seed)
    groups = int(rng.choice([1, 1, 2, 4]))
    inside, made = groups * int(rng.integers(1, 3)), int(rng.integers(1, 4))
    kernel, stride = ([int(k) for k in rng.integers(1, 6, size=2)] for _ in range(2))
    stride = [min(s, 3) for s in stride]
    dilation = [int(d) for d in rng.integers(1, 3, size=2)]
    padding = [int(rng.integers(0, min(3, d * (k - 1) + 1))) for k, d in zip(kernel, dilation, strict=True)]
    extra = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)]
    x = torch.from_numpy(rng.standard_normal((1, inside, 5, 4)).astype(np.float32))
    weight = torch.from_numpy(rng.standard_normal((inside, made, *kernel)).astype(np.float32))
    bias = torch.from_numpy(rng.standard_normal(groups * made).astype(np.float32))
    try:
        want = F.conv_transpose2d(x, weight, bias, stride, padding, extra, groups, dilation)
    except RuntimeError:
        pytest.skip("the output would be empty")
    b = Builder()
    value = layers.conv_transpose(
        b, b.input("input", x.shape), weight.numpy().transpose(1, 2, 3, 0), bias.numpy(), stride=tuple(stride),
        padding=(padding[0], padding[0], padding[1], padding[1]), extra=tuple(extra), dilation=tuple(dilation),
        groups=groups,
    )  # fmt: skip
    _same(b, value, want, x)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (6, 7), (12, 14), (5, 4), (9, 10)])
@pytest.mark.parametrize("largest", [False, True])
def test_adaptive_pools_of_any_size(size, largest):
    x, b = torch.randn(1, 3, 6, 7), Builder()
    want = (F.adaptive_max_pool2d if largest else F.adaptive_avg_pool2d)(x, size)
    _same(b, layers.adaptive_pool(b, b.input("input", x.shape), size, largest=largest), want, x)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(8, 10), (3, 3), (7, 13), (4, 5), (1, 1)])
@pytest.mark.parametrize("align", [False, True])
def test_resizing_is_torchs(mode, size, align):
    x, b = torch.randn(1, 2, 4, 5), Builder()
    if mode == "nearest":
        want, where = F.interpolate(x, size), {}
    else:
        want = F.interpolate(x, size, mode="bilinear", align_corners=align)
        where = {"align_corners": align, "half_pixel": not align}
    _same(b, layers.resize(b, b.input("input", x.shape), size, mode, **where), want, x)


@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (1, 4, 5), (1, 4)])
def test_norms_are_torchs(shape):
    x, channels = torch.randn(shape), shape[1]
    weight, bias = torch.randn(channels), torch.randn(channels)
    for groups in (1, 2, channels):
        if groups == channels and len(shape) == 2:
            continue
        b = Builder()
        made = reductions.group_norm(b, b.input("input", shape), groups, weight.numpy(), bias.numpy(), 1e-5)
        _same(b, made, F.group_norm(x, groups, weight, bias, 1e-5), x)
    for last in range(1, len(shape)):
        b, inside = Builder(), shape[-last:]
        w = torch.randn(inside)
        dims = list(range(len(shape) - last, len(shape)))
        made = reductions.layer_norm(b, b.input("input", shape), dims, w.numpy(), None, 1e-5)
        _same(b, made, F.layer_norm(x, inside, w, None, 1e-5), x)
    b = Builder()
    _same(b, reductions.l2_normalize(b, b.input("input", shape), [1], 1e-12), F.normalize(x, dim=1), x)


def test_pixels_are_shuffled_as_torch_does():
    x, b = torch.randn(1, 12, 4, 6), Builder()
    _same(b, layers.pixel_shuffle(b, b.input("input", x.shape), 2), F.pixel_shuffle(x, 2), x)
    b = Builder()
    _same(b, layers.pixel_unshuffle(b, b.input("input", x.shape), 2), F.pixel_unshuffle(x, 2), x)


def test_an_unused_order_costs_no_node():
    b = Builder()
    x = b.input("input", (1, 8, 4, 6))
    tokens = b.transpose(b.reshape(x, (1, 8, 24)), (0, 2, 1))  # (N, positions, channels), as attention has it
    tokens = layers.linear(b, tokens, np.ones((16, 8), np.float32), None)
    image = b.reshape(b.transpose(tokens, (0, 2, 1)), (1, 16, 4, 6))
    graph = passes.simplify(b.graph([image], Metadata()))
    assert "transpose" not in {n.op for n in graph}


def test_a_linear_layer_over_the_channels_of_an_image_is_one_convolution():
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 6)).eval()
    scale = torch.rand(6)

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return x + (self.inner(x.permute(0, 2, 3, 1)) * scale).permute(0, 3, 1, 2)

    graph = capture(Block().eval(), (6, 4, 5), Metadata())
    assert [n.op for n in graph] == ["conv2d", "gelu", "conv2d", "add"]
    x = torch.randn(2, 6, 4, 5)
    with torch.inference_mode():
        want = Block().eval()(x).permute(0, 2, 3, 1)
    torch.testing.assert_close(TorchGraph(graph)(x.permute(0, 2, 3, 1)), want, rtol=1e-5, atol=1e-5)
