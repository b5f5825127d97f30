"""Deployed float files imported whole: int8 in three formats, beside fp32 and ONNX Runtime's own static quantizer.

    python benchmarks/deployed.py --out OUT --files FOLDER --calibration DIR --data DIR [--networks A,B] [--images 32]
    python benchmarks/deployed.py … --latency          # besides: fp32 of the import and of the file, in turns

``deployed.toml`` names the files, with how images are fed to them; they are looked for anywhere below FOLDER. The
images need no labels. Each result is one job, in a process and a file of its own, and is made again only when the file,
the images, the recipe or edgecnn's sources have changed. Both tools get the same images and start from the same float
network. SQNR and the root of the mean squared error are of each output, over the judging images, beside fp32; outputs
are those of the kernels whose sums are exact on every CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_tools import PEERS, normalised
from rows import TARGETS, Row, code_digest, digest, in_process, kept, machine
from timing import interleaved, ratio

import edgecnn
from edgecnn.data import open_images
from edgecnn.evaluation.references import float_reference
from edgecnn.graph.batch import Batch
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import outputs
from edgecnn_targets.registry import open_session, runtime_of

RUNS = 10  # of each in a turn
BATCH = 8  # images in memory at a time
ORT = ("onnxruntime U8S8", "onnxruntime defaults")  # of ``peer_tools``: per channel, and as ``quantize_static`` comes
BELOW = 0.05  # dB by which the better of two equal figures may be above, rounded to one digit


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A file, and how it is fed.

    Attributes:
        path: of the file.
        preprocess: as ``--preprocess`` takes it.
        input_shape: as ``--input-shape`` takes it, where dimensions of the input are dynamic.
    """

    path: Path
    preprocess: str
    input_shape: str | None = None

    @property
    def name(self) -> str:
        """Return the file's name without its ending."""
        return self.path.stem

    @property
    def target(self) -> str:
        """Return the format."""
        return self.path.suffix[1:]

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """Return ``input_shape`` as numbers."""
        return None if self.input_shape is None else tuple(map(int, self.input_shape.split("x")))


def main() -> None:
    """Measure and print the tables; exit status 1 where a job fails."""
    options = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that do the jobs
    rows = list(measured(options))
    print(f"{datetime.now(UTC):%Y-%m-%d}, edgecnn {edgecnn.__version__}, {machine()}\n\n{table(rows)}")
    if any("error" in row for row in rows):
        raise SystemExit(1)


def arguments() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="holds results and what they need")
    parser.add_argument("--files", required=True, type=Path, metavar="FOLDER", help="the files are somewhere below it")
    parser.add_argument("--calibration", required=True, metavar="DIR", help="images")
    parser.add_argument("--data", required=True, metavar="DIR", help="other images, which judge")
    parser.add_argument("--images", type=int, default=32, metavar="N", help="of each of the two (default 32)")
    parser.add_argument("--networks", default="*", metavar="A,B", help="only these; patterns of names")
    parser.add_argument("--recipe", default="fast", metavar="NAME|FILE")
    parser.add_argument("--latency", action="store_true", help="fp32 of the import beside the file, in one runtime")
    return parser


def deployed(options: argparse.Namespace) -> list[Deployed]:
    """Return the files of ``deployed.toml`` that the options name, in its order."""
    known = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    there = {file.stem: file for file in sorted(options.files.rglob("*")) if file.suffix in (".onnx", ".tflite")}
    names = [name for name in known if any(fnmatch(name, pattern) for pattern in options.networks.split(","))]
    for name in (name for name in names if name not in there):
        print(f"{name} was left out: no such file below {options.files}", file=sys.stderr)
    if not (found := [Deployed(path=there[name], **known[name]) for name in names if name in there]):
        raise SystemExit(f"--networks {options.networks}: none below {options.files}; allowed: {', '.join(known)}")
    return found


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """Yield a row per file as it is made, and say each on stderr."""
    from edgecnn.quant.recipe import recipe

    code, steps = code_digest(), recipe(options.recipe).to_json()
    for file in deployed(options):
        folder = options.out / file.name
        folder.mkdir(parents=True, exist_ok=True)
        asked = [repr(file), options.calibration, options.data, options.images]
        made = [digest(file.path.read_bytes()), *asked]
        row: Row = {"network": file.name, "target": file.target}
        try:
            fed = kept(folder / "network.json", [*made, code], partial(in_process, prepare, file, folder, options))
            for peer in ORT:
                place = folder / f"{peer.replace(' ', '_')}.json"
                row[peer] = kept(place, [fed["digest"]], partial(in_process, quantize_by_peer, folder, peer))["outputs"]
            place = folder / f"edgecnn_{Path(options.recipe).stem}.json"
            row |= kept(place, [*made, code, steps], partial(in_process, export, file, folder, options.recipe))
            if options.latency:
                row |= kept(folder / "latency.json", [*made, code], partial(in_process, latency, file, folder))
        except Exception as error:  # noqa: BLE001  # a file that cannot be measured is a row of the table
            row["error"] = " ".join(str(error).split())[-300:]
        print(f"{file.name}: {row.get('error') or said(row)}", file=sys.stderr, flush=True)
        yield row


