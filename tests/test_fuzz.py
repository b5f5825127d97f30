"""Files that are not as they should be: former faults, and a short campaign; ``make fuzz`` runs a long one."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz.campaign import FAULTS, run, tried
from fuzz.networks import kept, printed
from fuzz.networks import tried as network_tried
from fuzz.seeds import corpus
from PIL import Image

from edgecnn.budget import Budget, parsed, use
from edgecnn.cli import main
from edgecnn.data.arrays import load_array_set
from edgecnn.data.decode import BadImageError, decode
from edgecnn.data.folders import labelled_files
from edgecnn.errors import InputError
from edgecnn.models.weightfile import read_tensors
from edgecnn.preprocess import Preprocess
from edgecnn.reading import reading
from edgecnn.records import read_file
from edgecnn_converters.openvino.reader import layers
from edgecnn_targets.devices import device

READ = (
    "artifact",
    "runtime",
    "network",
    "manifest",
    "weights",
    "image",
    "arrays",
    "recipe",
    "device",
    "labels",
    "record",
)
SOUND_BUT_REFUSED = ("w.h5",)  # weights of another model


@pytest.fixture(scope="module")
def seeds():
    return corpus()


def test_every_sound_file_is_read(seeds, tmp_path):
    assert {seed.kind for seed in seeds} >= set(READ)
    for number, seed in enumerate(s for s in seeds if s.kind in READ and s.name not in SOUND_BUT_REFUSED):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert tried(seed.kind, seed.name, dict(seed.files), folder) == ("read", ""), seed.name


def test_no_mutated_file_is_a_fault(seeds):
    outcomes = list(run(20, range(len(seeds)), 2, seeds))
    assert len(outcomes) == len(seeds)
    assert {o.state for o in outcomes} <= {"read", "refused"}, [o for o in outcomes if o.state in FAULTS]
    assert sum(o.state == "refused" for o in outcomes) > len(seeds) / 2


def test_random_networks_are_the_reference_kernels_or_say_why_not(capsys):
    rows = [*map(network_tried, (0, 1, 2)), network_tried(37)]
    assert [row["state"] for row in rows] == ["equal"] * 3 + ["default"]  # a softmax over 1,980 pixels
    refused = "TFLite cannot hold conv2d_3 (test.conv2d_3, a multiplier of 300.5)"
    rows += [{"number": 4, "state": "unsupported", "said": refused.replace("3", k)} for k in "12"]
    assert printed(rows, ()) == 0
    assert "3 equal, 1 default, 2 unsupported" in (said := capsys.readouterr().out)
    assert said.count("\n") == 2
    assert printed([*rows, {"number": 9, "state": "differs", "said": "1 LSB"}], ()) == 1


def test_networks_go_on_where_they_were_stopped_unless_sources_changed(tmp_path):
    file = tmp_path / "out" / "rows.jsonl"
    assert kept(file, "key") == []
    with file.open("a") as out:
        out.write('{"number": 1, "state": "equal"}\n{"number": 2, "sta')
    assert [row["number"] for row in kept(file, "key")] == [1]
    with file.open("a") as out:
        out.write('{"number": 3, "state": "equal"}\n')
    assert [row["number"] for row in kept(file, "key")] == [1, 3]
    assert kept(file, "other") == []
    assert file.read_text() == "other\n"


# --- former faults ---


def zeros(shape, dtype="u1"):
    """An archive whose few bytes claim an array of zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def test_an_archive_that_claims_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x_test.npy", "w") as file:
        file.write(zeros((20, 1024, 1024, 1)))
        file.write(bytes(20 * 2**20))
    assert path.stat().st_size < 2**20
    refused = pytest.raises(InputError, match=r"takes 20.0 MiB once unpacked; at most 8.0 MiB are read: --max-memory")
    with use(Budget(memory=8 * 2**20)), refused:
        load_array_set(f"{path}:test", labelled=False)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test.npy", zeros((10**5, 1024, 1024, 1)))
    with pytest.raises(InputError, match="'x_test' claims 104857600000 bytes, of which the archive has"):
        load_array_set(f"{path}:test", labelled=False)


