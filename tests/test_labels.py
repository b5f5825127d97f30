"""Class names from files and folders, and maps from a data set's classes to a network's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import error_of
from PIL import Image
from torch import nn

import edgecnn
from edgecnn.cli import main
from edgecnn.data import match_labels, open_images
from edgecnn.errors import InputError
from edgecnn.labels import fitting, read_class_map, read_labels
from edgecnn_converters.registry import converter


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


FED = edgecnn.Preprocess(resize=(16, 16), mean=127.5, std=127.5)


@pytest.fixture
def photos(tmp_path):
    """A folder of classes, two images each."""
    for k, name in enumerate(("kitten", "puppy", "wolf")):
        for i in range(2):
            place = tmp_path / "photos" / name
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * k + i).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "photos"


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "\ufeffcat\n dog \nwild wolf\n\n"),
        ("labels.json", ["cat", "dog", "wild wolf"]),
        ("index.json", {"1": "dog", "0": "cat", "2": "wild wolf"}),
        ("keras.json", {"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "wild wolf"]}),
        ("config.json", {"id2label": {"0": "cat", "1": "dog", "2": "wild wolf"}, "model_type": "vit"}),
        ("label2id.json", {"dog": 1, "wild wolf": 2, "cat": 0}),
    ],
)
def test_labels_are_read_in_the_forms_that_people_have(tmp_path, name, content):
    assert read_labels(written(tmp_path / name, content)) == ("cat", "dog", "wild wolf")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "has 0 class names"),
        ("a.txt", "cat\n\ndog\n", "some of them empty"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "3", "holds a int"),
        ("a.json", {"0": "cat", "2": "dog"}, "the indices are not 0 to 1"),
        ("a.json", [1, 2], "no text"),
    ],
)
def test_a_wrong_label_file_says_what_it_may_hold(tmp_path, name, content, message):
    with pytest.raises(InputError, match=f"{message}.*give a name per line"):
        read_labels(written(tmp_path / name, content))
    with pytest.raises(InputError, match="cannot read .*No such file"):
        read_labels(tmp_path / "none.txt")


def test_labels_are_as_many_as_classes_or_outputs():
    assert fitting(["a", "b"], 2, 0) == ("a", "b")
    assert fitting(["a", "b"], 3, 1) == ("a", "b")
    assert fitting(["background", "a", "b"], 3, 1) == ("a", "b")
    assert fitting(["a"], None, 0) == ("a",)
    with pytest.raises(InputError, match="2 labels were given, but the network has 5 outputs; give 5, or 4"):
        fitting(["a", "b"], 5, 1)


def test_a_class_map_is_json_or_csv(tmp_path):
    expected = {"kitten": "cat", "puppy": "1"}
    assert read_class_map(written(tmp_path / "m.json", {"kitten": "cat", "puppy": 1})) == expected
    assert read_class_map(written(tmp_path / "m.csv", "kitten, cat\n\npuppy,1\n")) == expected
    for content in ("kitten\n", "a,b,c\n", ""):
        with pytest.raises(InputError, match="is no class map; give a JSON object"):
            read_class_map(written(tmp_path / "m.csv", content))


def matched(where, labels, class_map, outputs=3):
    images = open_images(str(where), demo_split="test", labelled=True, class_map=class_map)
    return match_labels(images, labels, outputs, 0).tolist()


def test_classes_are_found_by_name_in_any_order_and_by_a_map(photos):
    assert matched(photos, ("wolf", "puppy", "kitten"), None) == [2, 1, 0]
    assert matched(photos, ("cat", "dog", "wolf"), {"kitten": "cat", "puppy": "dog"}) == [0, 1, 2]
    assert matched(photos, ("cat", "dog", "wolf"), {"kitten": "cat", "puppy": "2"}) == [0, 2, 2]
    assert matched(photos, None, {"kitten": "2", "puppy": "0", "wolf": "1"}) == [2, 0, 1]
    with pytest.raises(InputError, match=r"unknown class 'kitten' \(2 such\); allowed: cat, dog, wolf; --class-map"):
        matched(photos, ("cat", "dog", "wolf"), None)
    with pytest.raises(InputError, match="class map of .*photos: unknown class 'kiten'.*did you mean 'kitten'"):
        matched(photos, ("cat", "dog", "wolf"), {"kiten": "cat"})
    with pytest.raises(InputError, match="has class 7, logit 7"):
        matched(photos, None, {"kitten": "7", "puppy": "0", "wolf": "1"})


def test_indices_of_an_array_are_mapped_to_labels():
    images = open_images(np.zeros((3, 16, 16, 3), np.uint8), demo_split="test", labelled=True, labels=[0, 1, 2],
                         class_map={"0": "dog", "1": "cat"})  # fmt: skip
    assert match_labels(images, ("cat", "dog", "wolf"), 3, 0).tolist() == [1, 0, 2]


def exported(tmp_path, photos, *options):
    words = ["export", "test_labels:net", "--preprocess", str(FED), "--quantize", "none", "--data", str(photos)]
    assert main([*words, "-o", str(tmp_path / "out"), *map(str, options)]) == 0
    path = tmp_path / "out" / "net.tflite"
    return converter("tflite").described(path)[2].labels


def test_class_folders_are_the_labels_of_a_network_without_any(tmp_path, photos, capfd):
    assert exported(tmp_path, photos) == ("kitten", "puppy", "wolf")
    assert "the labels are the names of the data's 3 classes" in capfd.readouterr().err


def test_labels_and_a_class_map_on_the_command_line(tmp_path, photos, capfd):
    labels = written(tmp_path / "labels.txt", "wolf\ncat\ndog\n")
    names = written(tmp_path / "names.csv", "kitten,cat\npuppy,dog\n")
    assert exported(tmp_path, photos, "--labels", labels, "--class-map", names) == ("wolf", "cat", "dog")
    artifact = tmp_path / "out" / "net.tflite"
    assert main(["validate", str(artifact), "--data", str(photos), "--class-map", str(names), "--json"]) == 0
    line = error_of(capfd, "validate", artifact, "--data", photos)
    assert "unknown class 'kitten' (2 such); allowed: wolf, cat, dog" in line
    few = written(tmp_path / "few.txt", "wolf\ncat\n")
    words = ["export", "test_labels:net", "--preprocess", str(FED), "--quantize", "none", "--labels", few]
    assert "2 labels were given, but the network has 3 outputs" in error_of(capfd, *words, "-o", tmp_path / "no")
    assert not (tmp_path / "no" / "net.tflite").exists()


def test_python_takes_labels_as_a_list_or_a_file(tmp_path):
    path = written(tmp_path / "labels.txt", "cat\ndog\nwolf\n")
    for labels in (("cat", "dog", "wolf"), path, str(path)):
        network = edgecnn.load(net(), preprocess=FED, labels=labels)
        assert network.labels == ("cat", "dog", "wolf")
    with pytest.raises(InputError, match="2 labels were given"):
        edgecnn.load(net(), preprocess=FED, labels=["cat", "dog"])
