"""A killed reconstruction goes on where it was, and ends in the same bytes; what belongs to another is never used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.files import sha256
from edgecnn.graph.ir import Constant, Graph, Metadata, QParams
from edgecnn.quant import rounding_solver as module
from edgecnn.quant.step_checkpoint import StepCheckpoint

MODEL = "mobilenet_v2_0.35_96"
EXPORT = ["export", MODEL, "--target", "tflite", "--weights", "demo", "--calibration", "demo", "--recipe", "best"]
KILLED_AT = 7


def tensor(scale=0.5, value=3):
    quant = QParams(scale=np.array([scale]), zero_point=np.array([0]), dtype="int8")
    return Constant(name="w", value=np.eye(2, dtype=np.float32)).quantized(quant, np.full((2, 2), value, np.int8))


def graph(weight):
    return Graph(nodes=(), tensors={"w": weight}, inputs=(), outputs=(), metadata=Metadata(model="m"))


def never():
    raise AssertionError("it was solved already")


def begun(folder, weight, *rest, say=lambda line: None):
    checkpoint = StepCheckpoint(folder, say)
    checkpoint.begin(graph(weight), *rest)
    return checkpoint


def test_a_step_is_solved_once(tmp_path):
    before, said = tensor(), []
    begun(tmp_path, before, b"images").step("layer", {"w": before}, lambda: (tensor(0.25, 9),))
    again = begun(tmp_path, before, b"images", say=said.append)
    assert "layer" in again
    assert "1 steps are of an earlier run" in said[0]
    (made,) = again.step("layer", {"w": before}, never)
    assert made.quant.same_as(tensor(0.25).quant)
    np.testing.assert_array_equal(made.integers, tensor(0.25, 9).integers)
    np.testing.assert_array_equal(made.value, before.value)
    again.finish()
    assert not tmp_path.exists()


@pytest.mark.parametrize("other", [(tensor(0.75), b"images"), (tensor(value=4), b"images"), (tensor(), b"others")])
def test_what_is_of_other_weights_or_images_is_not_used(other, tmp_path):
    begun(tmp_path, tensor(), b"images").step("layer", {}, lambda: (tensor(),))
    said = []
    assert "layer" not in begun(tmp_path, *other, say=said.append)
    assert "nothing of it is used" in said[0]


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = StepCheckpoint()
    checkpoint.begin(graph(tensor()))
    checkpoint.step("layer", {}, lambda: (tensor(),))
    checkpoint.finish()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_broken_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"cannot read .*a.safetensors .*; remove its folder to start over"):
        begun(tmp_path, tensor())


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    save_file({"x": np.zeros(1)}, tmp_path / "a.safetensors")
    assert "layer" not in begun(tmp_path, tensor())
    assert list(load_file(tmp_path / "a.safetensors")) == ["x"]


# --- the whole command ---


def words(out, images):
    """The command; without the guard, which would solve a second network."""
    return [*EXPORT, "--calibration-images", str(images), "--no-guard", "-o", str(out)]


def exported(out, images):
    assert main(words(out, images)) == 0
    return {name: sha256((out / f"{MODEL}.{name}").read_bytes()) for name in ("tflite", "edgecnn")}


def test_a_run_that_broke_off_ends_in_the_same_bytes(tmp_path, monkeypatch, capfd):
    want, out = exported(tmp_path / "undisturbed", 16), tmp_path / "out"
    solve, solved = module.solve_layer, []

    def breaks(node, *rest):
        if len(solved) == KILLED_AT:
            raise KeyboardInterrupt
        solved.append(node.output)
        return solve(node, *rest)

    monkeypatch.setattr(module, "solve_layer", breaks)
    assert main(words(out, 16)) == 130
    kept = list((out / f"{MODEL}.unfinished").iterdir())
    assert len(kept) == KILLED_AT

    def counts(node, *rest):
        assert node.output not in solved[:KILLED_AT]
        solved.append(node.output)
        return solve(node, *rest)

    monkeypatch.setattr(module, "solve_layer", counts)
    capfd.readouterr()
    assert exported(out, 16) == want
    assert f"{KILLED_AT} steps are of an earlier run that did not end, in {out}" in capfd.readouterr().err
    assert len(solved) == len(set(solved))
    assert not (out / f"{MODEL}.unfinished").exists()


@pytest.mark.slow
def test_a_killed_process_leaves_what_the_next_goes_on_from(tmp_path, capfd):
    want, out = exported(tmp_path / "undisturbed", 100), tmp_path / "out"
    folder = out / f"{MODEL}.unfinished"
    command = [sys.executable, "-m", "edgecnn", *words(out, 100)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    while len(list(folder.glob("*.safetensors"))) < KILLED_AT:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    capfd.readouterr()
    assert exported(out, 100) == want
    assert "steps are of an earlier run that did not end" in capfd.readouterr().err
    assert not folder.exists()
