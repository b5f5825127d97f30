"""Weights: every key map loads to the same network; what does not fit is one line that names it."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from golden_files import golden
from safetensors.torch import save_file

from edgecnn.errors import InputError
from edgecnn.models import resolve
from edgecnn.models.checkpoint import (
    default_preprocess,
    demo_weights,
    load_weights,
    random_weights,
    read_tensors,
    save_weights,
)
from edgecnn.models.classifier import build
from edgecnn.models.key_maps import KEY_MAPS, preprocessing
from edgecnn.preprocess import MEAN

KEYS = golden("weights")["names"]
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
SPEC = resolve("mobilenet_v2_0.35_96", 5)


def same_network(a, b, resolution):
    x = torch.randn(2, 3, resolution, resolution)
    with torch.inference_mode():
        return torch.equal(a.eval()(x), b.eval()(x))


@pytest.fixture
def saved(tmp_path):
    module, _ = random_weights(SPEC)
    path = tmp_path / "w.safetensors"
    save_weights(module, SPEC, path, preprocess=default_preprocess(96), labels=tuple("abcde"))
    return module, path


def test_our_own_file_brings_everything_back(saved):
    module, path = saved
    loaded, source = load_weights(resolve("mobilenet_v2_0.35_96"), path)
    assert same_network(module, loaded, 96)
    assert source.labels == tuple("abcde")
    assert source.spec.num_classes == 5
    assert source.preprocess == default_preprocess(96)
    assert len(source.digest) == 64


def test_a_plain_state_dict_in_our_names_loads(tmp_path):
    module, _ = random_weights(SPEC)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}}, tmp_path / "p.pt")
    for name in ("w.pt", "p.pt"):
        loaded, source = load_weights(resolve("mobilenet_v2_0.35_96"), tmp_path / name)
        assert same_network(module, loaded, 96)
        assert source.spec.num_classes == 5


def undo(arrange, tensor):
    """A tensor that ``arrange`` turns into ``tensor``: permutations and reshapes, found by trying."""
    from itertools import permutations

    shapes = [tensor[:, :, None, None], tensor] if tensor.ndim == 2 else [tensor]
    for candidate in shapes:
        for axes in permutations(range(candidate.ndim)):
            try:
                made = arrange(candidate.permute(axes))
            except (RuntimeError, IndexError):
                continue
            if made.shape == tensor.shape and torch.equal(made, tensor):
                return candidate.permute(axes).contiguous().clone()
    raise AssertionError("no layout gives the tensor back")


def small(key_map):
    """A name of the key map's first family: narrow, and few pixels."""
    return resolve(f"{key_map.families[0]}_0.25_64", 5)


@pytest.mark.parametrize(
    "key_map",
    [s for s in KEY_MAPS if not s.biased and not s.bgr],  # those two change numbers: test_keras.py has them
    ids=lambda s: f"{s.name}-{s.families[0]}",
)
def test_every_key_map_maps_onto_the_whole_model(key_map, tmp_path):
    base = small(key_map)
    spec = replace(base, folded=key_map.folded, padding=key_map.padding, bn_eps=key_map.bn_eps)
    module, _ = random_weights(spec, seed=3)
    state = module.state_dict()
    sources = key_map.sources(spec, state)
    foreign = {source.names[0]: undo(source.make, state[ours]) for ours, source in sources.items()}
    if "normalization/" in key_map.unused:
        foreign |= {"normalization/mean": torch.full((3,), 0.4), "normalization/variance": torch.full((3,), 0.25)}
    save_file(foreign, tmp_path / "w.safetensors")
    loaded, source = load_weights(base, tmp_path / "w.safetensors", convention=key_map.name)
    assert same_network(module, loaded, spec.resolution)
    assert source.spec.padding == key_map.padding
    gone = max(name for name in foreign if name not in key_map.signature and not name.startswith(key_map.unused or "-"))
    save_file({k: v for k, v in foreign.items() if k != gone}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=f"lack.* tensor '{gone}'"):
        load_weights(base, tmp_path / "m.safetensors", convention=key_map.name)
    save_file({**foreign, "stray": torch.zeros(1)}, tmp_path / "e.safetensors")
    with pytest.raises(InputError, match="unexpected tensor 'stray'"):
        load_weights(base, tmp_path / "e.safetensors", convention=key_map.name)


