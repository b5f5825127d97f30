"""Microcontrollers: the very integers on every core, the same counts in every run, and what breaks says how."""

from __future__ import annotations

import re
import stat

import numpy as np
import pytest
from graphs import MORE_PIECES, PIECES, piece_graph, random_graph
from int8_builder import Int8Builder, float_graph, random_images

from edgecnn.artifact import write_artifact
from edgecnn.cli import main
from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn.evaluation.check import check
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.subject import Checking, Subject
from edgecnn.graph.ir import Metadata
from edgecnn.graph.oracle import run
from edgecnn.graph.serialize import save
from edgecnn.preprocess import Preprocess
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device, devices, parse
from edgecnn_targets.kinds import cortex_m, tflm
from edgecnn_targets.kinds.cortex_m import toolchain
from edgecnn_targets.registry import kind_of, layers, missing, open_session, runtime
from edgecnn_targets.runtimes.litert import LiteRtSession

CORES = [row.name for row in devices() if row.kind == "cortex-m"]
READY = toolchain.ready()
needs_emulator = pytest.mark.skipif(not READY, reason="edgecnn devices setup cortex-m4 has not been run here")
needs_tflm = pytest.mark.skipif(
    missing(device("mcu-tflm"), "tflite") is not None,
    reason="tflite-micro is not installed: it has wheels for x86-64 only",
)


def written(graph, target, folder):
    names = {"name": "net"} if target == "c" else {}
    emission = converter(target).convert(graph, precision="int8", **names)
    return write_artifact(folder, "net", emission, graph.metadata)


def classifier(side=8, classes=5):
    b = Int8Builder((1, side, side, 3), 1)
    features = b.weighted("conv2d", b.input, (8, 3, 3, 3), stride=(2, 2), padding=(0, 1, 0, 1), activation="relu6")
    head = b.weighted("fully_connected", b.op("mean", features), (classes, 8))
    return b.graph(head, Metadata(model="net", preprocess=Preprocess(resize=(side, side))))


# --- what is there, and what is not ---


@pytest.mark.parametrize("name", CORES)
def test_every_core_has_a_board_and_limits(name):
    row = device(name)
    assert row.settings.flags[0] == f"-mcpu={name}"
    assert row.limits.precisions == ("int8",)
    assert row.limits.sram_kib
    assert row.limits.flash_kib
    assert row.tolerances.oracle_lsb == {"c": 0}


def test_a_setting_that_makes_no_sense_is_refused():
    settings = vars(device("cortex-m4").settings)
    record = {"kind": "cortex-m", "description": "", "targets": ["c"]}
    with pytest.raises(InputError, match="unknown setting 'machin'"):
        parse("d", {**record, "settings": {**settings, "machin": "x"}})
    with pytest.raises(InputError, match="code_kib is 0; it must be above 0"):
        parse("d", {**record, "settings": {**settings, "code_kib": 0}})


def test_what_is_not_set_up_is_status_3_with_the_command(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "empty"))
    path = written(classifier(), "c", tmp_path)
    assert missing(device("cortex-m7"), "c") == "edgecnn devices setup cortex-m7"
    assert main(["validate", str(path), "--data", "demo", "--device", "cortex-m7"]) == 3
    assert "install what it needs: edgecnn devices setup cortex-m7" in capfd.readouterr().err
    monkeypatch.setattr(tflm, "find_spec", lambda name: None)
    assert missing(device("mcu-tflm"), "tflite") == "pip install 'edgecnn[mcu]'"


def test_setting_up_needs_debian(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["devices", "setup", "cortex-m4"]) == 3
    assert "needs apt-get: use a Debian machine" in capfd.readouterr().err
    assert not toolchain.ready()


