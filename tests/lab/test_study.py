"""Compound scaling and the blocks: what the commands print is what is counted and what theory says."""

from __future__ import annotations

import json

import pytest

from edgecnn.cli import main


def printed(capfd, *words):
    """The entries that a command prints as JSON; of another command, its whole document."""
    capfd.readouterr()
    assert main([*words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    return found.get("entries", found)


def refused(capfd, *words):
    """The one line of a command that refuses its input."""
    capfd.readouterr()
    assert main(list(words)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_show_predicts_what_is_counted(capfd):
    doubled = ["--alpha", "2", "--beta", "2", "--gamma", "2", "--phi", "1"]  # nothing is rounded
    shown = printed(capfd, "scale", "show", "--family", "resnet20", *doubled)
    assert shown["cost"] == 32
    assert shown["scaled"]["macs"] == pytest.approx(shown["scaled"]["predicted_macs"], rel=0.03)


def test_show_at_the_coefficients_of_the_paper(capfd):
    shown = printed(capfd, "scale", "show", "--family", "resnet20", "--phi", "3")
    assert shown["cost"] == pytest.approx(1.2 * 1.1**2 * 1.15**2)
    made = shown["scaled"]
    assert (made["depth"], made["width"], made["resolution"]) == (1.728, 1.331, 48)
    assert made["model"] == "resnet20_1.331x1.728_48"
    assert shown["published"] == []


def test_show_as_a_table(capfd):
    assert main(["scale", "show", "--family", "resnet20", "--phi", "0"]) == 0
    shown = capfd.readouterr().out
    assert "resnet20_1.0_32" in shown
    assert "the rule on resnet20 at phi 0:" in shown


def test_published_members_beside_the_rule(monkeypatch):
    from edgecnn.lab import compound
    from edgecnn.models.count import size_of
    from edgecnn.models.scaling import COMPOUND
    from edgecnn.models.spec import resolve

    few = {name: compound.EFFICIENTNET[name] for name in ("b0", "b2")}
    monkeypatch.setattr(compound, "PUBLISHED", (few,))
    base, b2 = compound.published("efficientnet_b0", COMPOUND)
    assert compound.published("efficientnet_b2", COMPOUND) == [base, b2]
    assert base.off == 0
    assert b2.off == pytest.approx(1 - 1.2 / b2.rule_depth)
    assert (base.phi, base.macs) == (0, base.predicted_macs)
    assert (b2.depth, b2.width, b2.resolution, b2.macs) == (1.2, 1.1, 260, size_of(resolve("efficientnet_b2")).macs)
    assert (round(b2.rule_depth, 1), round(b2.rule_width, 1)) == (1.2, 1.1)


def test_macs_grow_by_the_law(capfd, tmp_path):
    plot = tmp_path / "law.svg"
    found = printed(capfd, "scale", "law", "--family", "resnet20", "-o", str(plot))
    assert [row["axis"] for row in found] == ["depth", "width", "resolution"]
    for row in found:
        assert row["exponent"] == pytest.approx(row["theory"], abs=0.03)
    assert plot.read_text().count("<polyline") == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "--phi", "11.2"], "resolution 1072; allowed: 32 to 1024 pixels"),
        (["show", "--family", "vgg16"], "vgg16 has no scaling rules; families that have: "),
        (["law", "--family", "efficientnet"], "unknown family 'efficientnet' (did you mean 'efficientnet_b0'?)"),
        (["law", "--family", "resnet21"], "unknown family 'resnet21' (did you mean "),
        (["show", "--family", "resnet20", "--phi", "40"], "width 45.259; allowed: 0.05 to 8.0"),
        (["show", "--family", "resnet20", "--phi", "1e9"], "no machine holds"),
        (["show", "--family", "resnet20", "--phi", "nan"], "phi nan: give a number"),
        (["show", "--family", "resnet20", "--phi", "inf"], "phi inf: give a number"),
        (["show", "--family", "resnet20", "--alpha", "0.5"], "each must be at least 1"),
        (["show", "--family", "resnet20", "--gamma", "nan"], "each must be at least 1"),
        (["show", "--family", "nothing"], "unknown family 'nothing'; "),
    ],
)
def test_what_cannot_be_scaled(capfd, words, said):
    assert said in refused(capfd, "scale", *words)


def test_blocks_have_the_ratio_that_theory_gives(capfd):
    rows = {row["block"]: row for row in printed(capfd, "study", "blocks", "--channels", "32", "--kernel", "5")}
    assert rows["depthwise separable"]["theory"] == pytest.approx(1 / 32 + 1 / 25)
    assert rows["standard"]["parameters"] == 32 * 32 * 25
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["theory"], rel=1e-12)
        assert row["macs"] == row["parameters"] * 28 * 28
        assert "instructions" not in row


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--channels", "6"], "needs a multiple of 4"),
        (["--kernel", "2"], "take an odd one"),
        (["--device", "host"], "host counts no instructions"),
    ],
)
def test_blocks_that_cannot_be(capfd, words, said):
    assert said in refused(capfd, "study", "blocks", *words)


def test_a_phi_that_no_memory_holds(monkeypatch, capfd):
    monkeypatch.setattr("edgecnn.allocator.os.sysconf", lambda name: 2**10)  # 1 MiB
    said = refused(capfd, "scale", "show", "--family", "resnet20", "--phi", "9")
    assert "resnet20_2.358x5.16_112 needs at least 0.1 GiB of memory; there are 0.0" in said
