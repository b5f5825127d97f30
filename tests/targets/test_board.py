"""A board by SSH, for real: OpenSSH's client and another Linux with its own server, on a loopback port."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgecnn.cli import main
from edgecnn.errors import DeviceFault, MissingDependencyError
from edgecnn_targets.devices import device
from edgecnn_targets.kinds import ssh
from edgecnn_targets.registry import kind_of, open_session
from edgecnn_targets.runtimes.litert import LiteRtSession

pytestmark = pytest.mark.slow

CUT = (
    'for p in /proc/[0-9]*; do grep -q "^python3" $p/cmdline && kill -9 $(sed -n "s/^PPid:.//p" $p/status); done; true'
)
"""Ends the server's process that holds a runner: what the client sees is a connection that breaks."""


@pytest.fixture(scope="module")
def linux() -> Iterator[object]:
    """A Linux that has booted."""
    import board

    try:
        place = board.built()
    except (MissingDependencyError, DeviceFault) as error:
        pytest.skip(f"no arm64 machine can be emulated here: {error}")
    with board.booted(place) as booted:
        yield booted


@pytest.fixture
def address(linux, tmp_path, monkeypatch):
    """Its address, with a client that takes this test's key and known_hosts instead of the user's."""
    client = tmp_path / "bin/ssh"
    client.parent.mkdir()
    words = shlex.join([shutil.which("ssh"), "-F", str(linux.folder / "config")])
    client.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(client.parent), prepend=":")
    monkeypatch.setattr(ssh, "OPEN_S", 900)  # a machine that is busy, and emulates this one too
    return linux.address


def on_board(address, command):
    port = str(ssh.parse(address).port)
    subprocess.run(["ssh", "-p", port, "root@127.0.0.1", command], check=True, timeout=600, capture_output=True)


def test_accuracy_and_latency_come_from_the_board_beside_this_machine(address, demo, capfd):
    path = demo / "mobilenet_v2_0.35_96.tflite"
    words = ["validate", str(path), "--device", f"host,{address}", "--data", "demo", "--limit", "10", "--json"]
    assert main(words) == 0
    here, there = json.loads(capfd.readouterr().out)["entries"]
    assert there["accuracy"] == here["accuracy"]
    assert there["beside_host"] == {"n": 10, "max_lsb": 0, "agreement": 100.0}
    assert there["latency"]["median_ms"] > 0


def test_a_connection_that_breaks_is_a_fault_and_the_next_run_goes_on(address, demo, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    path = demo / "mobilenet_v2_0.35_96.tflite"
    fed = np.random.default_rng(2).integers(-128, 128, (6, 96, 96, 3)).astype(np.int8)
    with closing(open_session(device(address), path)) as session:
        session.run(fed[:4])
        on_board(address, CUT)
        with pytest.raises(DeviceFault, match="ended with status 255; .*4 images are done and kept"):
            session.run(fed)
    with closing(open_session(device(address), path)) as session:
        assert "4 images were done already" in session.findings[-1]
        assert np.array_equal(session.run(fed), LiteRtSession(path).run(fed))
        assert kind_of(device(address)).measure(device(address), session).latency.median_ms > 0


def test_a_host_key_that_changed_or_is_not_known_is_never_accepted(address, linux, demo):
    path, known = demo / "mobilenet_v2_0.35_96.tflite", linux.folder / "known_hosts"
    right = known.read_text()
    other = (linux.folder / "id.pub").read_text()
    try:
        for content, message in (
            (f"{right.split()[0]} {other}", "is not the one in known_hosts"),
            ("", "is not known here"),
        ):
            known.write_text(content)
            with pytest.raises(DeviceFault, match=f"its host key {message}"):
                open_session(device(address), path)
    finally:
        known.write_text(right)


def test_a_key_that_the_board_does_not_take_is_said(address, linux, demo, tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = linux.folder / "config"
    right = config.read_text()
    try:
        config.write_text(right.replace(str(linux.folder / "id"), str(tmp_path / "other")))
        with pytest.raises(DeviceFault, match="takes none of your keys"):
            open_session(device(address), Path(demo / "mobilenet_v2_0.35_96.tflite"))
    finally:
        config.write_text(right)
