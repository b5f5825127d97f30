"""``edgecnn train --qat``: what was trained is what is exported, and it needs no calibration again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from golden_files import golden
from PIL import Image

from edgecnn.cli import main
from edgecnn.data import demo
from edgecnn.errors import InputError
from edgecnn.graph.oracle import run
from edgecnn.graph.serialize import load
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights, save_weights
from edgecnn.preprocess import Preprocess
from edgecnn.train import QatConfig, train
from edgecnn.train.loop import _Run
from edgecnn.train.trainable import QatTrainable

GOLDEN = golden("training")["qat"]["demo"]
DEMO = "mobilenet_v2_0.35_96"


TINY = "mobilenet_v1_0.25_32"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of a tiny network with the demo's classes, in a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    spec = resolve(TINY, num_classes=len(demo.CLASSES))
    module, source = random_weights(spec)
    save_weights(module, source.spec, path, preprocess=source.preprocess, labels=demo.CLASSES)
    return path


def config(path, weights, **fields):
    plain = {"model": TINY, "data": "demo", "weights": weights and str(weights), "images": 32, "val_images": 16}
    plain |= {"batch": 8, "epochs": 1, "calibration_images": 8, "recipe": "minmax"}
    return QatConfig(**{**plain, **fields}, output=path)


def test_a_stopped_run_goes_on_to_the_same_bytes(weights, tmp_path, monkeypatch):
    fields = {"learn_steps": True, "checkpoint_steps": 2, "distill": 0.5}
    whole, halved = (config(tmp_path / f"{name}.edgecnn", weights, **fields) for name in "ab")
    train(whole)
    step, count = _Run.step, iter(range(10))

    def stop(self, *arguments):
        if next(count) == 3:
            raise KeyboardInterrupt
        step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(halved)
    train(halved)
    assert whole.output.read_bytes() == halved.output.read_bytes()
    record = load(whole.output).metadata.quantization
    assert record["qat"]["learn_steps"] is True
    assert record["recipe"]["name"] == "minmax"


def test_the_record_says_what_was_applied(weights, tmp_path):
    run_of = config(tmp_path / "a.edgecnn", weights, recipe="fast")
    train(run_of)
    metadata = load(run_of.output).metadata
    assert metadata.quantization["recipe"]["name"] == "fast"
    assert metadata.quantization["calibration"]["images"] == 8
    assert metadata.preprocess == Preprocess(resize=(32, 32), mean=127.0)  # pixels are the input's integers


def test_what_was_trained_goes_on_and_is_refused_where_it_does_not_fit(weights, tmp_path, capfd):
    first = config(tmp_path / "a.edgecnn", weights)
    train(first)
    again = config(tmp_path / "b.edgecnn", None, model=str(first.output))
    train(again)
    assert load(again.output).metadata.quantization["recipe"]["name"] == "minmax"
    words = ["train", TINY, "--qat", "--weights", str(weights), "--data", "demo", "--images", "32", "--batch", "8"]
    for more, message in (
        (["-o", str(first.output), "--lr", "0.1"], "is of another run"),
        (["-o", str(tmp_path / "c.safetensors")], "a quantized network is written as .edgecnn"),
        (["-o", str(tmp_path / "c.edgecnn"), "--precision", "bf16"], "--precision bf16 with --qat"),
        (["-o", str(tmp_path / "c.edgecnn"), "--recipe", "fasst"], "unknown recipe 'fasst' (did you mean 'fast'?)"),
        (["-o", str(tmp_path / "c.edgecnn"), "--distill", "2"], "--distill 2.0: allowed 0 to 1"),
    ):
        assert main([*words, *more]) == 2
        assert message in capfd.readouterr().err
    for k in range(17):
        (tmp_path / "many" / str(k)).mkdir(parents=True)
        Image.new("RGB", (32, 32), (k, k, k)).save(tmp_path / "many" / str(k) / "a.png")
    with pytest.raises(InputError, match="has 17 classes but the weights have 16 outputs"):
        train(config(tmp_path / "c.edgecnn", weights, data=str(tmp_path / "many")))


@pytest.mark.slow
@pytest.mark.parametrize("learn_steps", [False, True])
def test_the_logits_trained_are_the_logits_exported(learn_steps, tmp_path, monkeypatch):
    """The module in float64 on its grids, the integer oracle, and LiteRT on the exported file."""
    from edgecnn_targets.runtimes.litert import LiteRtSession

    kept, write = [], QatTrainable.write
    monkeypatch.setattr(QatTrainable, "write", lambda self, average: (kept.append(average), write(self, average)))
    fields = {"images": 128, "batch": 32, "calibration_images": 64, "recipe": "fast"}
    run_of = config(tmp_path / "q.edgecnn", "demo", model=DEMO, learn_steps=learn_steps, **fields)
    train(run_of)
    graph = load(run_of.output)
    x = graph.metadata.preprocess.normalise(demo.images("test", range(64))[0])
    into, out = graph.tensors[graph.inputs[0]].quant, graph.tensors[graph.outputs[0]].quant
    with torch.no_grad():
        exact = kept[0].double()(torch.from_numpy(x).double().permute(0, 3, 1, 2))  # float32 sums are not the integers'
        trained = out.quantize(exact.numpy()).astype(int)
    oracle = run(graph, into.quantize(x), arithmetic="xnnpack")[graph.outputs[0]].astype(int)  # it rounds once too
    words = ["export", str(run_of.output), "--target", "all", "-o", str(tmp_path / "out"), "--data", "demo"]
    assert main([*words, "--limit", "20", "--allow-float"]) == 0
    session = LiteRtSession(tmp_path / "out" / "q.tflite")
    litert = np.concatenate([session.run(into.quantize(x[i : i + 1])) for i in range(len(x))]).astype(int)
    for name, got in (("oracle", oracle), ("litert", litert.reshape(oracle.shape))):
        lsb = np.abs(got - trained)
        *others, worst = np.sort(lsb.max(axis=1))
        assert max(others) <= GOLDEN["max_lsb"], name
        assert worst <= GOLDEN["max_lsb_of_one"], name
        assert lsb.mean() <= GOLDEN["mean_lsb"], name
    entries = json.loads((tmp_path / "out" / "report.json").read_text())["entries"]
    assert [e["target"] for e in entries] == ["tflite", "onnx", "openvino"]
