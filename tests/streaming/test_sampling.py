"""Which negatives are kept: a fixed draw, spread as its rate says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from join_oracle import draw
from join_streams import acted, run, shown

from recsys.errors import ConfigError
from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.sampling import NegativeSampling
from streaming.statements import example_id, item_key, item_keys, request_hash, statement, statement_ids
from streaming.window_store import MemoryStore

U64 = st.integers(0, 2**64 - 1)


@given(st.integers(0, 99), U64, U64, st.floats(0.01, 1.0))
def test_an_item_is_kept_where_its_hash_lies_below_the_rate(request, item, seed, rate):
    sampling = NegativeSampling(rate=rate, seed=seed)
    impression = shown(request, 0, [item])
    assert sampling.keeps(impression, 0, rate) == (draw(f"r{request}", item, seed) < rate)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.01])
def test_the_share_that_is_kept_is_the_rate(rate):
    n = 20_000
    impression = shown(1, 0, range(n))
    kept = sum(NegativeSampling(rate=rate).keeps(impression, position, rate) for position in range(n))
    five_sigma = 5 * math.sqrt(n * rate * (1 - rate))
    assert abs(kept - n * rate) < five_sigma


def test_two_seeds_keep_different_items():
    impression = shown(1, 0, range(200))
    one, other = (
        [NegativeSampling(seed=seed).keeps(impression, position, 0.5) for position in range(200)]
        for seed in (1, 2)
    )
    assert 60 < sum(a != b for a, b in zip(one, other, strict=True)) < 140


def test_the_rate_is_written_on_positives_too():
    rules = JoinRules(
        labels=(LabelRule(kind="click", wait_ms=10),),
        sampling=NegativeSampling(rate=lambda impression, position: (0.25, 1.0)[position]),
    )
    events = [shown(1, 0, [10, 11]), acted(1, 1, 10, 1)]
    rows, _ = run(JoinConfig(rules=rules), events, MemoryStore())
    assert [(stated.item_id, stated.labels, stated.rate) for _, stated, _ in rows] == [
        (10, (1.0,), 0.25),
        (11, (0.0,), 1.0),
    ]


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan])
def test_a_rate_outside_of_its_range_is_refused(rate):
    with pytest.raises(ConfigError, match=r"sampling rate must be in \(0, 1\]"):
        NegativeSampling(rate=rate)
    with pytest.raises(ConfigError, match=r"sampling rate must be in \(0, 1\]"):
        NegativeSampling(rate=lambda impression, position: rate).rate_of(shown(1, 0, [1]), 0)


@given(st.lists(st.tuples(st.text(max_size=5), U64, st.integers(4, 2**14)), min_size=1, max_size=5))
def test_ids_are_the_same_one_by_one_and_together(rows):
    requests, items, stated = zip(*rows, strict=True)
    hashed = [request_hash(text) for text in requests]
    keys = [item_key(*pair) for pair in zip(hashed, items, strict=True)]
    keys_B = item_keys(np.array(hashed, np.uint64), np.array(items, np.uint64))
    assert keys_B.tolist() == keys
    ids = [example_id(*pair) for pair in zip(keys, stated, strict=True)]
    assert statement_ids(keys_B, np.array(stated, np.uint64)).tolist() == ids


def test_ids_never_change():
    # Those in old outputs must stay theirs, or a restart would state them again.
    key = item_key(request_hash("a"), 1)
    assert key == 4917199001715927179
    assert example_id(key, statement(0b1, 0)) == 2030524784701902257
