"""Data sets in the layouts of Hugging Face's ``datasets`` and of TFDS, and folders with ``train/`` and ``val/``."""

from __future__ import annotations

import io
import json
import struct
import sys

import numpy as np
import pytest
from commands import error_of
from PIL import Image

from edgecnn.benchmarking import benchmark
from edgecnn.cli import main
from edgecnn.data import open_images
from edgecnn.data.tfds import masked_crc
from edgecnn.data.training import open_training
from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.preprocess import Preprocess

SMALL = Preprocess(resize=(8, 10))
CLASSES = ("cat", "dog")


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "png")
    return made.getvalue()


def pixels(seed):
    return np.asarray(Image.open(io.BytesIO(png(seed))))


def opened(root, use="test", labelled=True, **options):
    return open_images(str(root), demo_split=use, labelled=labelled, **options)


def everything(images):
    batches = list(images.batches(SMALL, 3))
    labels = [labels for _, labels in batches if labels is not None]
    return np.concatenate([x for x, _ in batches]), np.concatenate(labels).tolist() if labels else None


def assert_holds(images, seeds, labels, classes=CLASSES):
    x, y = everything(images)
    assert y == labels
    assert images.classes == classes
    assert all(np.array_equal(image, pixels(seed)) for image, seed in zip(x, seeds, strict=True))
    assert len(images.digest) == 64


# --- train/ and val/ ---


@pytest.fixture
def split(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for k, name in enumerate(CLASSES):
            for i in range(count):
                file = tmp_path / "split" / part / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(png(10 * k + i))
    return tmp_path / "split"


def test_train_is_for_calibration_and_val_for_the_data(split):
    assert_holds(opened(split), [0, 1, 10, 11], [0, 0, 1, 1])
    calibration = opened(split, "calibration", labelled=False)
    assert len(calibration) == 6
    assert calibration.kinds == 2
    assert opened(split / "train").classes == CLASSES
    (split / "val").rename(split / "validation")
    assert len(opened(split)) == 4
    training, held_out = open_training(str(split), SMALL, seed=0, drawn=(1, 1))
    assert (len(training.labels), len(held_out.labels)) == (6, 4)


def test_export_says_which_part_it_calibrates_on(split, tmp_path, capfd):
    words = ["export", "mobilenet_v2_0.35_32", "--weights", "random", "--recipe", "minmax", "--no-guard"]
    words += ["--label-offset", "998", "--data", str(split), "-o", str(tmp_path / "out"), "--allow-loss"]
    assert main(words) == 0
    said = capfd.readouterr().err
    assert f"has train/ and val/; calibration: {split / 'train'}" in said
    assert f"has train/ and val/; test: {split / 'val'}" in said


def test_benchmark_calibrates_on_it_too(split, monkeypatch):
    given = []

    def executor(data, calibration, metric):
        given.append(calibration)
        raise InputError("enough")

    monkeypatch.setattr("edgecnn.benchmarking._executor", executor)
    with pytest.raises(InputError, match="enough"):
        benchmark(["mobilenet_v2_0.35_32"], data=str(split), weights="random")
    assert given == [str(split)]


# --- Hugging Face: ImageFolder ---


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize(("labels", "classes"), [(["dog", "cat", "dog"], CLASSES), ([1, 0, 1], None)])
def test_an_image_folder_lists_its_labels(tmp_path, suffix, labels, classes):
    names = ["b/1.png", "0.png", "2.png"]
    (tmp_path / "b").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(png(int(name[-5])))
    rows = [{"file_name": name, "label": label} for name, label in zip(names, labels, strict=True)]
    text = "\n".join(map(json.dumps, rows)) if suffix == "jsonl" else "file_name,label\n" + "\n".join(
        f"{row['file_name']},{row['label']}" for row in rows
    )  # fmt: skip
    (tmp_path / f"metadata.{suffix}").write_text(text + "\n")
    assert_holds(opened(tmp_path), [1, 0, 2], [1, 0, 1], classes)
    assert opened(tmp_path, labelled=False).labels is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "file,label\na.png,1\n", "has columns file, label; each image needs file_name"),
        ("metadata.csv", "file_name,label\nnone.png,1\n", "lists 1 images that are not there, the first .*none.png"),
        ("metadata.csv", "file_name,label\na.png,\n", "image 0 has no label"),
        ("metadata.csv", "file_name,text\na.png,cat\n", "has no labels: its images need a column"),
        ("metadata.jsonl", "{", "cannot read .*metadata.jsonl"),
    ],
)
def test_a_wrong_table_of_an_image_folder(tmp_path, name, text, message):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        opened(tmp_path)


# --- Hugging Face: parquet and arrow ---

FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(CLASSES)}}


def arrow_table(seeds, labels):
    pyarrow = pytest.importorskip("pyarrow", reason="parquet and arrow files need pyarrow")
    images = [{"bytes": png(seed), "path": None} for seed in seeds]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array(images, kind), "label": pyarrow.array(labels, pyarrow.int64())})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})


def write_parquet(path, seeds, labels, group=2):
    table = arrow_table(seeds, labels)
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=group)


