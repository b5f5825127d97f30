"""The real emulators on the demo model: the host's bits, the same counts every time, wherever the cache is.

They are set up where they can be (a Debian machine with its package sources); where not, the reason is the skip's.
"""

from __future__ import annotations

import json
import shutil

import pytest

from edgecnn.cli import main
from edgecnn.errors import EdgecnnError
from edgecnn_targets.cache import cache_dir
from edgecnn_targets.devices import device
from edgecnn_targets.registry import setup

pytestmark = pytest.mark.slow

MODEL = "mobilenet_v2_0.35_96"


@pytest.fixture(scope="module", params=["cortex-a53", "cortex-a76"])
def emulated(request):
    """A device that is set up, with nothing answered yet."""
    try:
        setup(device(request.param), print)
    except EdgecnnError as error:
        pytest.skip(f"{request.param} cannot be set up here: {error}")
    shutil.rmtree(cache_dir() / "results", ignore_errors=True)
    return request.param


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An int8 file of the demo model."""
    out = tmp_path_factory.mktemp("demo")
    words = ["export", MODEL, "--target", "tflite", "--weights", "demo", "--calibration", "demo", "-o", str(out)]
    assert main([*words, "--calibration-images", "40"]) == 0
    return out / f"{MODEL}.tflite"


def validated(capfd, artifact, name):
    capfd.readouterr()
    assert main(["validate", str(artifact), "--data", "demo", "--limit", "20", "--device", name, "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    return entry


def test_it_gives_the_hosts_bits_and_the_same_counts_every_time(emulated, artifact, capfd):
    first = validated(capfd, artifact, emulated)
    assert first["beside_host"] == {"n": 16, "max_lsb": 0, "agreement": 100.0}
    mix = first["resources"]["instruction_mix"]
    assert sum(mix.values()) == first["latency"]["instructions"]
    assert ("dot" in mix) is (emulated == "cortex-a76"), "only the Cortex-A76 multiplies bytes four at a time"
    shutil.rmtree(cache_dir() / "results")
    second = validated(capfd, artifact, emulated)
    for part in ("accuracy", "latency", "parity", "resources", "checks"):
        assert second[part] == first[part], part


def test_its_layers_add_up_to_the_whole(emulated, artifact, capfd):
    if emulated != "cortex-a53":
        pytest.skip("one device is enough for what does not depend on it")
    whole = validated(capfd, artifact, emulated)["latency"]["instructions"]
    assert main(["inspect", str(artifact), "--device", emulated, "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert len(rows) == 64
    assert min(row["instructions"] for row in rows) > 0
    assert sum(row["instructions"] for row in rows) == pytest.approx(whole, rel=2e-3)
