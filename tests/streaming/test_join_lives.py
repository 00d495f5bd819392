"""What a join does after another life of it: what is held back, and what a commit brings back."""

from __future__ import annotations

import pytest
from join_streams import acted, give, heartbeats, join_of, made, rows_of, run, shown

from streaming.errors import StateUnavailable, StreamingError
from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.window_store import MemoryStore

WAIT_MS, DISORDER_MS = 100, 30
CLICK = LabelRule(kind="click", wait_ms=WAIT_MS, attribution_ms=300)
LIKE = LabelRule(kind="like", wait_ms=WAIT_MS)


def config(*rules, **changes):
    return JoinConfig(
        rules=JoinRules(labels=rules or (CLICK,), **changes), allowed_disorder_ms=DISORDER_MS, skew_ms=20
    )


def ids(rows):
    return {example_id for example_id, _, _ in rows}


def test_statements_that_are_in_the_output_are_not_made_again():
    events = [shown(1, 0, [10, 11]), acted(1, 1, 11, 20), acted(2, 1, 10, 150)]
    rows, _ = run(config(), events, MemoryStore())
    for n_out in range(len(rows) + 1):
        join = join_of(config())
        join.hold_back(ids(rows[:n_out]))
        for event in [*events, *heartbeats(10**6)]:
            give(join, event)
        assert ids(rows_of(join)) == ids(rows[n_out:])


@pytest.mark.parametrize("emit", ["at_once", "in_order"])
@pytest.mark.parametrize("n_out", [1, 2, 3])
def test_a_positive_that_comes_in_time_is_late_where_its_negative_is_out_already(emit, n_out):
    rules = config(CLICK, LIKE, emit=emit)
    late = [shown(1, 0, [10]), *heartbeats(WAIT_MS + DISORDER_MS), acted(1, 1, 10, 20)]
    rows, _ = run(rules, late, MemoryStore())
    assert [stated.labels for _, stated, _ in rows] == [(0.0, 0.0), (1.0, None), (0.0, None)]
    join = join_of(rules)
    join.hold_back(ids(rows[:n_out]))
    for event in [late[0], late[-1], *heartbeats(10**6)]:
        give(join, event)
    assert ids(rows_of(join)) == ids(rows[n_out:])


def test_a_label_whose_positive_is_out_is_no_negative_where_time_has_gone_on_faster():
    rules = config(CLICK, LIKE)
    in_time = [shown(1, 0, [10]), acted(1, 1, 10, 20)]
    rows, _ = run(rules, in_time, MemoryStore())
    join = join_of(rules)
    join.hold_back(ids(rows))
    for event in [in_time[0], *heartbeats(WAIT_MS + DISORDER_MS), in_time[1], *heartbeats(10**6)]:
        give(join, event)
    assert rows_of(join) == []


def test_what_is_held_back_no_longer_is_made_again():
    rows, _ = run(config(), [shown(1, 0, [10])], MemoryStore())
    join = join_of(config())
    join.hold_back(ids(rows))
    join.hold_back(set())
    assert made(join, shown(1, 0, [10]), at_ms=WAIT_MS) == [(10, (0.0,), 1)]


def test_rows_must_be_taken_before_the_commit_that_counts_them_as_made():
    join = join_of(config())
    give(join, shown(1, 0, [10]))
    give(join, acted(1, 1, 10, 5))
    with pytest.raises(StreamingError, match="1 rows were not taken"):
        join.commit(b"")
    join.take()
    join.commit(b"")


def test_a_restored_join_has_the_marks_the_windows_and_the_watermark_of_the_commit():
    store = MemoryStore()
    join = join_of(config(), store)
    assert join.restore() is None
    assert made(join, shown(1, 1000, [10]), at_ms=1050) == []
    join.commit(b"marks")
    made(join, at_ms=3000)
    again = join_of(config(), MemoryStore(store.committed))
    assert again.restore() == b"marks"
    assert (again.watermark_ms, again.windows_in_memory) == (1050, 1)
    assert made(again, at_ms=1000 + WAIT_MS) == [(10, (0.0,), 1)]


def test_the_state_of_other_labels_is_refused():
    store = MemoryStore()
    join_of(config(CLICK), store).commit(b"")
    with pytest.raises(StateUnavailable, match=r"labels \[b'click'\], want"):
        join_of(config(LIKE), MemoryStore(store.committed)).restore()