@pytest.mark.parametrize(
    "key_map",
    [s for s in KEY_MAPS if not s.bgr and not s.folded and s.families[0] not in ("alexnet", "vgg11")],
    ids=lambda s: f"{s.name}-{s.families[0]}",
)
def test_weights_whose_batch_norm_was_folded_load_by_every_key_map(key_map, tmp_path):
    base = small(key_map)
    module, _ = random_weights(replace(base, folded=True, padding=key_map.padding), seed=3)
    state = module.state_dict()
    sources = key_map.sources(replace(base, folded=True), state)
    foreign = {source.names[0]: undo(source.make, state[ours]) for ours, source in sources.items()}
    if "normalization/" in key_map.unused:
        foreign |= {"normalization/mean": torch.full((3,), 0.4), "normalization/variance": torch.full((3,), 0.25)}
    save_file(foreign, tmp_path / "w.safetensors")
    loaded, source = load_weights(base, tmp_path / "w.safetensors", convention=key_map.name)
    assert source.spec.folded
    assert same_network(module, loaded, base.resolution)


def test_our_own_names_load_folded_as_well(tmp_path):
    base = resolve("mobilenet_v2_0.35_96", 5)
    module, _ = random_weights(replace(base, folded=True), seed=3)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    loaded, source = load_weights(base, tmp_path / "w.pt")
    assert source.spec.folded
    assert same_network(module, loaded, 96)


@pytest.mark.parametrize("key", KEYS)
def test_the_names_are_those_of_the_libraries(key):
    library, _, name = key.partition("/")
    spec = resolve(name)
    key_map = next(s for s in KEY_MAPS if s.name == library and spec.family in s.families)
    with torch.device("meta"):
        ours = build(spec).state_dict()
    theirs = sorted({name for source in key_map.sources(spec, ours).values() for name in source.names})
    digest = hashlib.sha256("".join(f"{name}\n" for name in theirs).encode()).hexdigest()
    assert (len(theirs), digest) == (KEYS[key]["tensors"], KEYS[key]["sha256"])
    assert set(key_map.signature) <= set(theirs)


def test_names_that_several_networks_have_must_be_told_apart(tmp_path):
    spec = resolve("efficientnet_lite0_0.25_64", 5)
    module, _ = random_weights(spec)
    (key_map,) = (s for s in KEY_MAPS if s.name == "timm-tf" and spec.family in s.families)
    state = module.state_dict()
    path = tmp_path / "w.pt"
    torch.save({o.names[0]: state[ours] for ours, o in key_map.sources(spec, state).items()}, path)
    with pytest.raises(InputError, match="--convention timm: padding symmetric.*--convention timm-tf: padding same"):
        load_weights(spec, path)
    with pytest.raises(InputError, match="not named as keras names efficientnet_lite0"):
        load_weights(spec, path, convention="keras")
    with pytest.raises(InputError, match="unknown convention 'tim'.*did you mean 'timm'"):
        load_weights(spec, path, convention="tim")
    with pytest.raises(InputError, match="holds weights of .*efficientnet_lite4.*, not of resnet18"):
        load_weights(resolve("resnet18"), path)
    assert load_weights(spec, path, convention="timm")[1].spec.padding == "symmetric"


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data (real weights) is not there")
def test_the_cifar_resnet_that_people_have_loads():
    path = SHARED / "resnet_cifar10_akamaster" / "resnet20-12fca82f.safetensors"
    module, source = load_weights(resolve("resnet20"), path)
    assert source.spec.num_classes == 10
    assert sum(p.numel() for p in module.parameters()) == 269722
    with pytest.raises(InputError, match="lacks tensor 'layer1.3.bn1.bias'"):
        load_weights(resolve("resnet32"), path)


def keras_file(path, names=True):
    """Write what Keras 3 does for a model of one dense layer."""
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        if names:
            group.attrs["name"] = "predictions"
        group["0"], group["1"] = np.ones((3, 2), np.float32), np.zeros(2, np.float32)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)


