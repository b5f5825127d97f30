"""Images in folders, with class folders or a table of labels, and subsets of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecnn.data import match_labels, open_images, stratified
from edgecnn.data.decode import resize_arrays
from edgecnn.data.training import open_training, training_parts
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

SMALL = Preprocess(resize=(8, 10))


def picture(path, seed=0, size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def classes(tmp_path):
    tmp_path = tmp_path / "classes"
    for k, name in enumerate(("cat", "dog", "eel")):
        for i in range(4):
            picture(tmp_path / name / f"{i}.png", 10 * k + i)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    picture(tmp_path / "dog" / ".hidden.png")
    return tmp_path


@pytest.fixture
def table(tmp_path):
    tmp_path = tmp_path / "table"
    lines = ["file,class_index"]
    for i in range(6):
        picture(tmp_path / "images" / f"{i}.jpg", i)
        lines.append(f"{i}.jpg,{i * 2}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def opened(folder, labelled=True, **options):
    return open_images(str(folder), demo_split="test", labelled=labelled, **options)


def for_training(where):
    return open_training(str(where), SMALL, seed=0, drawn=(4, 4))


def everything(images, preprocess=SMALL, size=5):
    pixels, labels = zip(*images.batches(preprocess, size), strict=True)
    return np.concatenate(pixels), None if labels[0] is None else np.concatenate(labels)


def test_class_folders_are_classes_by_name(classes):
    images = opened(classes)
    pixels, labels = everything(images)
    assert images.classes == ("cat", "dog", "eel")
    assert pixels.shape == (12, 8, 10, 3)
    assert pixels.dtype == np.uint8
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_images_are_named_below_their_folder_batch_by_batch(classes):
    images = opened(classes)
    names = [list(images.names) for _ in images.batches(SMALL, 5)]
    assert [len(part) for part in names] == [5, 5, 2]
    files = sorted(p.relative_to(classes).as_posix() for p in classes.rglob("[!.]*.png"))
    assert [name for part in names for name in part] == files


def test_folders_named_by_numbers_are_those_classes(tmp_path):
    for k in (0, 2, 10):
        picture(tmp_path / str(k) / "a.png", k)
    images = opened(tmp_path)
    assert images.classes is None
    assert everything(images)[1].tolist() == [0, 2, 10]


def test_a_table_of_labels(table):
    assert everything(opened(table))[1].tolist() == [0, 2, 4, 6, 8, 10]
    assert len(opened(table, labelled=False)) == 6


def test_any_folder_serves_for_calibration(classes, tmp_path):
    assert len(opened(classes, labelled=False)) == 12
    picture(tmp_path / "flat" / "a.BMP")
    assert len(opened(tmp_path / "flat", labelled=False)) == 1


def test_a_limit_is_spread_over_the_classes_and_a_shuffle_is_seeded(classes):
    assert everything(opened(classes, limit=3))[1].tolist() == [0, 1, 2]
    a, b, c = (everything(opened(classes, shuffle=s))[1].tolist() for s in (1, 1, 2))
    assert a == b != c
    assert sorted(a) == sorted(c)


def test_the_digest_is_of_the_images_read_in_any_order(classes):
    def digest(**options):
        images = opened(classes, **options)
        everything(images)
        return images.digest

    whole = digest()
    assert whole == digest(shuffle=3)
    assert whole != digest(limit=5)
    picture(classes / "cat" / "0.png", 99)
    assert whole != digest()


def test_grey_and_transparent_images_are_read_as_rgb(tmp_path):
    picture(tmp_path / "a.png", mode="L")
    picture(tmp_path / "b.png", mode="RGBA")
    picture(tmp_path / "c.png", mode="P")
    assert everything(opened(tmp_path, labelled=False))[0].shape == (3, 8, 10, 3)


@pytest.mark.parametrize(
    ("preprocess", "shape"),
    [
        (Preprocess(resize=(8,)), (8, 10)),
        (Preprocess(resize=(8,), crop=(6, 6)), (6, 6)),
        (Preprocess(resize=None), (16, 20)),
        (Preprocess(resize=None, crop=(4, 5)), (4, 5)),
    ],
)
def test_resize_and_crop(tmp_path, preprocess, shape):
    picture(tmp_path / "a.png")
    assert everything(opened(tmp_path, labelled=False), preprocess)[0].shape == (1, *shape, 3)


def test_bilinear_resize_is_pillows(tmp_path):
    path = picture(tmp_path / "a.png", 5)
    want = np.asarray(Image.open(path).resize((10, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(everything(opened(tmp_path, labelled=False))[0][0], want)
    np.testing.assert_array_equal(resize_arrays(np.asarray(Image.open(path))[None], SMALL)[0], want)


def spoil(path, how):
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello", "half": data[: len(data) // 2]}[how])


@pytest.mark.parametrize("how", ["empty", "text", "half"])
def test_bad_images_are_named_and_counted_and_stop_the_run(classes, how):
    for name in ("cat/1.png", "dog/2.png"):
        spoil(classes / name, how)
    with pytest.raises(
        InputError, match=r"2 of 12 images .* cannot be read, the first .*cat.1\.png .*--skip-bad-images"
    ):
        everything(opened(classes))
    images = opened(classes, skip_bad=True)
    pixels, labels = everything(images)
    assert len(pixels) == 10
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert len(images.bad) == 2
    assert "1.png" in images.bad[0]


def test_nothing_but_bad_images(tmp_path):
    picture(tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="none of the 1 images"):
        everything(opened(tmp_path, labelled=False, skip_bad=True))


def test_images_smaller_than_the_crop_and_of_different_sizes(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"16x20 pixels are less than the crop of 99x99"):
        everything(opened(tmp_path, labelled=False), Preprocess(resize=None, crop=(99, 99)))
    picture(tmp_path / "b.png", size=(30, 30))
    with pytest.raises(InputError, match=r"b\.png is 30x30 pixels, others 16x20"):
        everything(opened(tmp_path, labelled=False), Preprocess(resize=None))


@pytest.mark.parametrize("labelled", [True, False])
def test_no_folder_and_empty_folders(tmp_path, labelled):
    with pytest.raises(InputError, match="is not a folder"):
        opened(tmp_path / "none", labelled)
    with pytest.raises(InputError, match="no (labelled )?images in"):
        opened(tmp_path, labelled)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="no (labelled )?images in"):
        opened(tmp_path, labelled)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has columns a, b; it needs file,class_index"),
        ("", "has columns none"),
        ("file,class_index\n", "lists no images"),
        ("file,class_index\n0.jpg,cat\n", "line 2: '0.jpg','cat'"),
        ("file,class_index\n0.jpg,-1\n", "line 2"),
        ("file,class_index\n0.jpg\n", "line 2"),
        ("file,class_index\nnone.jpg,1\n", "lists 1 images that are not in .*the first 'none.jpg'"),
    ],
)
def test_a_wrong_table_says_which_line(table, text, message):
    (table / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        opened(table)


def test_labels_are_matched_with_the_network(classes, table):
    folder = opened(classes)
    assert match_labels(folder, ("dog", "cat", "eel", "fox"), 4, 0).tolist() == [1, 0, 2]
    assert match_labels(folder, None, 4, 1).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="unknown class 'dog' .*allowed: cat, eel"):
        match_labels(folder, ("cat", "eel"), 2, 0)
    with pytest.raises(InputError, match="3 class folders but the network has 1000 outputs"):
        match_labels(folder, None, 1000, 0)
    assert len(match_labels(opened(table), None, 11, 0)) == 11
    with pytest.raises(InputError, match="has class 10, logit 10 .*10 outputs"):
        match_labels(opened(table), None, 10, 0)
    with pytest.raises(InputError, match="has class 10, logit 11 with --label-offset 1"):
        match_labels(opened(table), None, 11, 1)


def test_training_folders(classes, tmp_path):
    training, held_out = for_training(classes)
    assert training.classes == ("cat", "dog", "eel")
    assert len(training.labels) + len(held_out.labels) == 12
    assert training.pixels(np.array([0, 3])).shape == (2, 8, 10, 3)
    spoil(classes / "cat" / "0.png", "text")
    with pytest.raises(InputError, match="0.png cannot be read"):
        training.pixels(np.arange(len(training.labels)))
        held_out.pixels(np.arange(len(held_out.labels)))
    split = tmp_path / "split"
    for part in ("train", "val"):
        for name in ("a", "b"):
            picture(split / part / name / "0.png")
    assert len(for_training(split)[1].labels) == 2
    assert training_parts(str(split)) == (str(split / "train"), str(split / "val"))
    (split / "val" / "b").rename(split / "val" / "c")
    with pytest.raises(InputError, match="different class folders"):
        for_training(split)


def test_a_calibration_folder_says_of_how_many_classes_it_is(tmp_path):
    for k, folder in enumerate(["a", "a", "b", "c"]):
        picture(tmp_path / "folders" / folder / f"{k}.png", k)
        picture(tmp_path / "table" / "images" / f"{k}.png", k)
        picture(tmp_path / "flat" / f"{k}.png", k)
    (tmp_path / "table" / "labels.csv").write_text("file,class_index\n0.png,5\n1.png,5\n2.png,5\n3.png,7\n")
    kinds = {
        name: open_images(str(tmp_path / name), demo_split="test", labelled=False).kinds
        for name in ("folders", "table", "flat")
    }
    assert kinds == {"folders": 3, "table": 2, "flat": None}


@given(st.lists(st.integers(0, 6), min_size=1, max_size=80), st.integers(0, 2**32 - 1), st.data())
def test_a_subset_has_every_class_by_its_share(labels, seed, data):
    labels = np.array(labels)
    wanted = data.draw(st.integers(1, len(labels)))
    chosen = stratified(labels, wanted, seed)
    assert len(set(chosen.tolist())) == wanted
    assert chosen.tolist() == sorted(chosen)
    assert chosen.tolist() == stratified(labels, wanted, seed).tolist()
    for k in set(labels.tolist()):
        assert abs(np.count_nonzero(labels[chosen] == k) - np.count_nonzero(labels == k) * wanted / len(labels)) < 1


def test_the_seed_chooses_the_images_of_a_subset():
    labels = np.repeat(np.arange(4), 50)
    subsets = {tuple(stratified(labels, 20, seed)) for seed in range(5)}
    assert len(subsets) == 5
    sets = [open_images("demo", demo_split="test", labelled=True, limit=40, seed=seed).labels for seed in (0, 0, 1)]
    assert sets[0].tolist() == sets[1].tolist()
    assert [np.bincount(s, minlength=16).max() - np.bincount(s, minlength=16).min() for s in sets] <= [2, 2, 2]
