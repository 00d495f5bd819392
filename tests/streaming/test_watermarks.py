"""The watermark: oldest front, less disorder, never back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from streaming.errors import StateUnavailable
from streaming.watermarks import (
    LONG_AGO_MS,
    Watermarks,
    WatermarkState,
    decode_watermark,
    encode_watermark,
)

A, B = ("impressions", 0), ("feedback", 0)


def watermarks(disorder_ms=10, idle_after_ms=1000):
    return Watermarks([A, B], allowed_disorder_ms=disorder_ms, idle_after_ms=idle_after_ms)


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 1000)), max_size=30))
def test_is_the_lesser_of_the_newest_times_less_the_disorder(events):
    marks = watermarks()
    for partition, time_ms in events:
        marks.observe(partition, time_ms)
    newest = [max((t for at, t in events if at == partition), default=None) for partition in (A, B)]
    assert marks.watermark_ms == (LONG_AGO_MS if None in newest else min(newest) - 10)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([A, B]), st.integers(0, 1000)),
            st.tuples(st.sampled_from([(), (A,), (B,), (A, B)]), st.integers(0, 800)),
        ),
        max_size=30,
    )
)
def test_never_goes_back(steps):
    marks, before = watermarks(), LONG_AGO_MS
    for who, number in steps:
        if who in (A, B):
            marks.observe(who, number)
        else:
            marks.pass_time(number, who)
        assert marks.watermark_ms >= before
        before = marks.watermark_ms


def test_time_goes_on_with_the_wall_clock_while_all_are_silent():
    marks = watermarks()
    marks.observe(A, 500)
    marks.observe(B, 300)
    marks.pass_time(40, [A, B])
    assert marks.watermark_ms == 300 + 40 - 10
    marks.pass_time(40, [A])
    assert marks.watermark_ms == 300 + 40 - 10


def test_a_partition_silent_for_long_no_longer_holds_back():
    marks = watermarks()
    marks.observe(A, 5000)
    marks.pass_time(999, [B])
    assert marks.watermark_ms == LONG_AGO_MS
    marks.pass_time(1, [B])
    assert marks.watermark_ms == 5000 - 10


def test_a_restored_watermark_goes_on_where_it_was():
    first, second = watermarks(), watermarks()
    first.observe(A, 500)
    first.observe(B, 300)
    second.restore(first.state())
    assert second.watermark_ms == 290
    second.observe(B, 400)
    assert second.watermark_ms == 390


def test_no_partitions_are_refused():
    with pytest.raises(ConfigError, match="want partitions"):
        Watermarks([], allowed_disorder_ms=0, idle_after_ms=1)


@given(
    st.dictionaries(st.tuples(st.text(max_size=20), st.integers(0, 2**31 - 1)), st.integers(-(2**60), 2**60)),
    st.integers(-(2**62), 2**62),
)
def test_a_state_survives_its_bytes(fronts_ms, watermark_ms):
    state = WatermarkState(fronts_ms=fronts_ms, watermark_ms=watermark_ms)
    assert decode_watermark(encode_watermark(state)) == state


def test_bytes_that_are_no_watermark_are_refused():
    value = encode_watermark(WatermarkState(fronts_ms={A: 5}, watermark_ms=3))
    for damaged in (b"", value[:-14], b"\x02" + value[1:]):
        with pytest.raises(StateUnavailable, match="watermark"):
            decode_watermark(damaged)
