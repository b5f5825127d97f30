"""The cache of devices' parts: a folder is there whole or not at all, whoever is killed and whatever is full."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecnn import process
from edgecnn.errors import DeviceFault, InputError
from edgecnn.files import sha256
from edgecnn_targets import cache, debian
from edgecnn_targets.results import ResultCache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill(place: Path) -> None:
    (place / "file").write_text("whole")


def test_a_folder_is_built_once(folder):
    assert cache.ensure("a/b", fill) is True
    assert cache.ensure("a/b", lambda place: pytest.fail("built twice")) is False
    assert (folder / "a/b/file").read_text() == "whole"


def test_a_build_that_fails_leaves_nothing(folder):
    def broken(place: Path) -> None:
        fill(place)
        raise DeviceFault("the tool crashed")

    with pytest.raises(DeviceFault, match="the tool crashed"):
        cache.ensure("a", broken)
    assert not (folder / "a").exists()
    assert not list(folder.glob("*.part"))


def test_a_full_disk_names_the_place_and_what_to_do(folder):
    def full(place: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place / "file"))

    with pytest.raises(InputError, match=r"cannot write .*file: No space left on device; set EDGECNN_CACHE"):
        cache.ensure("a", full)
    assert not (folder / "a").exists()


def test_a_full_disk_under_what_is_kept_names_the_same(folder, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*/results/.*: No space left on device; set EDGECNN_CACHE"):
        ResultCache(b"artifact").put_outputs([b"image"], [b"output"])
    assert not [file for file in folder.rglob("*") if file.is_file()]


def test_what_a_killed_build_left_is_removed_and_built_again(folder):
    code = (
        "import sys, time, pathlib; from edgecnn_targets import cache\n"
        "def half(place):\n    (place / 'half').write_text('half'); print('started', flush=True); time.sleep(60)\n"
        "cache.ensure('a', half)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"started\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert list(folder.glob(".a.*.part/half"))
    assert not (folder / "a").exists()
    assert cache.ensure("a", fill) is True
    assert [p.name for p in (folder / "a").iterdir()] == ["file"]
    assert not list(folder.glob(".a.*.part"))


def _build(marks: str) -> None:
    def slow(place: Path) -> None:
        with Path(marks).open("a") as file:
            file.write("built\n")
        time.sleep(0.2)
        fill(place)

    cache.ensure("a", slow)


def test_two_processes_build_it_once(tmp_path):
    marks = tmp_path / "marks"
    pool = [multiprocessing.get_context("spawn").Process(target=_build, args=(str(marks),)) for _ in range(2)]
    for child in pool:
        child.start()
    for child in pool:
        child.join()
    assert marks.read_text() == "built\n"


def test_who_waits_for_another_process_is_told(folder):
    code = (
        "import sys, pathlib; from edgecnn_targets import cache\n"
        "def slow(place):\n    print('started', flush=True); sys.stdin.read(1); (place / 'file').write_text('theirs')\n"
        "cache.ensure('a', slow)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"started\n"
    told = []

    def say(line: str) -> None:
        told.append(line)
        child.stdin.close()

    assert cache.ensure("a", lambda place: pytest.fail("built twice"), say) is False
    child.stdout.close()
    assert child.wait() == 0
    assert told == [f"waiting for another process that sets up {folder / 'a'}"]
    assert (folder / "a/file").read_text() == "theirs"


def test_the_platforms_folder_is_used_where_none_is_named(monkeypatch):
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_dir() == Path("/somewhere/edgecnn")


def test_a_cache_that_others_could_write_is_not_used(folder, monkeypatch):
    assert cache.ensure("a", fill) is True
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o775)
    with pytest.raises(InputError, match=f"others may write to the cache {folder}, .*: chmod go-w {folder}"):
        cache.ensure("b", fill)
    folder.chmod(0o755)
    assert cache.cache_dir() == folder
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(InputError, match="belongs to another user; set EDGECNN_CACHE to a folder of your own"):
        ResultCache(b"artifact")


# --- packages ---

LISTED = """\
Reading lists...
'http://host/b.deb' b_1%3a2_amd64.deb 20 SHA256:beef
'http://host/a.deb' a_1_amd64.deb 10 SHA256:cafe
"""


def test_packages_are_those_that_the_index_names():
    assert debian.named(LISTED) == ({"a_1_amd64.deb": "cafe", "b_1%3a2_amd64.deb": "beef"}, 30)
    with pytest.raises(DeviceFault, match=r"no SHA256 of a_1_amd64.deb"):
        debian.named(LISTED.replace("SHA256:cafe", "MD5Sum:cafe"))


def test_a_package_that_is_not_the_one_of_the_index_is_not_unpacked(tmp_path, monkeypatch):
    unpacked = []
    room = cache.cache_dir() / "downloads/tools/cache/archives"

    def tool(words, **_):
        if "--print-uris" in words:
            return f"'http://host/a.deb' a.deb 4 SHA256:{sha256(b'good')}"
        if "--download-only" in words:
            (room / "a.deb").write_bytes(b"evil")
            (room / "left.deb").write_bytes(b"of a killed run")
        if "dpkg" in words and "-x" in words:
            unpacked.append(words)
        return "amd64"

    monkeypatch.setattr(debian, "tool", tool)
    monkeypatch.setattr(debian, "require", lambda: None)
    with pytest.raises(DeviceFault, match=r"a.deb is not the file that the signed index names; it was not unpacked"):
        debian.unpack(tmp_path, ["a"], downloads="tools")
    assert unpacked == []
    assert not (room / "a.deb").exists()


# --- tools ---


def test_a_tool_returns_what_it_prints():
    assert process.run([sys.executable, "-c", "print('hello')"], timeout_s=300) == "hello\n"


def test_a_tool_that_fails_says_how_and_its_last_words():
    with pytest.raises(DeviceFault, match=r"ended with status 3; its last output: first \| last"):
        process.run([sys.executable, "-c", "import sys; print('first\\nlast'); sys.exit(3)"], timeout_s=300)
    with pytest.raises(DeviceFault, match="was killed by SIGABRT"):
        process.run([sys.executable, "-c", "import os; os.abort()"], timeout_s=300)
    with pytest.raises(DeviceFault, match="cannot start no-such-tool"):
        process.run(["no-such-tool"], timeout_s=300)


def test_a_tool_that_hangs_is_killed_with_its_children(tmp_path):
    script = f"sleep 60 & echo $! > {tmp_path / 'pid'}; echo stuck >&2; wait"
    with pytest.raises(DeviceFault, match=r"sh did not end within 5 s; its last output: stuck"):
        process.run(["sh", "-c", script], timeout_s=5)
    child = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("its child still runs")


def test_long_output_is_cut_to_its_end():
    said = process.last_output(b"x" * 5000 + b"\nthe end")
    assert said.endswith("| the end")
    assert len(said) < 700
