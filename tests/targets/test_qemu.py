"""Emulated devices, without the emulator: what is missing, what is counted, and one that breaks beside others."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import texts

from edgecnn import process
from edgecnn.child import Command
from edgecnn.cli import main
from edgecnn.errors import DeviceFault, InputError, MissingDependencyError
from edgecnn_targets import cache
from edgecnn_targets.devices import device, devices
from edgecnn_targets.kinds import qemu
from edgecnn_targets.kinds.qemu import install
from edgecnn_targets.kinds.qemu.settings import Cache
from edgecnn_targets.registry import missing
from edgecnn_targets.runtimes import runner

EMULATED = [row for row in devices() if row.kind == "qemu"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("row", EMULATED, ids=lambda row: row.name)
def test_a_device_that_is_not_set_up_says_the_command(row, tflite, capfd):
    path = tflite("reshape", "linear", integer=True)
    assert missing(row, "tflite") == f"edgecnn devices setup {row.name}"
    assert main(["validate", str(path), "--data", "demo", "--device", row.name]) == 3
    assert f"install what it needs: edgecnn devices setup {row.name}" in capfd.readouterr().err


@pytest.mark.parametrize("row", [r for r in EMULATED if r.name != "armv7"], ids=lambda row: row.name)
def test_nothing_of_this_machine_is_visible_inside(row):
    root = cache.cache_dir() / install.device_tree(row.name, row.settings)
    words, environment = install.emulation(root, row.settings)
    inside = words[words.index("-0") :]
    assert words[0].endswith(row.settings.isa.emulator)
    assert list(environment) == ["LD_LIBRARY_PATH"]
    assert words[words.index("-U") :][:2] == ("-U", "LD_LIBRARY_PATH")
    assert inside[-1] == "/edgecnn/runner.py"
    assert all(word.split("=")[1].startswith(("/usr", "/site", "0", "1")) for word in words if "=" in word)


def test_a_tree_that_is_half_set_up_is_not_ready(folder):
    row = device("cortex-a53")
    settings = row.settings
    trees = [
        install.EMULATOR,
        install.plugin_tree(),
        install.system_tree(settings.isa),
        install.device_tree(row.name, settings),
    ]
    for tree in trees:
        assert missing(row, "tflite") is not None
        (folder / tree).with_name(f".{Path(tree).name}.x.part").mkdir(parents=True)
        assert missing(row, "tflite") is not None
        (folder / tree).mkdir()
    assert missing(row, "tflite") is None
    assert qemu.KIND.setup(row, lambda line: pytest.fail(f"a second setup did something: {line}")) is False


@pytest.mark.parametrize(("tool", "message"), [("apt-get", "needs apt-get"), ("dpkg", "needs dpkg")])
def test_a_tool_that_setting_up_needs_is_status_3(tool, message, monkeypatch, capfd):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == tool else which(name) or f"/usr/bin/{name}")
    assert main(["devices", "setup", "cortex-a53"]) == 3
    assert message in capfd.readouterr().err


def test_without_a_compiler_the_message_installs_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("cc", "gcc") else f"/usr/bin/{name}")
    with pytest.raises(MissingDependencyError, match="apt-get install gcc libc6-dev"):
        qemu.KIND.setup(device("cortex-a53"), print)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """``tools(name, script)`` puts a shell script in front of the machine's own tool."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path), prepend=":")

    def put(name: str, script: str) -> None:
        (path / name).write_text(f"#!/bin/sh\n{script}\n")
        (path / name).chmod(0o755)

    for name in ("apt-get", "dpkg", "cc"):
        put(name, "exit 0")
    return put


def test_a_setup_whose_download_fails_says_the_last_words_and_leaves_nothing(tools, folder, capfd):
    tools("apt-get", "echo 'E: Could not resolve the host' >&2; exit 100")
    assert main(["devices", "setup", "cortex-a53"]) == 1
    assert "apt-get ended with status 100; its last output: E: Could not resolve the host" in capfd.readouterr().err
    assert not (folder / "qemu/emulator").exists()


def test_a_full_disk_while_setting_up_says_what_to_do(tools, folder, capfd):
    tools("apt-get", "echo 'E: write, still have 512 to write (28: No space left on device)' >&2; exit 100")
    assert main(["devices", "setup", "cortex-a53"]) == 2
    assert "the disk is full; set EDGECNN_CACHE to a folder with room" in capfd.readouterr().err
    assert not (folder / "qemu/emulator").exists()


def test_sources_without_an_emulator_are_named(tools):
    with pytest.raises(DeviceFault, match=r"holds no usr/bin/qemu-aarch64"):
        qemu.KIND.setup(device("cortex-a53"), print)


