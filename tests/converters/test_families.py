"""Every family of the registry in every format: fp32 as torch computes it, one set of integers, equal outputs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from golden_files import golden
from runtimes import WRITERS, assert_integers_are_the_graphs, distances, limits, opened, unsaturated

from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.models import families, resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import quantize
from edgecnn.quant.recipe import recipe


def narrow(family):
    """Its name when it is narrow, shallow and on a small image: each kind of block, few weights."""
    return f"{family.name}_{'0.25x0.25' if family.scaling else '0.25'}_64"


QUICK = ("resnet18", "resnet50", "googlenet", "efficientnet_b0", "efficientnet_lite0", "mobilenet_v3_small")
"""One family of each kind of block."""
NAMES = [
    pytest.param(narrow(f), marks=() if f.name in QUICK else pytest.mark.slow, id=f.name) for f in families().values()
]


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    """Return a name, the module, its graph, and images as it is fed: noise of several scales.

    Weights are random. Batch norms have the statistics of the images, as trained ones: signals neither grow nor fade.
    """
    name = request.param
    spec = resolve(name, 7)
    module, _ = random_weights(spec)
    rng, side = np.random.default_rng(0), spec.resolution
    noise = [rng.normal(0, 0.5, (12, side // s, side // s, 3)).repeat(s, 1).repeat(s, 2) for s in (1, 4, 16)]
    x = sum(noise).astype(np.float32)
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum, norm.training = None, True
    with torch.inference_mode():
        module(torch.from_numpy(x).permute(0, 3, 1, 2))
    for norm in norms:
        norm.training = False
    return name, module, capture(module, (3, side, side), Metadata(model=name)), x


def test_fp32_computes_what_torch_does(network, tmp_path):
    """Within a ten thousandth of the largest logit: all sum in float32, each in its own order."""
    _, module, graph, x = network
    with torch.inference_mode():
        want = module(torch.from_numpy(x[:2]).permute(0, 3, 1, 2)).numpy()
    for target, writer in WRITERS.items():
        session = opened(target, writer.convert(graph, precision="fp32"), tmp_path)
        got = session.output.decode(session.run(session.input.encode(x[:2]))).reshape(want.shape)
        assert np.abs(got - want).max() < 1e-4 * np.abs(want).max(), target


def test_int8_is_equal_in_every_runtime(network, tmp_path):
    """No op is float, every runtime is as near its oracle as stated, and as near the others."""
    name, _, graph, x = network
    int8 = unsaturated(quantize(graph, calibrate(graph, [x[:8]], keep=8), recipe("fast")).graph)
    quant, images = int8.quant(int8.outputs[0]), int8.quant(int8.inputs[0]).quantize(x[8:])
    allowed, made = golden("targets")["families"], {}
    for target, writer in WRITERS.items():
        converted = writer.convert(int8, precision="int8")
        assert_integers_are_the_graphs(int8, target, converted)
        session = opened(target, converted, tmp_path)
        assert not [str(op) for op in session.ops if op.is_float], target
        worst = int(distances(int8, session, images).max())
        assert worst <= limits()[session.arithmetic]["piece"], f"{worst} LSB from {session.arithmetic} arithmetic"
        real = session.output.decode(session.run(session.input.encode(int8.quant(int8.inputs[0]).dequantize(images))))
        made[target] = quant.quantize(real).astype(int)
    for a, b in combinations(made, 2):
        apart = int(np.abs(made[a] - made[b]).max())
        assert apart <= allowed.get(name.split("_0.25")[0], 0), f"{a} and {b}: {apart} LSB"
