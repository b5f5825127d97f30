"""The command line around export: lists, help, completion, and what a mistyped command says."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib import import_module

import pytest
from commands import DEMO, run

from edgecnn.cli import _parser, main
from edgecnn.cli.config import leaves
from edgecnn.report.document import this_machine
from edgecnn_targets.runtimes import saturation


@pytest.mark.parametrize("command", ["models", "targets", "devices", "recipes", "doctor"])
def test_lists_are_tables_or_json(command, capfd):
    assert main([command, "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["entries"]
    assert rows
    assert main([command]) == 0
    shown = capfd.readouterr().out
    assert str(next(iter(rows[-1].values()))) in shown
    if command == "models":
        by_name = {r["name"]: r for r in rows}
        assert set(by_name["mobilenet_v2"]) >= {"name", "parameters", "macs", "resolution"}
        assert by_name["mobilenet_v2"]["resolution"] == 224
        assert by_name[DEMO]["demo_weights"] is True


EXACT, CLIPPED = "exact: int8 sums have 32 bits", "may saturate with 8-bit weights: export with --reduce-range"


@pytest.mark.parametrize(
    ("flags", "limit", "sets", "exact"),
    [
        ("sse2 avx2 avx512_vnni", None, "AVX2, AVX-512 VNNI", {"tflite", "onnx", "openvino", "c"}),
        ("sse2 avx2 avx_vnni", None, "AVX2, AVX-VNNI", {"tflite", "onnx", "openvino", "c"}),
        ("sse2 avx2 avx512_vnni", "AVX2", "AVX2, AVX-512 VNNI", {"tflite", "onnx", "c"}),
        ("sse2 avx2 fma", None, "AVX2", {"tflite", "c"}),
        ("asimd asimddp", None, "Arm dot product", {"tflite", "onnx", "openvino", "c"}),
        ("", None, "none listed", {"tflite", "c"}),
    ],
)
def test_doctor_says_which_kernels_this_cpu_runs(flags, limit, sets, exact, monkeypatch, capfd):
    monkeypatch.setattr(saturation, "cpu_flags", lambda: frozenset(flags.split()))
    monkeypatch.delenv(saturation.ONEDNN_LIMIT, raising=False)
    if limit is not None:
        monkeypatch.setenv(saturation.ONEDNN_LIMIT, limit)
    assert main(["doctor", "--json"]) == 0
    found = {row["what"]: row["found"] for row in json.loads(capfd.readouterr().out)["entries"]}
    assert found["instruction sets"] == sets
    assert found["cpu"] == this_machine()["cpu"]
    said = {target: found[f"int8 in {target}"] for target in ("tflite", "onnx", "openvino", "c")}
    assert {target for target, text in said.items() if text == EXACT} == exact
    other = CLIPPED if flags else "not known"
    assert all(text.startswith(other) for target, text in said.items() if target not in exact)
    assert found.get(saturation.ONEDNN_LIMIT) == (limit and f"{limit}, in the environment: OpenVINO runs without VNNI")


def test_targets_say_what_they_take(capfd):
    assert main(["targets"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert main(["targets", "--json"]) == 0
    for row in json.loads(capfd.readouterr().out)["entries"]:
        (line,) = (line for line in lines if line.startswith(f"{row['name']} "))
        assert ", ".join(row["precisions"]) in line
    assert main(["targets", "show", "onnx"]) == 0
    assert "int16x8" in capfd.readouterr().out


def test_inspect_prints_graphs_and_artifacts(exported, capfd):
    folder, _ = exported
    rows = {}
    for name in (DEMO, folder / f"{DEMO}.edgecnn", folder / f"{DEMO}.tflite"):
        assert main(["inspect", str(name), "--json"]) == 0
        rows[str(name)] = json.loads(capfd.readouterr().out)["entries"]
        assert main(["inspect", str(name)]) == 0
        assert "MACs" in capfd.readouterr().out
    plain, graph, artifact = rows.values()
    assert len(plain) == len(graph) == len(artifact) == 64
    assert sum(r["macs"] for r in plain) - sum(r["macs"] for r in graph) == 1280 * (1000 - 16)
    assert [r["macs"] for r in graph] == [r["macs"] for r in artifact]
    assert [r["weight_bytes"] for r in graph if r["macs"]] == [r["weight_bytes"] for r in artifact if r["macs"]]


def test_help_is_quick_and_imports_no_heavy_library():
    code = (
        "import sys, contextlib, io\n"
        "from edgecnn.cli import _parser, main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "heavy = {'torch', 'tensorflow', 'numpy', 'onnx', 'onnxruntime', 'openvino', 'ai_edge_litert', 'PIL', 'rich'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version_and_typos():
    assert run("--version").stdout.startswith("edgecnn ")
    done = run("exprot", "x")
    assert done.returncode == 2
    assert "did you mean 'export'?" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("exprt x", r"unknown command 'exprt' \(did you mean 'export'\?\).*edgecnn --help"),
        ("--taget x export y", r"unknown option '--taget' \(did you mean '--target'\?\)"),
        ("export net --taget x", r"unknown option '--taget' \(did you mean '--target'\?\).*edgecnn export --help"),
        ("export", r"required: MODEL; see `edgecnn export --help`"),
        ("export net --limit 0", r"'0' is not a whole number above 0"),
        ("export mobilenet_v2 --target onnx -o out/x.tflite", r"a file of tflite, but --target is onnx"),
        ("export mobilnet_v2 --calibration none", r"unknown model 'mobilnet_v2' \(did you mean"),
        ("export mobilnet_v2", r"unknown model 'mobilnet_v2' \(did you mean"),
    ],
)
def test_a_usage_error_is_one_line_that_points_to_the_help(words, said, capfd):
    assert main(words.split()) == 2
    seen = capfd.readouterr()
    assert seen.out == ""
    assert len(seen.err.splitlines()) == 1
    assert re.search(said, seen.err), seen.err
    assert len(seen.err) < 500


def test_the_ending_of_the_output_is_the_target(tmp_path):
    words = [DEMO, "--weights", "demo", "--quantize", "none"]
    assert main(["export", *words, "-o", str(tmp_path / "small.onnx")]) == 0
    assert (tmp_path / "small.onnx").is_file()
    assert main(["export", *words, "-o", str(tmp_path / "folder")]) == 0
    assert (tmp_path / "folder" / f"{DEMO}.tflite").is_file()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_given_what_completes(shell, capfd):
    assert main(["completion", shell]) == 0
    assert "edgecnn" in capfd.readouterr().out


def test_every_argument_and_option_has_help():
    parsers = [_parser()[0]]
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
                assert {choice.dest for choice in action._choices_actions if choice.help} == set(action.choices)
            else:
                assert action.help, f"{parser.prog} {action.option_strings or action.dest}"
    assert len(parsers) > 20


def test_every_command_shows_two_examples_that_parse():
    parser, commands = _parser()
    for name in commands:
        module = import_module(f"edgecnn.cli.{name}")
        for example in module.EXAMPLES:
            words = re.search(r"edgecnn ([^>)]*)", example)[1].split()
            assert parser.parse_args(words).command == name
        for action, own in leaves(commands[name], name).items():
            shown = own.epilog.splitlines()[1:]
            assert len(shown) >= 2
            assert all(f"edgecnn {action}" in example for example in shown)


def test_quiet_prints_results_alone_and_verbose_everything(exported, capfd):
    folder, _ = exported
    words = ["validate", str(folder / f"{DEMO}.tflite"), "--data", "demo", "--limit", "10"]
    capfd.readouterr()
    assert main([*words, "-q"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "agreement" in out
    assert main([*words, "-v"]) == 0
    told, err = capfd.readouterr()
    assert "device    host" in err
    assert len(told.splitlines()) > len(out.splitlines())
    assert "numpy" in told


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("words", ["models", "targets", "devices", "recipes", "doctor"])
def test_lists_fit_the_terminal_and_have_no_colours_without_one(words, width, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    capfd.readouterr()
    assert main(words.split()) in (0, 3)
    out, _ = capfd.readouterr()
    assert max(map(len, out.splitlines())) <= width
    assert "\x1b" not in out
    assert "…" not in out


@pytest.mark.parametrize("command", ["recipes", "targets"])
def test_every_list_is_a_table_of_any_width_or_json(command, capfd):
    assert main([command, "--wide"]) == 0
    assert capfd.readouterr().out.count("\n") > 2
    assert main([command, "--json", "--wide"]) == 0
    assert json.loads(capfd.readouterr().out)["entries"]
