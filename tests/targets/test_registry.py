"""Devices, kinds and runtimes: every row is whole, and a wrong name says what is right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import DEMO, error_of

import edgecnn
from edgecnn.cli import main
from edgecnn.errors import InputError, UnsupportedError
from edgecnn_converters.registry import converter, converters
from edgecnn_targets.devices import device, devices, parse, select
from edgecnn_targets.interface import Device, DeviceLimits, Runtime
from edgecnn_targets.registry import kind_of, layers, missing, open_session, runtime, runtime_of, runtimes


@pytest.mark.parametrize("row", runtimes().values(), ids=runtimes())
def test_every_runtime_opens_sessions_and_has_its_own_suffix(row):
    suffix = converter(row.target).suffixes[0]
    assert suffix.startswith(".")
    assert [target for target, other in converters().items() if other.suffixes[0] == suffix] == [row.target]
    assert callable(row.open_session)
    assert runtime(row.target) is row
    assert runtime_of(Path(f"a/mobilenet_v1_0.75_224{suffix}")) is row


@pytest.mark.parametrize("row", devices(), ids=lambda row: row.name)
def test_every_device_is_of_a_known_kind_and_takes_known_targets(row):
    kind = kind_of(row)
    for name in ("open_session", "missing", "setup", "measure"):
        assert callable(getattr(kind, name)), name
    assert isinstance(row.settings, kind.settings)
    assert set(row.tolerances.host_lsb) | set(row.tolerances.oracle_lsb) <= set(row.targets)
    assert set(row.targets) <= set(runtimes())
    assert row.targets
    assert row.description
    assert device(row.name) == row


@pytest.mark.parametrize("cpu", ["vnni", "avx2"])
def test_this_machine_bounds_every_runtime_on_x86_most_of_them_to_the_oracles_bits(cpu):
    bounds = {
        target: device("host").tolerances.from_oracle(target, cpu) for target in ("tflite", "onnx", "c", "openvino")
    }
    assert bounds.pop("openvino") is not None
    assert set(bounds.values()) == {0}


def test_a_device_listed_twice_runs_once():
    assert [row.name for row in select(["host", "host"])] == ["host"]


def test_typos_get_a_suggestion():
    with pytest.raises(InputError, match="unknown device 'hots' \\(did you mean 'host'\\?\\); .*host"):
        device("hots")
    with pytest.raises(InputError, match="unknown target 'tflit' \\(did you mean 'tflite'\\?\\)"):
        runtime("tflit")


@pytest.mark.parametrize("name", ["model.pb", "model", "model.edgecnn", "model.tflite.json"])
def test_a_wrong_suffix_lists_the_right_ones(name):
    with pytest.raises(InputError, match=rf"{name} is no artifact, by its suffix; allowed: .*\.tflite"):
        runtime_of(Path(name))


def test_the_host_is_ready_where_the_library_is_and_says_the_command_where_not():
    assert missing(device("host"), "tflite") is None
    absent = Runtime(target="x", description="", open_session=open_session, library="no_such_library", extra="x")
    assert absent.missing() == "pip install 'edgecnn[x]'"


def test_a_device_refuses_a_target_that_it_does_not_take(tmp_path):
    npu = Device(name="npu", kind="host", description="takes another format", targets=("onnx",))
    with pytest.raises(UnsupportedError, match="device 'npu' does not run tflite artifacts; it takes: onnx"):
        open_session(npu, tmp_path / "m.tflite")


def test_a_device_names_the_op_that_it_does_not_run(tflite):
    limits = DeviceLimits(ops=("RESHAPE", "CONV_2D"))
    mcu = Device(name="mcu", kind="host", description="few ops", targets=("tflite",), limits=limits)
    message = "device 'mcu' does not run FULLY_CONNECTED logits; its ops: RESHAPE, CONV_2D"
    with pytest.raises(UnsupportedError, match=message):
        open_session(mcu, tflite("reshape", "linear", integer=True))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"targets": ["tflite"], "clock": 3}, "device d: .* 'clock'"),
        (
            {"targets": ["tflite"], "nam": "e"},
            "unknown key 'nam'; allowed: description, kind, limits, onnx_activations, settings, targets, tol",
        ),
        ({}, "device d: .* 'targets'"),
        ({"targets": ["tflite"], "limits": {"ram": 3}}, "device d: .* 'ram'"),
        ({"targets": ["tflite"], "limits": {"precisions": ["int9"]}}, "unknown precision 'int9'"),
        ({"targets": ["tflite"], "limits": {"sram_kib": 0}}, "sram_kib is 0"),
        ({"targets": ["tflite"], "settings": {"clock": 3}}, "device d: unknown setting 'clock'"),
        (
            {"targets": ["c"], "kind": "cortex-m", "settings": {}},
            "device d: lacks the setting 'machine'",
        ),
        ({"targets": ["tflite"], "name": "e"}, "device d: remove 'name': a device is named as its file"),
    ],
)
def test_a_device_file_with_a_mistake_says_which(record, message):
    with pytest.raises(InputError, match=message):
        parse("d", {"kind": "host", "description": "", **record})


BOARD = """
kind = "vela"
description = "an NPU of another maker"
targets = ["tflite"]
settings = { accelerator = "ethos-u55-32", system_config = "Ethos_U55_Embedded", memory_mode = "Shared_Sram" }
"""


def test_a_device_file_of_the_users_own_is_a_device(tmp_path, monkeypatch, capfd):
    (tmp_path / "npu.toml").write_text(BOARD)
    monkeypatch.chdir(tmp_path)
    own, host, again = (*select(["./npu.toml", "host"]), *select(["./npu.toml", "./npu.toml"]))
    assert (own.name, own.kind, own.targets) == ("npu", "vela", ("tflite",))
    assert host == device("host")
    assert again == own
    assert device("cortex-m4").setup_command == "edgecnn devices setup cortex-m4"
    assert own.setup_command == "edgecnn devices setup npu.toml"
    assert main(["devices", "setup", "npu.toml"]) == 0
    assert "was ready" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOARD.replace("vela", "velo"), "board.toml: device board: unknown kind 'velo' .did you mean 'vela'.*cortex-m"),
        (
            BOARD.replace('"tflite"', '"tflit"'),
            "board.toml: device board: unknown target 'tflit' .did you mean 'tflite'",
        ),
        (BOARD.replace('"tflite"', '"tflite", 3'), r"board.toml: device board: targets.1.: expected str, got int"),
        (
            BOARD.replace("accelerator", "acelerator"),
            "board.toml: device board: unknown setting 'acelerator' .did you mean 'accelerator'",
        ),
        (BOARD.replace("settings", "setings"), "board.toml: device board: .*'setings'"),
        (BOARD.replace('kind = "vela"', ""), "board.toml: device board: .*'kind'"),
        (BOARD.replace('"vela"', "3"), "board.toml: device board: kind: expected str, got int"),
        (BOARD + "limits = 3", "board.toml: device board: limits: expected object, got int"),
        (BOARD + "limits = { sram_kib = -1 }", "board.toml: device board: sram_kib is -1; it must be above 0"),
        (
            BOARD + "tolerances = { host_lsb = 3 }",
            "board.toml: device board: tolerances.host_lsb: expected object, got int",
        ),
        ("kind = ", "board.toml is not TOML .*Invalid value.*; see `edgecnn devices`"),
        (b"\xff\xfe", "board.toml is not TOML .*utf-8"),
        (None, "cannot read .*board.toml: No such file or directory; give a device's TOML file"),
    ],
)
def test_a_mistake_in_a_device_file_is_one_line_with_the_file(tmp_path, capfd, content, message):
    board = tmp_path / "board.toml"
    if content is not None:
        board.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = error_of(capfd, "devices", "setup", "host", board)
    assert re.search(message, line), line


def test_two_devices_of_one_name_are_refused(tmp_path):
    (tmp_path / "host.toml").write_text('kind = "host"\ndescription = "mine"\ntargets = ["tflite"]\n')
    with pytest.raises(InputError, match=r"two devices are named 'host': host and .*host.toml; rename the file"):
        select(["host", str(tmp_path / "host.toml")])


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_host_says_the_time_of_each_op(target, exported, tmp_path):
    if runtime(target).missing():
        pytest.skip(f"the runtime of {target} is not installed")
    artifact = edgecnn.convert(edgecnn.load(exported[0] / f"{DEMO}.edgecnn"), target).save(tmp_path)
    found = layers(device("host"), artifact.path)
    assert len(found) > 40
    assert all(cost.ms is not None and cost.ms >= 0 for cost in found)
    assert sum(cost.ms for cost in found) < 1000
    assert "features.1.depthwise.conv" in {cost.name for cost in found}


def test_a_session_opens_by_device_with_its_threads_and_kernels(tflite):
    session = open_session(device("host"), tflite("reshape", "linear", integer=True), threads=2, kernels="reference")
    assert session.threads == 2


def test_listing_targets_and_devices_imports_no_runtime():
    script = (
        "import sys; from edgecnn_targets import registry, devices; "
        "[registry.missing(d, t) for d in devices.devices() for t in d.targets]; "
        "print([m for m in ('ai_edge_litert', 'torch', 'tensorflow', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_word_of_a_description_leads_to_its_devices():
    described = r"; 'raspberry' is in the description of: armv7, cortex-a53, cortex-a72, cortex-a76$"
    with pytest.raises(InputError, match=described):
        device("raspberry")


def test_a_folder_leads_to_the_artifact_in_it(tmp_path):
    (tmp_path / "net.c").touch()
    with pytest.raises(InputError, match=r"is no artifact, by its suffix; .*; give the file in it: .*net\.c$"):
        runtime_of(tmp_path)
