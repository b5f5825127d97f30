"""Records: strict types, suggestions for misspelt keys, one line that names file and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess
from edgecnn.records import read_file, read_record


@dataclass(frozen=True, kw_only=True)
class Port:
    name: str
    shape: tuple[int, ...]
    scale: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    input: Port
    others: tuple[Port, ...] = ()
    by_name: Mapping[str, Port] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    anything: Mapping[str, Any] | None = None
    flag: bool = False


def record(**changes):
    return {"input": {"name": "x", "shape": [1, 2]}, **changes}


def test_lists_become_tuples_and_tables_become_dataclasses():
    port, fed = {"name": "y", "shape": [], "scale": 1}, {"resize": [3, 4], "mean": [1, 2, 3.5]}
    made = read_record(
        Record, record(others=[port], by_name={"y": port}, preprocess=fed, anything={"input": [1, None]}), "it"
    )
    assert made == Record(
        input=Port(name="x", shape=(1, 2)),
        others=(Port(name="y", shape=(), scale=1.0),),
        by_name={"y": Port(name="y", shape=(), scale=1.0)},
        preprocess=Preprocess(resize=(3, 4), mean=(1.0, 2.0, 3.5)),
        anything={"input": [1, None]},
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "it: expected object, got array"),
        (None, "it: expected object, got null"),
        (record(inptu=1), r"it: unknown key 'inptu' \(did you mean 'input'\?\); allowed: anything, by_name, flag, "),
        ({"input": {"name": "x", "shap": []}}, r"it: input: unknown key 'shap' \(did you mean 'shape'\?\)"),
        (record(others=[{"nam": "x"}]), "it: others: unknown key 'nam'"),
        (record(by_name={"y": {"nam": "x"}}), "it: by_name: unknown key 'nam'"),
        ({}, "it: lacks the key 'input'"),
        ({"input": {"name": "x"}}, "it: input: lacks the key 'shape'"),
        ({"input": {"name": "x", "shape": "ab"}}, "it: input.shape: expected array, got str"),
        ({"input": {"name": "x", "shape": [1.5]}}, r"it: input.shape\[0\]: expected int, got float"),
        ({"input": {"name": "x", "shape": [True]}}, r"it: input.shape\[0\]: expected int, got bool"),
        ({"input": {"name": "x", "shape": [], "scale": "1"}}, r"it: input.scale: expected float \| null, got str"),
        (record(flag=1), "it: flag: expected bool, got int"),
        (record(preprocess={"mean": [1, 2], "std": [1, 2, 3]}), "it: preprocess mean=.*give as many numbers of both"),
        (record(preprocess={"resize": None, "std": [0, 1, 1]}), "it: preprocess std=.*every value must be above 0"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_key(given, message):
    with pytest.raises(InputError, match=f"^{message}") as told:
        read_record(Record, given, "it")
    assert "\n" not in str(told.value)


def test_files_are_toml_or_json(tmp_path):
    toml, other = tmp_path / "a.toml", tmp_path / "a.json"
    toml.write_text('[input]\nname = "x"\nshape = [1, 2]\n')
    other.write_text('{"input": {"name": "x", "shape": [1, 2]}}')
    assert read_file(Record, toml) == read_file(Record, other) == Record(input=Port(name="x", shape=(1, 2)))


@pytest.mark.parametrize(
    ("name", "content"), [("a.toml", b"a = ="), ("a.json", b'{"a": 1'), ("a.json", b"\xff\xfe"), ("a.json", None)]
)
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(name, content, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"cannot read .*{name} \(.*\); delete it$"):
        read_file(Record, tmp_path / name, remedy="delete it")
