"""A phone by adb, as a scripted adb has it: what is sent, what is parsed, and what is said when it fails."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from edgecnn.cli import main
from edgecnn.errors import DeviceFault, InputError, MissingDependencyError, UnsupportedError
from edgecnn_targets.devices import device
from edgecnn_targets.kinds import adb
from edgecnn_targets.registry import kind_of, missing, open_session


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """`phone()` makes the fake client the one that is found, failing as told; `phone.calls()` are its calls."""
    folder, storage = tmp_path / "bin", tmp_path / "phone"
    folder.mkdir()
    storage.mkdir()
    fake = Path(__file__).with_name("fake_adb.py")
    (folder / "adb").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(str(fake))} "$@"\n')
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_ADB_PHONE", str(storage))

    def behave(how: str = "") -> None:
        monkeypatch.setenv("FAKE_ADB", how)

    behave.calls = lambda: [json.loads(line) for line in (storage / "calls").read_text().splitlines()]
    behave.storage = storage
    behave()
    return behave


@pytest.fixture
def network(tflite):
    return tflite("reshape", "linear", integer=True)


def timed(name, network, threads=1):
    chosen = device(name)
    session = open_session(chosen, network, threads=threads)
    try:
        return kind_of(chosen).measure(chosen, session), session
    finally:
        session.close()


def test_a_phone_times_an_artifact_and_nothing_is_left_on_it(phone, network):
    usage, session = timed("adb:R58M123", network, threads=4)
    assert (usage.latency.median_ms, usage.latency.runs, usage.latency.threads) == (8.291, 120, 4)
    assert usage.latency.p90_ms is None
    assert session.findings[0].startswith("timed by benchmark_model on Fake 1, Android 14, arm64-v8a")
    assert {tuple(call[:2]) for call in phone.calls()} == {("-s", "R58M123")}
    (ran,) = [call[-1] for call in phone.calls() if "--graph=" in call[-1]]
    assert "/data/local/tmp/benchmark_model --graph=/data/local/tmp/edgecnn-" in ran
    assert "--num_threads=4 --use_xnnpack=true --warmup_runs=10 --num_runs=50" in ran
    assert not list((phone.storage / "data/local/tmp").iterdir())
    with pytest.raises(UnsupportedError, match="runs no images"):
        session.execute({})


def test_without_a_serial_adb_picks_the_only_phone(phone, network):
    assert timed("adb", network)[0].latency.median_ms == 8.291
    assert phone.calls()[0] == ["get-state"]


def test_a_file_sends_a_program_of_ones_own_and_pins_it(phone, network, tmp_path):
    program = tmp_path / "bm"
    program.write_bytes(b"program")
    board = tmp_path / "pixel.toml"
    text = 'kind = "adb"\ndescription = "a phone"\ntargets = ["tflite"]\n[settings]\nserial = "X1"\ncores = "f0"\n'
    board.write_text(f'{text}benchmark_model = "{program}"\n')
    timed(str(board), network)
    assert any(call[:3] == ["-s", "X1", "push"] and call[3] == str(program) for call in phone.calls())
    (ran,) = [call[-1] for call in phone.calls() if "--graph=" in call[-1]]
    assert ran.startswith("taskset f0 /data/local/tmp/edgecnn-")
    program.unlink()
    with pytest.raises(InputError, match="benchmark_model is .*which is no file here"):
        timed(str(board), network)
    board.write_text(text.replace('"f0"', '"big"'))
    with pytest.raises(InputError, match="cores is 'big'; give a mask"):
        device(str(board))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("none", "adb: there is no such phone; enable USB debugging"),
        ("several", "adb: there are several phones; name one, adb:SERIAL"),
        ("unauthorized", "accept the question about USB debugging"),
        ("offline", "it is offline"),
        ("crash", "ended with status 139.*Segmentation fault"),
        ("nothing", "benchmark_model printed no timings; its last output: .*STARTING"),
        ("old", "prints no median; send a newer one: https"),
    ],
)
def test_a_phone_that_fails_says_what_to_do(phone, network, how, message):
    phone(how)
    with pytest.raises(DeviceFault, match=message):
        timed("adb", network)


def test_a_phone_without_the_program_is_status_3_and_the_commands_for_it(phone, network, capfd, monkeypatch, tmp_path):
    phone("notool")
    with pytest.raises(MissingDependencyError, match=r"adb -s X1 push benchmark_model /data/local/tmp/benchmark_model"):
        timed("adb:X1", network)
    assert main(["validate", str(network), "--device", "adb", "--max-latency-ms", "9"]) == 3
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing(device("adb"), "tflite") == "apt-get install adb"


def test_latency_is_a_check_beside_the_host(phone, network, capfd):
    words = ["validate", str(network), "--device", "host,adb:X1", "--max-latency-ms", "8.2", "--json"]
    assert main(words) == 1
    here, there = json.loads(capfd.readouterr().out)["entries"]
    assert (there["device"], there["latency"]["median_ms"]) == ("adb:X1", 8.29)
    assert there["accuracy"]["n"] in (None, 0)
    assert [check["name"] for check in there["checks"] if not check["passed"]] == ["latency"]
    assert all(check["passed"] for check in here["checks"])


@pytest.mark.parametrize("name", ["adb:", "adb:a b", "adb:$(reboot)", "adb://"])
def test_a_name_that_is_no_serial_is_refused(name):
    with pytest.raises(InputError, match="is no phone; give adb, or adb:SERIAL"):
        adb.parse(device(name))