# ---- jobs, each in a process of its own


def loaded(file: Deployed) -> edgecnn.Network:
    """Import a file."""
    return edgecnn.load(file.path, preprocess=file.preprocess, input_shape=file.sizes)


def prepare(file: Deployed, folder: Path, options: argparse.Namespace) -> Row:
    """Write the imported network as `NAME.edgecnn`, `float.onnx` and the file's own format, and the images."""
    network = loaded(file)
    network.save(folder)
    for target in {"onnx", file.target}:
        (content,) = edgecnn.convert(network, target).files.values()
        (folder / f"float.{target}").write_bytes(content)
    images = {}
    for part, where, shuffle in (("cal", options.calibration, 0), ("val", options.data, None)):
        split = "calibration" if part == "cal" else "test"
        found = open_images(where, demo_split=split, labelled=False, limit=options.images, shuffle=shuffle)
        assert network.preprocess is not None
        images[f"x_{part}"] = np.concatenate([pixels for pixels, _ in found.batches(network.preprocess, BATCH)])
    np.savez(folder / "images.npz", **images)
    content = digest((folder / "float.onnx").read_bytes(), *(images[key].tobytes() for key in sorted(images)))
    return {"digest": content, "nodes": sum(1 for _ in network.graph)}


def kept_network(folder: Path) -> edgecnn.Network:
    """Load what ``prepare`` has written."""
    return edgecnn.load(folder / f"{folder.name}.edgecnn")


def quantize_by_peer(folder: Path, peer: str) -> Row:
    """Quantize by a peer and judge what its runtime returns."""
    network, images, tool = kept_network(folder), np.load(folder / "images.npz"), PEERS[peer]
    assert network.preprocess is not None
    calibration = normalised(images["x_cal"], network.preprocess.mean, network.preprocess.std)
    with tempfile.TemporaryDirectory() as made:
        artifact = Path(made) / f"peer.{tool.suffix}"
        tool.quantize(folder / f"float.{tool.source}", artifact, calibration, tool.activations)
        return {"outputs": judged(network, artifact, images["x_val"])}


def export(file: Deployed, folder: Path, recipe: str) -> Row:
    """Run `edgecnn export FILE --target all`; return exit status, LSB per runtime, findings, and judge the .tflite."""
    images, start = folder / "images.npz", time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        words = [sys.executable, "-m", "edgecnn", "export", str(file.path), "--target", ",".join(TARGETS)]
        words += ["--preprocess", file.preprocess, "--calibration", f"{images}:cal", "--data", f"{images}:val"]
        words += ["--recipe", recipe, "-o", made, "--json", "-q"]
        words += ["--input-shape", file.input_shape] if file.input_shape else []
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if not done.stdout:
            raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-2000:]}")
        entries = json.loads(done.stdout)["entries"]
        network = kept_network(folder)
        found = judged(network, Path(entries[0]["artifact"]), np.load(images)["x_val"])
    return {
        "status": done.returncode,
        "edgecnn": found,
        "lsb": {entry["target"]: entry["parity"]["max_lsb"] for entry in entries},
        "float_ops": sum(len(entry["float_ops"]) for entry in entries),
        "findings": sorted({f["text"] for entry in entries for f in entry["findings"] if f["severity"] != "info"}),
        "wall_s": round(time.perf_counter() - start, 1),
    }


def judged(network: edgecnn.Network, artifact: Path, pixels: NDArray[np.uint8]) -> Row:
    """Return of each output the SQNR in dB, and the roots of the mean squares of error and signal.

    Args:
        network: float.
        artifact: takes float32 inputs, or integers of its own scale.
        pixels: levels, (N, H, W, C).
    """
    fed, reference = network.preprocess, float_reference(network.graph)
    assert fed is not None
    own = edgecnn.load(artifact).preprocess if artifact.with_suffix(".edgecnn").exists() else fed
    session = open_session(device("host"), artifact, kernels=runtime_of(artifact).exact)
    sums: dict[str, NDArray[np.float64]] = {}
    for at in range(0, len(pixels), BATCH):
        batch = pixels[at : at + BATCH]
        wanted = reference(Batch.of(network.graph.inputs, fed.normalise(batch)))
        made = outputs(session, (own or fed).normalise(batch))
        for (name, want), got in zip(wanted.items(), made.values(), strict=True):
            wide = want.astype(np.float64).ravel()
            squares = [np.square(wide).sum(), np.square(got.ravel() - wide).sum(), wide.size]
            sums[name] = sums.get(name, np.zeros(3)) + squares
    return {
        name: {
            "sqnr_db": 10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))),
            "error": float(np.sqrt(noise / count)),
            "signal": float(np.sqrt(signal / count)),
        }
        for name, (signal, noise, count) in sums.items()
    }


