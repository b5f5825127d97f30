"""Figures: each against a direct computation, and the interval against its nominal coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from golden_files import golden
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.report.record import SQNR_CEILING_DB
from edgecnn_targets.accuracy_meter import AccuracyMeter, paired_interval, parity, sqnr_db

GOLDEN = golden("targets")["paired_interval"]


def logits_of(classes: list[int], width: int = 4) -> np.ndarray:
    return np.eye(width, dtype=np.float32)[classes]


def meter_of(got: np.ndarray, labels: np.ndarray | None, reference: np.ndarray | None, size: int = 3):
    meter = AccuracyMeter()
    for start in range(0, len(got), size):
        part = slice(start, start + size)
        meter.update(
            got[part], None if labels is None else labels[part], None if reference is None else reference[part]
        )
    return meter.result()


def test_figures_of_a_case_worked_by_hand():
    labels = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    fp32 = logits_of([0, 1, 2, 3, 0, 1, 0, 0])  # 6 of 8
    got = logits_of([0, 1, 2, 0, 1, 1, 2, 0])  # 5 of 8: two lost, one won, agreement on 5
    found = meter_of(got, labels, fp32)
    assert (found.n, found.fp32_top1, found.top1, found.drop) == (8, 75.0, 62.5, 12.5)
    assert found.agreement == 62.5
    assert found.sqnr_db == pytest.approx(10 * math.log10(8 / 6))
    assert found.drop_ci95 == paired_interval(2, 1, 8)
    assert found.drop_ci95[0] < found.drop < found.drop_ci95[1]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 9))
def test_batches_of_any_size_give_what_numpy_gives_at_once(seed, n, size):
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(n, 12)).astype(np.float32)
    got = np.round(reference + rng.normal(0, 0.3, size=(n, 12)), 1).astype(np.float32)
    labels = rng.integers(0, 12, n)
    found = meter_of(got, labels, reference, size)
    first, fp32_first = got.argmax(1), reference.argmax(1)
    five = np.argsort(-got, axis=1, kind="stable")[:, :5]
    assert found.top1 == 100 * np.count_nonzero(first == labels) / n
    assert found.top5 == 100 * np.count_nonzero((five == labels[:, None]).any(1)) / n
    assert found.agreement == 100 * np.count_nonzero(first == fp32_first) / n
    assert found.drop == pytest.approx(found.fp32_top1 - found.top1, abs=1e-9)
    noise = np.square(got.astype(float) - reference).sum()
    assert found.sqnr_db == pytest.approx(10 * np.log10(np.square(reference.astype(float)).sum() / noise), abs=1e-9)


def test_a_drop_on_the_limit_is_exactly_the_limit():
    labels = np.zeros(1000, np.int64)
    found = meter_of(logits_of([1] + [0] * 999), labels, logits_of([0] * 1000), size=100)
    assert found.drop == 0.1
    assert found.top1 == 99.9


def test_label_offset_skips_the_background_class():
    meter = AccuracyMeter(label_offset=1)
    meter.update(logits_of([1, 2, 3]), np.array([0, 1, 0]), logits_of([1, 2, 3]))
    assert meter.result().top1 == pytest.approx(200 / 3)


def test_equal_logits_rank_in_class_order():
    meter = AccuracyMeter()
    meter.update(np.zeros((7, 7), np.float32), np.arange(7))
    found = meter.result()
    assert found.top1 == pytest.approx(100 / 7)
    assert found.top5 == pytest.approx(500 / 7)


def test_without_labels_there_is_agreement_and_without_a_reference_there_is_top1():
    unlabelled = meter_of(logits_of([0, 1]), None, logits_of([0, 2]))
    assert (unlabelled.top1, unlabelled.drop, unlabelled.drop_ci95, unlabelled.agreement) == (None, None, None, 50.0)
    alone = meter_of(logits_of([0, 1]), np.array([0, 0]), None)
    assert (alone.top1, alone.fp32_top1, alone.drop, alone.agreement, alone.sqnr_db) == (50.0, None, None, None, None)
    assert AccuracyMeter().result().n == 0


@pytest.mark.parametrize(("label", "offset"), [(4, 0), (3, 1), (-1, 0), (0, -1)])
def test_a_label_without_a_logit_is_named(label, offset):
    with pytest.raises(InputError, match=rf"class {label} of the data has no logit: the artifact has 4"):
        AccuracyMeter(offset).update(logits_of([0]), np.array([label]))


def test_logits_that_are_not_finite_or_of_another_head_are_refused():
    for broken in (np.nan, np.inf):
        with pytest.raises(InputError, match="the artifact returns NaN or infinite values"):
            AccuracyMeter().update(np.full((1, 4), broken, np.float32))
        with pytest.raises(InputError, match="fp32 returns NaN or infinite values"):
            AccuracyMeter().update(logits_of([0]), None, np.full((1, 4), broken, np.float32))
    with pytest.raises(InputError, match="not the same network"):
        AccuracyMeter().update(logits_of([0]), None, logits_of([0], width=5))


def test_labels_for_some_batches_only_is_a_mistake_of_the_caller():
    meter = AccuracyMeter()
    meter.update(logits_of([0]), np.array([0]))
    meter.update(logits_of([0]))
    with pytest.raises(ValueError, match="some of the batches only"):
        meter.result()


def test_sqnr_is_finite_for_equal_outputs_and_for_a_silent_reference():
    assert sqnr_db(12.0, 0.0) == SQNR_CEILING_DB
    assert sqnr_db(0.0, 1.0) == -SQNR_CEILING_DB
    assert sqnr_db(1e9, 1e-290) == SQNR_CEILING_DB
    assert sqnr_db(100.0, 1.0) == pytest.approx(20)


def test_interval_equals_the_published_example():
    low, high = paired_interval(26, 4, 48)
    assert (low / 100, high / 100) == pytest.approx(tuple(GOLDEN["published"].values()), abs=1e-7)


@pytest.mark.parametrize("n", [10, 30, 100])
@pytest.mark.parametrize(("p_lost", "p_won"), [(0.0, 0.0), (0.01, 0.01), (0.03, 0.01), (0.1, 0.05), (0.3, 0.1)])
def test_interval_covers_the_true_drop_as_often_as_it_says(n, p_lost, p_won):
    covered = 0.0
    for lost in range(n + 1):
        for won in range(n + 1 - lost):
            low, high = paired_interval(lost, won, n)
            if low <= 100 * (p_lost - p_won) <= high:
                ways = math.comb(n, lost) * math.comb(n - lost, won)
                covered += ways * p_lost**lost * p_won**won * (1 - p_lost - p_won) ** (n - lost - won)
    assert covered >= GOLDEN["min_coverage"]


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_interval_holds_the_drop_is_never_empty_and_mirrors(counts):
    n, lost, won = counts
    won = min(won, n - lost)
    low, high = paired_interval(lost, won, n)
    assert -100 <= low < high <= 100
    assert low <= 100 * (lost - won) / n <= high
    assert paired_interval(won, lost, n) == pytest.approx((-high, -low))


def test_parity_counts_steps_and_does_not_wrap():
    found = parity(np.array([[-128, 0, 5]], np.int8), np.array([[127, 0, 4]], np.int8))
    assert (found.max_lsb, found.mean_lsb) == (255, pytest.approx(256 / 3))
    same = np.arange(8, dtype=np.int8)
    assert parity(same, same).max_lsb == 0


@pytest.mark.parametrize("other", [np.zeros(3, np.int8), np.zeros(4, np.uint8), np.zeros(4, np.float32)])
def test_parity_of_different_grids_is_refused(other):
    with pytest.raises(InputError, match="cannot be compared in LSB"):
        parity(np.zeros(4, np.int8), other)
