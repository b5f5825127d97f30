"""Weights: every naming scheme loads to the same network; what does not fit is one line that names it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from edgecnn.errors import InputError
from edgecnn.models import resolve
from edgecnn.models.blocks import build
from edgecnn.models.checkpoint import (
    default_preprocess,
    demo_weights,
    load_factory,
    load_weights,
    random_weights,
    read_tensors,
    save_weights,
)
from edgecnn.models.schemes import SCHEMES

SPEC = resolve("mobilenet_v2_0.35_96", 5)
V1 = resolve("mobilenet_v1_0.25_64", 5)


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


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_every_scheme_maps_onto_the_whole_model(scheme, tmp_path):
    base = V1 if scheme.family == "mobilenet_v1" else SPEC
    spec = replace(base, folded=scheme.folded, padding=scheme.padding, bn_eps=scheme.bn_eps)
    module, _ = random_weights(spec, seed=3)
    state = module.state_dict()
    names = scheme.names(spec)
    foreign = {theirs: undo(arrange, state[ours]) for ours, (theirs, arrange) in names.items()}
    save_file(foreign, tmp_path / "w.safetensors")
    loaded, source = load_weights(base, tmp_path / "w.safetensors")
    assert same_network(module, loaded, spec.resolution)
    assert source.spec.padding == scheme.padding
    missing = dict(foreign)
    gone = sorted(missing)[0]
    if gone != scheme.key:
        del missing[gone]
        save_file(missing, tmp_path / "m.safetensors")
        with pytest.raises(InputError, match=f"lacks tensor '{gone}'"):
            load_weights(base, tmp_path / "m.safetensors")
    save_file({**foreign, "stray": torch.zeros(1)}, tmp_path / "e.safetensors")
    with pytest.raises(InputError, match="unexpected tensor 'stray'"):
        load_weights(base, tmp_path / "e.safetensors")


def edited(tmp_path, change):
    module, _ = random_weights(SPEC)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    change(state)
    path = tmp_path / "w.pt"
    torch.save(state, path)
    return path


def drop(state):
    del state["features.0.conv.weight"]


def add(state):
    state["extra.weight"] = torch.zeros(2)


def reshape(state):
    state["features.0.conv.weight"] = torch.zeros(3, 3, 3, 3)


def nan(state):
    state["features.0.conv.weight"][0, 0, 0, 0] = float("nan")


def infinite(state):
    state["classifier.bias"][1] = float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "lacks tensor 'features.0.conv.weight'"),
        (add, "unexpected tensor 'extra.weight'"),
        (reshape, r"'features.0.conv.weight' has shape \(3, 3, 3, 3\), the model needs \(16, 3, 3, 3\)"),
        (nan, "'features.0.conv.weight' holds NaN or infinity"),
        (infinite, "'classifier.bias' holds NaN or infinity"),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_the_tensor(tmp_path, change, message):
    with pytest.raises(InputError, match=message) as error:
        load_weights(SPEC, edited(tmp_path, change))
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    path = tmp_path / "w.pt"
    torch.save({"a": torch.zeros(1), "b": Evil()}, path)
    with pytest.raises(InputError, match="could run code"):
        read_tensors(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"could run code|no checkpoint"):
        read_tensors(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 not a zip", bytes(64), b"\xff" * 40])
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)) as error:
        read_tensors(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_a_truncated_checkpoint_is_one_line(tmp_path, saved, kind, share):
    module, own = saved
    path = tmp_path / f"t.{kind}"
    if kind == "pt":
        torch.save(module.state_dict(), path)
    else:
        path.write_bytes(own.read_bytes())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=str(path)):
        read_tensors(path)


def test_no_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(InputError, match="no weight file"):
            read_tensors(path)


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


FACTORIES = """
import torch
def good(): return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
def needy(x): return good()
def number(): return 3
def broken():
    m = good(); m[0].weight.data[0] = float('nan'); return m
constant = 3
"""


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module_x:f", "cannot import 'no_such_module_x'"),
        ("{m}:nothing", "has no 'nothing'"),
        ("{m}:constant", "is a int, not a function"),
        ("{m}:needy", "cannot be called without arguments"),
        ("{m}:number", "returned a int, not an nn.Module"),
        ("{m}:broken", "parameter '0.weight' holds NaN"),
    ],
)
def test_a_factory_that_gives_no_module(tmp_path, monkeypatch, reference, message):
    (tmp_path / "user_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        load_factory(reference.format(m="user_factories"))


def test_a_factory_takes_a_state_dict(tmp_path, monkeypatch):
    (tmp_path / "user_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module, digest = load_factory("user_factories:good")
    assert digest is None
    assert not module.training
    torch.save(module.state_dict(), tmp_path / "w.pt")
    again, digest = load_factory("user_factories:good", tmp_path / "w.pt")
    assert torch.equal(again[0].weight, module[0].weight)
    assert len(digest) == 64
    assert isinstance(build(SPEC), torch.nn.Module)
