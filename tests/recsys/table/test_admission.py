"""Admission: the sketch against exact counts in a dict, chance against its promised share."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recsys.errors import ConfigError, SnapshotError
from recsys.hashing import mix64
from recsys.table.admission import AdmissionFilter, AdmitAll, Occurrence, Probabilistic, core_rule

KEYS = st.integers(0, 2**64 - 1)
SIGHTINGS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), max_size=120)
RULES = st.one_of(
    st.just(AdmitAll()),
    st.builds(Occurrence, threshold=st.integers(1, 6), width=st.just(8), window=st.integers(0, 2)),
    st.builds(Probabilistic, threshold=st.integers(1, 6), rule=st.sampled_from(["equal", "linear"])),
)


def decisions(admission_filter, sightings):
    return [admission_filter.admit(mix64(key), occurrences) for key, occurrences in sightings]


@given(SIGHTINGS, st.integers(1, 8), st.sampled_from([1, 4, 16]), st.integers(1, 8))
def test_a_key_never_waits_longer_than_its_threshold_however_small_the_sketch(
    sightings, threshold, width, depth
):
    sketch = AdmissionFilter(Occurrence(threshold=threshold, width=width, depth=depth))
    seen = Counter()
    for (key, occurrences), is_in in zip(sightings, decisions(sketch, sightings), strict=True):
        seen[key] += occurrences
        assert is_in or seen[key] < threshold


@given(st.lists(st.tuples(KEYS, st.integers(1, 40_000)), max_size=50), st.integers(1, 65_535))
def test_a_roomy_sketch_admits_exactly_on_the_threshold(sightings, threshold):
    sketch = AdmissionFilter(Occurrence(threshold=threshold, width=1 << 12), seed=5)
    seen = Counter()
    for key, occurrences in sightings:
        seen[key] += occurrences
        assert sketch.admit(key, occurrences) == (seen[key] >= threshold)


def halved_counts(sightings, threshold, window):
    """What an exact dict decides that forgets as the setting says."""
    seen, fresh, additions, out = Counter(), 0, 0, []
    for key, occurrences in sightings:
        fresh += seen[key] == 0
        additions += occurrences
        seen[key] += occurrences
        out.append(seen[key] >= threshold)
        if fresh >= window or additions >= window * threshold:
            seen = Counter({key: count // 2 for key, count in seen.items()})
            fresh = additions = 0
    return out


@given(SIGHTINGS, st.integers(1, 8), st.integers(1, 20))
def test_ageing_halves_every_count_once_a_window(sightings, threshold, window):
    sketch = AdmissionFilter(Occurrence(threshold=threshold, width=1 << 12, window=window))
    assert decisions(sketch, sightings) == halved_counts(sightings, threshold, window)


def test_a_key_that_stays_away_is_forgotten():
    sketch = AdmissionFilter(Occurrence(threshold=4, width=1 << 12, window=10))
    assert not sketch.admit(1, 3)
    decisions(sketch, [(key, 1) for key in range(100, 120)])
    assert not sketch.admit(1, 3)
    assert sketch.admit(1, 1)


def test_a_sketch_in_which_no_key_looks_new_still_ages():
    sketch = AdmissionFilter(Occurrence(threshold=8, width=4, depth=1, window=1))
    sketch.restore({"cells": np.full((1, 4), 900, np.uint16), "counters": np.zeros(5, np.uint64)})
    is_in = decisions(sketch, [(key, 1) for key in range(300)])
    assert is_in[0]
    assert not any(is_in[-100:])


def test_few_keys_enter_early_in_a_stream_that_never_ends():
    width, threshold = 1 << 10, 5
    sketch = AdmissionFilter(Occurrence(threshold=threshold, width=width, window=width // 8), seed=2)
    n_keys, together = 8 * width, 64
    early = set()
    for first in range(0, n_keys, together):
        for _ in range(threshold - 1):
            early |= {key for key in range(first, first + together) if sketch.admit(key, 1)}
    assert len(early) / n_keys < 0.02
    assert 0.1 < sketch.fill < 0.5


def test_counts_saturate_instead_of_wrapping_round():
    sketch = AdmissionFilter(Occurrence(threshold=65_535, width=1 << 8))
    assert not sketch.admit(3, 65_534)
    assert sketch.admit(3, 1)
    assert sketch.admit(3, 2**32 - 1)


@pytest.mark.parametrize("grouping", [[1, 1, 1, 1], [4], [3, 1]])
def test_the_equal_rule_lets_95_per_cent_in_by_the_threshold_however_grouped(grouping):
    chance = AdmissionFilter(Probabilistic(threshold=4, rule="equal"), seed=9)
    n_keys, five_standard_errors = 10_000, 5 * (0.95 * 0.05 / 10_000) ** 0.5
    n_in = sum(any(chance.admit(key, c) for c in grouping) for key in range(n_keys))
    assert n_in / n_keys == pytest.approx(0.95, abs=five_standard_errors)


def test_the_linear_rule_lets_a_tenth_in_at_each_single_occurrence_of_ten():
    chance = AdmissionFilter(Probabilistic(threshold=10, rule="linear"), seed=9)
    five_standard_errors = 5 * (0.1 * 0.9 / 10_000) ** 0.5
    assert np.mean([chance.admit(7, 1) for _ in range(10_000)]) == pytest.approx(
        0.1, abs=five_standard_errors
    )
    assert all(chance.admit(7, 10) for _ in range(100))


@example(rule=Occurrence(threshold=2, width=8), before=[], after=[(0, 1)], seed=0)
@given(RULES, SIGHTINGS, SIGHTINGS, st.integers(0, 2**64 - 1))
def test_a_restored_filter_goes_on_as_if_nothing_had_happened(rule, before, after, seed):
    saved, restored = AdmissionFilter(rule, seed), AdmissionFilter(rule, seed)
    decisions(saved, before)
    state = saved.state()
    wanted = decisions(saved, after)
    restored.restore(state)
    assert decisions(restored, after) == wanted
    assert (restored.admitted, restored.refused) == (saved.admitted, saved.refused)


@given(RULES, SIGHTINGS)
def test_every_decision_is_counted_once(rule, sightings):
    admission_filter = AdmissionFilter(rule)
    is_in = decisions(admission_filter, sightings)
    assert admission_filter.admitted == sum(is_in)
    assert admission_filter.refused == len(is_in) - sum(is_in)


def test_seeds_change_what_chance_decides():
    rule = Probabilistic(threshold=4, rule="equal")
    one, other = (decisions(AdmissionFilter(rule, seed), [(1, 1)] * 64) for seed in (1, 2))
    assert one != other


# tests/native/admission_test.cpp folds the same decisions of the native filter to the same numbers.
@pytest.mark.parametrize(
    ("rule", "folded"),
    [
        (Occurrence(threshold=3, width=64, depth=3, window=16), 0x2B3100B7372C9927),
        (Probabilistic(threshold=5, rule="equal"), 0xE52D964D47A4145B),
        (Probabilistic(threshold=5, rule="linear"), 0xA24027D8AD70D710),
    ],
)
def test_decisions_are_those_of_the_native_filter(rule, folded):
    twin, digest = AdmissionFilter(rule, seed=11), 0
    for i in range(4000):
        is_in = twin.admit(mix64(i) % 500, 1 + mix64(i + 4000) % 3)
        digest = mix64(digest ^ is_in)
    assert digest == folded


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"cells": np.zeros((4, 8), np.uint16)}, r"cells: got uint16 \(4, 8\), wanted uint16 \(4, 16\)"),
        ({"cells": np.zeros((4, 16), np.uint32)}, "cells: got uint32"),
        ({"counters": np.zeros(3, np.uint64)}, r"counters: got uint64 \(3,\), wanted uint64 \(5,\)"),
        ({"counters": None}, "counters: got nothing"),
    ],
)
def test_a_state_of_another_shape_is_refused_and_changes_nothing(damage, message):
    sketch = AdmissionFilter(Occurrence(threshold=3, width=16))
    sketch.admit(1, 2)
    with pytest.raises(SnapshotError, match=message):
        sketch.restore(AdmissionFilter(Occurrence(threshold=3, width=16)).state() | damage)
    assert sketch.refused == 1
    assert sketch.admit(1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0}, r"threshold must be an integer in 1\.\.65535, got 0"),
        ({"threshold": 65_536}, "threshold must be"),
        ({"threshold": 2.0}, "threshold must be"),
        ({"threshold": True}, "threshold must be"),
        ({"threshold": 2, "width": 48}, "width must be a power of two, got 48"),
        ({"threshold": 2, "depth": 9}, r"depth must be an integer in 1\.\.8, got 9"),
        ({"threshold": 2, "width": 64, "window": 17}, "window must be <= width / 4 = 16, got 17; widen"),
        ({"threshold": 2, "window": -1}, "window must be"),
    ],
)
def test_a_sketch_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Occurrence(**settings)


def test_an_unknown_rule_of_chance_is_refused():
    with pytest.raises(ConfigError, match="rule must be 'equal' or 'linear', got 'square'"):
        Probabilistic(threshold=2, rule="square")


def test_a_filter_needs_a_rule_and_a_seed_of_64_bits():
    with pytest.raises(ConfigError, match="'all' is not an admission rule"):
        AdmissionFilter("all")
    with pytest.raises(ConfigError, match="seed must be"):
        AdmissionFilter(AdmitAll(), seed=-1)


def test_the_native_rule_carries_the_settings_in_order():
    assert core_rule(AdmitAll(), 3) == (0, 1, 0, 0, 0, 0.0, False, 3)
    sketch = Occurrence(threshold=5, width=64, depth=2, window=9)
    assert core_rule(sketch, 3) == (1, 5, 64, 2, 9, 0.0, False, 3)
    assert core_rule(Probabilistic(threshold=1, rule="equal"), 3) == (2, 1, 0, 0, 0, 0.95, False, 3)
    assert core_rule(Probabilistic(threshold=7, rule="linear"), 3) == (2, 7, 0, 0, 0, 0.0, True, 3)
