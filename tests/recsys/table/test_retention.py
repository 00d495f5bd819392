"""Expiry and eviction: scores against exact fractions, victims against a plain sort."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError, ShapeError
from recsys.hashing import mix64
from recsys.table.retention import (
    LFU,
    LRU,
    Capacity,
    DistanceLFU,
    Expiry,
    accepted_time,
    core_expiry,
    core_score,
    is_expired,
    scores,
    victims,
)

TIMES = st.integers(0, 2**32 - 1)
COUNTS = st.integers(1, 2**32 - 1)
RELATIVE = 1e-14
"""Room for the roundings of 15 products and one quotient in float64."""


def score_of(policy, count, last_seen_s, clock_s):
    return scores(policy, np.array([count], np.uint32), np.array([last_seen_s], np.uint32), clock_s)[0]


@given(COUNTS, TIMES, TIMES)
def test_plain_policies_score_the_count_and_the_time(count, last_seen_s, clock_s):
    assert score_of(LFU(), count, last_seen_s, clock_s) == count
    assert score_of(LRU(), count, last_seen_s, clock_s) == last_seen_s


@given(COUNTS, TIMES, st.integers(0, 2**31), st.integers(1, 16))
def test_distance_lfu_is_the_count_over_a_power_of_the_age(count, last_seen_s, idle_s, exponent):
    got = score_of(DistanceLFU(exponent=exponent), count, last_seen_s, last_seen_s + idle_s)
    assert got == pytest.approx(float(Fraction(count, (idle_s + 1) ** exponent)), rel=RELATIVE, abs=0)


def test_a_row_seen_after_the_clock_counts_as_seen_at_it():
    assert score_of(DistanceLFU(exponent=3), 6, 100, 90) == 6.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40), st.integers(0, 45))
def test_victims_are_the_lowest_by_score_then_age_then_position(rows, n):
    score_W = np.array([score for score, _ in rows], np.float64)
    last_seen_W = np.array([last_seen_s for _, last_seen_s in rows], np.uint32)
    in_order = sorted(range(len(rows)), key=lambda i: (*rows[i], i))
    assert victims(score_W, last_seen_W, n).tolist() == sorted(in_order[:n])


def test_victims_need_one_time_for_each_score():
    with pytest.raises(ShapeError, match=r"one score per last_seen, got \(2,\) and \(3,\)"):
        victims(np.zeros(2), np.zeros(3, np.uint32), 1)


@given(TIMES, TIMES, st.integers(1, 2**32 - 1))
def test_a_row_expires_once_it_has_idled_for_the_whole_limit(last_seen_s, clock_s, limit_s):
    assert is_expired(Expiry(max_idle_s=limit_s), 7, last_seen_s, clock_s) == (
        last_seen_s + limit_s <= clock_s
    )


def test_each_feature_has_its_own_limit():
    expiry = Expiry(max_idle_s=10, by_feature={4095: 5, 0: 100})
    keys = {feature: feature << 52 | 3 for feature in (0, 1, 4095)}
    assert [is_expired(expiry, keys[f], 0, 9) for f in (0, 1, 4095)] == [False, False, True]
    assert [is_expired(expiry, keys[f], 0, 10) for f in (0, 1, 4095)] == [False, True, True]
    only_one = Expiry(by_feature={1: 5})
    assert not is_expired(only_one, keys[0], 0, 2**32 - 1)
    assert is_expired(only_one, keys[1], 0, 5)


@given(st.lists(TIMES, min_size=1, max_size=30), st.integers(0, 10_000))
def test_no_event_moves_the_clock_further_than_the_skew(event_times, max_skew_s):
    clock_s = None
    for event_time_s in event_times:
        time_s = accepted_time(event_time_s, clock_s, max_skew_s)
        assert time_s <= event_time_s
        if clock_s is None or event_time_s <= clock_s + max_skew_s:
            assert time_s == event_time_s
        else:
            assert time_s == clock_s + max_skew_s
        clock_s = time_s if clock_s is None else max(clock_s, time_s)


# tests/native/retention_test.cpp folds the same scores of the native rule to the same number.
def test_scores_and_victims_are_those_of_the_native_rule():
    count_W = np.array([1 + mix64(i) % 1000 for i in range(300)], np.uint32)
    last_seen_W = np.array([mix64(i + 300) % 1000 for i in range(300)], np.uint32)
    digest = 0
    for policy in (LFU(), LRU(), DistanceLFU(exponent=1), DistanceLFU(exponent=3)):
        score_W = scores(policy, count_W, last_seen_W, 900)
        for bits in score_W.view(np.uint64).tolist() + victims(score_W, last_seen_W, 40).tolist():
            digest = mix64(digest ^ bits)
    assert digest == 0xB19F2F1C8E1D73C8


def test_the_native_forms_carry_the_settings():
    max_idle_s, max_skew_s, by_feature = core_expiry(Expiry(max_idle_s=9, max_skew_s=2))
    assert (max_idle_s, max_skew_s, by_feature.shape) == (9, 2, (0,))
    max_idle_s, _, by_feature = core_expiry(Expiry(by_feature={3: 8}))
    assert (max_idle_s, by_feature.shape, by_feature[3], by_feature.sum()) == (0, (4096,), 8, 8)
    assert [core_score(p) for p in (LFU(), LRU(), DistanceLFU(exponent=4))] == [(0, 1), (1, 1), (2, 4)]


def test_limits_given_in_another_order_are_the_same_setting():
    one = Expiry(by_feature={2: 60, 1: 30})
    assert one == Expiry(by_feature=((1, 30), (2, 60)))
    assert hash(one) == hash(Expiry(by_feature={1: 30, 2: 60}))
    assert one.by_feature == ((1, 30), (2, 60))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_idle_s": 0}, r"max_idle_s must be an integer in 1\.\.4294967295, got 0"),
        ({"max_skew_s": -1}, "max_skew_s must be"),
        ({"by_feature": {4096: 5}}, r"a feature in by_feature must be an integer in 0\.\.4095, got 4096"),
        ({"by_feature": {7: 0}}, r"by_feature\[7\] must be"),
        ({"by_feature": ((7, 1), (7, 2))}, "each feature once"),
        ({"by_feature": 7}, "by_feature must map features to seconds, got 7"),
    ],
)
def test_an_expiry_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Expiry(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give exactly one of max_rows and max_bytes, got max_rows None and max_bytes None"),
        ({"max_rows": 1, "max_bytes": 1}, "give exactly one"),
        ({"max_rows": 0}, "max_rows must be"),
        ({"max_bytes": 2.5}, "max_bytes must be"),
        ({"max_rows": 1, "policy": "lru"}, "'lru' is not an eviction policy"),
    ],
)
def test_a_capacity_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Capacity(**settings)


@pytest.mark.parametrize("exponent", [0, 17, 1.0])
def test_an_exponent_that_cannot_be_is_refused(exponent):
    with pytest.raises(ConfigError, match="exponent must be"):
        DistanceLFU(exponent=exponent)
