"""``requirements/``, which ``make lock`` writes: what CI installs has hashes, and is the set of ``constraints.txt``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EXTRAS = ("all", "dev", "docs")


def name_of(text):
    return re.match(r"[\w.-]+", text).group().lower().replace("_", "-").replace(".", "-")


def rows(extra):
    """Return the versions and the number of hashes of each package in a file."""
    text = (REPOSITORY / "requirements" / f"{extra}.txt").read_text().replace("\\\n", " ")
    found: dict[str, list[tuple[str, int]]] = {}
    for line in text.splitlines():
        version = re.match(r"[\w.-]+==([\w.+]+)", line)
        found.setdefault(name_of(line), []).append((version[1], len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line))))
    return found


def wanted(project, extra):
    """Return the names that an extra of the project asks for, in extras of its own too."""
    for text in project["optional-dependencies"][extra]:
        if name_of(text) == "edgecnn":
            for inner in text[text.index("[") + 1 : text.index("]")].split(","):
                yield from wanted(project, inner)
        else:
            yield name_of(text)


@pytest.mark.parametrize("extra", EXTRAS)
def test_ci_installs_files_by_their_hashes(extra):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found = rows(extra)
    assert all(hashes for versions in found.values() for _, hashes in versions)
    names = {name_of(text) for text in project["dependencies"]} | {*wanted(project, extra)}
    assert names - found.keys() == {"torch"}, "run `make lock`"
    assert not [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("extra", EXTRAS)
def test_they_are_the_set_that_is_tested_together(extra):
    pins = re.findall(r"^([\w.-]+)==([\w.+]+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    found, dev = rows(extra), rows("dev")
    differ = {name: pin for name, pin in pins if {v for v, _ in found.get(name_of(name), [])} - {pin}}
    assert not differ, "run `make lock`"
    assert all(dev.get(name, versions) == versions for name, versions in found.items())  # one environment holds both
