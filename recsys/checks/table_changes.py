"""What every table promises to those who follow its changes.

Axes: N keys of one call.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.checks.table_specimens import SPEC, MakeTable, drained, gradients, keys_of
from recsys.errors import ConfigError


def check_changed_keys_are_drained_once(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.learn(keys_of(4), gradients(1), event_time_s=1)
    follower = table.follow()
    assert drained(table, follower) == ([], [])
    table.learn(keys_of(5, 3, 5), gradients(3), event_time_s=1)
    table.assign(keys_of(2**64 - 1), gradients(1))
    table.import_rows(table.export_rows(keys_of(4)))
    assert drained(table, follower) == ([3, 5, 2**64 - 1], [])
    assert drained(table, follower) == ([], [])
    table.lookup(keys_of(5))
    table.erase(keys_of(3, 9))
    assert drained(table, follower) == ([], [3])
    table.learn(keys_of(3), gradients(1), event_time_s=1)
    table.erase(keys_of(3))
    table.learn(keys_of(9), gradients(1), event_time_s=1)  # on the row that 3 had
    assert drained(table, follower) == ([9], [3])
    table.erase(keys_of(9))
    table.learn(keys_of(9), gradients(1), event_time_s=1)
    assert drained(table, follower) == ([9], [])


def check_followers_do_not_disturb_each_other(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    slow, quick = table.follow(), table.follow()
    table.assign(keys_of(1), gradients(1))
    assert drained(table, quick) == ([1], [])
    table.assign(keys_of(2), gradients(1))
    assert drained(table, quick) == ([2], [])
    late = table.follow()
    table.assign(keys_of(3), gradients(1))
    table.erase(keys_of(1))
    assert drained(table, quick) == ([3], [1])
    table.unfollow(quick)
    assert drained(table, late) == ([3], [1])
    assert drained(table, slow) == ([2, 3], [1])


def check_a_stranger_is_refused(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    follower = table.follow()
    table.unfollow(follower)
    assert table.follow() != follower
    for stranger in (follower, follower + 100):
        with pytest.raises(ConfigError, match=f"no follower {stranger}"):
            table.drain(stranger)
        with pytest.raises(ConfigError, match=f"no follower {stranger}"):
            table.unfollow(stranger)


def check_no_change_is_ever_lost(make_table: MakeTable) -> None:
    """However often keys come and go between two drains, each drain lists exactly what changed."""

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.integers(1, 20)), max_size=40))
    @settings(max_examples=20, deadline=None, database=None)
    def as_a_set_would(moves: list[tuple[int, int, int]]) -> None:
        table = make_table(SPEC)
        followers = [table.follow() for _ in range(3)]
        noted: list[set[int]] = [set(), set(), set()]
        for kind, first, n in moves:
            keys_N = np.arange(first, first + n, dtype=np.uint64)
            if kind < 3:
                there = set(table.keys().tolist())
                touched, removed = drained(table, followers[kind])
                assert set(touched) == noted[kind] & there
                assert set(removed) == noted[kind] - there
                noted[kind].clear()
                continue
            before = set(table.keys().tolist())
            if kind == 3:
                table.erase(keys_N)
            else:
                table.assign(keys_N, gradients(n))
            changed = set(keys_N.tolist())
            for seen in noted:
                seen.update(changed & before if kind == 3 else changed)

    as_a_set_would()


CHANGES = (
    check_changed_keys_are_drained_once,
    check_followers_do_not_disturb_each_other,
    check_a_stranger_is_refused,
    check_no_change_is_ever_lost,
)
"""For any table."""
