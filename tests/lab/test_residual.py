"""Residual learning: the networks, their gradients, the ways to make them deeper, and what is said of the figures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edgecnn.cli import main
from edgecnn.lab.claims import Deepened, DepthResult, claims_of_depth, claims_of_identity, exceeds
from edgecnn.lab.gradients import Reach, reach, stages
from edgecnn.lab.identity import KINDS, Deepening, deepened
from edgecnn.lab.residual import Depth, Setup
from edgecnn.models.classifier import build
from edgecnn.models.spec import resolve

PIXELS = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three colours in noise, as an archive."""
    rng = np.random.default_rng(0)
    parts = {}
    for split, count in (("train", 24), ("test", 9)):
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 60, (count, PIXELS, PIXELS, 3)).astype(np.uint8)
        pixels[np.arange(count), :, :, labels] += 120
        parts |= {f"x_{split}": pixels, f"y_{split}": labels}
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    np.savez(path, **parts)
    return str(path)


@pytest.fixture(scope="module")
def setup(data):
    """The smallest study."""
    return Setup(data=data, depths=(20, 32), steps=3, batch=8)


def network(name, seed=0):
    torch.manual_seed(seed)
    return build(resolve(name, 3))


def images(count=4):
    return torch.randn(count, 3, PIXELS, PIXELS), torch.arange(count) % 3


def test_a_plain_network_is_the_residual_one_without_its_shortcuts():
    plain, residual = network("plain20_0.5_32"), network("resnet20_0.5_32")
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in residual.state_dict().items()}
    residual.load_state_dict(plain.state_dict())
    x, _ = images()
    assert not torch.allclose(plain(x), residual(x))
    for block in plain.features[1:]:
        for conv in (block.branch[1].conv, block.branch[1].bn):  # a branch that adds nothing
            conv.weight.data.zero_()
    assert torch.equal(plain(x), plain.classifier.bias.expand(4, 3))  # stops everything where there is no shortcut


def test_stages_are_the_rows():
    net = network("plain32_0.5_32")
    assert [len(part) for part in stages(net)] == [1, 5, 5, 5]
    assert [block for part in stages(net) for block in part] == list(net.features)


