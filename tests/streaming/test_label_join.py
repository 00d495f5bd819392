"""The join against a brute-force oracle that sees every event at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.interactions import Feedback
from streaming.label_join import JoinConfig, LabelJoin, LabelRule
from streaming.shown import Shown
from streaming.topics import FEEDBACK, IMPRESSIONS

WAIT_MS, DISORDER_MS, ORPHAN_MS = 100, 30, 20
CONFIG = JoinConfig(
    label=LabelRule(kind="rating", at_least=4.0),
    wait_window_ms=WAIT_MS,
    allowed_disorder_ms=DISORDER_MS,
    orphan_window_ms=ORPHAN_MS,
)
FROM = {Shown: (IMPRESSIONS, 0), Feedback: (FEEDBACK, 0)}
FAR_MS = 10**6
# Coarse, so that events often lie exactly on the edge of a window.
TIMES_MS = st.integers(0, 20).map(lambda n: 10 * n)


def shown(request, time_ms, items):
    n = len(items)
    return Shown(
        f"r{request}",
        7,
        time_ms,
        "home",
        1,
        tuple(items),
        (0.5,) * n,
        1,
        b"k" * 8 * n,
        b"",
        tuple(range(8, 8 * n + 1, 8)),
    )


def rated(event_id, request, item, time_ms, value=5.0, kind="rating"):
    return Feedback(
        event_id=event_id,
        request_id=f"r{request}",
        user_id=7,
        item_id=item,
        kind=kind,
        value=value,
        event_time_ms=time_ms,
    )


def heartbeats(time_ms):
    return [shown("", time_ms, []), rated(0, "", 0, time_ms, kind="")]


def arrange(draw, events):
    """The events of each kind within the allowed disorder, the two kinds interleaved at will."""
    delays = draw(st.lists(st.sampled_from([0, 10, DISORDER_MS]), min_size=len(events), max_size=len(events)))
    in_time = [
        event
        for _, event in sorted(zip(delays, events, strict=True), key=lambda d: d[0] + d[1].event_time_ms)
    ]
    lanes = [[e for e in in_time if type(e) is kind] for kind in (Shown, Feedback)]
    picks = draw(st.permutations([0] * len(lanes[0]) + [1] * len(lanes[1])))
    return [lanes[pick].pop(0) for pick in picks]


@st.composite
def two_arrivals(draw, *, feedback_agrees):
    """One set of events with copies, in two orders of arrival."""
    impressions = [
        shown(
            request,
            draw(TIMES_MS),
            draw(st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)),
        )
        for request in range(draw(st.integers(1, 3)))
    ]
    values = draw(st.lists(st.sampled_from([1.0, 4.0]), min_size=20, max_size=20))
    feedback = []
    for event_id in range(draw(st.integers(0, 8))):
        request, item = draw(st.integers(0, 3)), draw(st.integers(0, 2))
        value = values[3 * request + item] if feedback_agrees else draw(st.sampled_from([1.0, 4.0]))
        kind = draw(st.sampled_from(["rating", "rating", "click"]))
        feedback.append(rated(event_id, request, item, draw(TIMES_MS), value, kind))
    events = impressions + feedback
    events += draw(st.lists(st.sampled_from(events), max_size=3))
    return arrange(draw, events), arrange(draw, events)


def expected(events):
    """(time, request, position, label) of every item, from the definition and all events at once."""
    examples = set()
    for impression in (e for e in events if isinstance(e, Shown)):
        for position, item in enumerate(impression.item_ids):
            answers = [
                (e.event_time_ms, e.event_id, e.value)
                for e in events
                if isinstance(e, Feedback)
                and (e.request_id, e.item_id, e.kind) == (impression.request_id, item, "rating")
                and -ORPHAN_MS <= e.event_time_ms - impression.event_time_ms < WAIT_MS
            ]
            label = 1.0 if answers and min(answers)[2] >= 4.0 else 0.0
            examples.add((impression.event_time_ms, impression.request_id, position, label))
    return sorted(examples)


def joined(events, config=CONFIG):
    join = LabelJoin(config, list(FROM.values()))
    for event in [*events, *heartbeats(FAR_MS)]:
        add = join.add_shown if isinstance(event, Shown) else join.add_feedback
        add(FROM[type(event)], event)
    assert join.oldest_needed() == join.arrivals
    return [
        (row.shown.event_time_ms, row.shown.request_id, row.position, row.label) for row in join.take()
    ], join.counters


@given(two_arrivals(feedback_agrees=True))
def test_at_once_gives_the_oracles_examples_in_any_order_of_arrival(arrivals):
    for arrival in arrivals:
        assert Counter(joined(arrival)[0]) == Counter(expected(arrival))


@given(two_arrivals(feedback_agrees=False))
def test_in_order_gives_the_oracles_sequence_in_any_order_of_arrival(arrivals):
    for arrival in arrivals:
        assert joined(arrival, replace(CONFIG, emit="in_order"))[0] == expected(arrival)


@given(two_arrivals(feedback_agrees=False), st.sampled_from(["at_once", "in_order"]))
def test_every_event_is_accounted_for(arrivals, emit):
    rows, counters = joined(arrivals[0], replace(CONFIG, emit=emit))
    items = sum(len(e.item_ids) for e in arrivals[0] if isinstance(e, Shown))
    feedback = sum(isinstance(e, Feedback) for e in arrivals[0])
    assert counters.positives + counters.negatives == len(rows)
    assert counters.positives == sum(label for *_, label in rows)
    unused = counters.duplicates + counters.orphans + counters.late + counters.ignored
    assert items + feedback == len(rows) + counters.joined + unused


def test_an_answered_item_leaves_at_once_and_an_unanswered_one_when_its_window_closes():
    join = LabelJoin(CONFIG, list(FROM.values()))
    join.add_shown(FROM[Shown], shown(1, 1000, [10, 11]))
    join.add_feedback(FROM[Feedback], rated(1, 1, 11, 1010))
    assert [(row.position, row.label) for row in join.take()] == [(1, 1.0)]
    for beat_ms, left in ((1000 + WAIT_MS + DISORDER_MS - 1, []), (1000 + WAIT_MS + DISORDER_MS, [(0, 0.0)])):
        for event in heartbeats(beat_ms):
            (join.add_shown if isinstance(event, Shown) else join.add_feedback)(FROM[type(event)], event)
        assert [(row.position, row.label) for row in join.take()] == left


def test_a_low_rating_is_an_answer_too():
    rows, counters = joined([shown(1, 0, [10]), rated(1, 1, 10, 5, value=2.0), rated(2, 1, 10, 6, value=5.0)])
    assert [row[-1] for row in rows] == [0.0]
    assert (counters.joined, counters.ignored) == (1, 1)


def test_a_copy_with_a_later_time_gives_no_second_example():
    memory = replace(CONFIG, late_memory_ms=500)
    events = [shown(1, 0, [10]), *heartbeats(300), shown(1, 290, [10])]
    rows, counters = joined(events, memory)
    assert len(rows) == 1
    assert counters.duplicates == 1


def test_an_impression_whose_window_has_closed_is_counted_late():
    rows, counters = joined([*heartbeats(1000), shown(1, 1000 - DISORDER_MS - WAIT_MS, [10])])
    assert (rows, counters.late) == ([], 1)


def test_an_event_is_needed_until_its_window_is_past():
    join = LabelJoin(CONFIG, list(FROM.values()))
    join.add_shown(FROM[Shown], shown(1, 0, [10]))
    join.add_shown(FROM[Shown], shown(2, 50, [10]))
    assert join.oldest_needed() == 0
    for event in heartbeats(WAIT_MS + DISORDER_MS):
        (join.add_shown if isinstance(event, Shown) else join.add_feedback)(FROM[type(event)], event)
    assert join.oldest_needed() == 1


@pytest.mark.parametrize(
    "setting", ["wait_window_ms", "allowed_disorder_ms", "orphan_window_ms", "late_memory_ms"]
)
def test_a_negative_window_is_refused(setting):
    with pytest.raises(ConfigError, match=f"{setting} must be .* got -1"):
        replace(CONFIG, **{setting: -1})
