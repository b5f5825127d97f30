"""Training: it learns, it resumes to the same bytes, and it says what is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.nn.functional import cross_entropy

from edgecnn.cli import main
from edgecnn.data import demo
from edgecnn.data.training import open_training
from edgecnn.errors import InputError
from edgecnn.models import resolve
from edgecnn.models.checkpoint import load_weights
from edgecnn.models.classifier import AUXILIARY
from edgecnn.models.modules import DropConnect
from edgecnn.preprocess import Preprocess
from edgecnn.train import QatConfig, TrainConfig, train
from edgecnn.train.loop import _Run
from edgecnn.train.schedule import learning_rate
from edgecnn.train.state import SUFFIX
from edgecnn.train.trainable import class_table, open_trainable

TINY = {"model": "mobilenet_v2_0.35_32", "data": "demo", "images": 48, "val_images": 16, "batch": 16, "lr": 1e-3}


def config(tmp_path, name="a", **fields):
    return TrainConfig(**{**TINY, "epochs": 2, **fields}, output=tmp_path / f"{name}.safetensors")


def rows(config):
    lines = config.beside(".metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


class StopError(Exception):
    pass


def stop_after(monkeypatch, steps):
    """Make training stop, as by a kill, after so many steps of this process."""
    whole, count = _Run.step, iter(range(1, 10**6))

    def step(self, *arguments):
        whole(self, *arguments)
        if next(count) == steps:
            raise StopError

    monkeypatch.setattr(_Run, "step", step)


@pytest.mark.parametrize(("stopped", "every"), [(3, 2), (5, 0)])
def test_a_stopped_run_goes_on_to_the_same_bytes(stopped, every, tmp_path, monkeypatch):
    """With everything random at work: order, dropout, mixup, RandAugment."""
    fields = {"mixup": 0.4, "rand_augment": 1, "flip": True, "checkpoint_steps": every}
    whole, halved = config(tmp_path, "a", **fields), config(tmp_path, "b", **fields)
    train(whole)
    with monkeypatch.context() as patch:
        stop_after(patch, stopped)
        with pytest.raises(StopError):
            train(halved)
    assert not halved.output.exists()
    assert torch.load(halved.beside(SUFFIX), weights_only=True)["progress"]["step"] == (2 if every else 0)
    train(halved)
    assert whole.output.read_bytes() == halved.output.read_bytes()
    assert rows(whole) == rows(halved)
    assert [r["epoch"] for r in rows(halved)] == [1, 2]
    assert whole.beside(".svg").read_text() == halved.beside(".svg").read_text()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    mine = config(tmp_path, epochs=1)
    train(mine)
    with pytest.raises(InputError, match=r"is of another run \(lr is 0.001 there, 0.002 here\); delete it"):
        train(replace(mine, lr=0.002))
    with pytest.raises(InputError, match="is a checkpoint of mobilenet_v2_0.35_32, not of mobilenet_v1_0.25_32"):
        train(replace(mine, model="mobilenet_v1_0.25_32"))
    mine.beside(SUFFIX).write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="is no checkpoint of `edgecnn train`"):
        train(mine)


def test_the_loss_falls(tmp_path):
    run = config(tmp_path, images=128, epochs=3, model="mobilenet_v1_0.25_32")
    train(run)
    found = rows(run)
    assert found[-1]["loss"] < found[0]["loss"]
    assert set(found[0]) == {"epoch", "lr", "loss", "train_top1", "val_top1"}
    assert run.beside(".svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("name", "heads", "drop"), [("googlenet_0.25_64", 3, 0), ("efficientnet_b0_0.25x0.5_64", 1, 0.3)]
)
def test_what_only_training_has_is_not_in_the_weights(name, heads, drop, tmp_path):
    """Auxiliary classifiers, whose losses count, and dropped branches."""
    settings = config(tmp_path, model=name, images=16, batch=8, epochs=1, drop_connect=drop)
    network = open_trainable(settings, torch.device("cpu"))
    places = [m.p for m in network.module.modules() if isinstance(m, DropConnect)]
    assert max(places, default=0) == pytest.approx(drop, abs=0.1)
    outputs, targets = network.module.train()(torch.randn(2, 3, 64, 64)), torch.tensor([0, 1])
    logits = outputs if isinstance(outputs, tuple) else (outputs,)
    first, *others = (cross_entropy(x, targets, label_smoothing=settings.label_smoothing) for x in logits)
    assert len(others) == heads - 1
    torch.testing.assert_close(network.loss(outputs, targets, torch.empty(0)), first + 0.3 * sum(others))
    train(settings)
    with safe_open(settings.output, "pt") as file:
        assert not [key for key in file.keys() if key.startswith(AUXILIARY)]  # noqa: SIM118 - no mapping
    words = ["export", name, "--target", "tflite", "--quantize", "none", "--weights", str(settings.output)]
    assert main([*words, "-o", str(tmp_path)]) == 0


def test_schedules():
    cosine = TrainConfig(**TINY, output=Path("a.safetensors"), warmup=0.1)
    assert learning_rate(cosine, 0.05) == pytest.approx(0.0005)
    assert learning_rate(cosine, 0.1) == pytest.approx(0.001)
    assert learning_rate(cosine, 0.55) == pytest.approx(0.0005)
    assert learning_rate(cosine, 1.0) == pytest.approx(0)
    steps = replace(cosine, schedule="step")
    assert [round(learning_rate(steps, p), 9) for p in (0.5, 0.51, 0.75, 0.76, 1)] == [1e-3, 1e-4, 1e-4, 1e-5, 1e-5]


def folder(root, count=40):
    pixels, labels = demo.images("train", range(count))
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        inside = root / demo.CLASSES[label]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(inside / f"{i}.png")
    return root, tuple(sorted({demo.CLASSES[k] for k in labels}))


def test_a_users_folder_and_training_on(tmp_path, capfd):
    signs, classes = folder(tmp_path / "signs")
    out, more = tmp_path / "w.safetensors", tmp_path / "more.safetensors"
    words = ["train", "mobilenet_v1_0.25_64", "--data", str(signs), "--epochs", "1", "--batch", "12", "--json"]
    assert main([*words, "-o", str(out), "--preprocess", "std=64"]) == 0
    assert json.loads(capfd.readouterr().out)["weights"] == str(out)
    _, source = load_weights(resolve("mobilenet_v1_0.25_64"), out)
    assert source.labels == classes
    assert source.preprocess.resize == (64, 64)
    assert source.preprocess.std == (64.0, 64.0, 64.0)
    assert main([*words, "-o", str(more), "--weights", str(out)]) == 0
    _, later = load_weights(resolve("mobilenet_v1_0.25_64"), more)
    assert (later.labels, later.preprocess) == (source.labels, source.preprocess)
    capfd.readouterr()
    assert main([*words, "-o", str(tmp_path / "x.safetensors"), "--weights", "demo"]) == 2
    assert "demo weights exist for" in capfd.readouterr().err
    assert main(["train", "mobilenet_v2_0.35_96", *words[2:], "-o", str(more), "--weights", str(out)]) == 2
    assert "holds weights of mobilenet_v1_0.25_64, not of mobilenet_v2" in capfd.readouterr().err
    (signs / "unicorn").mkdir()
    Image.new("RGB", (64, 64)).save(signs / "unicorn" / "a.png")
    assert main([*words, "-o", str(tmp_path / "x.safetensors"), "--weights", str(out)]) == 2
    assert "has the class 'unicorn' (1 such) that the weights lack" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "--epochs 0: at least 1"),
        ({"lr": -1.0}, "--lr -1.0: allowed 0 to 10"),
        ({"ema": 1.0}, "--ema 1.0"),
        ({"label_smoothing": 2.0}, "--label-smoothing 2.0"),
        ({"seed": -1}, "--seed -1: allowed 0 to 2147483648"),
        ({"magnitude": 11}, "--magnitude 11: allowed 0 to 10"),
        ({"schedule": "cosin"}, "unknown --schedule 'cosin' .did you mean 'cosine'"),
        ({"optimizer": "adam"}, "unknown --optimizer"),
        ({"ema": -0.1}, "--ema -0.1: allowed 0 to 0.99999"),
        ({"lr": 0.0}, "--lr 0 learns nothing; the default is 0.003"),
        ({"val_images": 0}, "--val-images 0: at least 1"),
        ({"precision": "fp8"}, "unknown --precision 'fp8'"),
        ({"accelerator": "tpu"}, "unknown --accelerator 'tpu' .*; allowed: cpu, cuda"),
        ({"weights": "random"}, "a seeded initialisation when none are given"),
    ],
)
def test_wrong_settings(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        config(tmp_path, **fields)


def test_what_is_written_has_its_suffix_and_a_captured_graph_has_no_branches_to_drop(tmp_path):
    with pytest.raises(InputError, match=r"a.pt: what was trained is written as .safetensors"):
        TrainConfig(**TINY, output=tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"a.safetensors: a quantized network is written as .edgecnn"):
        QatConfig(**TINY, output=tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="--drop-connect is for float training"):
        QatConfig(**TINY, output=tmp_path / "a.edgecnn", drop_connect=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 49}, "--batch 49 is more than the 48 training images of demo"),
        ({"precision": "fp16"}, "--precision fp16 needs CUDA; on the CPU give bf16 or fp32"),
        ({"accelerator": "cuda"}, "torch sees no CUDA device here"),
        ({"mixup": 0.2, "batch": 15}, "--mixup mixes pairs; give a --batch of a multiple of 2"),
        ({"data": "empty"}, "no labelled images in"),
    ],
)
def test_what_cannot_be_trained(fields, message, tmp_path, monkeypatch):
    if fields.get("accelerator") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        train(config(tmp_path, accelerator=fields.pop("accelerator", "cpu"), **fields))
    assert not list(tmp_path.glob("a.*"))


def test_a_batch_that_processes_cannot_share(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="--batch 16 cannot be shared by 3 processes; give a multiple of 3"):
        train(config(tmp_path))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    run = config(tmp_path, checkpoint_steps=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(StopError):
            train(run)
    before = run.beside(SUFFIX).read_bytes()
    for rate, message in (
        (math.inf, r"features.* holds NaN or infinity after 3 steps of epoch 1; lower --lr .* holds the run before it"),
        (1e9, r"the loss became (nan|inf) in step [456] of 6; lower --lr"),
    ):
        monkeypatch.setattr("edgecnn.train.loop.schedule.learning_rate", lambda *a, rate=rate: rate)
        with pytest.raises(InputError, match=message):
            train(run)
        if rate == math.inf:
            assert run.beside(SUFFIX).read_bytes() == before


def test_bf16_trains(tmp_path):
    run = config(tmp_path, precision="bf16", epochs=1, images=16, accelerator="cpu")
    exact = config(tmp_path, "b", epochs=1, images=16, accelerator="cpu")
    train(run)
    train(exact)
    assert rows(run)[0]["loss"] == pytest.approx(rows(exact)[0]["loss"], rel=0.02)
    assert run.output.read_bytes() != exact.output.read_bytes()


def test_options_of_qat_need_qat(capfd):
    words = ["train", "mobilenet_v2_0.35_96", "--data", "demo", "-o", "w.safetensors"]
    assert main([*words, "--learn-steps"]) == 2
    assert "--learn-steps is for quantization-aware training; add --qat" in capfd.readouterr().err


def test_help_states_the_defaults_that_hold():
    import argparse

    from edgecnn.cli.train import arguments

    parser = argparse.ArgumentParser()
    arguments(parser)
    stated = {a.dest: a.help.rpartition("(default ")[2].strip(")") for a in parser._actions if "(default " in a.help}
    assert {"lr", "epochs", "optimizer", "distill"} <= set(stated)
    for name, text in stated.items():
        plain, _, qat = text.removesuffix(" with --qat").partition("; ")
        for kind, said in ((TrainConfig, plain), (QatConfig, qat or plain)):
            if name in kind.__dataclass_fields__:
                default = kind.__dataclass_fields__[name].default
                assert said == default if isinstance(default, str) else float(said) == default, name


@pytest.mark.parametrize("offset", [0, 1])
def test_a_class_is_the_logit_of_its_name_behind_the_background(offset):
    images = SimpleNamespace(classes=("cat", "dog"))
    assert class_table(images, ("ant", "cat", "dog"), 3 + offset, offset, "data").tolist() == [1 + offset, 2 + offset]


def test_an_archive_of_other_arrays_than_images_is_refused(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / "a.npz", **{f"x_{split}": np.zeros((4, 9), np.float32), f"y_{split}": np.arange(4) % 2})
        with pytest.raises(
            InputError, match=r"holds other arrays than images; training takes uint8 \(N, height, width, 3\)"
        ):
            open_training(f"{tmp_path / 'a.npz'}:{split}", Preprocess(resize=(32, 32)), seed=0, drawn=(4, 4))