@pytest.mark.parametrize("name", ["plain20_0.5_32", "resnet20_0.5_32"])
def test_the_gradient_is_the_one_that_autograd_gives_each_image(name):
    net, (x, targets) = network(name), images()
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    found = reach(net, x, targets, 7)
    assert all(torch.equal(v, kept[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert found.step == 7
    net.train()
    maps = []
    for block in (net.features[0], net.features[3], net.features[6], net.features[9]):
        block.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    loss = torch.nn.functional.cross_entropy(net(x), targets, reduction="sum")
    by_hand = [g.flatten(1).square().sum(1).mean().sqrt().item() for g in torch.autograd.grad(loss, maps)]
    assert found.norms == pytest.approx(by_hand, rel=1e-4)
    assert found.change == found.norms[0] / found.norms[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_deeper_network_before_it_learns_on(kind):
    shallow, (x, targets) = network("plain20_0.5_32"), images()
    for module in shallow.modules():  # as after some training
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_mean.normal_()
    deeper = deepened(shallow, kind, 2)
    assert len(deeper.features) == len(shallow.features) + 3 * 2
    assert not deeper.training
    same = torch.equal(deeper(x), shallow(x))
    assert same == (kind != "plain")
    if kind != "identity":  # what was added learns
        torch.nn.functional.cross_entropy(deeper.train()(x), targets).backward()
        gradient = deeper.features[4].branch[-1].bn.weight.grad
        assert gradient.abs().max() > 0


def test_the_same_seed_gives_the_same_figures(setup, tmp_path):
    trial = Depth(config=setup.config("residual", 20, 1))
    first, again = trial.run(tmp_path / "a"), trial.run(tmp_path / "b")
    assert first == again
    assert [g["step"] for g in first["gradients"]] == [0, 1, 2]
    other = Depth(config=replace(trial.config, seed=1))
    assert other.run(tmp_path / "c")["gradients"] != first["gradients"]


def test_making_deeper_goes_on_where_it_stopped(setup, tmp_path, monkeypatch):
    trial = Deepening(config=setup.config("plain", 20, 1), blocks=1, epochs=1)
    whole = trial.run(tmp_path / "whole")
    assert list(whole) == ["before", *KINDS]
    from edgecnn.lab import identity

    real, done = identity.train, []

    def train(config, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(config.output.name)
        return real(config, **options)

    monkeypatch.setattr(identity, "train", train)
    with pytest.raises(KeyboardInterrupt):
        trial.run(tmp_path / "parts")
    monkeypatch.setattr(identity, "train", real)
    assert trial.run(tmp_path / "parts") == whole


def test_the_command(setup, tmp_path, capfd):
    words = ["study", "residual", "--data", setup.data, "--depths", "20,32", "--steps", "3", "--batch", "8"]
    words += ["-o", str(tmp_path), "--workers", "1"]
    assert main([*words, "--json"]) == 0
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert "1 of 5" in printed.err
    assert [n["model"] for n in found["networks"]] == [f"{f}{d}_0.5_32" for f in ("plain", "resnet") for d in (20, 32)]
    assert [row["added"] for row in found["deepened"]] == ["nothing", *KINDS]
    assert [row["layers"] for row in found["deepened"]] == [8, 20, 20, 20]
    assert (found["training_images"], found["deepened_images"], found["test_images"]) == (24, 24, 9)
    assert (found["epochs"], found["deepened_epochs"]) == (1, [3, 1])
    assert (tmp_path / "residual.svg").read_text().count("<polyline") == 4 + 4 + 4 + 4 + 4
    assert json.loads((tmp_path / "residual.json").read_text()) == found
    assert main(words) == 0  # nothing is trained again
    printed = capfd.readouterr()
    assert printed.err.splitlines() == ["5 of 5 trials were done before"]
    for claim in found["claims"]:
        assert f"{'shown' if claim['shown'] else 'NOT shown'}: {claim['says']}: {claim['figures']}" in printed.out


def row(kind, layers, error, change):
    return DepthResult(
        model=f"{kind}{layers}",
        kind=kind,
        layers=layers,
        training_error=error,
        test_error=error + 5,
        gradients=(Reach(step=0, norms=(change, 1, 1, 1.0)),),
        curve=(error,),
    )


def test_what_is_said_of_depth_follows_from_the_figures():
    as_theory = [
        row("plain", 20, 10, 3),
        row("plain", 56, 20, 900),
        row("residual", 20, 9, 2),
        row("residual", 56, 8, 5),
    ]
    assert [c.shown for c in claims_of_depth(as_theory, 4000, 90)] == [True] * 4
    turned = [
        row("plain", 20, 20, 3),
        row("plain", 56, 10, 0.5),
        row("residual", 20, 9, 2),
        row("residual", 56, 20, 0.01),
    ]
    claims = claims_of_depth(turned, 4000, 90)
    assert [c.shown for c in claims] == [False] * 4
    assert "20.0, 10.0 % at 20, 56 layers, test error 25.0, 15.0 %" in claims[0].figures
    assert "in plain56 it fades 2 times" in claims[3].figures
    assert "in residual56 it fades 100 times" in claims[3].figures
    assert [c.shown for c in claims_of_depth(as_theory, 4000, 9.5)] == [True, False, True, True]  # as good as guessing


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        ((20, 15, 40, 5), [True, True, True]),
        ((20, 20, 20, 20), [True, False, False]),
        ((20, 25, 15, 19), [False, False, False]),
        ((20, 5, 40, 10), [True, True, False]),  # the residual blocks gain less than training on
    ],
)
def test_what_is_said_of_the_identity_follows_from_the_figures(errors, shown):
    rows = [
        Deepened(added=added, layers=20, training_error=error, test_error=error, curve=(error,))
        for added, error in zip(("nothing", *KINDS), errors, strict=True)
    ]
    assert [c.shown for c in claims_of_identity(rows, 4000, 90)] == shown
    assert not claims_of_identity(rows, 4000, 20)[0].shown  # where nothing was learned, nothing can get worse


def test_the_network_that_is_made_deeper_learns_longer_and_from_more_images():
    setup = Setup()
    config = setup.shallow_config(5)
    assert resolve(config.model).rows == resolve("plain20_0.5x0.33_32").rows
    assert (config.images, config.lr) == (2 * setup.images, 3 * setup.lr)
    assert replace(setup, data="folder").shallow_config(5).images == setup.images  # all that there are


def test_the_gradient_in_training_is_the_median():
    moments = tuple(Reach(step=k, norms=(v, 1.0)) for k, v in enumerate((900.0, 1.0, 2.0, 30.0)))
    one = replace(row("plain", 20, 10, 3), gradients=moments)
    assert one.later() == (2, 1)
    assert replace(one, gradients=moments[:1]).later() == ()


def test_chance_is_no_difference():
    assert not exceeds(11, 10, 1000)
    assert exceeds(11, 10, 10000)
    assert not exceeds(0, 0, 100)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--depths", "20,21"], "unknown depth '21'"),
        (["--depths", "20"], "two depths or more"),
        (["--resolution", "16"], "resolution 16; allowed: 32"),
        (["--width", "9"], "width 9.0; allowed"),
        (["--data", "EMPTY"], "no labelled images in"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--images", "10"], "--batch 32 is more than the 10 training images of demo"),
        (["--lr", "-1"], "--lr -1.0: allowed 0 to 10"),
        (["--lr", "0"], "--lr 0 learns nothing"),
    ],
)
def test_studies_that_cannot_be(words, said, tmp_path, capfd):
    words = [str(tmp_path) if word == "EMPTY" else word for word in words]
    assert main(["study", "residual", "-o", str(tmp_path / "out"), *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_the_networks_of_the_study_are_as_deep_as_their_names_say(kind):
    study = Setup()
    made = study.model(kind, 20)
    assert (made.depth, made.width, made.resolution) == (1.0, study.width, study.resolution)
    assert study.model(kind, 20, 0.5).depth == 0.5
