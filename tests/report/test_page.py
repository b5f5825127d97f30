"""Reports for people and CI servers: well formed, nothing from a network, and no name is markup."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import DEMO
from PIL import Image

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.evaluation.collector import Collector, thumbnail
from edgecnn.graph.ir import Metadata
from edgecnn.graph.summary import Layer
from edgecnn.report.blocks import Cell, Prose
from edgecnn.report.charts import pareto_front
from edgecnn.report.drawing import HEIGHT, WIDTH, Box, drawing
from edgecnn.report.evidence import ClassChange, Disagreement, Evidence, LayerCost, LayerError
from edgecnn.report.markup import EMPTY
from edgecnn.report.network_page import NetworkView, _modules, _table
from edgecnn.report.page import _block, _cell
from edgecnn.report.record import Accuracy, Check, Finding, Latency, Report, ReportEntry
from edgecnn_converters.registry import converter

HOSTILE = "<script>alert(1)</script> | `x` @team =cmd() \"' ]]> \x1b[2J \u202e"
SVG = "{http://www.w3.org/2000/svg}"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """Collect elements and text, and check that every element that begins also ends, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def entry(name="net", target="tflite", top1=90.0, ms=1.0, size=1_000_000, evidence=None, **changes) -> ReportEntry:
    fields = {
        "model": name, "target": target, "device": "host", "artifact": f"out/{name}.{target}", "size_bytes": size,
        "precision": "int8", "accuracy": Accuracy(n=10, top1=top1, fp32_top1=91.0, drop=91.0 - top1, agreement=98.0),
        "latency": Latency(median_ms=ms, p90_ms=ms, threads=1), "evidence": evidence,
        "checks": (Check.at_most("drop", 91.0 - top1, 2.0, "points"),),
    }  # fmt: skip
    return ReportEntry(**{**fields, **changes})


def evidence(text: str = "plain") -> Evidence:
    picture = thumbnail(np.full((32, 32, 3), 200, np.uint8))
    one = Disagreement(image=text, fp32=text, artifact="b", label=text, margin=1.0, thumbnail=picture)
    return Evidence(
        errors=tuple(LayerError(name=f"{text}{k}", op="conv2d", sqnr_db=20.0 + k) for k in range(12)),
        costs=(LayerCost(op="CONV_2D", name=text, cycles=5), LayerCost(op="ADD", name="b", cycles=1)),
        changes=(ClassChange(fp32=text, artifact="b", images=2, won=0, lost=1),),
        differing=1,
        disagreements=(one,),
        recipe=f"name = {json.dumps(text)}\n",
    )


def report(*entries, **changes) -> Report:
    return Report(command="export", entries=entries, **changes)


def saved(made, tmp_path, suffix) -> str:
    made.save(tmp_path / f"report{suffix}")
    return (tmp_path / f"report{suffix}").read_text("utf-8")


def test_paper_has_what_is_said_nowhere_else(tmp_path):
    text = saved(report(entry(evidence=evidence())), tmp_path, ".html")
    folds = re.findall(r"<details( class=\"unprinted\")?><summary>([^<]*)", text)
    assert {title: bool(unprinted) for unprinted, title in folds} == {
        "All 12 layers": True, "Recipe of net int8": False, "Machine and versions": False
    }  # fmt: skip


def test_a_page_is_balanced_and_takes_nothing_from_a_network(tmp_path):
    made = report(entry(evidence=evidence()), entry(target="onnx", top1=88.0, ms=0.5), invocation="edgecnn export net")
    text = saved(made, tmp_path, ".html")
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "action", "srcset"):
            assert (attributes.get(name) or "data:#").startswith(("data:", "#"))
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            assert attributes["alt"]
    assert "url(" not in text
    assert "@import" not in text
    policies = [a.get("content") or "" for t, a in page.elements if t == "meta" and a.get("http-equiv")]
    assert "default-src 'none'" in policies[0]
    charts = [a for t, a in page.elements if t == "svg"]
    assert len(charts) == 3  # size, latency, layers
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    kinds = [a.get("class") for _, a in page.elements]
    assert (kinds.count("chart"), kinds.count("drawing")) == (3, 0)  # charts take the width that there is
    said = " ".join(page.text)
    for part in (
        "failed: 1 of 2 results",
        "edgecnn export net",
        "Layers",
        "Classes that changed",
        "Recipe of net int8",
    ):
        assert part in said


