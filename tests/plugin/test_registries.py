"""A registry is what all installed packages offer; a plugin that cannot be used is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import error_of

from edgecnn import plugins
from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn_targets.interface import Kind
from edgecnn_targets.registry import runtime_of, runtimes

HEAD = "from edgecnn_targets.interface import Kind\nfrom edgecnn_targets.kinds import host\n"
ROW = "KIND = Kind(figures=(), open_session=host.open_session, missing=host.missing, measure=host.measure{})\n"


@pytest.fixture(autouse=True)
def _fresh():
    """A registry is read once in a process: what a test installs must not stay."""
    plugins._read.cache_clear()
    yield
    plugins._read.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a package with one entry point where Python finds it: a module and its ``dist-info``."""

    def install(package: str, name: str, code: str, group: str = "device_kinds") -> None:
        place = tmp_path / package
        info = place / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (place / f"{package}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edgecnn.{group}]\n{name} = {package}:KIND\n")
        monkeypatch.syspath_prepend(str(place))

    return install


def test_what_ships_comes_first_and_a_plugin_adds_to_it(install):
    install("added_plugin", "added", HEAD + ROW.format(""))
    found = plugins.registry("device_kinds", Kind)
    assert set(found) == {"host", "ssh", "adb", "wasm", "cortex-m", "tflm", "vela", "qemu", "added"}
    assert list(found)[-1] == "added"
    assert isinstance(found["added"], Kind)


BROKEN = {
    "fails-to-import": (
        "raise RuntimeError('no\\nluck')",
        r"cannot be imported \(RuntimeError: no luck \(.*plugin_fails_to_import.py:1\)\)",
    ),
    "lacks-a-module": ("import no_such_module", r"cannot be imported \(ModuleNotFoundError: .*no_such_module"),
    "lacks-the-object": ("", r"cannot be imported \(AttributeError: .*KIND"),
    "of-another-type": ("KIND = 3", r"is a int; edgecnn.device_kinds takes a Kind"),
    "newer-interface": (
        HEAD + ROW.format(", interface=99"),
        r"needs plugin interface 99; this edgecnn has \d+: upgrade",
    ),
    "wrong-value": (HEAD + ROW.format("").replace("()", "('speed',)"), r"cannot be imported .*unknown figure 'speed'"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_plugin_that_cannot_be_used_is_one_line_that_names_it(install, capfd, case):
    code, reason = BROKEN[case]
    package = f"plugin_{case.replace('-', '_')}"
    install(package, "added", code)
    with pytest.raises(InputError, match=rf"plugin 'added' of package {package} {reason}"):
        plugins.registry("device_kinds", Kind)
    assert f"plugin 'added' of package {package}" in error_of(capfd, "devices")


def test_two_plugins_of_one_name_name_both_packages(install, capfd):
    for package in ("one_plugin", "other_plugin"):
        install(package, "same", HEAD + ROW.format(""))
    line = error_of(capfd, "devices")
    assert "one_plugin" in line
    assert "other_plugin" in line
    assert "has device_kinds 'same' too; uninstall one of them" in line


def test_a_plugin_takes_no_name_of_what_ships(install, capfd):
    install("usurper", "host", HEAD + ROW.format(""))
    assert "plugin 'host' of package usurper: edgecnn has device_kinds 'host' too" in error_of(capfd, "devices")


RUNTIME = (
    "from edgecnn_targets.interface import Runtime\nKIND = Runtime(target='mine', description='', open_session=print)\n"
)


def test_a_runtime_is_named_as_its_target(install):
    install("misnamed", "yours", RUNTIME, "runtimes")
    with pytest.raises(InputError, match="plugin 'yours' of edgecnn.runtimes executes 'mine'; name it after"):
        runtimes()


CONVERTER = (
    "from dataclasses import replace\nfrom edgecnn_converters.tflite import CONVERTER\n"
    "KIND = replace(CONVERTER, target='mine')\n"
)


def test_a_converter_without_a_runtime_is_listed(install, capfd):
    install("written_only", "mine", CONVERTER, "converters")
    assert main(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)["entries"]}
    assert rows["mine"]["description"] == "is written; no installed package runs it"
    assert rows["mine"]["missing"] is None
    assert main(["targets"]) == 0


def test_a_suffix_belongs_to_one_format(install):
    install("named", "mine", RUNTIME, "runtimes")
    install("same_suffix", "mine", CONVERTER, "converters")
    with pytest.raises(InputError, match=r"m.tflite may be tflite or mine, by its suffix; uninstall the plugin of one"):
        runtime_of(Path("m.tflite"))


def test_an_edgecnn_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(plugins, "entry_points", lambda group: [])
    with pytest.raises(InputError, match="no device_kinds of edgecnn's own are registered: install it"):
        plugins.registry("device_kinds", Kind)
