"""Files whole or not at all; folders held by one process; what killed processes leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXPORT, error_of

from edgecnn import files
from edgecnn.errors import InputError
from edgecnn.files import LOCK, exclusive, scratch, write_atomic

HOLD = """
import sys, time
from pathlib import Path
from edgecnn.files import exclusive
with exclusive(Path(sys.argv[1]), say=lambda line: print(line, flush=True)):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from edgecnn.files import scratch, write_atomic
place = Path(sys.argv[1])
with scratch() as folder:
    (folder / "large").write_bytes(b"0")
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
    write_atomic(place / "artifact", b"half")
"""


@pytest.fixture(autouse=True)
def a_new_process(monkeypatch):
    """A process sweeps a folder once; each test is a process of its own."""
    monkeypatch.setattr(files, "_swept", set())


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(seconds)], stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_made_held_and_left_without_a_trace(tmp_path):
    folder = tmp_path / "deep" / "out"
    with exclusive(folder):
        assert (folder / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with exclusive(folder):
        (folder / "artifact").touch()
    assert [place.name for place in folder.iterdir()] == ["artifact"]


def test_a_folder_that_another_process_holds_is_refused_or_waited_for(tmp_path):
    process = holder(tmp_path / "out", 60)
    refused = pytest.raises(InputError, match="another export writes .*out; let it end, or choose another with -o")
    with refused, exclusive(tmp_path / "out", wait=False):
        pass
    said: list[str] = []
    process.kill()
    process.communicate()
    with exclusive(tmp_path / "out", wait=False, say=said.append):
        assert said == []
    process = holder(tmp_path / "out", 0.5)
    with exclusive(tmp_path / "out", say=said.append):
        process.communicate()
        assert process.returncode == 0
    assert said == [f"waiting for another export that writes {tmp_path / 'out'}"]
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path, monkeypatch):
    room = tmp_path / "tmp"
    room.mkdir()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "TMPDIR": str(room)})
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".artifact.*.part"))) == len(list(room.iterdir())) == 1
    monkeypatch.setattr("tempfile.tempdir", str(room))
    alive = [tmp_path / f".other.{os.getpid()}.abc.part", room / f"edgecnn-{os.getpid()}-abc", room / "edgecnn-notes-x"]
    for place in alive:
        place.touch()
    write_atomic(tmp_path / "artifact", b"whole")
    with scratch():
        pass
    assert (tmp_path / "artifact").read_bytes() == b"whole"
    assert sorted(tmp_path.glob(".*.part")) == alive[:1]
    assert sorted(room.iterdir()) == sorted(alive[1:])


def test_an_export_does_not_wait_when_told_so(tmp_path, capfd):
    with exclusive(tmp_path):
        said = error_of(capfd, *EXPORT, "--no-wait", "-o", tmp_path)
    assert said == f"edgecnn: error: another export writes {tmp_path}; let it end, or choose another with -o"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(InputError, match=r"cannot write .*file/out: .*; choose another with -o")
    with refused, exclusive(tmp_path / "file" / "out"):
        pass