def test_keras_files_are_read_by_their_layers_names(tmp_path):
    keras_file(tmp_path / "a.weights.h5")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.write(tmp_path / "a.weights.h5", "model.weights.h5")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = ["conv_dw_1"]
        file["conv_dw_1/conv_dw_1/depthwise_kernel:0"] = np.ones((3, 3, 2, 1), np.float32)
    for name in ("a.weights.h5", "a.keras"):
        tensors, _ = read_tensors(tmp_path / name)
        assert {k: tuple(v.shape) for k, v in tensors.items()} == {
            "predictions/kernel": (3, 2),
            "predictions/bias": (2,),
        }
    assert list(read_tensors(tmp_path / "old.h5")[0]) == ["conv_dw_1/kernel"]


def test_a_keras_file_that_does_not_serve_is_one_line(tmp_path):
    keras_file(tmp_path / "nameless.h5", names=False)
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "text.keras").write_text("hello")
    keras_file(tmp_path / "whole.h5")
    data = (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name, message in (
        ("nameless.h5", "does not name its layers"),
        ("text.h5", "not an HDF5 file"),
        ("text.keras", "not a .keras file"),
        ("cut.h5", "not an HDF5 file"),
        ("empty.h5", "holds no weights"),
    ):
        with pytest.raises(InputError, match=message) as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(3,), (16, 3, 3, 2), (3, 3, 3, 16)])
def test_a_foreign_tensor_of_another_shape_is_named_as_it_is_in_the_file(shape, tmp_path):
    (key_map,) = (s for s in KEY_MAPS if s.name == "torchvision" and SPEC.family in s.families)
    module, _ = random_weights(replace(SPEC, padding=key_map.padding, bn_eps=key_map.bn_eps))
    state = module.state_dict()
    sources = key_map.sources(SPEC, state)
    foreign = {source.names[0]: state[ours] for ours, source in sources.items()}
    name = sources["features.0.conv.weight"].names[0]
    save_file({**foreign, name: torch.zeros(shape)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=rf"tensor '{name}' has shape .*, which does not fit \(16, 3, 3, 3\)"):
        load_weights(SPEC, tmp_path / "w.safetensors", convention="torchvision")


def test_weights_of_another_family_or_width(saved, tmp_path):
    _, path = saved
    with pytest.raises(InputError, match="holds weights of mobilenet_v2_0.35_96, not of mobilenet_v2_0.5_96"):
        load_weights(resolve("mobilenet_v2_0.5_96"), path)
    with pytest.raises(InputError, match="not of mobilenet_v1"):
        load_weights(resolve("mobilenet_v1"), path)


def test_demo_weights_exist_for_one_model_and_say_which():
    module, source = demo_weights(resolve("mobilenet_v2_0.35_96"))
    assert source.spec.num_classes == len(source.labels) == 16
    assert sum(p.numel() for p in module.parameters()) < 1_000_000
    with pytest.raises(InputError, match=r"needs --weights FILE.*mobilenet_v2_0.35_96"):
        demo_weights(resolve("mobilenet_v1"))


@pytest.mark.parametrize(
    ("how", "resize", "crop"),
    [
        (preprocessing.scaled, (240, 240), None),
        (preprocessing.imagenet, (274,), (240, 240)),  # the centre 87.5 %
        (preprocessing.efficientnet, (256,), (240, 240)),  # torchvision's EfficientNet-B1
        (preprocessing.bordered, (272,), (240, 240)),
        (preprocessing.shorter_side, (240,), (240, 240)),
        (preprocessing.bordered_scaled, (272,), (240, 240)),
        (preprocessing.centred, (274,), (240, 240)),
    ],
)
def test_images_are_cut_as_each_library_does_it(how, resize, crop):
    made = how(240, {})
    assert (made.resize, made.crop) == (resize, crop)
    assert (made.mean == MEAN) == (
        how in (preprocessing.imagenet, preprocessing.efficientnet, preprocessing.bordered, preprocessing.shorter_side)
    )
