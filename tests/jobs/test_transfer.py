"""Files of jobs on workers that do not see those of the driver: each comes to a worker once, by its digest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import job_functions as functions
import numpy as np
import pytest
from commands import DEMO

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgecnn[dask]'")
import edgecnn
from edgecnn.data import demo
from edgecnn.errors import InputError
from edgecnn.jobs import LocalExecutor, Status, Task
from edgecnn.jobs.dask_executor import CACHE, FETCHED, Cluster, DaskExecutor
from edgecnn.jobs.transfer import FileInput, digest_of_files, located, pack, unpack
from edgecnn.models.shipped import shipped_weights
from edgecnn.sweeping import cluster as sweep_cluster
from edgecnn.sweeping.cluster import executor_of
from edgecnn.sweeping.inputs import digest_of, file_input
from edgecnn.sweeping.run import Loop
from edgecnn.sweeping.spec import Engine
from edgecnn.sweeping.stages import Stage, elsewhere
from edgecnn.sweeping.store import Store

HERE = Path("/proc/self/cwd")  # of each process another folder
READING = "job_functions:reading"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a path that is another in each process")


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Two workers in processes and folders of their own, which do not see the folder of this process."""
    import distributed

    folder = tmp_path_factory.mktemp("apart")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    scratch = str(folder / "scratch")
    with distributed.LocalCluster(**options, local_directory=scratch) as made, distributed.Client(made) as client:
        for address in client.scheduler_info()["workers"]:
            own = folder / address.rpartition(":")[2]
            own.mkdir()
            client.run(os.chdir, own, workers=[address])
        yield client


@pytest.fixture
def driver(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a").write_text("image")
    (tmp_path / "weights").write_text("weights")
    monkeypatch.chdir(tmp_path)


def chains(count):
    """Return last stages on one that reads the weights; each says whether it sees them under the driver's path."""
    weights = str(HERE / "weights")
    settings = {"name": "first", "weights": weights, "seen": weights}
    first = Stage(READING, "first", settings, {"weights": digest_of(weights)})
    names = [f"last{k}" for k in range(count)]
    return [Stage(READING, name, {"name": name, "seen": weights, "seconds": 0.5}, parent=first) for name in names]


def run(executor, folder, stages):
    loop = Loop(Store(folder), executor, Engine(), until=None, seen=lambda progress: None)
    return {last.name: result for last, _, result in loop.results(stages)}


def cached(dask_worker):
    return [path.name for path in (Path(dask_worker.local_directory) / CACHE).iterdir()]


@linux
def test_weights_and_results_come_to_a_worker_once_by_their_digest(apart, driver):
    stages = chains(6)
    with DaskExecutor(Cluster(scheduler=apart.scheduler.address, options={})) as executor:
        found = run(executor, HERE / "out", stages)
        listed = executor.on_workers(cached)
    assert {result.status for result in found.values()} == {Status.OK}
    assert {result.value["text"] for result in found.values()} == {"weights first"}
    assert not any(result.value["seen"] for result in found.values())  # not under the driver's path
    fetched = Counter(tuple(event) for _, event in apart.get_events(FETCHED))
    assert set(fetched.values()) == {1}
    digests = {digest_of_files(Path("weights")), digest_of_files(Path("out") / "files" / stages[0].parent.digest)}
    assert {digest for _, digest in fetched} == digests
    assert {(address, digest) for address, names in listed.items() for digest in names} == set(fetched)
    assert not apart.list_datasets()  # nothing is left at the scheduler
    for stage in stages:
        text = Path("out", "files", stage.digest, "made").read_text()
        assert text == f"weights first {stage.name}"
        assert stage.name in Path("out", "logs", f"{stage.digest}.log").read_text()
    with LocalExecutor(2) as local:
        assert {name: result.value["text"] for name, result in run(local, Path("here"), stages).items()} == {
            name: result.value["text"] for name, result in found.items()
        }


@linux
def test_files_of_the_same_content_and_other_names_come_once(apart, driver):
    for name in ("one", "two"):
        Path(name).write_text("the same")
    before = len(apart.get_events(FETCHED))
    with DaskExecutor(Cluster(scheduler=apart.scheduler.address, options={})) as executor:
        inputs = [FileInput(HERE / name, digest_of_files(Path(name))) for name in ("one", "two")]
        executor.submit(Task(key="names", call=functions.names, arguments=(tuple(inputs),)))
        (outcome,) = executor.completed(120)
    assert outcome.value == [("one", "the same"), ("two", "the same")]
    assert len(apart.get_events(FETCHED)) == before + 1


def external_model(path, data):
    """Write an ONNX file of one convolution whose weights are in another file."""
    onnx = pytest.importorskip("onnx", reason="ONNX is not installed: pip install 'edgecnn[onnx]'")
    weights = onnx.numpy_helper.from_array(np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3), "w")
    ends = [onnx.helper.make_tensor_value_info(n, 1, [1, c, 8, 8]) for n, c in (("x", 3), ("y", 4))]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)


