"""The public surface: commands, options and report fields are a contract; changing them must be meant."""

from __future__ import annotations

import inspect
from pathlib import Path

import edgecnn
from edgecnn.cli import _parser
from edgecnn.report.record import ReportEntry
from edgecnn_converters.registry import converters, targets_of_all
from edgecnn_targets.devices import devices

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "export validate run init compare benchmark sweep inspect train scale study models targets devices recipes doctor "
    "schema completion"
)
CHECKING = (
    "--data --limit --label-offset --preprocess --labels --class-map --skip-bad-images --device --exact-kernels "
    "--metric --threads "
    "--max-drop --min-top1 --min-agreement --min-sqnr --max-lsb --require --max-latency-ms --max-instructions "
    "--max-cycles --max-sram-kib --max-flash-kib --npu-coverage --allow-float --allow-loss --seed --report --json "
    "--wide"
)
EVERY = "-q -v --max-memory --traceback"
CONFIGURED = "export validate compare benchmark inspect train sweep run"
EXPORT = (
    "--target --quantize --weights --calibration --calibration-images --recipe --no-guard --no-wait --reduce-range "
    f"--per-tensor --mixed --io --batch --padding --convention --input-shape -o --model-card --license "
    f"--push-to-hub --dry-run {CHECKING}"
)
OPTIONS = {
    "export": EXPORT,
    "run": EXPORT,
    "init": "--data --device --max-drop --calibration --target --weights -o --force",
    "validate": f"--reference --dry-run {CHECKING}",
    "compare": "--data --limit --preprocess --layers --exact-kernels --arithmetic --skip-bad-images --report --json "
    "--wide",
    "benchmark": f"--targets --precisions --weights --calibration -o {CHECKING}",
    "inspect": "--weights --convention --input-shape --preprocess --device --sensitivity --data --limit --html "
    "--model-explorer --colour --json --wide",
    "train": "--data -o --weights --epochs --batch --lr --warmup --weight-decay --label-smoothing --drop-connect --ema "
    "--seed --optimizer --schedule --shift --mixup --rand-augment --magnitude --images --val-images --flip "
    "--preprocess --label-offset --accelerator --precision --checkpoint-steps --qat --recipe --calibration-images "
    "--distill --learn-steps --json --wide",
    "sweep": "-o --workers --scheduler --jobs --minutes --dry-run --json --wide",
    "models": "--json --wide",
}
OF_FORMATS = (
    "emitter folding format functions import_integers import_ops importer kernel_faults lowering moves products reader "
    "reference translation"
)
ENTRY = (
    "model target device artifact size_bytes precision accuracy latency parity beside_host resources checks seconds "
    "float_ops findings task outputs evidence"
)
RESOURCES = "cycles sram_kib flash_kib arena_bytes heap_kib npu_coverage estimated_ms instruction_mix cache_misses"
DEVICES = (
    "armv7 cortex-a53 cortex-a72 cortex-a76 cortex-m33 cortex-m4 cortex-m55 cortex-m7 ethos-u55-128 ethos-u55-256 "
    "ethos-u65-256 ethos-u65-512 ethos-u85-256 host mcu-tflm wasm x86-avx2"
)


def options_of(parser):
    return {a.option_strings[0] for a in parser._actions if a.option_strings and a.dest != "help"}


def test_commands_and_options():
    parser, names = _parser()
    assert list(names) == COMMANDS.split()
    commands = next(a for a in parser._actions if hasattr(a, "choices") and a.choices).choices
    for name, wanted in OPTIONS.items():
        every = EVERY.split() + ["--config"] * (name in CONFIGURED)
        assert options_of(commands[name]) == {*wanted.split(), *every}, name


def test_two_modules_of_one_name_do_the_same():
    """Names that occur twice are those of one part of several formats, or of a command and what it runs."""
    names = [path.stem for place in ("edgecnn", "converters", "targets") for path in (ROOT / place).rglob("*.py")]
    several = {name for name in names if names.count(name) > 1}
    assert several - {"__init__", "registry", "spec", "config", *COMMANDS.split(), *OF_FORMATS.split()} == set()


def test_report_fields():
    entry = ReportEntry(model="m", target="t", device=None, artifact="a", size_bytes=1, precision="int8").to_json()
    assert list(entry) == ENTRY.split()
    assert list(entry["seconds"]) == ["capture", "calibrate", "quantize", "convert", "validate"]
    assert set(entry["accuracy"]) >= {"n", "fp32_top1", "top1", "drop", "agreement", "sqnr_db"}
    assert set(entry["latency"]) >= {"median_ms", "p90_ms", "threads", "instructions"}
    assert set(entry["parity"]) == {"max_lsb", "mean_lsb", "arithmetic"}
    assert set(entry["beside_host"]) == {"n", "max_lsb", "agreement"}
    assert " ".join(entry["resources"]) == RESOURCES
    assert set(entry["resources"].values()) == {None}


def test_targets_and_devices():
    assert list(converters()) == [*targets_of_all(), "c"]
    assert list(targets_of_all()) == ["tflite", "onnx", "openvino"]
    assert [d.name for d in devices()] == DEVICES.split()


def test_no_bad_image_is_left_out_unless_that_is_asked_for():
    """Whoever forgets it must not measure on fewer images than were given."""
    functions = {name: made for name in edgecnn.__all__ if inspect.isfunction(made := getattr(edgecnn, name))}
    given = {name: inspect.signature(made).parameters.get("skip_bad_images") for name, made in functions.items()}
    assert {name: each.default for name, each in given.items() if each is not None} == dict.fromkeys(
        ("compare", "export", "quantize", "validate"), False
    )
