"""Many networks by edgecnn's recipes, several seeds each, beside the runtimes' own quantizers: one table.

    python benchmarks/zoo.py --out FOLDER [--zoo FILE.py] [--weights MODEL=FILE --calibration DIR --data DIR]

Each result is one job, in a process and a file of its own. It is made again only when the network, the images, the
recipe or edgecnn's sources have changed, and a peer's when its version has. All tools get the same uint8 images, and no
other use is made of those that judge. int8 runs in LiteRT, each peer in its own runtime, all in one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
from demo_networks import NETWORKS, train, weights_of
from numpy.typing import NDArray
from peer_tools import normalised, run_litert, run_onnxruntime
from rows import Row, digest, in_process, kept, machine

import edgecnn

PEERS = ("onnxruntime U8S8", "nncf mixed", "ai-edge-quantizer")  # of ``peer_tools``
SHIPPED = ("mobilenet_v2_0.35_96",)  # models with demo weights
PEER_TOOLS = Path(__file__).with_name("peer_tools.py")
FAR_ROOMS = ("cli", "evaluation", "lab", "report", "train")  # of edgecnn: nothing in them changes a quantized network
JUDGING = ("test", None)
CALIBRATION = ("calibration", 500)  # split of the demo data, and as many images at most


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a network comes from.

    Attributes:
        name: of the network; in ``module`` also of its factory.
        weights: of the model ``name``: a file, or ``demo``.
        calibration, data: folders, or ``demo``, for a model with ``weights``.
        module: a Python file with factories, ``NETS`` and ``load`` (benchmarks/README.md).
    """

    name: str
    weights: str = ""
    calibration: str = "demo"
    data: str = "demo"
    module: str = ""

    @property
    def digest(self) -> str:
        """Return the digest of what the network and its images are made from."""
        files = [Path(file).read_bytes() for file in (self.weights, self.module) if Path(file).is_file()]
        return digest(repr(self).encode(), *files)


def sources_digest() -> str:
    """Return the digest of edgecnn's version and of its Python files that can change a quantized network."""
    import edgecnn_converters

    root, converters = (Path(str(package.__file__)).parent for package in (edgecnn, edgecnn_converters))
    files = [file for file in root.rglob("*.py") if file.relative_to(root).parts[0] not in FAR_ROOMS]
    files += (converters / "tflite").rglob("*.py")
    return digest(edgecnn.__version__.encode(), *(file.read_bytes() for file in sorted(files)))


# ---- jobs, each in a process of its own


def prepare(source: Source, folder: Path) -> Row:
    """Write the float network as `NAME.edgecnn`, `float.onnx` and `float.tflite`, the images, and the fp32 logits."""
    network, images = _from_module(source) if source.module else _from_weights(source)
    network.save(folder)
    for target in ("onnx", "tflite"):
        (content,) = edgecnn.convert(network, target).files.values()
        (folder / f"float.{target}").write_bytes(content)
    np.savez(folder / "images.npz", **images)
    assert network.preprocess is not None
    mean, std = network.preprocess.mean, network.preprocess.std
    logits = run_onnxruntime(folder / "float.onnx", normalised(images["x_val"], mean, std))
    np.save(folder / "logits.npy", logits)
    content = digest((folder / "float.onnx").read_bytes(), *(images[key].tobytes() for key in sorted(images)))
    return {"mean": mean, "std": std, "offset": network.graph.metadata.label_offset, "digest": content}


def _from_weights(source: Source) -> tuple[edgecnn.Network, dict[str, NDArray[Any]]]:
    from edgecnn.data import open_images

    network, images = edgecnn.load(source.name, weights=source.weights), {}
    assert network.preprocess is not None
    for part, where, (split, limit) in (("cal", source.calibration, CALIBRATION), ("val", source.data, JUDGING)):
        shuffle = 0 if part == "cal" else None
        found = open_images(where, demo_split=split, labelled=part == "val", limit=limit, shuffle=shuffle)
        pixels, labels = zip(*found.batches(network.preprocess, 50), strict=True)
        images[f"x_{part}"] = np.concatenate(pixels)
        if part == "val":
            images["y_val"] = np.concatenate(labels)
    return network, images