def latency(file: Deployed, folder: Path) -> Row:
    """Return CPU time of fp32 of the import and of the file itself in the file's runtime, in turns, and their ops."""
    with tempfile.TemporaryDirectory() as made:
        original = file.path
        if file.sizes is not None:
            original = fixed(file, Path(made))
        sessions = {
            name: runtime_of(path).open_session(path, threads=1, kernels=None)  # in this process, whose time is taken
            for name, path in (("import", folder / f"float.{file.target}"), ("file", original))
        }
        load = os.getloadavg()[0]
        turns = interleaved(sessions, RUNS, time.process_time_ns)
    medians = {name: round(float(np.median(found)), 3) for name, found in turns.items()}
    ops = {name: len(session.ops) for name, session in sessions.items()}
    return {"ms": medians, "ratio": ratio(turns["import"], turns["file"]), "ops": ops, "load": round(load, 1)}


def fixed(file: Deployed, folder: Path) -> Path:
    """Return a copy of an ONNX file of which the input has the shape in use."""
    import onnx

    model, path = onnx.load(file.path), folder / file.path.name
    assert file.sizes is not None
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for dimension, size in zip(dimensions, (1, *file.sizes), strict=True):
        dimension.dim_value = size
    onnx.save(model, path)
    return path


# ---- tables


def better(row: Mapping[str, Any], output: str) -> tuple[Mapping[str, float], str]:
    """Return ONNX Runtime's better figures of an output, and which of ``ORT`` has them."""
    peer = max(ORT, key=lambda name: row[name][output]["sqnr_db"])
    return row[peer][output], peer


def said(row: Row) -> str:
    """Return one line of a file."""
    pairs = [f"{own['sqnr_db']:.1f} ({better(row, name)[0]['sqnr_db']:.1f})" for name, own in row["edgecnn"].items()]
    return f"exit status {row['status']}, {', '.join(pairs)} dB, LSB {', '.join(map(str, row['lsb'].values()))}"


def table(rows: list[Row]) -> str:
    """Return a table of outputs and one of files."""
    lines = ["| file | output | edgecnn: SQNR, error | onnxruntime: SQNR, error | signal |", "|---|---|---|---|---|"]
    below, count = [], 0
    for row in rows:
        for name, own in row.get("edgecnn", {}).items():
            other, peer = better(row, name)
            cells = [f"{each['sqnr_db']:.1f} dB, {each['error']:.3g}" for each in (own, other)]
            lines.append(f"| {row['network']} | {name} | {cells[0]} | {cells[1]} ({peer[12:]}) | {own['signal']:.3g} |")
            count += 1
            below += [f"{row['network']} {name}"] if own["sqnr_db"] < other["sqnr_db"] - BELOW else []
    lines += ["", f"{count - len(below)} of {count} outputs not below onnxruntime; below: {', '.join(below) or 'none'}"]
    lines += [
        "",
        f"| file | exit status | LSB: {', '.join(TARGETS)} | float ops | fp32: import, file, ratio; ops; load |",
    ]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['network']} | failed: {row['error']} | | | |")
            continue
        lsb = ", ".join(str(row["lsb"].get(target, "-")) for target in TARGETS)
        lines.append(f"| {row['network']} | {row['status']} | {lsb} | {row['float_ops']} | {timed(row)} |")
    for row in rows:
        lines += [f"\n{row['network']}: {text}" for text in row.get("findings", ())]
    return "\n".join(lines)


def timed(row: Row) -> str:
    """Return the cell of fp32's latency."""
    if "ms" not in row:
        return "-"
    found, ms, ops = row["ratio"], row["ms"], row["ops"]
    quartiles = ", ".join(f"{each:.3f}" for each in found["quartiles"])
    return (
        f"{ms['import']:.2f} ms, {ms['file']:.2f} ms, {found['median']:.3f} [{quartiles}]; {ops['import']}, "
        f"{ops['file']}; {row['load']}"
    )


if __name__ == "__main__":
    main()
