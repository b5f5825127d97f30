"""Weights that do not serve: each is one line that names the file and the tensor; and networks that are a function."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from edgecnn.errors import InputError
from edgecnn.models import resolve
from edgecnn.models.checkpoint import (
    default_preprocess,
    load_factory,
    load_weights,
    random_weights,
    read_tensors,
    save_weights,
)
from edgecnn.models.classifier import build

SPEC = resolve("mobilenet_v2_0.35_96", 5)


@pytest.fixture
def saved(tmp_path):
    module, _ = random_weights(SPEC)
    path = tmp_path / "w.safetensors"
    save_weights(module, SPEC, path, preprocess=default_preprocess(96), labels=tuple("abcde"))
    return module, path


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


def test_a_header_of_ours_that_is_damaged_is_one_line(saved, tmp_path):
    module, _ = saved
    for k, record in enumerate(("{", "[]", "{}", '{"spec": 3}')):
        path = tmp_path / f"{k}.safetensors"
        save_file(module.state_dict(), path, metadata={"edgecnn": record})
        with pytest.raises(InputError, match=rf"{k}.safetensors is damaged \(.*\); train or save it again") as error:
            load_weights(SPEC, path)
        assert "\n" not in str(error.value)


def test_a_wrong_name_comes_with_the_nearest(tmp_path):
    def misspell(state):
        state["features.1.depthwise.conv.wieght"] = state.pop("features.1.depthwise.conv.weight")

    with pytest.raises(
        InputError, match=r"lacks tensor 'features.1.depthwise.conv.weight' \(nearest: 'features.1.dep.*wieght'"
    ):
        load_weights(SPEC, edited(tmp_path, misspell))


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
