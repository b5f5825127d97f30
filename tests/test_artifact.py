"""Artifacts: ports convert exactly, manifests are held to their files, and no kill leaves a half artifact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.artifact import ConvertedModel, Manifest, Port, manifest_path, read_manifest, write_artifact
from edgecnn.errors import InputError
from edgecnn.files import write_atomic, write_json
from edgecnn.graph.ir import Metadata
from edgecnn.preprocess import Preprocess
from edgecnn.records import read_record

INPUT = Port(name="x", shape=(1, 4, 6, 3), layout="NHWC", dtype="int8", scale=0.02, zero_point=-3)
OUTPUT = Port(name="y", shape=(1, 10), layout="NC", dtype="float32")
METADATA = Metadata(
    model="mobilenet_v2",
    preprocess=Preprocess(resize=(224, 224)),
    labels=("cat", "dög"),
    label_offset=1,
    weights_sha256="0" * 64,
    quantization={"recipe": "default", "seed": 0},
)
SINGLE = {".tflite": b"T" * 1000}
PAIR = {".xml": b"X" * 500, ".bin": b"B" * 2000}


def emission(files=SINGLE, target="tflite") -> ConvertedModel:
    return ConvertedModel(target=target, precision="int8", files=files, inputs=(INPUT,), outputs=(OUTPUT,))


def write_one(directory: Path, **changes) -> Path:
    return write_artifact(directory, "net_0.75", emission(**changes), METADATA)


def edit(record: Path, **changes) -> None:
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


# --- ports


@given(st.integers(-(2**31), 2**31 - 1), st.sampled_from(["int8", "uint8", "int16"]), st.floats(1e-4, 10))
def test_decoding_and_encoding_again_keeps_every_integer(seed, dtype, scale):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(abs(seed))
    zero_point = int(rng.integers(limits.min, limits.max + 1))
    port = Port(name="x", shape=(1, 2, 3, 4), layout="NCHW", dtype=dtype, scale=scale, zero_point=zero_point)
    integers = rng.integers(limits.min, limits.max + 1, (5, 2, 3, 4)).astype(dtype)
    real = port.decode(integers)
    assert real.shape == (5, 3, 4, 2)
    assert np.array_equal(port.encode(real), integers)


def test_values_outside_the_range_saturate_and_do_not_wrap():
    far = np.array([-1e9, -2.6, 0.0, 1e9], np.float32).reshape(1, 1, 1, 4)
    port = replace(INPUT, shape=(1, 1, 1, 4))
    assert port.encode(far).ravel().tolist() == [-128, -128, -3, 127]


def test_float_ports_pass_values_and_only_the_layout_changes():
    real = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    planar = Port(name="x", shape=(1, 3, 4, 6), layout="NCHW", dtype="float32")
    assert planar.encode(real).shape == (2, 3, 4, 6)
    assert planar.encode(real).flags["C_CONTIGUOUS"]
    assert np.array_equal(planar.decode(planar.encode(real)), real)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "CHW"}, "allowed"),
        ({"layout": "NC"}, "has shape"),
        ({"dtype": "int32"}, "unknown port type 'int32'"),
        ({"dtype": "float32"}, "float32 neither"),
        ({"scale": None}, "integers have scale and zero point"),
        ({"zero_point": None}, "integers have scale and zero point"),
        ({"scale": 0.0}, "must be a finite number above 0"),
        ({"scale": float("nan")}, "must be a finite number above 0"),
    ],
)
def test_a_port_that_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(INPUT, **changes)


# --- manifests


@pytest.mark.parametrize(("files", "target"), [(SINGLE, "tflite"), (PAIR, "openvino")], ids=["one file", "a pair"])
def test_what_was_written_is_what_is_read(tmp_path, files, target):
    path = write_one(tmp_path / "new" / "out", files=files, target=target)
    assert path.suffix == next(iter(files))
    manifest = read_manifest(path, target)
    assert manifest is not None
    assert (manifest.input, manifest.output, manifest.metadata) == (INPUT, OUTPUT, METADATA)
    assert {n: f["size_bytes"] for n, f in manifest.files.items()} == {
        f"net_0.75{suffix}": len(data) for suffix, data in files.items()
    }
    assert manifest_path(path, target).name == f"net_0.75.{target}.json"
    assert read_record(Manifest, json.loads(json.dumps(manifest.to_json())), "manifest") == manifest


def test_the_same_artifact_gives_the_same_bytes(tmp_path):
    once, twice = write_one(tmp_path / "a"), write_one(tmp_path / "b")
    assert once.read_bytes() == twice.read_bytes()
    assert manifest_path(once, "tflite").read_bytes() == manifest_path(twice, "tflite").read_bytes()


def test_an_artifact_without_a_manifest_is_none(tmp_path):
    path = write_one(tmp_path)
    manifest_path(path, "tflite").unlink()
    assert read_manifest(path, "tflite") is None


def test_one_flipped_bit_in_any_file_is_found(tmp_path):
    for victim in (".xml", ".bin"):
        path = write_one(tmp_path, files=PAIR, target="openvino")
        changed = bytearray(path.with_suffix(victim).read_bytes())
        changed[len(changed) // 2] ^= 1
        path.with_suffix(victim).write_bytes(changed)
        with pytest.raises(InputError, match=rf"net_0\.75{victim} is not the file .* \(sha256 differs\)"):
            read_manifest(path, "openvino")


def test_a_missing_second_file_is_named(tmp_path):
    path = write_one(tmp_path, files=PAIR, target="openvino")
    path.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match=r"cannot read .*net_0\.75\.bin, which net_0\.75\.openvino\.json names"):
        read_manifest(path, "openvino")


def test_a_manifest_of_another_artifact_is_refused(tmp_path):
    path = write_one(tmp_path)
    renamed = path.rename(tmp_path / "other.tflite")
    manifest_path(path, "tflite").rename(manifest_path(renamed, "tflite"))
    with pytest.raises(InputError, match=r"describes net_0\.75\.tflite \(tflite\), not other\.tflite"):
        read_manifest(renamed, "tflite")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "{}", "\x00", '{"input": []}'])
def test_a_file_that_is_no_manifest_is_one_line(tmp_path, text):
    path = write_one(tmp_path)
    manifest_path(path, "tflite").write_text(text)
    with pytest.raises(InputError, match="is not a readable manifest") as caught:
        read_manifest(path, "tflite")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["target", "precision", "files", "input", "output", "metadata"])
@pytest.mark.parametrize("value", [None, 7, "x", ["resize"], {"a": 1}, {"a\x00b": {"sha256": "0", "size_bytes": 1}}])
def test_a_manifest_with_a_wrong_value_is_one_line(tmp_path, key, value):
    path = write_one(tmp_path)
    edit(manifest_path(path, "tflite"), **{key: value})
    with pytest.raises(InputError) as caught:
        read_manifest(path, "tflite")
    assert str(manifest_path(path, "tflite")) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../net_0.75.tflite", "/etc/hostname", "a/b", "..", ".", ""])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path, name):
    path = write_one(tmp_path)
    edit(manifest_path(path, "tflite"), files={name: {"sha256": "0", "size_bytes": 1}})
    with pytest.raises(InputError, match="plain name"):
        read_manifest(path, "tflite")


def test_an_unknown_key_is_refused_so_that_nothing_is_dropped_unseen(tmp_path):
    path = write_one(tmp_path)
    edit(manifest_path(path, "tflite"), surprise=1)
    with pytest.raises(InputError, match="surprise"):
        read_manifest(path, "tflite")


# --- writing


def test_a_folder_that_cannot_be_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another place with -o"):
        write_one(tmp_path / "file")
    with pytest.raises(InputError, match="choose another place with -o"):
        write_atomic(tmp_path, b"")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_read_only_folder_is_an_input_error(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)  # not chmod: root may write anywhere
    with pytest.raises(InputError, match="Permission denied; choose another place with -o"):
        write_one(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    write_atomic(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tflite"]


def test_json_refuses_what_json_has_not(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_artifact import PAIR, SINGLE, write_one

touching = ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "tempfile.mkstemp")
directory, files, target = Path(sys.argv[1]), *((PAIR, "openvino") if sys.argv[3] == "pair" else (SINGLE, "tflite"))
old, new = files, {suffix: data.lower() for suffix, data in files.items()}

step = 0
while True:
    place = directory / str(step)
    write_one(place, files=old, target=target)
    child = os.fork()
    if child == 0:
        left = step
        def count(event, arguments):
            global left
            if event in touching and str(place) in str(arguments[0]):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
        sys.addaudithook(count)
        write_one(place, files=new, target=target)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    step += 1
print(step)
"""


