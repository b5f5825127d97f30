"""``make mutants``: the faults that it puts into the source, and what it leaves alone."""

from __future__ import annotations

import ast

import pytest
from mutants.__main__ import draw, equivalents, table
from mutants.lines import REPOSITORY
from mutants.mutate import mutants_of, room_of
from mutants.trial import EQUIVALENT, KILLED, SURVIVED, Trial

SOURCE = '''
"""Text of the file with 3 > 2."""
from typing import TYPE_CHECKING

Any = int | str
CHUNK = 7

def area(width: int = 4, *, timeout_s: float = 9.0) -> int:
    """Return 5 times it."""
    if width < 0 or not width:
        raise ValueError(f"got {width + 1}; at least {1}")
    return min(width * 2, -3)

class Named:
    def __repr__(self) -> str:
        return "a" * 3
'''


@pytest.fixture
def tree(tmp_path):
    """A house with one file in a room and one beside the rooms."""
    for name in ("edgecnn/quant/areas.py", "edgecnn/areas.py", "converters/edgecnn_converters/areas.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SOURCE)
    return tmp_path


def test_faults_change_what_is_computed_and_no_text_type_or_setting_of_speed(tree):
    made = {mutant.what for mutant in mutants_of(tree, "edgecnn/areas.py")}
    assert made == {
        "4 -> (5)", "width < 0 -> (width <= 0)", "width < 0 -> (width >= 0)", "0 -> (1)", "not width -> (width)",
        "width < 0 or not width -> (width < 0 and (not width))",
        "width < 0 or not width -> (not (width < 0 or not width))",
        'raise ValueError(f"got {width + 1}; at least {1}") -> pass',
        "return min(width * 2, -3) -> return None", "min -> max", "width * 2 -> (width / 2)", "2 -> (3)",
        "-3 -> (3)", "3 -> (4)",
    }  # fmt: skip


def test_a_fault_replaces_its_own_text_alone(tree):
    for mutant in mutants_of(tree, "edgecnn/areas.py"):
        text = mutant.text(tree)
        ast.parse(text)
        changed = [i for i, (a, b) in enumerate(zip(SOURCE.split("\n"), text.split("\n"), strict=True), 1) if a != b]
        assert changed == [mutant.line]
    assert (tree / "edgecnn/areas.py").read_text() == SOURCE


def test_a_default_is_of_the_function_and_a_body_of_its_statement(tree):
    by = {mutant.what: mutant for mutant in mutants_of(tree, "edgecnn/areas.py")}
    assert by["4 -> (5)"].at_import
    assert not by["2 -> (3)"].at_import
    assert [*by["2 -> (3)"].lines] == [12]
    assert [*by["2 -> (3)"].scope] == [8, 9, 10, 11, 12]


def test_a_sample_is_the_seeds_and_has_each_room(tree):
    names = [[mutant.key for mutant in draw(tree, 12, seed)] for seed in (1, 1, 2)]
    assert names[0] == names[1] != names[2]
    assert {room_of(name.partition(":")[0]) for name in names[0]} == {"core", "quant", "converters"}


def test_a_fault_is_found_by_its_function_whatever_stands_above_it(tree):
    before = {mutant.place for mutant in mutants_of(tree, "edgecnn/areas.py")}
    assert ("edgecnn/areas.py", "area", "2 -> (3)") in before
    (tree / "edgecnn/areas.py").write_text("# a comment\n" + SOURCE)
    assert {mutant.place for mutant in mutants_of(tree, "edgecnn/areas.py")} == before


def test_each_fault_that_is_said_to_change_nothing_is_one_of_the_source():
    listed = equivalents()
    found = {mutant.place for path in {path for path, _, _ in listed} for mutant in mutants_of(REPOSITORY, path)}
    assert not listed - found


def test_a_score_leaves_out_what_changes_nothing(tree):
    made = mutants_of(tree, "edgecnn/areas.py")[:4]
    states = (KILLED, KILLED, SURVIVED, EQUIVALENT)
    rows = table([Trial(mutant=m, tests=[], how="", state=s) for m, s in zip(made, states, strict=True)]).splitlines()
    assert rows[2].split() == ["all", "2", "0", "1", "0", "1", "67", "%"]
    assert len(rows) == 5  # the head, the room, all, a blank line, and what survived