@linux
def test_external_data_goes_with_its_model(apart, driver):
    Path("nets").mkdir()
    external_model("nets/net.onnx", "net.data")
    Path("link.onnx").symlink_to("nets/net.onnx")
    stages = []
    for name in ("nets/net.onnx", "link.onnx"):
        path = str(HERE / name)
        settings = {"model": path, "preprocess": None, "label_offset": None}
        stages.append(Stage("capture", name, settings, {"model": digest_of(path)}))
    with DaskExecutor(Cluster(scheduler=apart.scheduler.address, options={})) as executor:
        away = run(executor, HERE / "away", stages)
    with LocalExecutor(1) as local:
        run(local, Path("here"), stages)
    assert [(result.status, result.text) for result in away.values()] == [(Status.OK, "")] * 2
    for stage, name in zip(stages, ("net", "link"), strict=True):
        made = Path("files", stage.digest, f"{name}.edgecnn")
        assert ("away" / made).read_bytes() == ("here" / made).read_bytes()


def test_the_digest_of_a_model_is_of_its_external_data_too(driver, tmp_path):
    external_model("a.onnx", "a.data")
    first = file_input(tmp_path / "a.onnx")
    assert first.beside == ("a.data",)
    file_input.cache_clear()
    data = Path("a.data").read_bytes()
    Path("a.data").write_bytes(data[::-1])
    assert file_input(tmp_path / "a.onnx").digest != first.digest
    file_input.cache_clear()
    Path("a.data").unlink()
    with pytest.raises(InputError, match=r"a.onnx: its external data 'a.data' is missing: put it beside the model"):
        file_input(tmp_path / "a.onnx")


