"""Intervals against SciPy's own test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.errors import ShapeError
from recsys.evaluation.intervals import mean_interval, paired_difference

VALUES = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=12).filter(
    lambda pairs: np.std([a - b for a, b in pairs]) > 1e-6
)


@given(VALUES)
def test_a_paired_difference_is_that_of_the_paired_t_test(pairs):
    mine, others = (list(column) for column in zip(*pairs, strict=True))
    want = stats.ttest_rel(mine, others).confidence_interval(0.95)
    got = paired_difference(mine, others)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-9)
    assert got.mean == pytest.approx(np.mean(mine) - np.mean(others), abs=1e-9)


def test_one_seed_has_a_mean_and_no_interval():
    found = mean_interval([0.5])
    assert found.mean == 0.5
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_seeds_that_do_not_pair_up_are_refused():
    with pytest.raises(ShapeError, match="want one value of each per seed, got 1 and 2"):
        paired_difference([0.1], [0.1, 0.2])