def test_no_name_is_markup_in_any_form(tmp_path):
    finding = Finding(code="test", text=HOSTILE, severity="error", images=(HOSTILE,))
    made = report(
        entry(HOSTILE, evidence=evidence(HOSTILE), findings=(finding,), device=HOSTILE),
        entry("=1+1", findings=(finding,)),
        invocation=HOSTILE,
    )
    page = Page(saved(made, tmp_path, ".html"))
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert "<script>alert(1)</script>" in " ".join(page.text)
    everything = saved(made, tmp_path, ".html") + saved(made, tmp_path, ".md") + saved(made, tmp_path, ".xml")
    assert "\x1b" not in everything
    assert "\u202e" not in everything
    markdown = saved(made, tmp_path, ".md")
    prose = "".join(markdown.split("```")[::2])
    assert "<script>" not in prose.replace("\\<script\\>", "")
    assert "@team" not in prose
    tables = [line for line in prose.splitlines() if line.startswith("|")]
    assert tables
    assert HOSTILE[:8] in markdown.replace("\\", "")
    root = ElementTree.fromstring(saved(made, tmp_path, ".xml"))
    assert root.get("failures") == "2"
    rows = list(csv.DictReader(io.StringIO(saved(made, tmp_path, ".csv"))))
    assert rows[1]["model"] == "'=1+1"
    assert float(rows[0]["accuracy.drop"]) == pytest.approx(1.0)


def test_markdown_tables_have_as_many_cells_in_every_row(tmp_path):
    text = saved(report(entry(evidence=evidence()), entry("a|b")), tmp_path, ".md")
    widths = []
    for line in text.splitlines():
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(line.replace("\\|", "").count("|"))
        assert len(set(widths)) == 1, line


def test_junit_has_a_case_for_each_check_and_each_error(tmp_path):
    broken = entry(checks=(), findings=(Finding(code="device_fault", text="the device broke", severity="error"),))
    root = ElementTree.fromstring(saved(report(entry(), entry(top1=80.0), broken, entry(checks=())), tmp_path, ".xml"))
    suites = list(root)
    assert [s.get("tests") for s in suites] == ["1", "1", "1", "1"]
    assert [s.get("failures") for s in suites] == ["0", "1", "1", "0"]
    assert suites[1].find("testcase/failure").get("message") == "drop: 11 points, limit at most 2 points"
    assert suites[2].find("testcase").get("name") == "device_fault"
    assert suites[3].find("testcase/skipped") is not None


def test_the_ending_decides_and_an_unknown_one_is_refused_before_work(tmp_path, capfd):
    with pytest.raises(InputError, match=r"ends in \.html, \.md, \.xml, \.csv, \.json"):
        report(entry()).save(tmp_path / "report.pdf")
    assert list(tmp_path.iterdir()) == []
    assert main(["validate", "missing.tflite", "--report", str(tmp_path / "report.pdf")]) == 2
    assert "report.pdf" in capfd.readouterr().err


def test_what_was_collected_is_in_json_without_pictures_and_null_where_nothing_was(tmp_path):
    both = json.loads(saved(report(entry(evidence=evidence()), entry()), tmp_path, ".json"))["entries"]
    assert set(both[0]["evidence"]["disagreements"][0]) == {"image", "fp32", "artifact", "label", "margin"}
    assert both[1]["evidence"] is None


def test_images_that_part_are_kept_in_bounded_number_the_surest_first():
    collector = Collector(Metadata(model="m", labels=("a", "b", "c")))
    rng = np.random.default_rng(0)
    for _ in range(10):
        exact = rng.normal(size=(10, 3)).astype(np.float32)
        names = [f"{k}" for k in range(10)]
        collector.update(-exact, exact, exact.argmax(axis=1), names, np.zeros((10, 300, 200, 3), np.uint8))
    found = collector.gathered()
    assert found.differing == 100
    assert sum(change.images for change in found.changes) == 100
    assert sum(change.lost for change in found.changes) == 100
    margins = [one.margin for one in found.disagreements]
    assert len(margins) == 24
    assert margins == sorted(margins, reverse=True)
    with Image.open(io.BytesIO(found.disagreements[0].thumbnail)) as picture:
        assert max(picture.size) == 96


def test_the_front_holds_what_nothing_beats():
    assert pareto_front([(2, 90), (1, 80), (3, 85), (1, 82), (4, 95)]) == ((1, 82), (2, 90), (4, 95))


def test_a_drawing_has_every_box_once_below_what_it_reads():
    boxes = [
        Box(name=name, inputs=inputs, lines=(name, "op <1>"), title=name)
        for name, inputs in (("a", ()), ("b", ("a",)), ("c", ("a",)), ("d", ("b", "c")), ("e", ("d", "a")))
    ]
    root = ElementTree.fromstring(drawing(boxes))
    where = {g.find(f"{SVG}title").text: g.find(f"{SVG}rect") for g in root.iter(f"{SVG}g")}
    place = {name: (float(r.get("x")), float(r.get("y"))) for name, r in where.items()}
    assert set(place) == set("abcde")
    assert place["b"][1] == place["c"][1] > place["a"][1]
    assert abs(place["b"][0] - place["c"][0]) >= WIDTH
    assert place["e"][1] - HEIGHT > place["d"][1]
    assert len(list(root.iter(f"{SVG}path"))) == 6
    assert float(root.get("width")) >= 2 * WIDTH


