"""Channel histograms: what calibration saw of each channel, exact where it promises to be, in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn import normal_for
from hypothesis import given, settings
from hypothesis import strategies as st
from seen import SHAPE, statistics_of
from user_modules import GOOD

from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.quant.observers.histogram import LOOKED_AT, OCTAVES, PARTS, PENDING, ChannelObserver, calibrate, union

CHANNELS = 3
SIGNS = {"both": 1, "positive": np.abs, "negative": lambda v: -np.abs(v), "rectified": lambda v: np.maximum(v, 0)}


@st.composite
def batches(draw):
    """Batches (images, channels): of any sign and scale, some of zeros, each on a scale of its own."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    sign = SIGNS[draw(st.sampled_from(sorted(SIGNS)))]
    scales = draw(st.lists(st.one_of(st.just(0.0), st.floats(-6, 6).map(lambda e: 10.0**e)), min_size=1, max_size=40))
    spread = np.array([1, 1, 10 ** draw(st.floats(-6, 0))])  # a channel may be small
    drawn = [scale * spread * rng.normal(0, 1, (4, CHANNELS)) for scale in scales]
    return [np.asarray(v if sign == 1 else sign(v), np.float32) for v in drawn]


@settings(max_examples=150)
@given(batches())
def test_every_bin_holds_the_values_that_fell_into_it(given_batches):
    values = np.concatenate(given_batches).astype(np.float64)
    seen = statistics_of(*given_batches)
    np.testing.assert_array_equal(seen.low, values.min(axis=0))
    np.testing.assert_array_equal(seen.high, values.max(axis=0))
    found = seen.range()
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.counts.sum() == values.size
    assert (found.lower <= found.upper).all()
    smallest = 2.0**seen.exponent
    assert smallest <= max(np.abs(values).max() * 2.0 ** (1 - OCTAVES), 2.0**-126)
    zeros = (found.lower == found.upper) & (np.abs(found.lower) < smallest)  # or an end that lies among them
    assert found.counts[zeros].sum() == np.count_nonzero(np.abs(values) < smallest)
    for lower, upper, count in zip(*(x[~zeros] for x in (found.lower, found.upper, found.counts)), strict=True):
        inside = (values >= lower) & (values <= upper) & (np.abs(values) >= smallest)
        open_end = upper if upper > 0 else lower  # the edge farther from zero belongs to the next bin
        if found.low < open_end < found.high:
            inside &= values != open_end
        assert count == np.count_nonzero(inside)
        assert upper - lower <= min(abs(lower), abs(upper)) / PARTS * (1 + 1e-9)


@settings(max_examples=100)
@given(batches(), st.lists(st.floats(-3, 3), min_size=CHANNELS, max_size=CHANNELS), st.booleans())
def test_dividing_channels_shows_what_the_divided_values_would(given_batches, exponents, twice):
    by = 10.0 ** np.array(exponents)
    divided = np.concatenate(given_batches).astype(np.float64) / by
    seen = statistics_of(*given_batches)
    scaled = seen.divided(np.sqrt(by)).divided(np.sqrt(by)) if twice else seen.divided(by)
    np.testing.assert_allclose(scaled.low, divided.min(axis=0), rtol=1e-9)
    np.testing.assert_allclose(scaled.high, divided.max(axis=0), rtol=1e-9)
    found = scaled.range()
    assert found.counts.sum() == pytest.approx(divided.size)
    assert found.low <= found.lower.min()
    assert found.upper.max() <= found.high
    lost = 2.0**seen.exponent / by.min()  # what counted as zero before it was divided
    wide = 1 + 2 / PARTS  # a bin of the one spacing and one of the other
    for sign in (1, -1):
        ends = np.maximum(sign * found.lower, sign * found.upper)
        least = max(lost, np.abs(divided).max() * 2.0 ** (1 - OCTAVES))
        for x in np.geomspace(least, max(np.abs(divided).max(), least), 20):
            beyond = found.counts[ends > x].sum()
            assert np.count_nonzero(sign * divided > x * wide) <= beyond + 1e-6
            assert beyond <= np.count_nonzero(sign * divided > x / wide) + 1e-6


