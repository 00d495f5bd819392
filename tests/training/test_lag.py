"""A trainer that is behind learns everything later, or fewer negatives and says so; never silently less."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.interactions import ExampleBatch
from streaming.sampling import NegativeSampling
from streaming.shown import Shown
from streaming.statements import request_hash
from training.lag import Lag, LagConfig, next_share, thinned

THIN = LagConfig(policy="thin", max_records=100, max_wait_ms=1000, least_share=1 / 8)
LAGS = st.lists(st.builds(Lag, records=st.integers(0, 1000), wait_ms=st.integers(0, 10_000)), max_size=30)


def shown_examples(small: Any, n_rows: int, **changes: Any) -> ExampleBatch:
    """Examples of four items a request."""
    requests = [f"request-{row // 4}" for row in range(n_rows)]
    items_B = np.arange(n_rows, dtype=np.uint64) % np.uint64(4)
    batch: ExampleBatch = small.examples(1, n_rows)
    return dataclasses.replace(batch, request_id_B=requests, item_id_B=items_B, **changes)


def places_of(batch: ExampleBatch) -> set[tuple[str, int]]:
    """(request, item) of each row."""
    return set(zip(batch.request_id_B, batch.item_id_B.tolist(), strict=True))


def is_kept_by_joiner(sampling: NegativeSampling, request: str, item: int, rate: float) -> bool:
    shown = Shown(
        request_id=request, user_id=0, event_time_ms=0, domain="", model_version="", schema_fingerprint=0,
        item_ids=(item,), scores=(), n_features=0, feature_keys=b"", feature_lengths=b"", key_ends=(),
        request_hash=request_hash(request), raw=b"",
    )  # fmt: skip
    return sampling.keeps(shown, 0, rate)


@given(LAGS)
def test_the_share_stays_in_its_bounds_and_is_whole_when_nothing_lags_for_long(lags: list[Lag]) -> None:
    share, before = 1.0, Lag()
    for now in [*lags, *[Lag()] * 3]:
        share, before = next_share(share, before, now, THIN), now
        assert THIN.least_share <= share <= 1.0
    assert share == 1.0


@given(LAGS)
def test_who_catches_up_learns_everything(lags: list[Lag]) -> None:
    assert all(next_share(1.0, Lag(), now, LagConfig(policy="catch_up")) == 1.0 for now in lags)


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        (Lag(records=150), Lag(records=200), 0.25),
        (Lag(records=200), Lag(records=200), 0.25),
        (Lag(records=300), Lag(records=200), 0.5),
        (Lag(wait_ms=2000), Lag(wait_ms=3000), 0.25),
        (Lag(records=200), Lag(records=100, wait_ms=1000), 1.0),
    ],
)
def test_the_share_halves_while_the_lag_grows_and_relaxes_within_bounds(
    before: Lag, now: Lag, wanted: float
) -> None:
    assert next_share(0.5, before, now, THIN) == wanted


def test_a_share_of_negatives_stays_all_else_stays_and_every_rate_says_so(small: Any) -> None:
    batch = shown_examples(small, 4000)
    thin = thinned(batch, 0.25, seed=3)
    is_positive_B, still_positive_B = batch.label_B > 0, thin.label_B > 0
    assert thin.example_id_B[still_positive_B].tolist() == batch.example_id_B[is_positive_B].tolist()
    n_negatives = int((~is_positive_B).sum())
    # Five standard deviations of a binomial.
    assert abs(int((~still_positive_B).sum()) - n_negatives / 4) < 5 * np.sqrt(n_negatives * 3 / 16)
    assert (thin.sample_rate_BL == 0.25).all()


def test_of_several_labels_each_keeps_its_odds(small: Any) -> None:
    # The joiner's form: a row for a positive label, another for those that are 0 beside it.
    batch = shown_examples(small, 20_000)
    acts_B, likes_B = np.random.default_rng(0).random((2, len(batch))) < np.array([[0.3], [0.2]])
    nan = np.float32(np.nan)
    yes = np.stack([np.where(acts_B, 1.0, nan), np.where(likes_B, 1.0, nan)], axis=1).astype(np.float32)
    no = np.stack([np.where(acts_B, nan, 0.0), np.where(likes_B, nan, 0.0)], axis=1).astype(np.float32)
    parts = []
    for label_BL in (yes, no):
        stated = ~np.isnan(label_BL).all(axis=1)
        rates = np.ones_like(label_BL)
        whole = dataclasses.replace(
            batch, label_names=("act", "like"), label_BL=label_BL, sample_rate_BL=rates
        )
        parts.append(thinned(whole.take(np.flatnonzero(stated)), 0.25, seed=3))
    for label, said_B in enumerate((acts_B, likes_B)):
        positives = sum(int((part.label_BL[:, label] == 1).sum()) for part in parts)
        negatives = sum(int((part.label_BL[:, label] == 0).sum()) for part in parts)
        assert positives == said_B.sum()
        wanted = (~said_B).sum() / 4
        assert abs(negatives - wanted) < 5 * np.sqrt(wanted)
        assert all((part.sample_rate_BL == 0.25).all() for part in parts)


def test_the_rows_that_stay_are_whole_and_in_order(small: Any) -> None:
    batch = shown_examples(small, 50)
    thin = thinned(batch, 0.5, seed=3)
    places = np.flatnonzero(np.isin(batch.example_id_B, thin.example_id_B))
    assert len(places) == len(thin) < len(batch)
    whole, kept = batch.keys.offsets, thin.keys.offsets
    for row, place in enumerate(places):
        assert thin.event_time_ms_B[row] == batch.event_time_ms_B[place]
        wanted = batch.keys.keys_T[whole[place] : whole[place + 1]]
        assert thin.keys.keys_T[kept[row] : kept[row + 1]].tolist() == wanted.tolist()


def test_a_smaller_share_keeps_some_of_the_same_rows_and_a_whole_one_all(small: Any) -> None:
    batch = shown_examples(small, 200)
    half, quarter = (set(thinned(batch, share, seed=3).example_id_B.tolist()) for share in (0.5, 0.25))
    assert quarter < half
    assert thinned(batch, 1.0, seed=3) is batch


@given(st.floats(0.05, 0.95), st.integers(0, 1 << 63))
@settings(max_examples=20)
def test_what_is_taken_back_stays_exactly_where_its_negative_stays(
    small: Any, share: float, seed: int
) -> None:
    labels_BL = np.zeros((60, 1), np.float32)
    stated = shown_examples(small, 60, label_BL=labels_BL)
    taken_back = dataclasses.replace(stated, example_id_B=~stated.example_id_B, weight_B=-stated.weight_B)
    kept = thinned(stated, share, seed)
    assert places_of(thinned(taken_back, share, seed)) == places_of(kept)


def test_the_draw_is_another_one_than_the_joiners_even_with_its_seed(small: Any) -> None:
    n, sampling = 8000, NegativeSampling(seed=5)
    batch = shown_examples(small, n, label_BL=np.zeros((n, 1), np.float32))
    sampled = {place for place in places_of(batch) if is_kept_by_joiner(sampling, *place, 0.5)}
    both = len(sampled & places_of(thinned(batch, 0.5, seed=5)))
    # Five standard deviations of a binomial.
    assert abs(both - len(sampled) / 2) < 5 * np.sqrt(len(sampled) / 4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_records": 0}, "max_records must be > 0, got 0"),
        ({"least_share": 0.0}, "least_share must be in"),
        ({"policy": "hide"}, "policy must be catch_up or thin, got 'hide'"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_when_it_is_built(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        LagConfig(**changes)
