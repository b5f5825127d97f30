"""The documentation holds: every command and every Python block runs, or says why it does not; links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from PIL import Image

from edgecnn.cli import main
from edgecnn.cli.documents import schema
from edgecnn.data.demo import CLASSES, images
from edgecnn.report.record import Check, Finding, Report, ReportEntry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "SKILL.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "reference").glob("*.md")))
LANGUAGES = {"sh", "python", "text", "toml", "c", "json"}
MARK = re.compile(r"<!-- (slow|not run: (?P<reason>.{8,})|exits (?P<status>\d+)) -->")
FENCE = re.compile(r"```(?P<language>\w*)(?: title=\"(?P<title>[\w.]+)\")?")
LONGEST_SENTENCE = 30  # words, as shared style asks


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page, with what the comment before it says.

    Attributes:
        line: of the fence, from 1.
        title: a file that the block is, instead of code to run.
        run: ``quick``, ``slow`` or ``never``.
        status: exit status that the commands must have.
    """

    line: int
    language: str
    title: str | None
    text: str
    run: str
    status: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found, lines, mark = [], page.read_text("utf-8").splitlines(), None
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("<!-- ") and (match := MARK.fullmatch(line)):
            mark = match
        elif line.startswith("```"):
            fence = FENCE.fullmatch(line)
            assert fence, f"{page.name}:{i + 1}: {line!r} is no fence that this test reads"
            end = lines.index("```", i + 1)
            run = "quick" if mark is None or mark["status"] else "slow" if mark[1] == "slow" else "never"
            status = int(mark["status"] or 0) if mark else 0
            text = "\n".join(lines[i + 1 : end])
            found.append(
                Block(line=i + 1, language=fence["language"], title=fence["title"], text=text, run=run, status=status)
            )
            i, mark = end, None
        elif line.strip():
            mark = None
        i += 1
    return found


def pages_with(run: str) -> list[Path]:
    """Return the pages that have a command or a Python block to run."""
    return [page for page in PAGES if any(b.run == run and b.language in ("sh", "python") for b in blocks(page))]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what a user has: images without labels, and labelled ones in a subfolder for each class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    pixels, labels = images("test", range(64))
    for k, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        for place in (tmp_path / "images", tmp_path / "val" / f"{label:02d}_{CLASSES[label]}"):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{k:03d}.png")
    return tmp_path


def run_page(page, folder, kinds):
    """Run the blocks of a page in order: files are written, commands run, all Python shares one namespace."""
    scope = {"__name__": "__main__"}
    for block in (b for b in blocks(page) if b.run in kinds):
        if block.title:
            (folder / block.title).write_text(block.text + "\n")
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), scope)
        elif block.language == "sh":
            for command in filter(None, (shlex.split(line, comments=True) for line in block.text.splitlines())):
                status = run_command(command)
                assert status == block.status, f"{page.name}:{block.line}: {shlex.join(command)}: status {status}"


def run_command(words):
    """Run a command of ours in this process, which spares importing torch again; return its exit status."""
    *words, last = words
    output = None
    if words and words[-1] == ">":
        words, output = words[:-1], last
    else:
        words = [*words, last]
    assert words[0] == "edgecnn", f"only edgecnn runs here, not {shlex.join(words)}"
    assert set(words).isdisjoint({"|", "<", ">", "&&", ";"}), f"no shell runs here: {shlex.join(words)}"
    with Path(output or os.devnull).open("w") as file, redirect_stdout(file):
        return main(words[1:])


@pytest.mark.parametrize("page", pages_with("quick"), ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page, folder):
    run_page(page, folder, {"quick"})


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("slow"), ids=lambda page: page.stem)
def test_what_a_page_shows_runs_slowly(page, folder):
    run_page(page, folder, {"quick", "slow"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_stands_in_fences_of_known_languages(page):
    assert {b.language for b in blocks(page)} <= LANGUAGES
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
    assert not re.search(r"^    \S.*\b(edgecnn|python|pip)\b", text, re.M), "a command outside a fence is not tested"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_sentence_is_long(page):
    if page.stem == "cli":
        pytest.skip("made of help texts, which tests of the command line hold")
    long = [sentence for sentence in sentences(page) if len(sentence.split()) > LONGEST_SENTENCE]
    assert not long, "\n".join(long)


def sentences(page):
    """Yield the sentences of a page's prose: no code, tables, headings or comments."""
    text = page.read_text("utf-8")
    text = re.sub(r"^```.*?^```|<!--.*?-->", "\n\n", text, flags=re.S | re.M)
    text = re.sub(r"^(#|\||!\[).*$", "\n", text, flags=re.M)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d+\. |: )", text):
        yield from re.split(r"(?<=[.!?:])\s+(?=[A-Z0-9`*\[])", " ".join(paragraph.split()))


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text("utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, link


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def script(name):
    """Return a script of docs/scripts as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date():
    for name, page in script("reference").PAGES.items():
        assert (DOCS / "reference" / name).read_text("utf-8") == page(), "run python docs/scripts/reference.py"


def test_the_report_page_names_every_field():
    entry = ReportEntry(model="m", target="t", device=None, artifact="a", size_bytes=1, precision="int8")
    document = Report(command="validate", entries=(entry,)).to_dict()
    said = set(re.findall(r"`(\w+)`", (DOCS / "reference" / "report.md").read_text("utf-8")))
    for part in (document, document["host"], *document["entries"]):
        assert set(part) <= said
    for name in ("accuracy", "latency", "parity", "beside_host", "resources", "seconds"):
        assert set(document["entries"][0][name]) <= said, name
    for kind in (Check, Finding):
        assert {field.name for field in fields(kind)} <= said
    for part in schema()["$defs"].values():
        assert set(part["properties"]) <= said


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    notebook = json.loads((ROOT / "examples" / "own_module.ipynb").read_text("utf-8"))
    kept = [len(cell.get("outputs", ())) for cell in notebook["cells"]]
    scope = script("notebook").run_cells(notebook)
    assert scope["report"].passed
    assert [entry.target for entry in scope["report"].entries] == ["tflite", "onnx", "openvino"]
    assert [len(cell.get("outputs", ())) for cell in notebook["cells"]] == kept, "run docs/scripts/notebook.py"


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "own_module.py", tmp_path / "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".tflite", ".onnx", ".xml", ".bin", ".edgecnn"}


def test_the_site_has_no_broken_link(tmp_path):
    if importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed; `make docs` installs it and builds the site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
