"""Files that cannot be reached: a folder that stops answering in the middle, and folders of another user's."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import error_of
from PIL import Image

from edgecnn.errors import InputError
from edgecnn.reading import reading

NOBODY = 65534
NO_ANSWER = "the disk or network folder that holds it does not answer"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(4):
        Image.fromarray(np.full((16, 16, 3), 60 * k, np.uint8)).save(folder / f"{k}.png")
    return folder


def failing(monkeypatch, number, name, after):
    """Let the reads of files of a name fail, as a folder of the network does, from one on."""
    whole, seen = Path.read_bytes, []

    def read(path):
        if path.name == name or (name == "*.png" and path.suffix == ".png"):
            seen.append(path)
            if len(seen) > after:
                raise OSError(number, os.strerror(number))  # of a read: it names no file
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("skip", [[], ["--skip-bad-images"]])
def test_images_that_stop_answering_are_no_bad_images(number, skip, images, tmp_path, monkeypatch, capfd):
    failing(monkeypatch, number, "*.png", 2)
    words = ["export", "mobilenet_v2_0.35_96", "--weights", "demo", "--target", "tflite", "--recipe", "minmax"]
    said = error_of(capfd, *words, "--calibration", str(images), *skip, "-o", str(tmp_path / "out"))
    assert f".png: {os.strerror(number)}; {NO_ANSWER}" in said
    assert not (tmp_path / "out").exists()


def test_a_file_that_stops_answering_is_not_called_damaged(tmp_path, monkeypatch, capfd):
    with pytest.raises(InputError, match=f"net.onnx: Input/output error; {NO_ANSWER}"), reading("net.onnx"):
        try:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        except OSError as error:
            raise ValueError("cannot parse") from error
    (tmp_path / "net.onnx").write_bytes(b"x")
    failing(monkeypatch, errno.EIO, "net.onnx", 0)
    assert f"Input/output error; {NO_ANSWER}" in error_of(capfd, "inspect", str(tmp_path / "net.onnx"))


def test_a_fault_of_the_system_without_a_name_is_no_fault_of_ours(tmp_path, monkeypatch, capfd):
    def broken(*words, **more):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "net.onnx").write_bytes(b"x")
    monkeypatch.setattr("edgecnn.inspecting.inspect", broken)
    assert f"a file: Input/output error; {NO_ANSWER}" in error_of(capfd, "inspect", str(tmp_path / "net.onnx"))


def as_nobody(*words):
    """Run the command as a user that owns nothing; skip where that cannot be."""
    if os.name != "posix" or os.geteuid() != 0 or (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("only root becomes another user, by setpriv")
    user = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable]
    environment = {**os.environ, "HOME": "/nonexistent"}
    if subprocess.run([*user, "-c", "import edgecnn"], env=environment, capture_output=True, check=False).returncode:
        pytest.skip("another user may not run this Python")
    command = [*user, "-m", "edgecnn", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_folders_that_another_user_may_not_write_or_read_are_one_line(tmp_path, images):
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    closed = tmp_path / "net.edgecnn"
    closed.write_bytes(b"")
    closed.chmod(0o000)
    export = ["export", "mobilenet_v2_0.35_96", "--weights", "demo", "--target", "tflite"]
    for words, wanted in (
        ([*export, "--calibration", "demo", "-o", tmp_path / "out"], str(tmp_path)),
        (["inspect", closed], "Permission denied"),
    ):
        done = as_nobody(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith("edgecnn: error: ")
        assert wanted in done.stderr
    assert not (tmp_path / "out").exists()