def test_parquet_files_are_read_by_split(tmp_path):
    write_parquet(tmp_path / "data/train-00000-of-00001.parquet", [7, 8], [0, 1])
    write_parquet(tmp_path / "data/validation-00000-of-00002.parquet", [0, 1, 2], [1, 0, 1])
    write_parquet(tmp_path / "data/validation-00001-of-00002.parquet", [3], [0])
    assert_holds(opened(tmp_path), [0, 1, 2, 3], [1, 0, 1, 0])
    assert len(opened(tmp_path, "calibration", labelled=False)) == 2
    assert len(opened(tmp_path, limit=2)) == 2
    training, held_out = open_training(str(tmp_path), SMALL, seed=0, drawn=(1, 1))
    assert len(training.labels) + len(held_out.labels) == 2


def test_arrow_files_of_save_to_disk(tmp_path):
    table = arrow_table([4, 5, 6], [0, 1, 1])
    import pyarrow

    with pyarrow.OSFile(str(tmp_path / "data-00000-of-00001.arrow"), "wb") as sink, pyarrow.ipc.new_stream(
        sink, table.schema
    ) as writer:  # fmt: skip
        writer.write_table(table, max_chunksize=2)
    (tmp_path / "state.json").write_text("{}")
    assert_holds(opened(tmp_path), [4, 5, 6], [0, 1, 1])


def test_parquet_without_names_of_splits_or_classes_says_so(tmp_path):
    write_parquet(tmp_path / "a-1.parquet", [0], [0])
    write_parquet(tmp_path / "b-1.parquet", [0], [0])
    with pytest.raises(InputError, match="has splits a, b; name one val or valid or validation"):
        opened(tmp_path)
    (tmp_path / "a-1.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "b-1.parquet").unlink()
    with pytest.raises(InputError, match=r"cannot read .*a-1.parquet"):
        opened(tmp_path)


def test_without_pyarrow_the_command_that_installs_it_is_said(tmp_path, monkeypatch, capfd):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"need pyarrow: pip install 'edgecnn\[parquet\]'"):
        opened(tmp_path)
    words = ["export", "mobilenet_v2_0.35_96", "--calibration", tmp_path, "-o", tmp_path / "out"]
    assert "pip install 'edgecnn[parquet]'" in error_of(capfd, *words, status=3)


# --- TFDS ---


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value):
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def example(image, label, names=("image", "label")):
    values = {names[0]: field(1, field(1, image)), names[1]: field(3, field(1, varint(label)))}
    entries = b"".join(field(1, field(1, key.encode()) + field(2, value)) for key, value in values.items())
    return field(1, entries)


def write_shard(path, examples):
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = [struct.pack("<Q", len(data)) for data in examples]
    rows = [n + struct.pack("<I", masked_crc(n)) + d + b"\0\0\0\0" for n, d in zip(sizes, examples, strict=True)]
    path.write_bytes(b"".join(rows))


@pytest.fixture
def animals(tmp_path):
    root = tmp_path / "animals"
    write_shard(root / "1.0.0/animals-train.tfrecord-00000-of-00001", [example(png(9), 0)])
    old = {"featuresDict": {"features": {
        "photo": {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"},
        "kind": {"pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"},
    }}}  # fmt: skip
    newest = root / "1.0.10"
    for part, seeds in (("train", (6, 7, 8)), ("test", (0, 1))):
        shards = [example(png(seed), seed % 2, ("photo", "kind")) for seed in seeds]
        write_shard(newest / f"animals-{part}.tfrecord-00000-of-00002", shards[:1])
        write_shard(newest / f"animals-{part}.tfrecord-00001-of-00002", shards[1:])
    (newest / "features.json").write_text(json.dumps(old))
    (newest / "kind.labels.txt").write_text("cat\ndog\n")
    return root


def test_shards_of_tfds_are_read_by_split_from_the_newest_version(animals):
    assert_holds(opened(animals), [0, 1], [0, 1])
    assert_holds(opened(animals / "1.0.10", "calibration"), [6, 7, 8], [0, 1, 0])
    assert opened(animals, "calibration", labelled=False).kinds == 2


def test_shards_without_a_description_have_the_usual_features(tmp_path):
    names = ("image/encoded", "image/class/label")
    write_shard(tmp_path / "imagenet-validation.tfrecord", [example(png(3), 300, names)])
    assert_holds(opened(tmp_path), [3], [300], None)


def test_a_damaged_shard_says_where(animals):
    shard = animals / "1.0.10/animals-test.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    for data in (whole[:-3], b"\x1f\x8b" + whole[2:], whole + b"more"):
        shard.write_bytes(data)
        with pytest.raises(InputError, match="is damaged or compressed at byte"):
            opened(animals)
    shard.rename(shard.with_name("animals-test.array_record-00001-of-00002"))
    with pytest.raises(InputError, match="is array_record; only TFRecord shards are read"):
        opened(animals)


def test_the_checksum_is_crc_32c():
    crc = 0xE3069283  # of the check string, RFC 3720
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.slow
def test_what_tensorflow_writes_is_read(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    shard = tmp_path / "animals-test.tfrecord-00000-of-00001"
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for seed in range(3):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(seed)]))
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[seed]))
            other = tf.train.Feature(float_list=tf.train.FloatList(value=[1.5]))
            features = tf.train.Features(feature={"image": image, "label": label, "score": other})
            writer.write(tf.train.Example(features=features).SerializeToString())
    assert_holds(opened(tmp_path), [0, 1, 2], [0, 1, 2], None)
