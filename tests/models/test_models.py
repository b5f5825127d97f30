"""Models: sizes as published, names, paddings."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch

from edgecnn.errors import InputError
from edgecnn.models import FAMILIES, resolve
from edgecnn.models.blocks import build
from edgecnn.models.checkpoint import random_weights
from edgecnn.models.count import size_of
from edgecnn.models.rows import make_divisible

GOLDEN = tomllib.loads((Path(__file__).parents[1] / "golden" / "models.toml").read_text("utf-8"))


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_and_macs_are_the_golden_and_the_published_ones(name):
    size, golden = size_of(resolve(name)), GOLDEN[name]
    assert (size.parameters, size.macs) == (golden["parameters"], golden["macs"])
    # The tables round to two digits after the point, and to whole millions of MACs.
    assert size.parameters / 1e6 == pytest.approx(golden["published_parameters"], rel=0.021, abs=0.006)
    if "published_macs" in golden:
        within = golden.get("published_macs_within", 0.005)
        assert size.macs / 1e6 == pytest.approx(golden["published_macs"], rel=within, abs=1)


def test_every_listed_model_has_a_golden_entry():
    listed = {resolve(name).name for family in FAMILIES.values() for name in (family.name, *family.listed)}
    assert listed == set(GOLDEN)


def test_the_size_torchvision_states_for_mobilenet_v2():
    assert size_of(resolve("mobilenet_v2")).parameters == 3_504_872


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("mobilenet_v2", "mobilenet_v2_1.0_224"),
        ("mobilenet_v1_0.75", "mobilenet_v1_0.75_224"),
        ("mobilenet_v2_0.35_96", "mobilenet_v2_0.35_96"),
        ("mobilenet_v1_1.3_160", "mobilenet_v1_1.3_160"),
    ],
)
def test_a_name_gives_width_and_resolution(name, full):
    assert resolve(name).name == full


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilenet_v9", "unknown model 'mobilenet_v9' .*did you mean"),
        ("mobilenet_v2_0.35_9", "resolution 9; allowed"),
        ("mobilenet_v2_99.0_96", "width 99.0; allowed"),
        ("", "unknown model ''"),
    ],
)
def test_a_wrong_name_says_what_is_allowed(name, message):
    with pytest.raises(InputError, match=message):
        resolve(name)


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_64", "mobilenet_v2_0.35_96", "mobilenet_v2_0.35_97"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_modules_run_and_are_as_small_as_their_strides_say(name, padding):
    from dataclasses import replace

    spec = replace(resolve(name, 7), padding=padding)
    module = build(spec).eval()
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, spec.resolution, spec.resolution)).shape == (2, 7)


def test_paddings_are_different_networks():
    from dataclasses import replace

    spec = resolve("mobilenet_v2_0.35_96", 7)
    same, _ = random_weights(spec)
    symmetric = build(replace(spec, padding="symmetric"))
    symmetric.load_state_dict(same.state_dict())
    x = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert not torch.equal(same.eval()(x), symmetric.eval()(x))


def test_random_weights_come_from_the_seed_alone():
    spec = resolve("mobilenet_v2_0.35_96", 7)
    first, second, other = (random_weights(spec, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize(("channels", "made"), [(32 * 0.35, 16), (96 * 0.35, 32), (3, 8), (24, 24), (89.6, 88)])
def test_channels_are_multiples_of_eight_and_at_most_a_tenth_less(channels, made):
    assert make_divisible(channels) == made