def test_the_files_of_a_driver_that_was_killed_are_removed_by_the_next_one(apart, driver, tmp_path):
    code = (
        "import sys, os, signal\nfrom pathlib import Path\n"
        "from edgecnn.jobs.dask_executor import Cluster, DaskExecutor\nfrom edgecnn.jobs.transfer import FileInput\n"
        "given = DaskExecutor(Cluster(scheduler=sys.argv[1], options={}))\n"
        "given._publish(FileInput(Path('weights').absolute(), 'd'))\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    address = apart.scheduler.address
    with DaskExecutor(Cluster(scheduler=address, options={})) as other:
        other._publish(FileInput(tmp_path / "weights", "e"))
        subprocess.run([sys.executable, "-c", code, address], check=False)
        assert len(apart.list_datasets()) == 2
        with DaskExecutor(Cluster(scheduler=address, options={})):
            assert [name.split("/")[-1] for name in apart.list_datasets()] == ["e"]  # of a driver that lives
    assert not apart.list_datasets()


@linux
@pytest.mark.slow
def test_a_sweep_of_own_weights_and_images_makes_the_same_files_where_nothing_is_shared(apart, driver):
    pixels, labels = demo.images("test", range(16))
    np.savez("images.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    Path("own.safetensors").write_bytes(shipped_weights(DEMO).read_bytes())
    keys = {
        "data": f"{HERE}/images.npz:test", "calibration": f"{HERE}/images.npz:train",
        "weights": f"{HERE}/own.safetensors", "axes": {"model": [DEMO], "recipe": ["minmax"]},
    }  # fmt: skip
    quiet = edgecnn.Progress()
    scheduler = apart.scheduler.address
    away = edgecnn.sweep(keys, output=HERE / "away", scheduler=scheduler, progress=quiet)
    here = edgecnn.sweep(keys, output="here", workers=1, progress=quiet)
    assert [(row.status, row.text) for row in (*away.rows, *here.rows)] == [("ok", "")] * 2
    for name in ("top1", "agreement", "sqnr_db", "size_bytes"):
        assert away.rows[0].figures[name] == here.rows[0].figures[name]
    made = {path.relative_to("here"): path.read_bytes() for path in Path("here").glob("files/*/*.tflite")}
    assert made
    assert all(Path("away", path).read_bytes() == content for path, content in made.items())


@linux
def test_a_file_whose_holder_died_is_sent_again(apart, driver):
    stages = chains(2)
    with DaskExecutor(Cluster(scheduler=apart.scheduler.address, options={})) as executor:
        run(executor, HERE / "out", [stages[0].parent])
        held = list(executor._published.values())
        apart.cancel(held, force=True)  # as Dask does when the worker that holds them dies
        assert {result.status for result in run(executor, HERE / "out", stages).values()} == {Status.OK}


@linux
def test_images_that_are_too_many_to_send_are_one_line_before_anything_runs(apart, driver, monkeypatch):
    monkeypatch.setattr(sweep_cluster, "SENT_MIB", 0)
    engine = Engine(scheduler=apart.scheduler.address)
    with pytest.raises(InputError, match=r"^worker .* does not see .*images, and more than 0 MiB are not sent; put it"):
        executor_of(engine, (), [HERE / "images"])


def test_a_worker_reads_what_it_sees_under_the_same_path(driver):
    from edgecnn.jobs.transfer import shared

    path = Path("images").absolute()
    assert shared(FileInput(path, digest_of_files(path)))
    assert not shared(FileInput(path, "another"))
    assert not shared(FileInput(path / "none", digest_of_files(path)))


def test_a_folder_is_the_same_after_it_was_packed(driver, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "images")
    for name in ("images", "link", "weights"):
        unpack(pack(tmp_path / name, name), tmp_path / "cache" / name)
        assert digest_of_files(tmp_path / "cache" / name / name) == digest_of_files(tmp_path / name)
    unpack(pack(tmp_path / "weights", "weights"), tmp_path / "cache" / "images")
    assert [path.name for path in (tmp_path / "cache" / "images").iterdir()] == ["images"]  # what is there stays


def test_inputs_of_settings_are_under_other_paths(driver, tmp_path):
    Path("a.npz").write_text("arrays")
    settings = {"data": "a.npz:test", "weights": "weights", "calibration": "images/", "devices": ["demo"], "seed": 1}
    stage = Stage("validate", "v", settings, dict.fromkeys(("data", "weights", "calibration", "device"), ""))
    found = located(stage.files(), lambda file: Path("/elsewhere") / file.path.name)
    for path in ("a.npz", "weights"):
        Path(path).unlink()  # as on another machine
    assert elsewhere(settings, found) == {
        "data": "/elsewhere/a.npz:test", "weights": "/elsewhere/weights", "calibration": "/elsewhere/images",
        "devices": ["demo"], "seed": 1,
    }  # fmt: skip


def test_files_are_found_in_nested_arguments():
    file = FileInput(Path("a"), "1")
    assert located((1, {"x": (file, "b")}), lambda found: found.path) == (1, {"x": (Path("a"), "b")})