def test_what_is_not_used_is_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x_test=np.zeros((2, 4, 4, 3), np.uint8), x_train=np.zeros((2, 1024, 1024, 3), np.uint8))
    with use(Budget(memory=2**20)):
        assert len(load_array_set(f"{path}:test", labelled=False)) == 2
        with pytest.raises(InputError, match="once unpacked"):
            load_array_set(f"{path}:train", labelled=False)


def test_a_checkpoint_that_claims_more_than_it_has_is_refused(tmp_path):
    import torch

    torch.save({"a": torch.zeros(1).expand(2**15, 2**15)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="once unpacked"):
        read_tensors(tmp_path / "w.pt")


def test_an_image_of_too_many_pixels_is_refused_by_its_header():
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "png")
    with pytest.raises(BadImageError, match="9000x9000 pixels; at most 67108864 are read"):
        decode(buffer.getvalue(), Preprocess(resize=(8, 8)))


def test_a_constant_that_feeds_itself_ends(tmp_path):
    xml = (
        '<net><layers><layer id="0" name="c" type="Const">'
        '<data element_type="u8" offset="0" shape="1" size="1"/></layer>'
        '<layer id="1" name="a" type="Add"><output><port><dim>1</dim></port></output></layer></layers>'
        '<edges><edge from-layer="0" to-layer="0"/><edge from-layer="1" to-layer="1"/>'
        '<edge from-layer="0" to-layer="1"/></edges></net>'
    )
    assert len(layers(xml.encode(), b"\0")) <= 1


def test_sums_of_sums_of_constants_do_not_double_each_time():
    ids = range(1, 60)
    adds = "".join(f'<layer id="{k}" name="a{k}" type="Add"/>' for k in ids)
    edges = "".join(f'<edge from-layer="{k - 1}" to-layer="{k}"/>' * 2 for k in ids)
    const = '<layer id="0" name="c" type="Const"><data element_type="u8" offset="0" shape="1" size="1"/></layer>'
    assert layers(f"<net><layers>{const}{adds}</layers><edges>{edges}</edges></net>".encode(), b"\0") == []


@pytest.mark.parametrize(("name", "text"), [("r.json", "[" * 100_000), ("r.toml", "x = " + "[" * 100_000)])
def test_what_is_nested_too_deeply_is_one_line(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"cannot read .*{name}"):
        read_file(Budget, tmp_path / name)
    if name.endswith(".toml"):
        with pytest.raises(InputError, match=r"r.toml is not TOML"):
            device(str(tmp_path / name))


def test_a_listed_name_that_no_system_has_is_one_line(tmp_path):
    (tmp_path / "labels.csv").write_text(f"file,class_index\n{'a' * 70000}.png,1\n")
    with pytest.raises(InputError, match=r"labels.csv cannot be read: it is damaged \(OSError: .*File name too long"):
        labelled_files(tmp_path)


def test_a_graph_whose_structure_is_nonsense_is_one_line(tmp_path, capfd):
    header = {"__metadata__": {"edgecnn": json.dumps({"format": 1, "nodes": 3})}}
    text = json.dumps(header).encode()
    (tmp_path / "n.edgecnn").write_bytes(struct.pack("<Q", len(text)) + text)
    assert main(["inspect", str(tmp_path / "n.edgecnn")]) == 2
    assert re.match(r"edgecnn: error: the graph in .*n.edgecnn cannot be read", capfd.readouterr().err)


def test_hdf5_that_the_library_chokes_on_is_refused_in_a_child(tmp_path, monkeypatch):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 20)
    with pytest.raises(InputError, match="is not an HDF5 file, or a damaged one"):
        read_tensors(tmp_path / "w.h5")
    slow = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("edgecnn.hdf5.subprocess.run", lambda command, **more: REAL(slow, **{**more, "timeout": 0.3}))
    with pytest.raises(InputError, match="HDF5 hangs on it"):
        read_tensors(tmp_path / "w.h5")
    killed = [sys.executable, "-c", "import os; os.abort()"]
    monkeypatch.setattr("edgecnn.hdf5.subprocess.run", lambda command, **more: REAL(killed, **more))
    with pytest.raises(InputError, match="HDF5 was ended by signal 6"):
        read_tensors(tmp_path / "w.h5")


