"""A window's bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from join_streams import acted, shown

from streaming.errors import StateUnavailable
from streaming.windows import Part, Window, decode_window, encode_window

TIMES_MS = st.integers(-(2**62), 2**62)
ANSWERS = st.dictionaries(
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(allow_nan=False), TIMES_MS, st.integers(0, 2**64 - 1)),
    max_size=3,
)
SHOWN = shown(1, 0, [1, 2])


@st.composite
def windows(draw):
    parts = [
        Part(SHOWN, bytearray(draw(st.binary(max_size=9))), draw(st.integers(0, 4095)), answers, late)
        for answers, late in draw(st.lists(st.tuples(ANSWERS, ANSWERS), max_size=3))
    ]
    early = [
        acted(event_id, 1, item, time_ms, kind)
        for event_id, item, time_ms, kind in draw(
            st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 9), TIMES_MS, st.text(max_size=5)))
        )
    ]
    ids = draw(st.sets(st.integers(0, 2**64 - 1)))
    return Window("r1", draw(TIMES_MS), draw(TIMES_MS), parts, ids, early)


def content(window):
    parts = [(part.states, part.closed, part.answers, part.late) for part in window.parts]
    return window.request_id, window.due_ms, window.forget_ms, parts, window.event_ids, window.early


@given(windows())
def test_a_window_survives_its_bytes(window):
    again = decode_window("r1", encode_window(window), [SHOWN] * len(window.parts))
    assert content(again) == content(window)
    assert again.saved_due_ms == again.armed_ms == window.due_ms
    assert again.saved_parts == len(window.parts)


@given(windows(), st.data())
def test_a_window_that_is_cut_is_refused(window, data):
    value = encode_window(window)
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    if not window.early or len(cut) < 25:
        with pytest.raises(StateUnavailable):
            decode_window("r1", cut, [SHOWN] * len(window.parts))


def test_a_window_of_another_version_is_refused():
    value = encode_window(Window("r1"))
    with pytest.raises(StateUnavailable, match=r"version 02 .* want version 1"):
        decode_window("r1", b"\x02" + value[1:], [])