def test_the_mean_square_is_near():
    values = np.random.default_rng(0).normal(0, [1, 30, 1e-2], (5000, 3)).astype(np.float32)
    seen = statistics_of(*np.split(values, 50))
    np.testing.assert_allclose(seen.square, np.square(values.astype(np.float64)).mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(seen.divided(np.array([1, 30, 1e-2])).square, [1, 1, 1], rtol=0.05)


def test_ends_are_exact_where_not_every_value_is_looked_at():
    value = np.random.default_rng(0).normal(0, 1, (2, 64, 64, 8)).astype(np.float32)
    value[1, 13, 17, 5], value[0, 63, 63, 7], value[0, 0, 0, 0] = 1e4, -1e3, 7e-3
    assert value.size > 4 * LOOKED_AT
    seen = statistics_of(value)
    assert seen.high.max() == seen.high[5] == 1e4
    assert seen.low.min() == seen.low[7] == -1e3
    np.testing.assert_array_equal(seen.reach, np.abs(value).max(axis=(0, 1, 2)))


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_support_is_how_many_images_made_a_channel_large(batch):
    images_of = np.zeros((40, 4, 4, 4), np.float32)
    images_of[7, 2, 2, 1] = 5  # one image fires
    images_of[..., 2] = np.random.default_rng(0).normal(0, 1, (4, 4))  # all are alike
    images_of[:8, 1, 1, 3] = -3
    images_of[8:16, 1, 1, 3] = 3
    seen = statistics_of(*(images_of[i : i + batch] for i in range(0, 40, batch)))
    np.testing.assert_allclose(seen.support, [0, 1, 40, 16])
    np.testing.assert_allclose(seen.divided(np.array([1, 9, 3, 1e-3])).support, [0, 1, 40, 16])


def test_memory_does_not_grow_with_the_images():
    observer = ChannelObserver(nonnegative=False)

    def held():
        tensors = [v for v in vars(observer).values() if isinstance(v, torch.Tensor)] + observer._pending
        return sum(t.untyped_storage().nbytes() for t in tensors)

    value, most = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (2, 4, 48, 48)).astype(np.float32)), []
    for turn in range(20 * PENDING):
        observer.update(value * 1.02**turn, output=False)
        most.append(held())
    assert max(most) == max(most[: 2 * PENDING])
    assert max(most) <= 4 * (2 * PENDING * LOOKED_AT)
    assert observer.statistics().counts.shape == (4, 1 + 2 * OCTAVES * PARTS)


def test_calibration_reads_a_stream_once_and_keeps_its_first_images_in_order():
    graph = capture(GOOD["residual"]().eval(), SHAPE, Metadata())
    stream, asked = [normal_for(graph, 4, seed) for seed in range(5)], []

    def batches_once():
        for batch in stream:
            asked.append(len(batch))
            yield batch

    seen = calibrate(graph, batches_once(), keep=6)
    assert asked == [4] * 5
    np.testing.assert_array_equal(seen.images.arrays[graph.inputs[0]], np.concatenate(stream)[:6])
    assert len(calibrate(graph, stream, keep=100).images) == 20
    assert set(seen.statistics) == {t.name for t in graph.activations()}


def test_every_activation_is_seen_as_the_float_network_makes_it():
    graph = capture(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata())
    stream, values = [scale * normal_for(graph, 8) for scale in (0, 0.01, 1, 300, 2)], {}
    for batch in stream:
        TorchGraph(graph)(torch.from_numpy(batch), lambda n, v: values.setdefault(n, []).append(v.numpy().copy()))
    seen = calibrate(graph, stream)
    for name, parts in values.items():
        exact = np.concatenate(parts)
        over = (0, 2, 3) if exact.ndim == 4 else (0,)
        found = seen.statistics[name]
        np.testing.assert_array_equal(found.high, exact.max(over))
        np.testing.assert_array_equal(found.low, np.minimum(exact.min(over), math.inf))
        peaks = np.abs(exact).max(over[1:]) if exact.ndim == 4 else np.abs(exact)
        support = np.square(peaks.sum(0, dtype=np.float64)) / np.maximum(
            np.square(peaks, dtype=np.float64).sum(0), 1e-300
        )
        np.testing.assert_allclose(found.support, support, rtol=1e-5)


def test_several_activations_together_show_what_each_did():
    first, second = (statistics_of(np.random.default_rng(k).normal(0, 10**k, (50, 2))).range() for k in (0, 1))
    both = union([first, second])
    assert (both.low, both.high) == (min(first.low, second.low), max(first.high, second.high))
    assert both.counts.sum() == first.counts.sum() + second.counts.sum()


def test_no_images_and_bad_activations():
    graph = capture(GOOD["residual"]().eval(), SHAPE, Metadata())
    with pytest.raises(InputError, match="no calibration images"):
        calibrate(graph, [])
    first, second = normal_for(graph, 1), normal_for(graph, 1)
    second[0, 0, 0, 0] = np.nan
    for stream in ([second], [first, second]):
        with pytest.raises(InputError, match="activation 'input' is not finite"):
            calibrate(graph, stream)