def _from_module(source: Source) -> tuple[edgecnn.Network, dict[str, NDArray[Any]]]:
    module = _module(source.module)
    known, (_, arrays) = module.NETS[source.name], module.load(source.name)
    parts = ("x_cal", "x_val", "y_val") if known["labels"] else ("x_cal", "x_val")
    side = "x".join(map(str, arrays["x_val"].shape[1:3]))
    fed = "resize={},mean={mean},std={std}".format(side, **known["norm"])
    network = edgecnn.load(getattr(module, source.name)(), preprocess=fed, name=source.name)
    return network, {part: arrays[part] for part in parts}


def _module(file: str) -> Any:
    """Import the user's file; its own folder serves its imports."""
    sys.path.insert(0, str(Path(file).parent))
    spec = spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[Path(file).stem] = module
    spec.loader.exec_module(module)
    return module


def module_networks(file: str) -> list[str]:
    """Return the names in ``NETS`` of the user's file."""
    return list(_module(file).NETS)


def quantize(folder: Path, name: str, recipe: str | edgecnn.Recipe, seed: int) -> Row:
    """Quantize by edgecnn and judge the .tflite file."""
    start, images = time.perf_counter(), np.load(folder / "images.npz")
    network = edgecnn.load(folder / f"{name}.edgecnn")
    silent = edgecnn.Progress()
    int8 = edgecnn.quantize(network, images["x_cal"], recipe=recipe, seed=seed, progress=silent)
    with tempfile.TemporaryDirectory() as made:
        artifact = edgecnn.convert(int8, "tflite").save(made)
        wall_s, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        assert artifact.path is not None
        assert int8.preprocess is not None
        fed = normalised(images["x_val"], int8.preprocess.mean, int8.preprocess.std)
        row = judged(folder, run_litert(artifact.path, fed))
    row |= {"wall_s": round(wall_s, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1)}
    return {**row, "peak_mib": used.ru_maxrss // 1024, "findings": [str(finding) for finding in int8.findings]}


def quantize_by_peer(folder: Path, peer: str, python: str) -> Row:
    """Quantize by a peer in its own Python and judge what its runtime returns."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        output = Path(made) / "logits.npy"
        words = [python, str(PEER_TOOLS), peer, str(folder), str(output)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{peer}: exit status {done.returncode}: {done.stderr.strip()[-500:]}")
        return judged(folder, np.load(output)) | {"wall_s": round(time.perf_counter() - start, 1)}


def judged(folder: Path, logits: NDArray[np.float32]) -> Row:
    """Return agreement, SQNR and top-1 beside fp32: see ``figures``."""
    images, known = np.load(folder / "images.npz"), json.loads((folder / "network.json").read_text())
    labels = images["y_val"] + known["offset"] if "y_val" in images.files else None
    return figures(np.load(folder / "logits.npy"), logits, labels)


def figures(fp32: NDArray[np.float32], int8: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Row:
    """Return agreement and top-1 in percent, points lost, and 10 log10 of power(fp32) / power(difference) in dB."""
    want, got = fp32.argmax(1), int8.argmax(1)
    power, noise = (float(np.square(values, dtype=np.float64).sum()) for values in (fp32, fp32 - int8))
    row: Row = {"n": len(fp32), "agreement": 100 * float((want == got).mean()), "fp32_top1": None, "drop": None}
    row["sqnr_db"] = 10 * float(np.log10(power / noise)) if noise else float("inf")
    if labels is not None:
        row["fp32_top1"] = 100 * float((want == labels).mean())
        row["drop"] = row["fp32_top1"] - 100 * float((got == labels).mean())
    return row


# ---- the tables


def tables(rows: Iterable[Row]) -> str:
    """Return the table of the recipes, with the median over the networks, and the table of the peers.

    Args:
        rows: with ``network``, ``tool``, ``seed`` (``None`` of a peer) and ``figures``, or with ``error``.
    """
    ours: dict[tuple[str, str], list[Row]] = {}
    peers: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["seed"] is None:
            peers.setdefault(row["network"], {})[row["tool"]] = row
        else:
            ours.setdefault((row["tool"], row["network"]), []).append(row)
    lines = [
        "| recipe | network | seeds | SQNR, dB | agreement, % | top-1 lost, points | CPU s "
        "| best peer, dB | worst - best peer, dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    margins: dict[str, list[float]] = {}
    for (recipe, network), group in ours.items():
        if failed := next((row["error"] for row in group if "error" in row), None):
            lines.append(f"| `{recipe}` | {network} | {len(group)} | failed: {failed} | | | | | |")
            continue
        best = max((p for p in peers.get(network, {}).values() if "error" not in p), key=_sqnr, default=None)
        cells = [_spread(group, "sqnr_db", min, 1), _spread(group, "agreement", min, 1), _spread(group, "drop", max, 1)]
        cells += [_spread(group, "cpu_s", max, 0).partition(" (")[0]]
        if best is None:
            cells += ["-", "-"]
        else:
            margin = min(map(_sqnr, group)) - _sqnr(best)
            margins.setdefault(recipe, []).append(margin)
            cells += [f"{_sqnr(best):.1f} ({best['tool']})", f"{margin:+.1f}"]
        lines.append(f"| {' | '.join((f'`{recipe}`', network, str(len(group)), *cells))} |")
    for recipe, found in margins.items():
        said = f"{statistics.median(found):+.1f} ({min(found):+.1f})"
        lines.append(f"| `{recipe}` | median (worst) of {len(found)} networks | | | | | | | {said} |")
    return "\n".join(lines + (["", *_peer_table(peers)] if peers else []))


def _peer_table(peers: Mapping[str, Mapping[str, Row]]) -> list[str]:
    names = list(dict.fromkeys(tool for found in peers.values() for tool in found))
    lines = [f"| agreement / SQNR / top-1 lost | fp32 top-1 | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for network, found in peers.items():
        top1 = next((row["fp32_top1"] for row in found.values() if "error" not in row), None)
        cells = [_peer_cell(found[name]) if name in found else "-" for name in names]
        lines.append(f"| {network} | {_number(top1, 1)} | {' | '.join(cells)} |")
    return lines


def _peer_cell(row: Row) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    return " / ".join(_number(row[key], 1) for key in ("agreement", "sqnr_db", "drop"))


def _sqnr(row: Row) -> float:
    return float(row["sqnr_db"])


def _spread(group: Sequence[Row], key: str, worst: Callable[[list[float]], float], digits: int) -> str:
    """Median over the seeds, and the worst of them where there are several."""
    values = [row[key] for row in group]
    if None in values:
        return "-"
    middle = _number(statistics.median(values), digits)
    return middle if len(values) == 1 else f"{middle} ({_number(worst(values), digits)})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


# ---- the run


def arguments(description: str | None = __doc__) -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="holds results and what they need")
    parser.add_argument("--recipes", default="fast:5,best:3", metavar="NAME:N,FILE:N", help="with seeds 0 to N-1")
    parser.add_argument("--networks", metavar="A,B", help="only these")
    parser.add_argument("--zoo", action="append", default=[], metavar="FILE.py", help="more networks: README.md")
    parser.add_argument("--weights", action="append", default=[], metavar="MODEL=FILE", help="of `edgecnn models`")
    parser.add_argument("--calibration", metavar="DIR", help="images for --weights")
    parser.add_argument("--data", metavar="DIR", help="labelled images to judge --weights on")
    parser.add_argument("--demo", type=Path, metavar="FOLDER", help="of demo_networks.py; default: OUT/demo, trained")
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="with the peers; default: this one")
    return parser


def sources(options: argparse.Namespace) -> list[Source]:
    """Return the networks that the options name, the demo networks first."""
    folder = options.demo or options.out / "demo"
    found = [Source(name=name, weights="demo") for name in SHIPPED]
    found += [Source(name=name, weights=str(weights_of(name, folder))) for name in NETWORKS]
    for given in options.weights:
        name, _, file = given.partition("=")
        if not file or not options.calibration or not options.data:
            raise SystemExit(f"--weights {given}: give MODEL=FILE, and images with --calibration DIR and --data DIR")
        found.append(Source(name=name, weights=file, calibration=options.calibration, data=options.data))
    for file in map(os.path.abspath, options.zoo):
        found += [Source(name=name, module=file) for name in module_networks(file)]
    if options.networks:
        wanted, known = options.networks.split(","), {source.name: source for source in found}
        if strange := [name for name in wanted if name not in known]:
            raise SystemExit(f"--networks {','.join(strange)}: allowed: {', '.join(known)}")
        found = [known[name] for name in wanted]
    for source in found:
        if source.name in NETWORKS and not Path(source.weights).exists():
            train(source.name, folder)
    return found


def recipes_of(text: str) -> list[tuple[str, int]]:
    """Return each recipe with its number of seeds: `fast:5,mine.toml:3`."""
    pairs = [item.rpartition(":") for item in text.split(",")]
    if strange := [f"{name}{colon}{count}" for name, colon, count in pairs if not name or not count.isdecimal()]:
        raise SystemExit(f"--recipes {','.join(strange)}: give NAME:N or FILE.toml:N, N the number of seeds")
    return [(name, int(count)) for name, _, count in pairs]


def measured(options: argparse.Namespace) -> Iterable[Row]:
    """Yield the rows of `tables` as they are made, and say each on stderr."""
    from edgecnn.quant.recipe import recipe as named

    code = sources_digest()
    recipes = [(text, named(text), seeds) for text, seeds in recipes_of(options.recipes)]
    asked = subprocess.run([options.peer, str(PEER_TOOLS)], check=True, capture_output=True)
    peers = {peer: versions for peer, versions in json.loads(asked.stdout).items() if peer in PEERS}
    for peer in set(PEERS) - set(peers):
        print(f"{peer} was left out: not installed in {options.peer}", file=sys.stderr)
    for source in sources(options):
        folder = options.out / source.name
        folder.mkdir(parents=True, exist_ok=True)
        made = [source.digest, code]
        network = kept(folder / "network.json", made, partial(in_process, prepare, source, folder))
        jobs: list[tuple[str, int | None, list[Any], Callable[[], Row]]] = []
        for peer, versions in peers.items():
            key = [network["digest"], versions]
            jobs.append((peer, None, key, partial(quantize_by_peer, folder, peer, options.peer)))
        for text, recipe, seeds in recipes:
            for seed in range(seeds):
                key = [network["digest"], code, recipe.to_json(), seed]
                jobs.append((recipe.name, seed, key, partial(in_process, quantize, folder, source.name, text, seed)))
        for tool, seed, key, work in jobs:
            file = f"{tool.replace(' ', '_')}{'' if seed is None else f'-{seed}'}.json"
            row: Row = {"network": source.name, "tool": tool, "seed": seed}
            try:
                row |= kept(folder / "rows" / file, key, work)
            except Exception as error:  # noqa: BLE001  # a tool that fails on one network is a cell of the table
                row["error"] = " ".join(str(error).split())[-200:]
            said = row.get("error") or f"{row['sqnr_db']:.1f} dB, agreement {row['agreement']:.1f} %"
            print(f"{source.name}, {file.removesuffix('.json')}: {said}", file=sys.stderr, flush=True)
            yield row


def main() -> None:
    """Measure and print the tables."""
    options = arguments().parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that do the jobs
    rows = list(measured(options))
    print(f"{datetime.now(UTC):%Y-%m-%d}, edgecnn {edgecnn.__version__}, {machine()}\n\n{tables(rows)}")
    if any("error" in row for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
