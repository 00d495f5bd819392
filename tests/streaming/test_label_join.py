"""What the join does with single events; against all events at once: test_label_join_oracle.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from join_streams import FEEDBACK_FROM, SHOWN_FROM, acted, give, heartbeats, join_of, made, run, shown

from streaming.errors import EventRejected
from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.sampling import NegativeSampling
from streaming.shown import assemble
from streaming.window_store import MemoryStore

WAIT_MS, REACH_MS, DISORDER_MS = 100, 300, 30
CLICK = LabelRule(kind="click", wait_ms=WAIT_MS, attribution_ms=REACH_MS)
LIKE = LabelRule(kind="like", wait_ms=WAIT_MS)
BUY = LabelRule(kind="buy", wait_ms=250, attribution_ms=1000)


def config(*rules, disorder_ms=DISORDER_MS, **changes):
    return JoinConfig(
        rules=JoinRules(labels=rules or (CLICK,), **changes), allowed_disorder_ms=disorder_ms, skew_ms=20
    )


def test_an_answered_item_leaves_at_once_and_an_unanswered_one_when_its_wait_ends():
    join = join_of(config())
    assert made(join, shown(1, 1000, [10, 11]), acted(1, 1, 11, 1010)) == [(11, (1.0,), 1)]
    assert made(join, at_ms=1000 + WAIT_MS - 1) == []
    assert made(join, at_ms=1000 + WAIT_MS) == [(10, (0.0,), 1)]


def test_a_row_carries_what_was_served_and_by_what():
    join = join_of(config(CLICK, LIKE))
    for event in [shown(1, 1000, [10, 11]), acted(1, 1, 11, 1010)]:
        give(join, event)
    batch = assemble(join.take(), join.label_names)
    assert (batch.label_names, batch.request_id_B) == (("click", "like"), ["r1"])
    assert (batch.domain_B, batch.model_version_B) == (["home"], ["m1"])
    assert (batch.score_B.tolist(), batch.keys.keys_T.tolist()) == ([0.5], [1])
    assert (batch.delay_ms_B.tolist(), batch.sample_rate_BL.tolist()) == ([10], [[1.0, 1.0]])


def test_in_order_all_leave_when_the_wait_ends():
    join = join_of(config(emit="in_order"))
    assert made(join, shown(1, 1000, [10, 11]), acted(1, 1, 11, 1010)) == []
    assert made(join, at_ms=1000 + WAIT_MS) == [(10, (0.0,), 1), (11, (1.0,), 1)]


def test_an_answer_that_says_no_is_a_negative_and_decides():
    rated = LabelRule(kind="rating", at_least=4.0, wait_ms=WAIT_MS)
    join = join_of(config(rated))
    events = [shown(1, 0, [10]), acted(1, 1, 10, 5, "rating", 2.0), acted(2, 1, 10, 6, "rating", 5.0)]
    assert made(join, *events, at_ms=500) == [(10, (0.0,), 1)]
    assert (join.counters.joined, join.counters.ignored) == (1, 1)


def test_labels_that_end_together_share_a_negative_and_others_have_rows_of_their_own():
    join = join_of(config(CLICK, LIKE, BUY))
    assert made(join, shown(1, 0, [10]), acted(1, 1, 10, 5, "like")) == [(10, (None, 1.0, None), 1)]
    assert made(join, at_ms=WAIT_MS) == [(10, (0.0, None, None), 1)]
    assert made(join, at_ms=250) == [(10, (None, None, 0.0), 1)]


def test_watch_time_is_added_up_and_known_when_the_wait_ends():
    watch = LabelRule(kind="watch_s", at_least=None, combine="sum", wait_ms=WAIT_MS)
    join = join_of(config(watch))
    events = [acted(n, 1, 10, 10 * n, "watch_s", 2.5) for n in (1, 2, 2, 3)]
    assert made(join, shown(1, 0, [10, 11]), *events) == []
    assert made(join, at_ms=WAIT_MS) == [(10, (7.5,), 1), (11, (0.0,), 1)]
    assert join.counters.duplicates == 1


@pytest.mark.parametrize(
    ("policy", "rows"),
    [("retract", [((1.0,), 1), ((0.0,), -1)]), ("emit_positive", [((1.0,), 1)]), ("drop", [])],
)
@pytest.mark.parametrize(("time_ms", "comes_early"), [(50, False), (150, False), (150, True)])
def test_a_positive_after_its_negative_is_late_whether_by_its_date_or_its_arrival(
    policy, rows, time_ms, comes_early
):
    join = join_of(config(late_policy=policy))
    late = [acted(1, 1, 10, time_ms)]
    first = made(join, shown(1, 0, [10]), *(late if comes_early else []), at_ms=WAIT_MS)
    second = made(join, *([] if comes_early else late), at_ms=WAIT_MS + 1)
    assert first + second == [(10, (0.0,), 1)] + [(10, *row) for row in rows]
    assert join.counters.late == 1
    assert made(join, acted(2, 1, 10, time_ms), at_ms=5000) == []


def test_a_negative_that_was_sampled_out_is_not_taken_back():
    join = join_of(config(sampling=NegativeSampling(rate=1e-9)))
    assert made(join, shown(1, 0, [10]), acted(1, 1, 10, 150), at_ms=WAIT_MS) == [(10, (1.0,), 1)]
    assert (join.counters.sampled_out, join.counters.retracted) == (1, 0)


def test_in_time_and_late_positives_are_one_statement():
    in_time, late = (
        run(config(late_policy="emit_positive"), [shown(1, 0, [10]), acted(1, 1, 10, when)], MemoryStore())[0]
        for when in (50, 150)
    )
    assert in_time[0][0] == late[1][0]
    assert in_time[0][0] != late[0][0]


def test_fast_emit_states_a_negative_at_once_and_a_positive_until_attribution_ends():
    join = join_of(config(CLICK, LIKE, mode="fast_emit"))
    assert made(join, shown(1, 0, [10])) == [(10, (0.0, 0.0), 1)]
    assert made(join, acted(1, 1, 10, REACH_MS), acted(2, 1, 10, 200), at_ms=250) == [(10, (1.0, None), 1)]
    assert made(join, acted(3, 1, 10, 100, "like"), at_ms=1000) == []
    assert join.counters.ignored == 2


def test_a_domain_may_have_rules_of_its_own():
    slow = replace(CLICK, wait_ms=200)
    join = join_of(replace(config(), by_domain={"shop": JoinRules(labels=(slow,))}))
    assert made(join, shown(1, 0, [10], "shop"), shown(2, 0, [11], "home"), at_ms=199) == [(11, (0.0,), 1)]
    assert made(join, at_ms=200) == [(10, (0.0,), 1)]


def test_feedback_without_an_impression_waits_as_long_as_one_may_come_that_it_would_belong_to():
    join = join_of(config())
    assert made(join, acted(1, 1, 10, 1000), at_ms=1020) == []
    assert join.windows_in_memory == 1
    assert made(join, shown(1, 1020, [10])) == [(10, (1.0,), 1)]
    other = join_of(config())
    assert made(other, acted(1, 1, 10, 1000), at_ms=1021) == []
    assert (other.counters.orphans, other.windows_in_memory) == (1, 0)


def test_feedback_that_comes_when_its_impression_still_may_waits_for_it():
    join = join_of(config())
    assert made(join, at_ms=1020) == []
    assert made(join, acted(1, 1, 10, 1000), acted(2, 2, 10, 999)) == []
    assert join.counters.orphans == 1
    assert made(join, shown(1, 1020, [10])) == [(10, (1.0,), 1)]


def test_of_two_that_wait_only_the_one_whose_time_is_over_is_an_orphan():
    join = join_of(config())
    assert made(join, acted(1, 1, 10, 1000), acted(2, 1, 10, 1001), at_ms=1021) == []
    assert join.counters.orphans == 1
    assert made(join, shown(1, 1021, [10])) == [(10, (1.0,), 1)]


def test_a_copy_with_a_later_time_gives_no_second_example():
    join = join_of(replace(config(), remember_ms=500))
    events = [shown(1, 0, [10]), *heartbeats(400 + DISORDER_MS), shown(1, 390, [10])]
    assert made(join, *events, at_ms=5000) == [(10, (0.0,), 1)]
    assert join.counters.duplicates == 1


def test_a_second_page_of_a_request_waits_for_itself():
    join = join_of(config())
    assert made(join, shown(1, 0, [10]), shown(1, 60, [10, 11]), at_ms=WAIT_MS) == [(10, (0.0,), 1)]
    assert made(join, acted(1, 1, 11, 159), at_ms=2000) == [(11, (1.0,), 1)]


def test_an_impression_whose_wait_has_ended_is_counted_late():
    join = join_of(config())
    assert made(join, at_ms=1000) == []
    assert made(join, shown(1, 1000 - WAIT_MS, [10]), at_ms=9000) == []
    assert join.counters.late == 1


@pytest.mark.parametrize("event", [shown(1, 3000, [10]), acted(1, 1, 10, 3000)])
def test_an_event_from_far_ahead_is_rejected_and_moves_no_time(event):
    join = join_of(replace(config(), max_ahead_ms=1000))
    add, at = (join.add_feedback, FEEDBACK_FROM) if hasattr(event, "kind") else (join.add_shown, SHOWN_FROM)
    with pytest.raises(EventRejected, match="1001 ms ahead of its arrival, want at most 1000"):
        add(at, event, received_at_ms=1999)
    assert made(join, at_ms=500) == []
    assert join.watermark_ms == 500


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400)), max_size=12))
def test_every_item_and_every_feedback_is_accounted_for(clicks):
    events = [shown(1, 0, [0, 1]), shown(1, 10, [1])]
    events += [acted(n, 1, item, time_ms) for n, (item, time_ms) in enumerate(clicks)]
    rows, join = run(config(late_policy="emit_positive", disorder_ms=500), events, MemoryStore())
    counters = join.counters
    assert counters.positives + counters.negatives == len(rows)
    assert counters.negatives + counters.positives - counters.late == 2
    assert len(clicks) == counters.joined + counters.ignored + counters.orphans
    assert counters.duplicates == 1
