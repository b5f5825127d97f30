"""The memory planner: nothing that is still needed is overwritten, and little memory is wasted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn_converters.c.planner import Buffer, plan, window_lead


def meets(a, b):
    return a.first <= b.last and b.first <= a.last


@st.composite
def lifetimes(draw):
    count = draw(st.integers(1, 12))
    buffers = []
    for i in range(count):
        first = draw(st.integers(0, 8))
        buffers.append(
            Buffer(name=f"b{i}", size=draw(st.integers(1, 50)), first=first, last=first + draw(st.integers(0, 3)))
        )
    buffers.sort(key=lambda b: b.first)
    leads = {
        (a.name, b.name): draw(st.integers(-5, 60))
        for a in buffers
        for b in buffers
        if a is not b and a.first == b.last and b.first < a.first and draw(st.booleans())
    }
    return buffers, leads


@settings(max_examples=300)
@given(lifetimes())
def test_buffers_of_one_time_are_apart_or_as_far_ahead_as_they_may(case):
    buffers, leads = case
    made = plan(buffers, leads)
    assert made.size <= sum(b.size for b in buffers) + sum(map(abs, leads.values()))
    assert made.size >= max(b.size for b in buffers)
    for a in buffers:
        start = made.offsets[a.name]
        assert 0 <= start <= made.size - a.size
        for b in buffers:
            if a is b or not meets(a, b):
                continue
            other = made.offsets[b.name]
            apart = start + a.size <= other or other + b.size <= start
            ahead = (a.name, b.name) in leads and start + leads[a.name, b.name] <= other
            behind = (b.name, a.name) in leads and other + leads[b.name, a.name] <= start
            assert apart or ahead or behind


def test_a_chain_takes_its_two_largest_neighbours():
    sizes = [30, 100, 20, 60, 10]
    chain = [Buffer(name=str(i), size=s, first=i, last=i + 1) for i, s in enumerate(sizes)]
    assert plan(chain, {}).size == 130
    in_place = {(str(i + 1), str(i)): 0 for i in range(4)}
    assert plan(chain, in_place).size == 100


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_a_window_that_keeps_its_lead_reads_only_what_is_not_yet_overwritten(size, channels, kernel, stride, padding):
    """Run for real, on one array of bytes: what the op reads must still be what was there."""
    out = [(size[k] + sum(padding[2 * k : 2 * k + 2]) - kernel[k]) // stride[k] + 1 for k in (0, 1)]
    if min(out) < 1:
        return
    lead = window_lead((1, *size, channels[0]), (1, *out, channels[1]), kernel=kernel, stride=stride, padding=padding)
    in_bytes, out_bytes = size[0] * size[1] * channels[0], out[0] * out[1] * channels[1]
    start = max(0, -lead)  # of the output; the input lies `lead` after it
    memory = np.full(start + abs(lead) + in_bytes + out_bytes, -1)
    begin = start + lead
    memory[begin : begin + in_bytes] = np.arange(in_bytes)
    for oy in range(out[0]):
        for ox in range(out[1]):
            for channel in range(channels[1]):
                for iy in range(oy * stride[0] - padding[0], oy * stride[0] - padding[0] + kernel[0]):
                    for ix in range(ox * stride[1] - padding[2], ox * stride[1] - padding[2] + kernel[1]):
                        if 0 <= iy < size[0] and 0 <= ix < size[1]:
                            pixel = (iy * size[1] + ix) * channels[0]
                            seen = memory[begin + pixel : begin + pixel + channels[0]]
                            assert list(seen) == list(range(pixel, pixel + channels[0]))
                memory[start + (oy * out[1] + ox) * channels[1] + channel] = -2


@pytest.mark.parametrize(("stride", "lead"), [((1, 1), 7 * 3 + 3 + 3), ((2, 2), 0)])
def test_the_lead_of_a_depthwise_convolution(stride, lead):
    """In place but for the row and the pixel before, and the pixel itself; with a stride it falls further behind."""
    out = (6 // stride[0] + 1, 6 // stride[1] + 1)
    found = window_lead((1, 7, 7, 3), (1, *out, 3), kernel=(3, 3), stride=stride, padding=(1, 1, 1, 1))
    assert found == lead if stride == (1, 1) else found <= 7 * 3