@pytest.mark.parametrize(("kind", "files", "target"), [("one", SINGLE, "tflite"), ("pair", PAIR, "openvino")])
def test_sigkill_before_any_step_leaves_the_old_artifact_the_new_one_or_none(tmp_path, kind, files, target):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent), kind],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    steps = int(done.stdout)
    assert steps >= 5 * (len(files) + 1) - 2, "the kill must come before every unlink, create, chmod and rename"
    seen = set()
    for step in range(steps + 1):
        main = tmp_path / str(step) / f"net_0.75{next(iter(files))}"
        if not main.exists():
            assert not manifest_path(main, target).exists()
            seen.add("none")
            continue
        versions = {"old": files, "new": {suffix: data.lower() for suffix, data in files.items()}}
        left = {suffix: main.with_suffix(suffix).read_bytes() for suffix in files}
        (version,) = (name for name, content in versions.items() if content == left)
        manifest = read_manifest(main, target)
        seen.add((version, manifest is not None))
    assert seen >= {("old", True), ("new", False), ("new", True)}


def test_a_manifest_lists_all_software_that_made_the_artifact(tmp_path):
    manifest = read_manifest(write_one(tmp_path), "tflite")
    assert manifest is not None
    assert {"edgecnn", "numpy", "torch"} <= set(manifest.versions)
    components = {row["name"]: row for row in manifest.sbom["components"]}
    assert set(manifest.versions) <= set(components)
    assert {"python", "sympy"} <= set(components), "what a library requires is listed too"
    assert components["numpy"]["purl"] == f"pkg:pypi/numpy@{manifest.versions['numpy']}"
