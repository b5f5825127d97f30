"""Limits: which figures they are about, and when one cannot hold any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.evaluation.limits import ROWS, Limits
from edgecnn.report.record import Accuracy, ReportEntry


def test_every_field_has_a_row_and_every_row_a_figure():
    assert [*(row.field for row in ROWS), "require"] == list(Limits.__dataclass_fields__)
    entry = ReportEntry(model="m", target="t", device="d", artifact="a", size_bytes=1, precision="int8")
    for row in ROWS:
        check = row.check(entry, 1.0)
        assert (check.value, check.passed) == (None, False), "nothing passes unmeasured"


def test_a_limit_whose_figure_a_device_lacks_is_said_and_not_checked():
    limits = Limits(max_drop=1, max_instructions=9)
    entry = ReportEntry(model="m", target="t", device="d", artifact="a", size_bytes=1, precision="int8")
    assert [c.name for c in limits.checks(entry, ("accuracy", "latency"))] == ["drop"]
    assert limits.left_out(("accuracy", "latency")) == (
        "--max-instructions is not checked here: this device has no figure for it",
    )


def test_a_limit_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="--max-instructions inf: give a finite number"):
        Limits(max_instructions=float("inf"))


FATES = st.lists(st.sampled_from(["same", "lost", "won"]), min_size=1, max_size=40)


def accuracy_of(fates):
    n = len(fates)
    drop = 100 * (fates.count("lost") - fates.count("won")) / n
    return Accuracy(n=n, drop=drop, agreement=100 * fates.count("same") / n)


@given(FATES, FATES, st.floats(-20, 60), st.floats(0, 101))
def test_what_is_lost_stays_lost(before, after, max_drop, min_agreement):
    total = len(before) + len(after)
    end = accuracy_of(before + after)
    if Limits(max_drop=max_drop).lost(accuracy_of(before), total):
        assert end.drop > max_drop - 1e-9
        assert accuracy_of(before).drop > max_drop - 1e-9, "the figures so far must fail the check as well"
    if Limits(min_agreement=min_agreement).lost(accuracy_of(before), total):
        assert end.agreement < min_agreement + 1e-9
        assert accuracy_of(before).agreement < min_agreement + 1e-9


def test_a_limit_is_lost_as_soon_as_it_is_certain():
    limits = Limits(min_agreement=90)
    assert limits.lost(accuracy_of(["lost"] * 10), 100) is None
    assert limits.lost(accuracy_of(["lost"] * 11), 100) == "--min-agreement 90"
    assert Limits(max_drop=10).lost(accuracy_of(["lost"] * 55 + ["same"]), 100) == "--max-drop 10"
    assert Limits().lost(accuracy_of(["lost"]), 2) is None
