"""A board by SSH: the same figures as here, nothing left to chance about whom one talks to, and broken runs go on."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn import int8

from edgecnn.cli import main
from edgecnn.errors import DeviceFault, InputError, MissingDependencyError
from edgecnn_targets.cache import cache_dir
from edgecnn_targets.devices import device
from edgecnn_targets.kinds import ssh
from edgecnn_targets.registry import kind_of, missing, open_session
from edgecnn_targets.runtimes.litert import LiteRtSession

BOARD = "ssh://root@board:2222"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """`board()` makes the fake client the one that is found, behaving as told; `board.calls()` are its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    client = folder / "ssh"
    fake = Path(__file__).with_name("fake_ssh.py")
    client.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(str(fake))} "$@"\n')
    (folder / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for file in folder.iterdir():
        file.chmod(0o755)
    log = tmp_path / "calls"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_SSH_LOG", str(log))
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))

    def behave(how: str = "") -> None:
        monkeypatch.setenv("FAKE_SSH", how)

    behave.calls = lambda: [json.loads(line) for line in log.read_text().splitlines()]
    behave()
    return behave


@pytest.fixture
def network(tflite):
    return tflite("reshape", "linear", integer=True)


def test_a_board_computes_what_this_machine_computes_and_is_timed_by_its_own_clock(board, network):
    session = open_session(device(BOARD), network)
    here = LiteRtSession(network)
    assert np.array_equal(session.run(int8((2, 2, 3), 5)), here.run(int8((2, 2, 3), 5)))
    same = ("input", "output", "ops", "arithmetic")
    assert [getattr(session, name) for name in same] == [getattr(here, name) for name in same]
    timing = kind_of(device(BOARD)).measure(device(BOARD), session).latency
    assert (timing.threads, timing.runs) == (1, 50)
    assert timing.median_ms > 0
    session.close()


def test_the_client_is_told_to_check_host_keys_and_never_to_ask(board, network):
    open_session(device(BOARD), network).close()
    (call,) = board.calls()
    options = {call[k + 1] for k, word in enumerate(call) if word == "-o"}
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes"} <= options
    assert call[-7:-1] == ["-p", "2222", "-l", "root", "--", "board"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("changed", "host key is not the one in known_hosts.*ssh-keygen -R.*ssh -p 2222 root@board"),
        ("unknown", "host key is not known here.*accept it by hand: ssh -p 2222 root@board"),
        ("denied", "takes none of your keys.*ssh-copy-id"),
        ("refused", "Connection refused"),
    ],
)
def test_a_board_that_cannot_be_reached_is_a_failed_check_beside_the_others(board, network, capfd, how, message):
    board(how)
    words = ["validate", str(network), "--device", f"host,{BOARD}", "--max-latency-ms", "1000", "--json"]
    assert main(words) == 1
    here, there = json.loads(capfd.readouterr().out)["entries"]
    assert here["latency"]["median_ms"] is not None
    assert all(check["passed"] for check in here["checks"])
    assert [c["name"] for c in there["checks"] if not c["passed"]] == ["device_faults", "latency"]
    with pytest.raises(DeviceFault, match=message):
        open_session(device(BOARD), network)


def test_what_the_board_lacks_is_status_3_and_the_command_for_it(board, network, monkeypatch, tmp_path, capfd):
    board("nopython")
    with pytest.raises(MissingDependencyError, match=r"has no python3; .*ssh -p 2222 root@board"):
        open_session(device(BOARD), network)
    board()
    python = tmp_path / "bin/python3"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    words = ["validate", str(network), "--device", BOARD, "--max-latency-ms", "1000"]
    assert main(words) == 3
    assert "ssh -p 2222 root@board python3 -m pip install numpy ai-edge-litert" in capfd.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing(device(BOARD), "tflite") == "apt-get install openssh-client"


def test_boards_run_side_by_side(board, network, capfd):
    board("meet")
    words = ["validate", str(network), "--device", "ssh://one,ssh://two", "--max-latency-ms", "1000", "--json"]
    assert main(words) == 0
    assert [entry["device"] for entry in json.loads(capfd.readouterr().out)["entries"]] == ["ssh://one", "ssh://two"]


def test_a_password_is_refused_before_anything_is_called(board, network, capfd, tmp_path):
    words = ["validate", str(network), "--device", "ssh://pi:secret@board", "--max-latency-ms", "1000"]
    assert main(words) == 2
    assert "secret" not in capfd.readouterr().err
    assert not (tmp_path / "calls").exists()


def test_a_board_that_hangs_is_given_up(board, network, monkeypatch):
    board("hang")
    monkeypatch.setattr(ssh, "OPEN_S", 0.5)
    with pytest.raises(DeviceFault, match="hung: no answer within 0.5 s"):
        open_session(device(BOARD), network)


def test_a_connection_that_breaks_in_the_middle_is_said_and_the_next_run_goes_on(board, network):
    fed, here = int8((2, 2, 3), 200), LiteRtSession(network).run(int8((2, 2, 3), 200))
    board("cut:1000")  # the outputs of some of the images
    session = open_session(device(BOARD), network)
    with pytest.raises(
        DeviceFault, match=r"Broken pipe; \d+ images are done and kept: the same command goes on"
    ) as said:
        session.run(fed)
    done = int(re.search(r"(\d+) images", str(said.value))[1])
    assert 0 < done < 200
    session.close()
    board()
    session = open_session(device(BOARD), network)
    asked = []
    count_runs(session, asked)
    assert np.array_equal(session.run(fed), here)
    assert sum(asked) == 200 - done
    assert f"{done} images were done already" in session.findings[-1]
    kind_of(device(BOARD)).measure(device(BOARD), session)
    session.close()
    assert not list((cache_dir() / "results").iterdir())


def count_runs(session, asked):
    """Count the images that go to the board."""
    run = session.remote.run

    def counting(batch):
        asked.append(len(batch))
        return run(batch)

    session.remote.run = counting


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ssh://pi:secret@board", "no passwords here"),
        ("ssh://", "is no board's address"),
        ("ssh://-oProxyCommand=x", "is no board's address"),
        ("ssh://-l@board", "is no board's address"),
        ("ssh://board/path", "is no board's address"),
        ("ssh://board:port", "is no board's address"),
        ("ssh://board;reboot", "is no board's address"),
    ],
)
def test_an_address_with_a_mistake_is_refused(name, message):
    with pytest.raises(InputError, match=message) as error:
        ssh.parse(name)
    assert "secret" not in str(error.value)


def test_an_address_says_user_host_and_port():
    found = ssh.parse("ssh://pi@10.0.0.7:2200")
    assert (found.user, found.host, found.port) == ("pi", "10.0.0.7", 2200)
    assert ssh.parse("ssh://board").words == ["--", "board"]
