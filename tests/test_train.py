"""Training: it learns, it resumes to the same bytes, and it says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from edgecnn import demo
from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.models import resolve
from edgecnn.models.checkpoint import load_weights
from edgecnn.train import TrainConfig, train

TINY = {"model": "mobilenet_v1_0.25_64", "data": "demo", "images": 96, "val_images": 32, "batch": 16, "lr": 1e-3}


def test_a_resumed_run_equals_one_that_was_not_stopped(tmp_path):
    whole = train(TrainConfig(**TINY, output=tmp_path / "a.safetensors", epochs=2))
    config = TrainConfig(**TINY, output=tmp_path / "b.safetensors", epochs=2)

    class StopError(Exception):
        pass

    def stop(*args):
        raise StopError

    import edgecnn.train as room

    saved, room._checkpoint = room._checkpoint, lambda c, e, *a: (saved(c, e, *a), stop())
    try:
        with pytest.raises(StopError):
            train(config)
    finally:
        room._checkpoint = saved
    assert not config.output.exists()
    train(config)
    assert whole.weights.read_bytes() == config.output.read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "b.metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in rows] == [1, 2]
    with pytest.raises(InputError, match=r"is of another run \(lr is 0.001 there, 0.002 here\)"):
        train(replace(config, lr=0.002))


def test_the_loss_falls(tmp_path):
    train(TrainConfig(**{**TINY, "images": 320}, output=tmp_path / "a.safetensors", epochs=3))
    rows = [json.loads(line) for line in (tmp_path / "a.metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_users_folder(tmp_path, capfd):
    pixels, labels = demo.images("train", range(40))
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "signs" / demo.CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    out = tmp_path / "w.safetensors"
    words = [
        "train",
        "mobilenet_v1_0.25_64",
        "--data",
        str(tmp_path / "signs"),
        "-o",
        str(out),
        "--epochs",
        "1",
        "--json",
    ]
    assert main(words) == 0
    assert json.loads(capfd.readouterr().out)["weights"] == str(out)
    _, source = load_weights(resolve("mobilenet_v1_0.25_64"), out)
    assert source.labels == tuple(sorted({demo.CLASSES[k] for k in labels}))
    assert source.preprocess.resize == (64, 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "--epochs 0: at least 1"),
        ({"lr": -1.0}, "--lr -1.0: allowed 0 to 10"),
        ({"ema": 1.0}, "--ema 1.0"),
        ({"label_smoothing": 2.0}, "--label-smoothing 2.0"),
    ],
)
def test_wrong_settings(fields, message, tmp_path):
    with pytest.raises(InputError, match=message):
        TrainConfig(**{**TINY, **fields}, output=tmp_path / "a.safetensors")


def test_a_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(InputError, match="lower --lr"):
        train(
            TrainConfig(
                **{**TINY, "lr": 10.0, "weight_decay": 10.0}, output=tmp_path / "a.safetensors", epochs=6, warmup=0.0
            )
        )


def test_help_states_the_defaults_that_hold():
    from edgecnn.cli import _parser

    text = " ".join(_parser()[0].parse_args(["train", "x", "--data", "d", "-o", "f"]).__dict__)
    assert "label_smoothing" in text
    import argparse

    parser = argparse.ArgumentParser()
    from edgecnn.cli import _add_training

    _add_training(parser)
    defaults = {f: v.default for f, v in TrainConfig.__dataclass_fields__.items()}
    for action in parser._actions:
        if action.help and "default" in action.help:
            stated = action.help.rpartition("default ")[2].strip(")")
            assert float(stated) == float(defaults[action.dest]), action.dest
