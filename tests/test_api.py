"""The Python API: what is public, what it takes, what it returns, and how it says that it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import nn

import edgecnn
from edgecnn.cli import main
from edgecnn.graph.ir import QuantizedConstant

PUBLIC = (
    "Artifact DeviceFault EdgecnnError InputError Limits MissingDependencyError Network Preprocess Progress "
    "QuantizedNetwork Recipe Report UnsupportedError benchmark compare convert export inspect load quantize sweep "
    "validate"
)
FED = edgecnn.Preprocess(mean=127.5, std=127.5)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), np.uint8)
LABELS = np.arange(40) % 4


class Pairs(torch.utils.data.Dataset):
    """The images and their labels, as torch has them: channels first."""

    def __init__(self, breaks_at=None):
        self.breaks_at = breaks_at

    def __len__(self):
        return len(PIXELS)

    def __getitem__(self, index):
        if index == self.breaks_at:
            raise OSError("the disk\nis gone")
        return torch.from_numpy(PIXELS[index]).permute(2, 0, 1), int(LABELS[index])


def module():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def network():
    return edgecnn.load(module(), input_shape=(3, 24, 24), preprocess=FED, name="own")


@pytest.fixture(scope="module")
def quantized(network):
    return edgecnn.quantize(network, PIXELS)


def test_the_public_names_are_these_and_importing_them_is_light():
    assert sorted(edgecnn.__all__) == sorted(PUBLIC.split())
    assert set(PUBLIC.split()) <= set(dir(edgecnn))
    for name in edgecnn.__all__:
        documented = getattr(edgecnn, name)
        assert documented.__doc__, name
        assert documented is getattr(edgecnn, name), "a module of the same name does not take its place"
    script = "import sys, edgecnn; print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "name", ["benchmark", "compare", "convert", "export", "inspect", "load", "quantize", "sweep", "validate"]
)
def test_every_function_says_what_it_takes_raises_and_how_it_is_used(name):
    said = getattr(edgecnn, name).__doc__
    for part in ("Args:", "Raises:", "Example:"):
        assert part in said, part


def test_a_name_that_is_not_public_lists_those_that_are():
    with pytest.raises(AttributeError, match="has no attribute 'quantise'; it has: Artifact"):
        edgecnn.quantise  # noqa: B018  # reading it is the test


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_an_own_module_becomes_a_checked_artifact(quantized, target, tmp_path):
    artifact = edgecnn.convert(quantized, target).save(tmp_path)
    assert artifact.path.is_file()
    assert artifact.size_bytes == sum(map(len, artifact.files.values()))
    assert (tmp_path / "own.edgecnn").is_file()
    limits = edgecnn.Limits(min_agreement=50, min_sqnr=5, max_drop=50)
    accepted = {"allow_float": True, "allow_loss": True}  # it is not trained: fp32 is at chance
    for given in (artifact, artifact.path):
        report = edgecnn.validate(given, PIXELS, labels=LABELS, limits=limits, exact_kernels=True, **accepted)
        (entry,) = report.entries
        assert report.passed, report
        assert entry.accuracy.n == 40
        assert entry.accuracy.top1 is not None
        assert entry.parity.max_lsb <= 1
    assert {check.name for check in entry.checks} == {"drop", "agreement", "sqnr_db", "oracle_lsb"}


def test_a_registered_metric_is_measured_and_can_be_required(quantized):
    artifact = edgecnn.convert(quantized, "tflite")
    met = edgecnn.validate(artifact, PIXELS, limits=edgecnn.Limits(require=("cosine>=0.9", "cosine <= 1.001")))
    assert met.passed
    assert 0.9 <= met.to_dict()["entries"][0]["accuracy"]["cosine"] <= 1.001
    missed = edgecnn.validate(artifact, PIXELS, limits=edgecnn.Limits(require=("cosine<=0.1",)))
    assert [line.split(": ")[1] for line in missed.failures] == ["cosine"]
    with pytest.raises(edgecnn.InputError, match="unknown figure 'cosin'.*cosine"):
        edgecnn.validate(artifact, PIXELS, limits=edgecnn.Limits(require=("cosin>=1",)))
    for text in ("cosine", "cosine=1", "cosine>=nan", ">=1"):
        with pytest.raises(edgecnn.InputError, match="give NAME>=VALUE or NAME<=VALUE"):
            edgecnn.Limits(require=(text,))


def test_without_images_what_needs_none_is_measured(quantized):
    report = edgecnn.validate(edgecnn.convert(quantized, "tflite"), limits=edgecnn.Limits(max_lsb=0))
    (entry,) = report.entries
    assert report.passed
    assert entry.latency.median_ms > 0
    assert (entry.parity.max_lsb, entry.accuracy.n, entry.accuracy.agreement) == (0, 0, None)


def test_without_labels_there_is_agreement_and_no_top1(quantized):
    (entry,) = edgecnn.validate(edgecnn.convert(quantized, "tflite"), PIXELS).entries
    assert entry.accuracy.agreement == 100
    assert (entry.accuracy.top1, entry.accuracy.drop) == (None, None)


def test_a_report_is_what_the_command_prints(quantized, tmp_path, capfd):
    artifact = edgecnn.convert(quantized, "tflite").save(tmp_path)
    np.savez(tmp_path / "images.npz", x_test=PIXELS, y_test=LABELS)
    data = f"{tmp_path / 'images.npz'}:test"
    made = edgecnn.validate(artifact.path, data).to_dict()
    capfd.readouterr()
    assert main(["validate", str(artifact.path), "--data", data, "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert set(printed) == set(made)
    for entry in (made["entries"][0], printed["entries"][0]):
        del entry["latency"], entry["seconds"]
    assert json.loads(json.dumps(made["entries"])) == printed["entries"]


GIVEN = {
    "array": lambda: PIXELS,
    "list": lambda: list(PIXELS),
    "batches": lambda: [PIXELS[:16], PIXELS[16:]],
    "generator": lambda: (image for image in PIXELS),
    "dataset": Pairs,
    "loader": lambda: torch.utils.data.DataLoader(Pairs(), batch_size=16),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_images_come_in_any_form_and_give_the_same_integers(kind, network, quantized):
    made = edgecnn.quantize(network, GIVEN[kind]())
    assert made.graph.metadata.quantization["calibration"]["images"] == 40
    for name, tensor in quantized.graph.tensors.items():
        other = made.graph.tensors[name]
        if not isinstance(tensor, QuantizedConstant):
            # the order of the images moves ranges by less than a histogram's bin
            np.testing.assert_allclose(other.quant.scale, tensor.quant.scale, rtol=0.05)
    (entry,) = edgecnn.validate(edgecnn.convert(made, "tflite"), PIXELS).entries
    assert entry.accuracy.agreement == 100


@pytest.mark.parametrize("kind", ["dataset", "loader"])
def test_labels_of_a_dataset_are_used(kind, quantized):
    (entry,) = edgecnn.validate(edgecnn.convert(quantized, "tflite"), GIVEN[kind]()).entries
    (same,) = edgecnn.validate(edgecnn.convert(quantized, "tflite"), PIXELS, labels=LABELS).entries
    assert entry.accuracy == same.accuracy


def test_arrays_that_are_network_inputs_already_are_fed_as_they_are(network):
    as_is = edgecnn.load(module(), input_shape=(3, 24, 24), preprocess=edgecnn.Preprocess.as_is())
    inputs = FED.normalise(PIXELS)
    made = edgecnn.quantize(as_is, inputs)
    (entry,) = edgecnn.validate(edgecnn.convert(made, "tflite"), inputs, labels=LABELS).entries
    assert entry.accuracy.agreement == 100
    assert entry.accuracy.sqnr_db >= golden("sqnr")["export"]["as_it_is_fed"]
    with pytest.raises(edgecnn.InputError, match=r"uint8; this network is fed arrays as they are"):
        edgecnn.quantize(as_is, PIXELS)


REFUSED = {
    "a shape": (
        lambda n: edgecnn.quantize(n, PIXELS[0]),
        r"images are uint8 \(24, 24, 3\); give uint8 levels of",
    ),
    "a type": (lambda n: edgecnn.quantize(n, PIXELS / 255.0), "images are float64 from 0 to 1; give uint8 levels"),
    "channels first": (lambda n: edgecnn.quantize(n, PIXELS.transpose(0, 3, 1, 2)), "images have 24 channels, last"),
    "an iterator read before": (lambda n: edgecnn.quantize(n, iter([])), "list_iterator gives no images; an iterator"),
    "a dataset that raises": (
        lambda n: edgecnn.quantize(n, Pairs(breaks_at=7)),
        r"Pairs, after \d+ items, raised OSError: the disk is gone \(.*test_api.py:\d+\)",
    ),
    "a number": (lambda n: edgecnn.quantize(n, 5), "images are a int; allowed: a folder, FILE.npz:SPLIT, demo, an arr"),
    "labels too few": (
        lambda n: edgecnn.validate(edgecnn.convert(n, "tflite"), PIXELS, labels=LABELS[:3]),
        r"labels are int64 \(3,\); give 40 class indices from 0",
    ),
    "a class too many": (
        lambda n: edgecnn.validate(edgecnn.convert(n, "tflite"), PIXELS, labels=LABELS + 9),
        "has class 12, logit 12",
    ),
    "no labels for a limit": (
        lambda n: edgecnn.validate(edgecnn.convert(n, "tflite"), PIXELS, limits=edgecnn.Limits(max_drop=1)),
        "the images have no labels; pass labels=",
    ),
    "no images": (lambda n: edgecnn.quantize(n), "int8 needs calibration images"),
    "a precision": (lambda n: edgecnn.quantize(n, PIXELS, precision="int4"), "unknown precision 'int4'"),
    "a recipe": (lambda n: edgecnn.quantize(n, PIXELS, recipe="fst"), "unknown recipe 'fst'"),
    "a target": (lambda n: edgecnn.convert(n, "tflit"), "unknown target 'tflit'"),
    "a float network as int8": (lambda n: edgecnn.convert(n, "tflite", precision="int8"), "own is fp32"),
    "progress": (lambda n: edgecnn.quantize(n, PIXELS, progress=print), "progress is a builtin_function_or_method"),
    "a training module": (
        lambda n: edgecnn.load(module().train(), input_shape=(3, 24, 24), preprocess=FED),
        "Sequential is in training mode; call its eval",
    ),
    "a module elsewhere": (
        lambda n: edgecnn.load(module().to("meta"), input_shape=(3, 24, 24), preprocess=FED),
        "'0.weight' is on meta; move it with cpu",
    ),
    "no preprocessing": (lambda n: edgecnn.load(module(), input_shape=(3, 24, 24)), "does not say how images become"),
    "no input shape": (lambda n: edgecnn.load(module(), preprocess=FED), "does not fix the input size"),
    "no model": (lambda n: edgecnn.load(object()), "the model is a object; give a name"),
    "weights of a module": (lambda n: edgecnn.load(module(), weights="demo"), "--weights cannot change a module"),
    "weights of a network": (lambda n: edgecnn.export(n, weights="demo"), "weights are for load, not for a Network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_error(case, network):
    act, message = REFUSED[case]
    with pytest.raises(edgecnn.EdgecnnError, match=message) as caught:
        act(network)
    assert "\n" not in str(caught.value)


def test_networks_and_artifacts_show_themselves(network, quantized):
    assert repr(network).startswith("Network own: fp32, input 24x24x3, 4 outputs")
    assert repr(quantized).startswith("QuantizedNetwork own: int8 by recipe fast, input 24x24x3")
    assert "<th>QuantizedNetwork own</th>" in quantized._repr_html_()
    assert repr(edgecnn.convert(quantized, "tflite")).endswith("MB, not saved")
    layers = edgecnn.inspect(quantized)
    assert len(layers) == len(quantized.graph.nodes)
    assert "conv2d" in repr(layers)
    assert "<td>conv2d</td>" in layers._repr_html_()


class Heard(edgecnn.Progress):
    """Keeps what it is told."""

    def __init__(self):
        self.lines, self.tracked = [], []

    def track(self, items, description, total=None):
        self.tracked.append(description)
        yield from items

    def say(self, line):
        self.lines.append(line)


def test_progress_can_be_replaced_and_silenced(network, capfd):
    heard = Heard()
    edgecnn.quantize(network, PIXELS, progress=heard)
    assert "calibrate" in heard.tracked
    assert any(line.startswith("quantize") and "recipe fast" in line for line in heard.lines)
    capfd.readouterr()
    edgecnn.quantize(network, PIXELS, progress=edgecnn.Progress())
    assert capfd.readouterr() == ("", "")


def test_a_network_is_read_again_from_its_file(quantized, tmp_path):
    path = quantized.save(tmp_path)
    again = edgecnn.load(path)
    assert isinstance(again, edgecnn.QuantizedNetwork)
    assert again.recipe == "fast"
    for target in ("tflite", "onnx", "openvino"):
        assert edgecnn.convert(again, target).files == edgecnn.convert(quantized, target).files
    found = edgecnn.compare(again, edgecnn.convert(quantized, "tflite"), PIXELS)
    assert found.same_integers
    assert found.max_lsb <= 1


def test_the_whole_street_in_one_call_is_what_the_command_does(tmp_path):
    words = ["--target", "tflite", "--weights", "demo", "--calibration", "demo", "--calibration-images", "40"]
    assert main(["export", "mobilenet_v2_0.35_96", *words, "-o", str(tmp_path / "command")]) == 0
    report = edgecnn.export(
        "mobilenet_v2_0.35_96",
        weights="demo",
        calibration="demo",
        calibration_images=40,
        output=tmp_path / "call",
        progress=edgecnn.Progress(),
    )
    assert report.passed
    name = "mobilenet_v2_0.35_96.tflite"
    assert (tmp_path / "call" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    made = json.loads((tmp_path / "call" / "report.json").read_text())
    assert made == json.loads(json.dumps(replace(report).to_dict()))


def test_benchmark_has_a_cell_for_everything(tmp_path, network):
    cells = edgecnn.benchmark(
        ["mobilenet_v2_0.35_96", "mobilenet_v1"],
        data="demo",
        limit=10,
        calibration="demo",
        targets=["tflite"],
        precisions=["int8"],
        output=tmp_path,
        progress=edgecnn.Progress(),
    )
    assert [(cell.model, cell.status) for cell in cells] == [("mobilenet_v2_0.35_96", "ok"), ("mobilenet_v1", "failed")]
    assert "needs --weights FILE" in cells[1].error