def test_a_float_network_does_not_go_on_a_microcontroller(tmp_path, capfd):
    save(float_graph(classifier()), tmp_path / "net.edgecnn")
    out = ["-o", str(tmp_path / "out")]
    assert main(["export", str(tmp_path / "net.edgecnn"), "--target", "c", "--quantize", "none", *out]) == 2
    assert "c is not written in fp32; it takes: int8" in capfd.readouterr().err
    assert main(["export", str(tmp_path / "net.edgecnn"), "--target", "tflite", "--quantize", "none", *out]) == 0
    words = ["validate", str(tmp_path / "out/net.tflite"), "--data", "demo", "--device", "mcu-tflm"]
    assert main(words) == 2
    assert "device 'mcu-tflm' does not run fp32 artifacts; it runs: int8" in capfd.readouterr().err


def test_what_c_cannot_hold_is_known_before_anything_is_written(tmp_path, capfd):
    b = Int8Builder((1, 5000), 0)
    save(b.graph(b.op("softmax", b.input)), tmp_path / "net.edgecnn")
    assert main(["export", str(tmp_path / "net.edgecnn"), "--target", "c", "-o", str(tmp_path / "out")]) == 2
    assert "c cannot hold softmax_1: softmax over 5000 classes; at most 4096" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


# --- an emulator that breaks: stand-ins for the tools ---


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Writes shell scripts in place of the compiler and the emulator."""
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))
    compiles = 'while [ "$1" != -o ]; do [ $# = 0 ] && exit 0; shift; done; : > "$2"'

    def write(emulator, compiler=compiles):
        for tool, script in ((toolchain.EMULATOR, emulator), (toolchain.COMPILER, compiler)):
            path = toolchain.tree(tool) / "usr/bin" / tool
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def session_of(tmp_path):
    return open_session(device("cortex-m4"), written(classifier(), "c", tmp_path))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo the core took a fault >&2; exit 1",
            "qemu-system-arm ended with status 1; its last output: the core took a",
        ),
        ("kill -SEGV $$", "qemu-system-arm was killed by SIGSEGV"),
        ("echo alive; sleep 60", r"qemu-system-arm did not end within 0\.5 s; its last output: alive"),
        ("printf 12345 > output.bin; : > costs.bin", "the emulator left 1 of 2 outputs"),
    ],
)
def test_an_emulator_that_breaks_says_how(script, said, stand_ins, tmp_path, monkeypatch):
    monkeypatch.setattr(cortex_m, "START_S", 0.5)
    monkeypatch.setattr(cortex_m, "IMAGE_S", 0.0)
    monkeypatch.setattr(cortex_m, "EMULATORS", 1)
    stand_ins(script)
    with pytest.raises(DeviceFault, match=said) as fault:
        session_of(tmp_path).run(random_images(classifier(), 2))
    assert "\n" not in str(fault.value)


def test_a_broken_emulator_is_status_1_and_the_other_devices_are_reported(stand_ins, tmp_path, capfd):
    stand_ins("exit 1")
    path = written(classifier(classes=16), "c", tmp_path)
    words = [
        "validate",
        str(path),
        "--data",
        "demo",
        "--limit",
        "4",
        "--device",
        "cortex-m4,host",
        "--reference",
        "none",
    ]
    assert main(words) == 1
    said = capfd.readouterr().out
    assert "device_faults: 1 faults, limit at most 0" in said
    assert re.search(r"\nhost ", said)


def test_a_compiler_that_breaks_says_how(stand_ins, tmp_path):
    stand_ins("exit 0", compiler="echo out of memory >&2; exit 4")
    with pytest.raises(DeviceFault, match="arm-none-eabi-gcc ended with status 4; its last output: out of memory"):
        session_of(tmp_path)


def test_a_network_that_does_not_fit_the_board_says_by_how_much(stand_ins, tmp_path):
    stand_ins("exit 0", 'echo "region \\`DATA\' overflowed by 1234 bytes" >&2; exit 1')
    with pytest.raises(UnsupportedError, match="board mps2-an386: 1234 bytes more than the 4096 KiB for data"):
        session_of(tmp_path)


# --- the real ones ---

NOT_IN_TFLM = {"relu6", "gelu", "exp", "log", "transpose_6"}
"""Alone, its RELU6 keeps the input's scale; it has no int8 kernel of the others, nor a transpose of six dimensions."""


