"""Do no harm: on networks with odd channels and odd images, no step makes int8 worse than plain rounding.

Each step alone stands on top of plain min-max rounding; the error of the output is on images of the network's kind that
nothing else saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
import torch
from golden_files import golden
from odd_networks import ODD, calibration, images, network

from edgecnn.graph.interpreter import TorchGraph
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.guard import judging_images
from edgecnn.quant.pipeline import calibrated, images_needed, quantize
from edgecnn.quant.recipe import Recipe, recipe

LIMITS = golden("quant")["harm"]
PLAIN = recipe("minmax")
STEPS: Mapping[str, Recipe] = {
    "equalization": PLAIN.with_settings("equalization"),
    "ranges": PLAIN.with_settings("ranges", method="mse"),
    "shared_scales": PLAIN.with_settings("shared_scales"),
    "channel_splitting": PLAIN.with_settings("channel_splitting"),
    "bias_correction": PLAIN.with_settings("bias_correction"),
    "adaptive_rounding": PLAIN.with_settings("adaptive_rounding", images=32),
    "fast": recipe("fast"),
}
QUICK, ALL = range(2), range(8)  # seeds
UNSEEN, BATCH = 96, 16


@cache
def drawn(odd, seed):
    """A network, its calibration images, images that nothing saw, and the output on them."""
    graph, x = network(odd, seed), torch.from_numpy(images(seed, UNSEEN, 5))
    return graph, calibration(odd, seed), x, TorchGraph(graph)(x)


@cache
def error(odd, seed, name, guarded=False):
    """Squared error of the output on unseen images."""
    (graph, given, x, want), steps = drawn(odd, seed), STEPS[name] if name else PLAIN
    prepared, seen = calibrated(graph, iter(np.split(given, range(BATCH, len(given), BATCH))), steps, keep=len(given))
    judging = judging_images(prepared, len(seen.images), images_needed(prepared, steps)) if guarded else 0
    made = quantize(prepared, seen, steps, judging=judging)
    return float((FakeQuantizedGraph(made.graph)(x) - want).double().square().sum())


def harm(name, seeds, *, guarded=False):
    """By how many dB a step is worse than plain rounding: of each kind, of each seed."""
    return {
        odd: [10 * np.log10(error(odd, seed, name, guarded) / error(odd, seed, "")) for seed in seeds] for odd in ODD
    }


def described(found):
    every = np.concatenate(list(found.values()))
    worst = max(found, key=lambda odd: max(found[odd]))
    return (
        f"{len(every)} networks: mean {every.mean():.2f} dB, median {np.median(every):.2f}, 95 % below "
        f"{np.percentile(every, 95):.2f}, worst {every.max():.2f} ({worst}, seed {int(np.argmax(found[worst]))}); "
        + ", ".join(f"{odd} {np.mean(values):.2f}" for odd, values in found.items())
    )


@pytest.mark.parametrize("name", STEPS)
def test_no_step_does_harm_on_the_mean_of_a_few_networks(name):
    found = harm(name, QUICK)
    assert np.mean(list(found.values())) <= LIMITS["mean_db"], described(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_no_step_does_harm_on_the_mean(name):
    found = harm(name, ALL)
    assert np.mean(list(found.values())) <= LIMITS["mean_db"], described(found)
    kinds = {odd: float(np.mean(values)) for odd, values in found.items() if odd not in ("equal", "one_pattern")}
    assert max(kinds.values()) <= LIMITS["kind_mean_db"], described(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_the_guard_bounds_the_tail(name):
    found = harm(name, ALL, guarded=True)
    every = np.concatenate([found[odd] for odd in ODD if odd not in ("few", "equal", "one_pattern")])
    assert np.percentile(every, 95) <= LIMITS["guarded_95_db"], described(found)
    assert every.max() <= LIMITS["guarded_worst_db"], described(found)
    assert np.mean(list(found.values())) <= LIMITS["mean_db"], described(found)
