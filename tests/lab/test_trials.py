"""Trials: done once each, however often they are asked for, in however many processes, and whatever stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgecnn.errors import InputError
from edgecnn.lab.trials import OUTPUT, Training, digest, run_trials


@dataclass(frozen=True)
class Square:
    """A trial without torch; leaves a mark each time that it is run."""

    number: int
    marks: Path
    fault: str = ""

    @property
    def name(self):
        return f"square {self.number}"

    def settings(self):
        return {"number": self.number}

    def run(self, scratch):
        (scratch / "left").write_text("scratch")
        (self.marks / f"{self.number}-{time.monotonic_ns()}").touch()
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            os._exit(7)
        if self.fault == "error":
            raise InputError("no such square")
        if self.fault == "interrupt":
            os.kill(int((self.marks / "pid").read_text()), signal.SIGINT)
            time.sleep(600)
        return {"square": self.number**2}


def squares(marks, count, **faults):
    marks.mkdir(exist_ok=True)
    return [Square(n, marks, faults.get(f"at{n}", "")) for n in range(count)]


def runs(marks, number):
    return len(list(marks.glob(f"{number}-*")))


def test_a_resumed_study_equals_an_uninterrupted_one(tmp_path):
    marks, said = tmp_path / "marks", []
    with pytest.raises(InputError, match=r"^square 2: its process was killed by SIGKILL .*fewer --workers.* go on$"):
        run_trials(squares(marks, 4, at2="kill"), folder=tmp_path / "a", workers=1, progress=said.append)
    resumed = run_trials(squares(marks, 4), folder=tmp_path / "a", workers=1, progress=said.append)
    whole = run_trials(squares(marks, 4), folder=tmp_path / "b", workers=2, progress=said.append)
    assert resumed == whole == [{"square": n**2} for n in range(4)]
    files = [{f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]
    assert set(files[0]) == {f"{digest(trial)}.json" for trial in squares(marks, 4)}
    assert [runs(marks, n) for n in range(4)] == [2, 2, 3, 2]
    assert said[0].startswith("   1 of 4  square 0")
    assert said[2] == "2 of 4 trials were done before"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("exit", "square 1: its process ended with status 7; what was done is kept"),
        ("error", "square 1: no such square"),
    ],
)
def test_a_fault_is_one_line(fault, said, tmp_path):
    with pytest.raises(InputError, match=f"^{said}"):
        run_trials(squares(tmp_path, 2, at1=fault), folder=tmp_path / "a", workers=2, progress=str)


def test_equal_trials_are_run_once(tmp_path):
    one, _ = squares(tmp_path, 2)
    assert run_trials([one, one], folder=tmp_path / "a", workers=2, progress=str) == [{"square": 0}] * 2
    assert runs(tmp_path, 0) == 1


def test_a_file_that_is_no_result(tmp_path):
    (trial,) = squares(tmp_path, 1)
    for content in ("{", '{"result": 1}'):
        (tmp_path / f"{digest(trial)}.json").write_text(content)
        with pytest.raises(InputError, match=r"is not the result of square 0; delete it"):
            run_trials([trial], folder=tmp_path, workers=1, progress=str)


def test_an_interrupt_ends_the_children(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from test_trials import squares, run_trials\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "where = Path(sys.argv[1])\n"
        "(where / 'pid').write_text(str(os.getpid()))\n"
        "if __name__ == '__main__':\n"
        "    run_trials(squares(where, 1, at0='interrupt'), folder=where / 'a', workers=1, progress=str)\n"
    )
    script = tmp_path / "main.py"
    script.write_text(program)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,  # the child would have slept for ten minutes
    )
    assert done.stderr.count("KeyboardInterrupt") == done.stderr.count("Traceback") == 1  # the parent's alone


@dataclass(frozen=True, kw_only=True)
class Watched(Training):
    """A training that keeps the norm of the gradient of each step."""

    def watch(self):
        return Norms()

    def result(self, watch, epochs):
        return {**super().result(watch, epochs), "norms": watch.norms}


class Norms:
    def __init__(self):
        self.norms = []

    def __call__(self, module, step):
        self.norms.append(sum(float(p.grad.square().sum()) for p in module.parameters()) ** 0.5)


@pytest.fixture
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_training_in_a_worker_equals_one_here(tmp_path):
    from edgecnn.train import TrainConfig

    tiny = {"model": "mobilenet_v2_0.35_32", "data": "demo", "images": 32, "val_images": 16, "batch": 16, "epochs": 2}
    trials = [Watched(config=TrainConfig(**tiny, output=OUTPUT, seed=seed)) for seed in (0, 1)]
    found = run_trials(trials, folder=tmp_path / "a", workers=2, progress=str)
    assert found[0] == trials[0].run(tmp_path) != found[1]
    assert len(found[0]["norms"]) == 4
    assert min(found[0]["norms"]) > 0
    assert [row["epoch"] for row in found[0]["epochs"]] == [1, 2]
    assert found[0]["val_top1"] == found[0]["epochs"][-1]["val_top1"]
