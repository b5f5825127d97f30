"""The benchmarks run without their peers, and say which they left out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import peers

    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "nncf" else importlib.util.find_spec(name))
    assert peers.present() == ["onnxruntime U8S8", "onnxruntime S8S8"]
    assert capsys.readouterr().err == ("nncf mixed was left out: nncf is not installed; pip install 'edgecnn[bench]'\n")
