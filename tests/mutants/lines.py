"""Which tests run a line, and for how long: made once by coverage, and brought up to date for tests that changed."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from io import BytesIO
from pathlib import Path

from coverage import CoverageData

REPOSITORY = Path(__file__).parents[2]
SETTINGS = """\
[run]
data_file = ${MUTANTS_DATA}
parallel = true
core = ctrace
context = ${PYTEST_CURRENT_TEST-}
source_pkgs = edgecnn, edgecnn_converters, edgecnn_targets
patch = _exit
disable_warnings = module-not-imported, no-data-collected, already-imported, module-not-measured, no-ctracer
"""
CHILDS = re.compile(r" \((setup|call|teardown)\)$")  # what pytest's variable adds to a test's id
NO_TEST_OF_IT = ("tests/test_docs.py", "tests/plugin/test_plugin.py", "tests/test_benchmarks.py")
"""Tests of packages, pages and scripts: they install, build or run for minutes."""


def git(*words: str) -> bytes:
    """Return what a git command prints."""
    return subprocess.run(("git", *words), cwd=REPOSITORY, capture_output=True, check=True).stdout


def unpack(commit: str, tree: Path) -> None:
    """Write the files of a commit, beside a link to the images that some tests use."""
    with tarfile.open(fileobj=BytesIO(git("archive", commit))) as archive:
        archive.extractall(tree, filter="data")
    link, images = tree.parent / "shared", REPOSITORY.parent / "shared"
    if images.is_dir() and not link.is_symlink():
        link.symlink_to(images.resolve())


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which a tree's packages are imported, in child processes too."""
    paths = (tree, tree / "converters", tree / "targets", tree / "tests")
    return {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))}


class Layer:
    """What the tests of one commit ran. ``folder`` holds its ``tree``, ``data.*`` of coverage, and ``notes*.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commit = folder, folder.name.rpartition("-")[2]
        files = folder / "files.json"
        self.files: list[str] | None = json.loads(files.read_text()) if files.exists() else None
        self._data = list[CoverageData]()
        for path in sorted(folder.glob("data.*")):
            data = CoverageData(path)
            data.read()
            self._data.append(data)

    @cached_property
    def notes(self) -> dict[str, dict[str, object]]:
        """Return what is noted of each test that passed, by its id."""
        lines = (line for path in self.folder.glob("*.jsonl") for line in path.read_text("utf-8").splitlines())
        return {note["test"]: note for note in map(json.loads, lines) if note["passed"]}

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """Return the tests that use each shared fixture."""
        found = defaultdict(list)
        for test, note in self.notes.items():
            for fixture in note["fixtures"]:
                found[fixture].append(test)
        return found

    def tests(self, path: str) -> dict[int, set[str]]:
        """Return the ids of the tests that run each line of a file."""
        found: dict[int, set[str]] = defaultdict(set)
        for data in self._data:
            for line, contexts in data.contexts_by_lineno(str(self.folder / "tree" / path)).items():
                for context in contexts:
                    name = CHILDS.sub("", context)
                    found[line] |= {name} & self.notes.keys() | {*self.users.get(name, ())}
        return found


class Lines:
    """The map: layers in a folder, the first of all tests, each later one of the test files that changed since."""

    def __init__(self, cache: Path, commit: str) -> None:
        self._cache, self._commit = cache, git("rev-parse", "--short=12", commit).decode().strip()
        cache.mkdir(parents=True, exist_ok=True)
        self._layers = [Layer(folder) for folder in sorted(cache.glob("[0-9]*-*")) if (folder / "whole").exists()]
        self._known: dict[str, dict[int, set[str]]] = {}

    def update(self) -> None:
        """Run the tests that no layer has seen as they are."""
        changed = None
        if self._layers:
            last = self._layers[-1].commit
            names = git("diff", "--name-only", "--diff-filter=d", last, self._commit, "--", "tests").decode().split()
            tests = (name for name in names if Path(name).name.startswith("test_"))
            changed = [name for name in tests if not name.startswith(NO_TEST_OF_IT)]
        if changed is None or changed:
            self._layers.append(self._measured(changed))

    def _measured(self, files: list[str] | None) -> Layer:
        folder = self._cache / f"{len(self._layers)}-{self._commit}"
        shutil.rmtree(folder, ignore_errors=True)
        tree = folder / "tree"
        unpack(self._commit, tree)
        (folder / "coverage.ini").write_text(SETTINGS)
        if files is not None:
            (folder / "files.json").write_text(json.dumps(files))
        names = {"MUTANTS_NOTES": "notes.jsonl", "MUTANTS_DATA": "data", "COVERAGE_PROCESS_START": "coverage.ini"}
        paths = {name: str(folder / file) for name, file in names.items()}
        words = [sys.executable, "-m", "pytest", "-p", "mutants.watch", "-p", "no:cacheprovider", "-q", "--tb=line"]
        without = [f"--ignore={tree / name}" for name in NO_TEST_OF_IT]
        given = [*words, f"--basetemp={folder / 'tmp'}", *without, *(files or ["tests"])]
        subprocess.run(given, cwd=tree, env={**os.environ, **environment(tree), **paths}, check=False)
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        (folder / "whole").touch()
        return Layer(folder)

    def of_file(self, path: str) -> dict[int, set[str]]:
        """Return the ids of the tests that run each line of a file, as the file is in the commit."""
        if path not in self._known:
            found: dict[int, set[str]] = defaultdict(set)
            now, again = git("show", f"{self._commit}:{path}").decode().splitlines(), set[str]()
            for layer in reversed(self._layers):
                then = layer.folder / "tree" / path
                old = then.read_text("utf-8").splitlines() if then.exists() else []
                matched = difflib.SequenceMatcher(None, old, now, autojunk=False).get_matching_blocks()
                to = {a + i + 1: b + i + 1 for a, b, size in matched for i in range(size)}
                for line, tests in layer.tests(path).items():
                    if line in to:
                        found[to[line]] |= {test for test in tests if test.partition("::")[0] not in again}
                again |= {*(layer.files or ())}
            self._known[path] = found
        return self._known[path]

    def tests(self, path: str, lines: Iterable[int]) -> set[str]:
        """Return the ids of the tests that run one of some lines."""
        known = self.of_file(path)
        return {test for line in lines for test in known.get(line, ())}

    def at_run(self, path: str) -> set[int]:
        """Return the lines of a file that stand in functions: what is run when it is imported is left out."""
        tree = ast.parse(git("show", f"{self._commit}:{path}"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        return {line for node in functions for line in range(node.body[0].lineno, node.end_lineno + 1)}

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Return the seconds of each test that passed and is still there."""
        found, again = dict[str, float](), set[str]()
        for layer in reversed(self._layers):
            new = {test: note["seconds"] for test, note in layer.notes.items() if test.partition("::")[0] not in again}
            found = new | found
            again |= {*(layer.files or ())}
        return found

    @cached_property
    def sharing(self) -> set[str]:
        """Return the ids of the tests that share a fixture with others."""
        return {test for layer in self._layers for test, note in layer.notes.items() if note["fixtures"]}
