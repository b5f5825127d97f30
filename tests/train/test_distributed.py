"""Two processes compute what one computes: torchrun on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_files import golden

GOLDEN = golden("training")["distributed"]

pytestmark = pytest.mark.slow


def run(processes, *words):
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    paths = os.pathsep.join(p for p in sys.path if p)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, *launcher, *map(str, words)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_gradients_and_statistics_are_those_of_the_whole_batch(tmp_path):
    """In float64, where noise is small: batch norm, dropout, and the mean of the gradients."""
    found = []
    for processes in (1, 2):
        run(processes, Path(__file__).with_name("two.py"), tmp_path / f"{processes}.pt")
        found.append(torch.load(tmp_path / f"{processes}.pt", weights_only=True))
    assert set(found[0]) == set(found[1])
    largest = max(float(value.norm()) for value in found[0].values())
    for name, value in found[0].items():
        assert float((value - found[1][name]).norm()) <= GOLDEN["max_gradient"] * largest, name


@pytest.mark.parametrize("qat", [False, True])
def test_a_run_of_two_is_a_run_of_one(qat, tmp_path):
    words = ["-m", "edgecnn", "train", "mobilenet_v2_0.35_96", "--weights", "demo", "--data", "demo", "--epochs", 1]
    words += ["--images", 64, "--val-images", 20, "--batch", 16, "--mixup", 0.2]
    words += ["--qat", "--calibration-images", 16, "--learn-steps"] if qat else ["--lr", 0.0001]
    kept, rows = [], []
    for processes in (1, 2):
        out = tmp_path / f"{processes}{'.edgecnn' if qat else '.safetensors'}"
        told = run(processes, *words, "-o", out, "--json").stdout
        assert json.loads(told)["weights"] == str(out)
        kept.append(torch.load(out.with_suffix(".checkpoint.pt"), weights_only=True)["average"])
        rows.append(json.loads(out.with_suffix(".metrics.jsonl").read_text()))
        assert out.exists()
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], abs=GOLDEN["max_loss"])
    one, two = (torch.cat([v.double().flatten() for v in k.values() if v.is_floating_point()]) for k in kept)
    limit = GOLDEN["max_qat_weights" if qat else "max_weights"]
    assert float((one - two).norm() / one.norm()) <= limit
