"""Models: sizes as published, names, paddings."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from golden_files import golden
from torch import nn

from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.models import families, resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.models.classifier import AUXILIARY, build
from edgecnn.models.count import Size, size_of
from edgecnn.models.modules import DropConnect, PadShortcut
from edgecnn.models.rows import make_divisible
from edgecnn.models.scaling import COMPOUND, EFFICIENTNET, Multipliers
from edgecnn.models.spec import ModelSpec

GOLDEN = golden("models")


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_and_macs_are_the_golden_and_the_published_ones(name):
    size, golden = size_of(resolve(name)), GOLDEN[name]
    assert (size.parameters, size.macs) == (golden["parameters"], golden["macs"])
    # The tables round to two digits after the point, and to whole millions of MACs.
    assert size.parameters / 1e6 == pytest.approx(golden["published_parameters"], rel=0.021, abs=0.006)
    if "published_macs" in golden:
        within = golden.get("published_macs_within", 0.005)
        assert size.macs / 1e6 == pytest.approx(golden["published_macs"], rel=within, abs=1)


def size_of_module(module, shape):
    """Count what torch runs on its meta device: no memory, no arithmetic."""
    made = []

    def count(layer, inputs, output):
        made.append((output.numel(), math.prod(layer.weight.shape[1:])))

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        module(torch.empty(1, *shape, device="meta"))
    macs, activations = sum(a * b for a, b in made), sum(a for a, _ in made)
    return Size(parameters=sum(p.numel() for p in module.parameters()), macs=macs, activations=activations)


@pytest.mark.parametrize("name", families())
def test_rows_are_counted_as_their_torch_modules_are(name):
    spec = resolve(f"{name}_{'0.35x0.5' if families()[name].scaling else '0.35'}_96", 7)
    kinds = [spec] if families()[name].num_classes == 10 else [spec, replace(spec, folded=True, stride_in="1x1")]
    for kind in kinds:
        with torch.device("meta"):
            module = build(kind)
        assert size_of(kind) == size_of_module(module, (3, 96, 96))


def test_models_are_listed_without_torch():
    script = "import sys; from edgecnn.cli import main; main(['models', '--json']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


TABLE = """
from edgecnn.models import Family, Table
from edgecnn.models.rows import ConvRow

def rows(width, depth):
    return tuple(ConvRow(kernel=3, stride=2, channels=max(1, int(c * width))) for c in (8, 16))

TABLE = Table(
    paper="none", families=(Family(name="NAME", rows=rows, resolution=32, dropout=0.0, listed=("NAME_0.5",)),)
)
"""


def installed(folder, family, *arguments):
    """Run the command where a package with one table is installed."""
    (folder / "own.py").write_text(TABLE.replace("NAME", family))
    record = folder / "own-1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    (record / "entry_points.txt").write_text("[edgecnn.models]\nown = own:TABLE\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    command = [sys.executable, "-m", "edgecnn", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_a_model_is_one_table_and_one_entry_point(tmp_path):
    listed = installed(tmp_path, "stairs", "models", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)["entries"]}
    assert rows["stairs"]["parameters"] == (27 + 2) * 8 + (72 + 2) * 16 + 17 * 1000
    assert rows["stairs"]["macs"] == 27 * 8 * 16**2 + 72 * 16 * 8**2 + 16 * 1000
    assert "stairs_0.5" in rows
    assert {resolve(name).name for name in rows if "stairs" not in name} == set(GOLDEN)


def test_a_family_of_two_tables_is_one_line(tmp_path):
    done = installed(tmp_path, "alexnet", "models")
    assert done.returncode == 2
    assert "'alexnet' is a family of another table" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "head"),
    [
        ("mobilenet_v3_large_0.75", 4.0, 155, (720, 1280)),
        ("mobilenet_v3_small_0.75", 2.0, 44, (432, 1024)),
        ("mobilenet_v3_large_1.25", None, 356, (1200, 1600)),
    ],
)
def test_the_head_of_mobilenet_v3_grows_with_its_width_and_its_hidden_layer_does_not_shrink(
    name, parameters, macs, head
):
    """Published: Howard et al. 2019, table 3 (millions); the hidden layer at 1.25 is the reference implementation's."""
    spec = resolve(name)
    size, (*_, last, hidden) = size_of(spec), spec.rows
    assert (last.channels, hidden.features) == head
    assert round(size.macs / 1e6) == pytest.approx(macs, abs=1)
    if parameters is not None:
        assert round(size.parameters / 1e6, 1) == parameters


def test_every_listed_model_has_a_golden_entry():
    listed = {resolve(name).name for family in families().values() for name in (family.name, *family.listed)}
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
        ("resnet18_64", "resnet18_1.0_64"),
        ("efficientnet_b0_0.5x0.25_96", "efficientnet_b0_0.5x0.25_96"),
        ("efficientnet_b0_1.0x1.0_96", "efficientnet_b0_1.0_96"),
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
        ("mobilenet_v1_1.0x2.0_224", "mobilenet_v1 has no depth to scale; families that have: .*efficientnet_b0"),
        ("efficientnet_b0_1.0x9.0", "depth 9.0; allowed"),
        (
            "alexnet_32",
            r"resolution 32 is impossible: stage 8, of stride 2, would get a map of 1x1; the nearest .*: 63, 64",
        ),
        ("vgg16_256", "does not divide into the classifier's 7x7; the nearest that are possible: 254, 255"),
    ],
)
def test_a_wrong_name_says_what_is_allowed(name, message):
    with pytest.raises(InputError, match=message):
        resolve(name)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"padding": "sam"}, r"unknown padding 'sam' \(did you mean 'same'"),
        ({"stride_in": "2x2"}, "unknown place of a bottleneck's stride '2x2'"),
        ({"num_classes": 0}, "0 classes; a classifier has at least 1"),
        ({"family": "mobilenet_v9"}, r"unknown family 'mobilenet_v9' \(did you mean"),
        ({"width": 0.04}, "width 0.04; allowed: 0.05 to 8.0"),
        ({"width": 8.1}, "width 8.1; allowed: 0.05 to 8.0"),
        ({"depth": 0.04}, "depth 0.04; allowed: 0.05 to 8.0"),
        ({"resolution": 31}, "resolution 31; allowed: 32 to 1024 pixels"),
        ({"resolution": 1025}, "resolution 1025; allowed: 32 to 1024 pixels"),
    ],
)
def test_a_spec_says_what_is_allowed(changed, message):
    with pytest.raises(InputError, match=message):
        replace(resolve("mobilenet_v2"), **changed)