REAL = subprocess.run


def test_the_boundary_keeps_what_was_raised_as_the_cause():
    with (
        pytest.raises(InputError, match=r"x.bin cannot be read: it is damaged \(KeyError: 'a' \(") as found,
        reading("x.bin"),
    ):
        {}["a"]
    assert isinstance(found.value.__cause__, KeyError)
    with pytest.raises(InputError, match="mine"), reading("x.bin"):
        raise InputError("mine")


OWN_FAULTS = {
    "a name that is not there": "nothing",
    "a module that is not there": "import nothing_of_this_name",
    "a name that a module lacks": "from edgecnn.errors import nothing",
    "an attribute that a module lacks": "import edgecnn.errors; edgecnn.errors.nothing",
    "an attribute that a class lacks": "from edgecnn.graph.ir import Tensor; Tensor(name='a', shape=(1,)).nothing",
    "an assertion": "assert False",
}
CONTENTS = {"an attribute of what a file holds": "None.nothing", "a key": "{}['a']", "a size": "[1][7]"}


def raised(text, module):
    """Run a line as if it stood in a module, below `reading`."""
    with reading("x.bin"):
        exec(text, {"__name__": module})


@pytest.mark.parametrize("text", OWN_FAULTS.values(), ids=OWN_FAULTS)
def test_what_no_file_makes_is_a_fault_of_ours(text):
    with pytest.raises(Exception, match="nothing|^$") as found:
        raised(text, "edgecnn_converters.onnx.importer")
    assert not isinstance(found.value, InputError)


@pytest.mark.parametrize("text", [*CONTENTS.values(), "assert False"], ids=[*CONTENTS, "an assertion of a library"])
def test_what_a_file_may_make_is_a_damaged_file(text):
    with pytest.raises(InputError, match=r"x\.bin cannot be read: it is damaged"):
        raised(text, "onnx.numpy_helper")


@pytest.mark.parametrize("error", [KeyError("a"), ValueError("b")])
def test_a_fault_behind_the_import_is_no_damaged_file(error, tmp_path, seeds, monkeypatch, capfd):
    made = {"__name__": "edgecnn.import_check", "error": error}
    exec("def breaks(*given): raise error", made)
    seed = next(s for s in seeds if s.name == "net.onnx" and s.kind == "network")
    for name, data in seed.files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("edgecnn.import_check.check_import", made["breaks"])
    words = ["export", str(tmp_path / seed.name), "--quantize", "none", "--target", "onnx", "-o", str(tmp_path)]
    assert main(words) == 70
    assert "internal error: " in capfd.readouterr().err


def test_a_budget_is_given_as_a_size():
    assert [parsed(text).memory for text in ("2GiB", "800m", "1.5 g", "1048576")] == [
        2**31, 800 * 2**20, 3 * 2**29, 2**20
    ]  # fmt: skip
    for text in ("", "x", "1 PB", "-1", "10"):
        with pytest.raises(InputError, match=r"no size|at least 1 MiB"):
            parsed(text)


def test_external_data_is_read_beside_the_file_it_belongs_to(tmp_path, monkeypatch, seeds):
    seed = next(s for s in seeds if set(s.files) == {"net.onnx", "net.data"})
    folder = tmp_path / "dossier é 東"
    folder.mkdir()
    for name, data in seed.files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("link.onnx").symlink_to(folder / "net.onnx")
    for given in (folder / "net.onnx", Path("link.onnx"), Path("..") / folder.name / "net.onnx"):
        assert tried("network", given.name, {}, given.parent) == ("read", "")
        assert main(["inspect", str(given)]) == 0
    (folder / "net.data").write_bytes(b"")
    state, said = tried("network", "net.onnx", {}, folder)
    assert (state, "external data 'net.data' is truncated: 0 bytes" in said) == ("refused", True)
