"""Initial weights: the mixer against published numbers, the draws against their distribution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recsys.errors import ConfigError
from recsys.hashing import mix64, mix64_each
from recsys.table.initializers import Constant, Uniform, Zeros, initial_weights


def test_the_mixer_gives_the_published_splitmix64_sequence():
    golden_gamma, seed = 0x9E3779B97F4A7C15, 1234567
    states = [(seed + i * golden_gamma) % 2**64 for i in range(5)]
    assert [mix64(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_draws_pass_a_kolmogorov_smirnov_test():
    initializer = Uniform(low=-0.05, high=0.15)
    draws = np.concatenate([initial_weights(initializer, 11, key, 4) for key in range(2000)])
    assert stats.kstest(draws, stats.uniform(loc=-0.05, scale=0.2).cdf).pvalue > 0.01


def test_columns_and_keys_are_not_correlated():
    draws_KD = np.array([initial_weights(Uniform(low=0, high=1), 5, key, 4) for key in range(4000)])
    beside_each_other = np.concatenate([draws_KD[:-1], draws_KD[1:]], axis=1)
    off_diagonal = np.corrcoef(beside_each_other.T) - np.eye(8)
    assert np.abs(off_diagonal).max() < 0.07  # 4.4 standard errors


def test_seeds_and_keys_change_the_draws():
    one = initial_weights(Uniform(low=0, high=1), 1, 7, 3)
    assert not np.array_equal(one, initial_weights(Uniform(low=0, high=1), 2, 7, 3))
    assert not np.array_equal(one, initial_weights(Uniform(low=0, high=1), 1, 8, 3))


def test_constants_fill_every_column():
    assert initial_weights(Zeros(), 1, 7, 2).tolist() == [0.0, 0.0]
    assert initial_weights(Constant(value=-1.5), 1, 7, 2).tolist() == [-1.5, -1.5]


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (float("nan"), 0.0), (-3e38, 3e38)])
def test_a_range_that_cannot_be_is_refused(low, high):
    with pytest.raises(ConfigError, match="want finite low <= high"):
        Uniform(low=low, high=high)


def test_a_constant_beyond_float32_is_refused():
    with pytest.raises(ConfigError, match="value must be finite"):
        Constant(value=1e39)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_each_element_of_an_array_is_mixed_as_one_number_is(numbers):
    assert mix64_each(np.array(numbers, np.uint64)).tolist() == [mix64(x) for x in numbers]