def test_modules_are_prefixes_that_few_enough_ops_share():
    names = [f"features.{k}.{part}" for k in range(9) for part in ("expand", "project")]
    found = dict(_modules(["stem", *names, "mean", "classifier"]))
    assert list(found) == ["stem", *(f"features.{k}" for k in range(9)), "mean to classifier"]
    assert [name for members in found.values() for name in members] == ["stem", *names, "mean", "classifier"]
    plain = list(_modules([f"op_{k}" for k in range(40)]))
    assert [len(members) for _, members in plain] == [16, 16, 8]


def test_a_network_is_a_page_and_node_data_is_keyed_by_the_tensors_of_the_file(exported, tmp_path, capfd):
    folder, _ = exported
    page, data = tmp_path / "net.html", tmp_path / "net.json"
    words = ["inspect", str(folder / f"{DEMO}.tflite"), "--html", str(page), "--model-explorer", str(data)]
    assert main([*words, "--data", "demo", "--limit", "2"]) == 0
    drawn = Page(page.read_text("utf-8"))
    links = [a["href"] for t, a in drawn.elements if t == "a"]
    targets = {a.get("id") for _, a in drawn.elements}
    assert links
    assert {link[1:] for link in links} <= targets
    row = converter("tflite")
    made = {layer.name for layer in row.layers(*row.read(folder / f"{DEMO}.tflite"))}
    graph = json.loads(data.read_text())["main"]
    assert set(graph["results"]) <= made
    assert len(graph["results"]) >= len(made) - 1
    assert all(isinstance(result["value"], float) for result in graph["results"].values())
    assert main([*words, "--colour", "time"]) == 2
    assert "needs --device" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_a_browser_shows_the_page_light_dark_and_on_paper(tmp_path):
    layers = tuple(LayerError(name=f"layer {k}", op="conv2d", sqnr_db=20.0 + k) for k in range(500))
    made = report(entry(evidence=replace(evidence(), errors=layers)), entry(target="onnx", top1=80.0, ms=0.5))
    made.save(tmp_path / "page.html")
    base = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,1200"]
    shots = {}
    for name, option in (
        ("light", "--blink-settings=preferredColorScheme=1"),
        ("dark", "--blink-settings=preferredColorScheme=0"),
    ):
        words = [*base, option, f"--screenshot={tmp_path / name}.png", (tmp_path / "page.html").as_uri()]
        subprocess.run(words, check=True, capture_output=True, timeout=600)
        with Image.open(tmp_path / f"{name}.png") as picture:
            shots[name] = np.asarray(picture.convert("L"), np.int64)
    assert shots["light"][5, 5] == 255
    assert shots["dark"][5, 5] < 40
    assert shots["light"].std() > 10
    assert shots["dark"].std() > 10
    words = [*base, f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri()]
    subprocess.run(words, check=True, capture_output=True, timeout=600)
    paper = (tmp_path / "page.pdf").read_bytes()
    assert paper.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 8, "the 500 layers stay in the page"


def test_a_view_without_figures_is_coloured_by_bits():
    assert NetworkView(title="n", facts=(), layers=(), reads={}).colours == ("bits",)


def test_a_cell_has_a_bar_as_long_as_its_share_or_none():
    assert "--share: 25.0%" in str(_cell(Cell(text="a", share=0.25), right=True))
    assert "--share: 100.0%" in str(_cell(Cell(text="a", share=3.0), right=True))
    for plain in (Cell(text="a"), "a"):
        assert "style" not in str(_cell(plain, right=True))
        assert "bar" not in str(_cell(plain, right=True))


def test_prose_is_a_paragraph_of_its_text():
    assert str(_block(Prose(text="1 < 2"))) == "<p>1 &lt; 2</p>"


@pytest.mark.parametrize(("unit", "shown"), [("ms", "0.1250"), ("cycles", "1,250")])
def test_times_have_four_decimals_and_counts_none(unit, shown):
    layer = Layer(name="a", op="conv2d", output=(1, 2), dtype="int8", scale=0.1, zero_point=0)
    figures = {"a": 0.125 if unit == "ms" else 1250.0}
    view = NetworkView(title="n", facts=(), layers=(layer,), reads={"a": ()}, costs=figures, unit=unit)
    (row,) = _table(view, ["a"], {"a": layer}).rows
    assert shown in row
