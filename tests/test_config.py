"""edgecnn.toml: what the file says is what the command line would, which wins; `run` and `init` work on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import DEMO, error_of

from edgecnn.cli import COMMANDS, _parser, config, main
from edgecnn.cli.config import FILE


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*words):
    """Return the options of a command, as `main` gets them."""
    parser, commands = _parser()
    words = [words[0], *config.configure(commands[words[0]], words[0], words[1:])]
    return vars(parser.parse_args(words))


SAME = [
    ("export net", '[export]\nmodel = "net"', "export"),
    ("export net --max-drop 1 --limit 20", "[export]\nmax_drop = 1\nlimit = 20", "export net"),
    ("export net --target tflite,onnx", '[export]\ntarget = ["tflite", "onnx"]', "export net"),
    ("export net --device host,cortex-a72", '[check]\ndevice = ["host", "cortex-a72"]', "export net"),
    ("export net --mixed --no-guard", "[export]\nmixed = true\nguard = false", "export net"),
    ("export net --require a>=1 --require b<=2", '[check]\nrequire = ["a>=1", "b<=2"]', "export net"),
    ("export net --input-shape 3x8x8", '[export]\ninput_shape = "3x8x8"', "export net"),
    ("export net --max-drop 2", "[check]\nmax_drop = 1\n[export]\nmax_drop = 2", "export net"),
    ("export net --labels names.txt", '[export]\nlabels = "names.txt"', "export net"),
    ("validate a.tflite --data demo", '[validate]\ndata = "demo"', "validate a.tflite"),
    ("compare a b --data demo --layers", '[compare]\ndata = "demo"\nlayers = true', "compare a b"),
    ("benchmark x y --data demo", '[benchmark]\nmodels = ["x", "y"]\ndata = "demo"', "benchmark"),
    ("inspect net --weights demo", '[inspect]\nweights = "demo"', "inspect net"),
    ("sweep s.toml --workers 2 --minutes 5", '[sweep]\nfile = "s.toml"\nworkers = 2\nminutes = 5', "sweep"),
    ("sweep report out", "", "sweep report out"),
    ("scale fit --max-macs 3e8 --alpha 1", "[scale.fit]\nmax_macs = 3e8\nalpha = 1", "scale fit"),
    ("scale fit --max-ms 5", "[scale.fit]\nmax_macs = 3e8", "scale fit --max-ms 5"),
    ("scale study --data d --seeds 2", '[scale.study]\ndata = "d"\nseeds = 2', "scale study"),
    ("scale show --phi 1", "[scale.fit]\nmax_macs = 3e8", "scale show --phi 1"),
    ("study residual --depths 20,56 --full", "[study.residual]\ndepths = [20, 56]\nfull = true", "study residual"),
    ("study blocks --side 14", "[study.blocks]\nside = 14", "study blocks"),
    ("train net --data demo -o w --lr 0.1", '[train]\ndata = "demo"\noutput = "w"\nlr = 0.1', "train net"),
]


@pytest.mark.parametrize(("whole", "text", "words"), SAME, ids=[whole for whole, _, _ in SAME])
def test_the_file_says_what_the_command_line_would(whole, text, words):
    wanted = parsed(*whole.split())
    FILE.write_text(text)
    assert parsed(*words.split()) == wanted


@pytest.mark.parametrize(
    ("text", "words", "dest", "value"),
    [
        ("limit = 20", "--limit 5", "limit", 5),
        ('device = "cortex-a72"', "--device host", "device", "host"),
        ('require = ["a>=1"]', "--require b>=2", "require", ["b>=2"]),
        ("skip_bad_images = true", "--no-skip-bad-images", "skip_bad_images", False),
        ("guard = false", "--guard", "guard", True),
        ("limit = 20", "--config none", "limit", None),
    ],
)
def test_the_command_line_wins(text, words, dest, value):
    FILE.write_text(f"[export]\n{text}")
    assert parsed("export", "net", *words.split())[dest] == value


def test_what_is_checked_on_is_not_what_others_read():
    FILE.write_text("[check]\ndata = 'val'")
    assert parsed("benchmark", "net")["data"] == "val"
    assert parsed("inspect", "net")["data"] is None
    assert parsed("train", "net", "--data", "mine", "-o", "w")["data"] == "mine"


@pytest.mark.parametrize("name", config.COMMANDS)
def test_every_option_can_stand_in_the_file(name):
    for action, parser in config.leaves(_parser()[1][name], name).items():
        options = {action.dest for action in parser._actions}
        held = {row.dest for row in config.settable(config.leaves(config.parser_of(name), name)[action])}
        assert options - held == {"help", "config", "traceback", "quiet", "verbose"} | ({"dry_run"} & options)


def test_a_command_that_takes_no_table_runs_nothing():
    assert set(COMMANDS) - set(config.COMMANDS) == {
        "run", "init", "models", "targets", "devices", "recipes", "doctor", "schema", "completion",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[export]\nquantise = 'int8'", r"edgecnn.toml: export: unknown key 'quantise' \(did you mean 'quantize'\?\)"),
        ("[export]\nmax-drop = 1", r"export: unknown key 'max-drop' \(did you mean 'max_drop'\?\)"),
        ("[exprt]", r"edgecnn.toml: unknown key 'exprt' \(did you mean 'export'\?\)"),
        ("[check]\nlimit = 'many'", r"edgecnn.toml: check.limit: expected int, got str"),
        ("[check]\nlimit = 0", r"edgecnn.toml: check.limit: '0' is not a whole number above 0"),
        ("[check]\nskip_bad_images = 1", r"check.skip_bad_images: expected bool, got int"),
        ("[check]\ndevice = [1]", r"check.device\[.*\]: expected str, got int"),
        ("[export]\nquantize = 'int4'", r"export.quantize: unknown value 'int4' .*allowed: fp16, int16x8, int8"),
        ("[[network]]\nmodel = 'a'\nlimits = 1", r"network: unknown key 'limits' \(did you mean 'limit'\?\)"),
        ("[[network]]\nmodel='a'\n[[network.validate]]\nlimit='x'", r"validate.*limit: expected int, got str"),
        ("[scale]\nbase = 'a'", r"scale: unknown key 'base'"),
        ("[scale.fti]", r"scale: unknown key 'fti' \(did you mean 'fit'\?\)"),
        ("[scale.fit]\nmax_ms = 1\nmax_macs = 1", r"scale.fit: max_macs and max_ms exclude each other; give one"),
        ("[study.residual]\ndepths = ['deep']", r"study.residual.depths.*expected int, got str"),
        ("[export", r"cannot read edgecnn.toml \(.*\); `edgecnn init MODEL` writes one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_that_names_the_place(text, said, capfd):
    FILE.write_text(text)
    for words in (["run"], ["export", "net"]):
        assert re.search(said, error_of(capfd, *words))


def test_help_and_other_commands_need_no_right_file(capfd):
    FILE.write_text("[exprt]")
    assert main(["recipes"]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["export", "--help"])
    assert ended.value.code == 0


def test_what_was_read_by_itself_is_said(capfd):
    FILE.write_text("[inspect]\nweights = 'demo'")
    assert main(["inspect", DEMO]) == 0
    assert "note: edgecnn.toml gives weights (--config none leaves it out)" in capfd.readouterr().err
    for words in (["--config", str(FILE)], ["-q"]):
        assert main(["inspect", DEMO, *words]) == 0
        assert "note" not in capfd.readouterr().err


def test_relative_paths_begin_at_the_file(here):
    (here / "sub").mkdir()
    text = """
        [export]
        model = "net.onnx"
        weights = "w.pt"
        calibration = "images"
        data = "val.npz:test"
        recipe = "mine.toml"
        device = ["host", "board.toml", "ssh://pi@board"]
        output = "out"
        metric = "own:figure"
        [benchmark]
        weights = ["net=w.pt", "demo"]
        """
    (here / "sub" / "c.toml").write_text(text)
    found = parsed("export", "--config", "sub/c.toml")
    assert found["model"] == str(Path("sub/net.onnx"))
    assert (found["weights"], found["calibration"], found["data"]) == ("sub/w.pt", "sub/images", "sub/val.npz:test")
    assert (found["recipe"], found["output"]) == ("sub/mine.toml", Path("sub/out"))
    assert found["device"] == "host,sub/board.toml,ssh://pi@board"
    assert found["metric"] == ["own:figure"]
    found = parsed("benchmark", "net", "--data", "demo", "--config", "sub/c.toml")
    assert found["weights"] == ["net=sub/w.pt", "demo"]


@pytest.mark.parametrize("value", ["demo", "none", "random"])
def test_words_are_no_paths(value, here):
    (here / "sub").mkdir()
    key = {"demo": "data", "none": "calibration", "random": "weights"}[value]
    (here / "sub" / "c.toml").write_text(f'[export]\n{key} = "{value}"\nrecipe = "best"\nmodel = "resnet20_0.25_48"')
    found = parsed("export", "--config", "sub/c.toml")
    assert (found[key], found["recipe"], found["model"]) == (value, "best", "resnet20_0.25_48")


# --- run ---


def test_run_exports_and_validates_every_network_in_one_report(exported, here, capfd):
    (here / "small.edgecnn").write_bytes((exported[0] / f"{DEMO}.edgecnn").read_bytes())
    FILE.write_text("""
        [check]
        data = "demo"
        limit = 10
        report = "out/page.html"
        [[network]]
        model = "small.edgecnn"
        target = ["tflite", "onnx"]
        max_drop = 50
        [[network.validate]]
        device = "host"
        exact_kernels = true
        max_latency_ms = 0.00001
        [[network]]
        model = "missing.edgecnn"
        """)
    assert main(["run", "--json"]) == 2, "the worst: a limit is missed, and a file is not there"
    captured = capfd.readouterr()
    report = json.loads(captured.out)
    assert report == json.loads((here / "out" / "report.json").read_text())
    assert report["command"] == "run"
    assert "small" in (here / "out" / "page.html").read_text()
    places = [(e["target"], [c["name"] for c in e["checks"] if not c["passed"]]) for e in report["entries"]]
    assert places == [("tflite", []), ("onnx", []), ("tflite", ["latency"]), ("onnx", ["latency"]), ("tflite", [])]
    assert {e["accuracy"]["n"] for e in report["entries"]} == {10, 0}
    assert report["entries"][-1]["findings"][0]["code"] == "not_run"
    assert "missing.edgecnn" in captured.err
    assert main(["run", "small", "--device", "host", "--limit", "5", "--target", "tflite", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    assert (entry["target"], entry["accuracy"]["n"]) == ("tflite", 5)


def test_a_file_that_is_named_must_be_there(capfd):
    said = r"cannot read no.toml \(No such file or directory\); `edgecnn init MODEL` writes one"
    for words in (["export", "net"], ["run"]):
        assert re.search(said, error_of(capfd, *words, "--config", "no.toml"))


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (None, [], r"there is no edgecnn.toml here; `edgecnn init MODEL` writes one"),
        ("", [], r"edgecnn.toml has no \[\[network\]\]"),
        (
            "[[network]]\nmodel = 'a'\n[[network]]\nmodel = 'a'",
            [],
            r"two networks write out/a; give one of them another",
        ),
        ("[[network]]\nmodel = 'a'", ["b"], r"unknown network 'b'; allowed: a"),
        ("[[network]]\nweights = 'demo'", [], r"a \[\[network\]\] has no model"),
    ],
)
def test_run_says_what_it_lacks(text, words, said, capfd):
    if text is not None:
        FILE.write_text(text)
    assert re.search(said, error_of(capfd, "run", *words))


# --- init ---


def test_init_writes_a_file_that_run_reads_and_does_not_overwrite(capfd):
    words = ["init", "net.onnx", DEMO, "--calibration", "images", "--target", "tflite,onnx", "--max-drop", "1"]
    assert main([*words, "--device", "host,cortex-a72"]) == 0
    assert "next: edgecnn run --dry-run" in capfd.readouterr().out
    found = config.read(FILE)
    assert [network.values["model"] for network in found.networks] == ["net.onnx", DEMO]
    given = {"calibration": "images", "target": "tflite,onnx", "max_drop": 1.0, "device": "host,cortex-a72"}
    assert found.commands["export"] == given
    before = FILE.read_text()
    assert "is there already; --force replaces it" in error_of(capfd, *words)
    assert FILE.read_text() == before
    assert main([*words, "--force"]) == 0
    assert FILE.read_text() != before


def test_what_init_leaves_out_is_right_when_it_is_put_in():
    assert main(["init", DEMO]) == 0
    text = FILE.read_text()
    put_in = re.sub(r"^# (\w+ = (?!\"[^\"]*[A-Z]).*)$", r"\1", text, flags=re.M)
    assert put_in != text
    config.check(put_in, FILE)
    keys = set(re.findall(r"^(?:# )?(\w+) = ", text, re.M))
    assert keys == {config.key_of(a) for a in config.settable(config.parser_of("export"), config.OF_THE_REPORT)}


def test_init_elsewhere_writes_paths_from_there(here):
    assert main(["init", "net.onnx", "--data", "val", "-o", "ci/edgecnn.toml"]) == 0
    assert 'model = "../net.onnx"' in Path("ci/edgecnn.toml").read_text()
    assert config.read(Path("ci/edgecnn.toml")).commands["export"]["data"] == "ci/../val"


@pytest.mark.parametrize("name", ["caf\u00e9 \U0001f600.onnx", 'a "b"\\c.onnx', "a\x7fb.onnx", "a\tb.onnx"])
def test_init_writes_any_name_as_toml_holds_it(name):
    assert main(["init", name]) == 0
    (network,) = config.read(FILE).networks
    assert network.values["model"] == name


def test_init_refuses_a_name_that_is_no_text(capfd):
    assert "'\\udcff', which is no UTF-8" in error_of(capfd, "init", "a\udcff.onnx")
    assert not FILE.exists()


def test_init_writes_nothing_that_run_would_refuse(capfd, monkeypatch):
    monkeypatch.setattr("edgecnn.cli.init._lines", lambda options: iter(["[check]", "max_dorp = 1"]))
    assert "unknown key 'max_dorp'" in error_of(capfd, "init", DEMO)
    assert not FILE.exists()


def test_init_refuses_what_the_reader_would(capfd):
    assert "unknown" in error_of(capfd, "init", DEMO, "--max-dorp", "1")
    assert not FILE.exists()
