"""Progress of what comes into a folder: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

import pytest

from edgecnn.progress import TimeLeft, filling, track


@pytest.mark.parametrize("terminal", [True, False])
def test_what_comes_into_a_folder_is_counted_on_a_terminal_alone(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with filling(tmp_path / "archives", "packages", 4096):
        (tmp_path / "archives").mkdir()
        (tmp_path / "archives" / "some.deb").write_bytes(bytes(2048))
        time.sleep(0.5)
    said = capsys.readouterr().err
    assert ("packages" in said and "2.0/4.1 kB" in said) if terminal else said == ""


class Clock:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_that_of_the_costs_left():
    clock = Clock()
    left = TimeLeft([1, 3, 6, 10], clock)
    assert left.seconds() is None
    clock.now += 2
    assert left.seconds() is None, "before a step has ended nothing is known"
    left.step()
    assert left.seconds() == pytest.approx(2 * 19)  # 2 s for each unit of cost
    clock.now += 5
    assert left.seconds() == pytest.approx(2 * 19 - 5)
    clock.now += 1
    left.step()
    assert left.seconds() == pytest.approx(2 * 16)
    clock.now += 24  # twice what it should take
    assert left.seconds() == pytest.approx(2 * 10), "the step that runs is late, those after it still take their time"
    left.step()
    assert left.seconds() == pytest.approx(10 * 32 / 10)
    clock.now += 32
    left.step()
    assert left.seconds() == 0


def test_steps_that_cost_nothing_say_nothing_of_the_others():
    clock = Clock()
    left = TimeLeft([0, 2, 2], clock)
    clock.now += 0.5
    left.step()
    assert left.seconds() is None
    clock.now += 1.5
    left.step()
    assert left.seconds() == pytest.approx(2)


@pytest.mark.parametrize("terminal", [True, False])
def test_items_with_costs_are_all_yielded_and_shown_on_a_terminal_alone(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    seen = []
    for item in track("abc", "solve", costs=[1, 1, 2]):
        seen.append(item)
        time.sleep(0.2)
    assert seen == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert ("solve" in said and "2/3" in said and "0:00:00 left" in said) if terminal else said == ""