def test_a_compiler_that_fails_says_its_last_words(tools, tmp_path, folder):
    (folder / "qemu/emulator").mkdir(parents=True)
    tools("cc", "echo 'counter.c: error' >&2; exit 1")
    with pytest.raises(DeviceFault, match=r"cc ended with status 1; its last output: counter.c: error"):
        qemu.KIND.setup(device("cortex-a53"), print)


def test_the_plugin_compiles_without_a_warning(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    source = Path(qemu.__file__).with_name("counter.c")
    strict = ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden"]
    process.run([compiler, *strict, "-o", tmp_path / "counter.so", source], timeout_s=600)


# --- settings ---


def test_a_cache_has_whole_sets():
    assert Cache(kib=32, ways=4, miss_cycles=1).sets == 128
    with pytest.raises(InputError, match="no whole number of sets"):
        Cache(kib=1, ways=3, miss_cycles=1)


def test_the_estimate_is_what_its_docstring_says():
    row = device("cortex-a53").settings
    cycles = 9e6 / row.instructions_per_cycle + 1000 * row.l1d.miss_cycles + 10 * row.l2.miss_cycles
    assert row.estimated_ms(9_000_000, {"l1d": 1000, "l2": 10}) == pytest.approx(cycles / (row.clock_mhz * 1e3))


# --- several devices ---

LINE = {"instructions": 1000, "mix": {"alu": 900, "dot": 100, "matrix": 0}, "misses": {"l1d": 50, "l2": 5}}


@pytest.fixture
def emulators(tmp_path, monkeypatch):
    """``emulators(name=script)``: devices that are ready, and whose emulator is this Python; counts are as ``LINE``."""

    def put(**scripts):
        def command(row, *counting):
            for word in counting:
                if word.startswith("out="):
                    lines = [LINE, {**LINE, "instructions": scripts.get("second_count", 1000)}]
                    Path(word[4:]).write_text("\n".join(map(json.dumps, lines)))
            script = scripts.get(row.name.replace("-", "_"))
            words = [sys.executable, runner.__file__] if script is None else [sys.executable, "-c", script]
            return Command(
                device=row.name, words=tuple(words), open_s=300, image_s=0.5 if "sleep" in (script or "") else 300
            )

        monkeypatch.setattr(qemu, "command", command)
        monkeypatch.setattr(install, "ready", lambda name, settings: True)

    return put


@pytest.fixture
def artifact(tflite, tmp_path):
    """``(file, the options that check it)``: the tiny network in int8, its float twin, and images of five classes."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 2, 3), np.uint8)
    for k, image in enumerate(pixels):
        place = tmp_path / "data" / str(k % 5)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{k}.png")
    reference = tflite("reshape", "linear", integer=False)
    words = ["--data", str(tmp_path / "data"), "--reference", str(reference)]
    feed = ["--preprocess", "resize=2x2,crop=none,interpolation=bilinear,mean=127.5,std=100"]
    return tflite("reshape", "linear", integer=True), [*words, *feed]


def report(capfd, status, artifact, *words):
    path, options = artifact
    capfd.readouterr()
    assert main(["validate", str(path), *options, "--json", *words]) == status
    return json.loads(capfd.readouterr().out)["entries"]


def test_an_emulated_device_has_accuracy_and_counts_and_no_time(emulators, artifact, capfd):
    emulators()
    here, there = report(capfd, 0, artifact, "--device", "host,cortex-a53", "--max-instructions", "1e3")
    assert (here["device"], there["device"]) == ("host", "cortex-a53")
    assert there["accuracy"] == here["accuracy"]
    assert there["latency"] == {"median_ms": None, "p90_ms": None, "threads": 1, "instructions": 1000, "runs": 2}
    assert there["resources"]["instruction_mix"] == {"alu": 900, "dot": 100}
    assert there["resources"]["cache_misses"] == {"l1d": 50, "l2": 5}
    assert there["resources"]["estimated_ms"] > 0
    assert there["beside_host"] == {"n": 16, "max_lsb": 0, "agreement": 100.0}
    assert {c["name"] for c in there["checks"]} == {"instructions", "float_ops", "host_lsb", "host_agreement"}
    assert here["latency"]["median_ms"] > 0
    assert "--max-instructions is not checked here: this device has no figure for it" in texts(here)
    (over,) = report(capfd, 1, artifact, "--device", "cortex-a53", "--max-instructions", "999")
    assert [c["name"] for c in over["checks"] if not c["passed"]] == ["instructions"]


@pytest.mark.parametrize(
    ("how", "message"),
    [("os.abort()", "was killed by SIGABRT; its last output: "), ("time.sleep(60)", "hung: no answer within")],
    ids=["crashes", "hangs"],
)
def test_a_device_that_breaks_is_a_failed_check_and_the_others_are_reported(emulators, artifact, capfd, how, message):
    broken = (
        "import os, sys, time; from edgecnn_targets.runtimes import runner\n"
        f"def broken(*_): print('working', file=sys.stderr, flush=True); {how}\n"
        "runner.run = broken; runner.main()"
    )
    emulators(cortex_a72=broken)
    first, second, third = report(
        capfd, 1, artifact, "--device", "cortex-a53,cortex-a72,cortex-a76", "--max-drop", "50"
    )
    assert [e["device"] for e in (first, second, third)] == ["cortex-a53", "cortex-a72", "cortex-a76"]
    for entry in (first, third):
        assert entry["accuracy"]["n"] == 20
        assert all(check["passed"] for check in entry["checks"])
    assert second["accuracy"]["n"] == 0
    assert {c["name"]: c["passed"] for c in second["checks"]} == {
        "device_faults": False,
        "drop": False,
        "float_ops": True,
    }
    (finding,) = [f for f in texts(second) if f.startswith("the device broke")]
    assert message in finding
    assert how.startswith("time") or finding.endswith("working")


def test_counts_that_differ_are_a_fault(emulators, artifact, capfd):
    emulators(second_count=1001)
    (entry,) = report(capfd, 1, artifact, "--device", "cortex-a53")
    assert any("2 equal inferences took [1000, 1001] instructions" in f for f in texts(entry))


@pytest.mark.parametrize("second", [998, 1002])
def test_the_count_is_the_lesser_of_equal_inferences(second, emulators, artifact, capfd, monkeypatch):
    monkeypatch.setitem(qemu.APART, "tflite", (0.0, 10))
    emulators(second_count=second)
    (entry,) = report(capfd, 0, artifact, "--device", "cortex-a53")
    assert entry["latency"]["instructions"] == min(1000, second)
    assert any("its count is the lesser of 2 inferences in a row, 0.2 % apart" in f for f in texts(entry))


def test_a_second_run_needs_no_emulator(emulators, artifact, capfd):
    emulators()
    (first,) = report(capfd, 0, artifact, "--device", "cortex-a53")
    emulators(cortex_a53="import sys; sys.exit('started')")
    (second,) = report(capfd, 0, artifact, "--device", "cortex-a53")
    assert {**second, "seconds": None, "findings": None} == {**first, "seconds": None, "findings": None}
    assert any(f.startswith("36 of 36 outputs are of an earlier run") for f in texts(second))


def test_a_device_stops_once_a_limit_cannot_hold(emulators, artifact, capfd):
    emulators()
    here, there = report(capfd, 1, artifact, "--min-agreement", "100.1", "--device", "host,cortex-a53")
    assert (here["accuracy"]["n"], there["accuracy"]["n"]) == (20, 10)
    assert "stopped after 10 of 20 images: --min-agreement 100.1 cannot hold any more" in texts(there)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--device", "host", "--max-instructions", "1"],
            "--max-instructions needs a device that finds out instructions",
        ),
        (["--device", "cortex-a53", "--max-latency-ms", "1"], "--max-latency-ms needs a device that finds out latency"),
        (["--device", "cortex-a53", "--max-sram-kib", "1"], "--max-sram-kib needs a device that finds out sram_kib"),
        (["--device", "cortex-a53", "--threads", "2"], "runs one thread, not --threads 2"),
        (["--device", "cortex-a35"], "unknown device 'cortex-a35'"),
    ],
)
def test_what_an_emulated_device_cannot_be_asked(emulators, artifact, capfd, words, message):
    emulators()
    path, options = artifact
    assert main(["validate", str(path), *options, *words]) == 2
    assert message in capfd.readouterr().err


def test_devices_lists_what_is_ready_and_what_to_do(capfd):
    assert main(["devices", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)["entries"]}
    assert set(rows["host"]["ready"]) >= {"tflite", "onnx", "openvino"}
    assert rows["cortex-a53"]["ready"] == []
    assert rows["cortex-a53"]["missing"] == ["edgecnn devices setup cortex-a53"]
    assert "instructions" in rows["cortex-a53"]["figures"]
    assert main(["devices", "setup"]) == 2
    assert "devices setup needs the devices' names" in capfd.readouterr().err
    assert main(["devices", "setup", "host"]) == 0
    assert "was ready" in capfd.readouterr().out