@needs_tflm
@pytest.mark.parametrize("piece", sorted({*PIECES, *MORE_PIECES} - NOT_IN_TFLM))
def test_tflm_equals_the_oracle_bit_for_bit(piece, tmp_path):
    graph = piece_graph(piece, 1)
    path, images = written(graph, "tflite", tmp_path), random_images(graph, 2)
    session = LiteRtSession(path, kernels="builtin")
    made, said = tflm._interpret(path, session, {session.input.name: images})
    got = made[session.output.name]
    np.testing.assert_array_equal(got, run(graph, images)[graph.outputs[0]].reshape(got.shape))
    assert tflm.TOTAL.search(said)


@needs_tflm
def test_tflm_says_what_it_takes_and_too_much_fails_a_check(tmp_path):
    graph = classifier(side=320)
    path = written(graph, "tflite", tmp_path)
    subject = Subject(path=path, target="tflite", precision="int8", size_bytes=1, metadata=graph.metadata)
    (entry,) = check([subject], Checking(devices=("mcu-tflm",), limits=Limits(max_flash_kib=1e6)), None,
                     reference=None, oracle=None)  # fmt: skip
    assert entry.resources.arena_bytes > 320 * 320 * 3
    assert "needs 3 ops registered: CONV_2D, FULLY_CONNECTED, MEAN" in entry.findings[0].text
    assert {row.name: row.passed for row in entry.checks} == {"sram_kib": False, "flash_kib": True, "float_ops": True}


@needs_tflm
def test_tflm_takes_more_memory_than_our_c(tmp_path):
    from edgecnn_targets.runtimes.c import read_network

    graph = random_graph(3, 7)
    session = open_session(device("mcu-tflm"), written(graph, "tflite", tmp_path))
    assert session.activation_bytes >= read_network(written(graph, "c", tmp_path)).arena_bytes


@pytest.mark.slow
@needs_emulator
@pytest.mark.parametrize("name", CORES)
def test_every_core_computes_the_oracles_integers_in_a_constant_number_of_instructions(name, tmp_path):
    for graph in (piece_graph("squeeze_excite", 0), random_graph(6, 5), piece_graph("softmax", 2)):
        images = random_images(graph, 3)
        session = open_session(device(name), written(graph, "c", tmp_path))
        np.testing.assert_array_equal(session.run(images), run(graph, images)[graph.outputs[0]])
        place = device(name)
        first, second = (kind_of(place).measure(place, session) for _ in range(2))
        assert first == second
        assert first.latency.instructions > sum(int(np.prod(t.shape)) for t in graph.activations()[1:])
        assert first.resources.sram_kib * 1024 > first.resources.arena_bytes
        assert first.resources.flash_kib > 1


@pytest.mark.slow
@needs_emulator
def test_the_ops_instructions_add_up(tmp_path):
    graph = classifier()
    path = written(graph, "c", tmp_path)
    costs = layers(device("cortex-m4"), path)
    assert [cost.op for cost in costs] == [node.op for node in graph]
    session = open_session(device("cortex-m4"), path)
    whole = kind_of(device("cortex-m4")).measure(device("cortex-m4"), session).latency.instructions
    assert sum(cost.instructions for cost in costs) == pytest.approx(whole, rel=0.02)
    assert costs[0].instructions == max(cost.instructions for cost in costs)


@pytest.mark.slow
@needs_emulator
def test_what_a_core_has_no_memory_for_fails_its_checks(tmp_path, capfd):
    graph = classifier(side=320, classes=16)
    save(graph, tmp_path / "net.edgecnn")
    path = written(graph, "c", tmp_path)
    words = ["validate", str(path), "--data", "demo", "--limit", "2", "--device", "cortex-m4", "--reference", "none"]
    assert main(words) == 1
    assert re.search(r"sram_kib .*<= 256 +FAILED", capfd.readouterr().out)


def test_a_runtime_without_a_library_is_never_missing():
    assert runtime("c").missing() is None
