"""Requests are checked with sentences, and ranking is a plain sort."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys.errors import ConfigError
from serving.errors import InvalidRequest
from serving.pipeline import RankLimits, RankQuery, best_first, checked

LIMITS = RankLimits(domains=("home", "search"), context=frozenset({"hour"}), max_candidates=3)


def query(**changes: object) -> RankQuery:
    plain = RankQuery(
        user_id=1,
        domain="",
        item_ids_N=np.array([5, 6], np.uint64),
        context={},
        request_time_ms=1,
        top_k=0,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_defaults_are_filled_in() -> None:
    complete = checked(query(), LIMITS)
    assert (complete.domain, complete.top_k) == ("home", 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"item_ids_N": np.empty(0, np.uint64)}, "send at least one candidate"),
        ({"item_ids_N": np.arange(4, dtype=np.uint64)}, "4 candidates, at most 3 are ranked"),
        ({"item_ids_N": np.array([5, 5], np.uint64)}, "send each candidate once"),
        ({"domain": "moon"}, "domain 'moon' is unknown; use one of home, search"),
        ({"context": {"hour": math.nan}}, "context 'hour' is nan"),
        ({"context": {"hour": math.inf}}, "features must be finite numbers"),
        ({"context": {"mood": 1.0}}, "context 'mood' is unknown; this recipe reads: hour"),
        ({"request_time_ms": -1}, "want Unix milliseconds"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        checked(query(**changes), LIMITS)


def test_where_domains_are_open_one_that_nobody_has_seen_is_answered() -> None:
    limits = dataclasses.replace(LIMITS, is_open=True)
    assert checked(query(domain="moon"), limits).domain == "moon"
    assert checked(query(domain=""), limits).domain == "home"


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(0, 1, width=32)), st.integers(1, 60))
def test_the_best_come_first_and_ties_keep_the_callers_order(scores: np.ndarray, top_k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:top_k]
    assert best_first(scores, top_k).tolist() == expected


def test_limits_that_admit_nothing_are_refused_when_built() -> None:
    with pytest.raises(ConfigError, match="at least one domain"):
        RankLimits(domains=())
