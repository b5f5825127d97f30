"""The real emulators on the demo model: the host's bits, the same counts every time, wherever the cache is.

They are set up where they can be (a Debian machine with its package sources); where not, the reason is the skip's.
"""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from graphs import PIECES, piece_graph
from int8_builder import Int8Builder, random_images

from edgecnn.child import Runner
from edgecnn.cli import main
from edgecnn.errors import EdgecnnError
from edgecnn.graph.ir import QParams
from edgecnn.graph.oracle import run
from edgecnn_converters.tflite import convert
from edgecnn_targets.cache import VARIABLE, cache_dir
from edgecnn_targets.devices import device
from edgecnn_targets.kinds import qemu
from edgecnn_targets.registry import kind_of
from edgecnn_targets.runtimes import litert

pytestmark = pytest.mark.slow

MODEL = "mobilenet_v2_0.35_96"


@pytest.fixture(scope="module", params=["cortex-a53", "cortex-a76"])
def emulated(request, tmp_path_factory):
    """A device that is set up, with nothing answered yet: answers go to a cache of the test's own."""
    try:
        kind_of(device(request.param)).setup(device(request.param), print)
    except EdgecnnError as error:
        pytest.skip(f"{request.param} cannot be set up here: {error}")
    own = tmp_path_factory.mktemp("cache")
    (own / "qemu").symlink_to(cache_dir() / "qemu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(own))
        yield request.param


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An int8 ``.tflite`` file of the demo model, with an ``.onnx`` file for Arm beside it."""
    out = tmp_path_factory.mktemp("demo")
    words = ["export", MODEL, "--target", "tflite", "--weights", "demo", "--calibration", "demo", "-o", str(out)]
    assert main([*words, "--calibration-images", "40"]) == 0
    words = ["export", str(out / f"{MODEL}.edgecnn"), "--target", "onnx", "--device", "cortex-a53", "-o", str(out)]
    assert main(words) == 0
    return out / f"{MODEL}.tflite"


def validated(capfd, artifact, name, limit=8):
    capfd.readouterr()
    assert main(["validate", str(artifact), "--data", "demo", "--limit", str(limit), "--device", name, "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    return entry


def test_it_gives_the_hosts_bits_and_the_same_counts_every_time(emulated, artifact, capfd):
    first = validated(capfd, artifact, emulated)
    assert first["beside_host"] == {"n": 8, "max_lsb": 0, "agreement": 100.0}
    mix = first["resources"]["instruction_mix"]
    assert sum(mix.values()) == first["latency"]["instructions"]
    assert ("dot" in mix) is (emulated == "cortex-a76"), "only the Cortex-A76 multiplies bytes four at a time"
    shutil.rmtree(cache_dir() / "results")
    second = validated(capfd, artifact, emulated)
    for part in ("accuracy", "latency", "parity", "resources", "checks"):
        assert second[part] == first[part], part


@pytest.mark.parametrize("emulated", ["armv7", "x86-avx2"], indirect=True)
def test_the_other_instruction_sets_pass_with_the_same_counts_every_time(emulated, artifact, capfd):
    first = validated(capfd, artifact, emulated, limit=4)
    shutil.rmtree(cache_dir() / "results")
    second = validated(capfd, artifact, emulated, limit=4)
    for part in ("accuracy", "latency", "parity", "resources", "checks"):
        assert second[part] == first[part], part


def test_onnx_runtimes_count_is_the_same_in_every_run(emulated, artifact, capfd):
    """Nor does it matter on which core of this machine it runs, or that so many seconds have passed."""
    if emulated != "cortex-a53":
        pytest.skip("one device is enough for what does not depend on it")
    counts = []
    for core in (0, max(os.sched_getaffinity(0)), 0):
        shutil.rmtree(cache_dir() / "results", ignore_errors=True)
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core} if core in allowed else allowed)
        try:
            entry = validated(capfd, artifact.with_suffix(".onnx"), emulated, limit=1)
        finally:
            os.sched_setaffinity(0, allowed)
        counts.append((entry["latency"]["instructions"], entry["resources"]))
    assert counts[1:] == counts[:-1]


def test_its_layers_add_up_to_the_whole(emulated, artifact, capfd):
    if emulated != "cortex-a53":
        pytest.skip("one device is enough for what does not depend on it")
    whole = validated(capfd, artifact, emulated, limit=1)["latency"]["instructions"]
    assert main(["inspect", str(artifact), "--device", emulated, "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["entries"]
    assert len(rows) == 64
    assert min(row["instructions"] for row in rows) > 0
    assert sum(row["instructions"] for row in rows) == pytest.approx(whole, rel=2e-3)


def halves(seed):
    """Means over pixels of which most are half way between two integers."""
    builder = Int8Builder((1, 7, 7, 64), seed)
    odd = 2 * seed + 1
    scale = np.float32(builder.quant(builder.input).scale[0]) / 49 * 2 * odd
    out = QParams(scale=np.array([scale]), zero_point=np.array([3 * seed - 40]), dtype="int8")
    return builder.graph(builder.op("mean", builder.input, out=out))


@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_every_op_has_the_oracles_bits(emulated, kernels):
    """The reference kernels round there as they do here, XNNPACK as it does on Arm, in every op that it runs."""
    graphs = {piece: piece_graph(piece, 1) for piece in PIECES} | {f"halves {k}": halves(k) for k in range(6)}
    arithmetic = {"xnnpack": "xnnpack_arm", "reference": "litert"}[kernels]
    worst = {}
    runner = Runner(qemu.command(device(emulated)))
    try:
        for name, graph in graphs.items():
            images, (content,) = random_images(graph, 4), convert(graph, precision="int8").files.values()
            opening = {"do": "open", "target": "tflite", "threads": 1, "kernels": litert.RESOLVERS[kernels]}
            runner.ask(opening, content, within_s=300)
            details, _ = runner.answer()
            runner.ask({"do": "run"}, images.tobytes(), within_s=300)
            want = run(graph, images, arithmetic=arithmetic)[graph.outputs[0]].astype(int)
            got = np.frombuffer(runner.answer()[1], np.int8).reshape(want.shape)
            delegated = any(op["op_name"] == "DELEGATE" for op in details["ops"])
            if delegated or kernels == "reference":
                worst[name] = int(np.abs(got - want).max())
    finally:
        runner.close()
    assert {name: lsb for name, lsb in worst.items() if lsb} == {}
    assert len(worst) > len(graphs) / 2
