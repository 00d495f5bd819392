"""A trainer that is behind learns everything later, or fewer negatives and says so; never silently less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from training.lag import Lag, LagConfig, next_share, thinned

THIN = LagConfig(policy="thin", max_records=100, max_wait_ms=1000, least_share=1 / 8)
LAGS = st.lists(st.builds(Lag, records=st.integers(0, 1000), wait_ms=st.integers(0, 10_000)), max_size=30)


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
    batch = small.examples(1, 4000)
    thin = thinned(batch, 0.25, seed=3)
    is_positive_B, still_positive_B = batch.label_B > 0, thin.label_B > 0
    assert thin.example_id_B[still_positive_B].tolist() == batch.example_id_B[is_positive_B].tolist()
    n_negatives = int((~is_positive_B).sum())
    # Five standard deviations of a binomial.
    assert abs(int((~still_positive_B).sum()) - n_negatives / 4) < 5 * np.sqrt(n_negatives * 3 / 16)
    assert (thin.sample_rate_BL == 0.25).all()


def test_the_rows_that_stay_are_whole_and_in_order(small: Any) -> None:
    batch = small.examples(1, 50)
    thin = thinned(batch, 0.5, seed=3)
    places = np.flatnonzero(np.isin(batch.example_id_B, thin.example_id_B))
    assert len(places) == len(thin) < len(batch)
    whole, kept = batch.keys.offsets, thin.keys.offsets
    for row, place in enumerate(places):
        assert thin.event_time_ms_B[row] == batch.event_time_ms_B[place]
        wanted = batch.keys.keys_T[whole[place] : whole[place + 1]]
        assert thin.keys.keys_T[kept[row] : kept[row + 1]].tolist() == wanted.tolist()


def test_a_smaller_share_keeps_some_of_the_same_rows_and_a_whole_one_all(small: Any) -> None:
    batch = small.examples(1, 200)
    half, quarter = (set(thinned(batch, share, seed=3).example_id_B.tolist()) for share in (0.5, 0.25))
    assert quarter < half
    assert thinned(batch, 1.0, seed=3) is batch


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_records": 0}, "max_records must be > 0, got 0"),
        ({"least_share": 0.0}, "least_share must be in"),
        ({"policy": "hide"}, "policy must be catch_up or thin, got 'hide'"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_when_it_is_built(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        LagConfig(**settings)