@pytest.mark.parametrize("changed", [{"width": 0.05}, {"width": 8.0}, {"resolution": 32}, {"resolution": 1024}])
def test_a_spec_takes_the_ends_of_what_is_allowed(changed):
    spec = replace(resolve("mobilenet_v2", 1), **changed)
    assert spec.num_classes == 1
    assert spec.sides[-1] == spec.resolution / 32


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_64", "mobilenet_v2_0.35_96", "mobilenet_v2_0.35_97"])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_modules_run_and_are_as_small_as_their_strides_say(name, padding):
    spec = replace(resolve(name, 7), padding=padding)
    module = build(spec).eval()
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, spec.resolution, spec.resolution)).shape == (2, 7)


def test_paddings_are_different_networks():
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


def test_a_member_is_the_base_with_its_multipliers():
    b3, same = resolve("efficientnet_b3"), resolve("efficientnet_b0_1.2x1.4_300")
    assert (b3.rows, b3.resolution) == (same.rows, same.resolution)


def test_the_compound_rule_is_near_the_published_members_and_doubles_the_cost():
    assert COMPOUND.cost == pytest.approx(2, rel=0.05)
    base = EFFICIENTNET["b0"].resolution
    for member in EFFICIENTNET.values():
        phi = COMPOUND.phi_of(member, base)
        made = COMPOUND.at(phi, base)
        for axis in ("width", "depth", "resolution"):
            assert getattr(made, axis) == pytest.approx(getattr(member, axis), rel=0.12), (axis, phi)
    assert COMPOUND.at(0, base) == Multipliers(width=1, depth=1, resolution=base)


def test_lite_keeps_its_stem_head_and_outer_stages():
    small, large = (resolve(f"efficientnet_lite{n}").rows for n in (0, 4))
    assert (small[0], small[-1]) == (large[0], large[-1])
    assert small[1].repeats == large[1].repeats == small[-2].repeats == large[-2].repeats == 1


def test_googlenet_has_its_auxiliary_classifiers_in_training_only():
    spec = resolve("googlenet_0.25_64", 7)
    module = build(spec, auxiliary=True)
    x = torch.zeros(2, 3, 64, 64)
    assert module(x).shape == (2, 7)
    outputs = module.train()(x)
    assert [tuple(o.shape) for o in outputs] == [(2, 7)] * 3
    assert isinstance(build(spec).train()(x), torch.Tensor)


def test_auxiliary_classifiers_and_dropped_branches_are_not_in_the_graph():
    for name in ("googlenet_0.25_64", "efficientnet_b0_0.25x0.25_64"):
        spec = resolve(name, 7)
        module = build(spec, auxiliary=True)
        plain = build(spec)
        plain.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith(AUXILIARY)})
        first, second = (capture(m.train().eval(), (3, 64, 64), Metadata(model=name)) for m in (module, plain))
        assert first.nodes == second.nodes
        assert set(first.tensors) == set(second.tensors)


def test_drop_connect_drops_whole_images_in_training_only():
    drop = DropConnect()
    drop.p = 0.5
    x = torch.ones(400, 2, 3, 3)
    assert torch.equal(drop.eval()(x), x)
    torch.manual_seed(0)
    kept = drop.train()(x).flatten(1)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert bool((kept == kept[:, :1]).all())
    assert 0.4 < float((kept[:, 0] == 0).float().mean()) < 0.6
    places = [m.p for m in build(resolve("efficientnet_b0")).modules() if isinstance(m, DropConnect)]
    assert places == sorted(places)
    assert 0 < places[-1] < 0.2


def test_the_padded_shortcut_takes_every_second_pixel_and_adds_zeros():
    x = torch.randn(2, 4, 7, 6)
    out = PadShortcut(4, 7, 2)(x)
    assert torch.equal(out[:, 1:5], x[:, :, ::2, ::2])
    assert not out[:, 0].any()
    assert not out[:, 5:].any()


@pytest.mark.parametrize("place", ["3x3", "1x1"])
def test_a_bottlenecks_stride_is_where_the_spec_says(place):
    block = build(replace(resolve("resnet50_0.25_64"), stride_in=place)).features[5]
    assert [b.conv.stride[0] for b in block.branch] == ([1, 2, 1] if place == "3x3" else [2, 1, 1])


def test_a_spec_made_by_hand_is_the_registered_one():
    made = ModelSpec(name="mobilenet_v2_1.0_224", family="mobilenet_v2", width=1.0, resolution=224)
    assert made == resolve("mobilenet_v2_1.0_224")
