"""The parts of rankers against their definitions, written out as loops."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys.errors import ShapeError
from recsys.ranking.blocks import cross, fm_logit, linear, mlp, pool_rows, split_pooled

# Eighths of small integers add up exactly in float32, so that the order of summing does not matter.
EIGHTHS = st.integers(-16, 16).map(lambda i: i / 8)


@given(arrays(np.float32, array_shapes(min_dims=3, max_dims=3, max_side=5), elements=EIGHTHS))
def test_fm_logit_is_the_sum_of_dot_products_over_all_pairs(vector_BFK):
    want = [sum(float(v @ w) for v, w in itertools.combinations(row_FK, 2)) for row_FK in vector_BFK]
    np.testing.assert_array_equal(fm_logit(torch.from_numpy(vector_BFK)).numpy(), want)


def test_a_cross_layer_multiplies_the_mixed_input_by_the_first_and_adds_it():
    first, layer, weight, bias = (
        np.array([2.0, 3.0]),
        np.array([5.0, 7.0]),
        np.eye(2)[::-1],
        np.array([1.0, 0.0]),
    )
    want = [2 * (7 + 1) + 5, 3 * (5 + 0) + 7]
    mixed = weight @ layer + bias
    got = cross(*(torch.tensor(x)[None] for x in (first, layer, mixed)))
    assert got.tolist() == [want]


def test_the_wide_column_of_each_feature_is_split_from_its_vector():
    wide_BF, vector_BFK = split_pooled(torch.arange(6.0)[None], n_features=2)
    assert wide_BF.tolist() == [[0, 3]]
    assert vector_BFK.tolist() == [[[1, 2], [4, 5]]]


@pytest.mark.parametrize("shape", [(2, 7), (2, 2), (6,)])
def test_pooled_rows_that_do_not_hold_every_feature_are_refused(shape):
    with pytest.raises(ShapeError, match="pooled rows"):
        split_pooled(torch.zeros(shape), n_features=2)


def test_bags_are_summed_or_averaged_and_an_empty_one_is_zeros():
    rows_TD = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    lengths_BF = np.array([[2, 0], [0, 2]], np.uint8)
    pooled = pool_rows(rows_TD, lengths_BF, np.array([False, True]))
    assert pooled.tolist() == [[4, 6, 0, 0], [0, 0, 6, 7]]


def test_single_keys_whose_count_equals_the_bags_are_told_from_uneven_bags():
    rows_TD = torch.tensor([[1.0], [2.0]])
    both = [np.array([[1, 1]], np.uint8), np.array([[2, 0]], np.uint8)]
    got = [pool_rows(rows_TD, lengths_BF, np.zeros(2, bool)).tolist() for lengths_BF in both]
    assert got == [[[1, 2]], [[3, 0]]]


def test_an_mlp_is_relu_after_each_linear_layer():
    layers = mlp(3, (4, 2), torch.Generator().manual_seed(0))
    x = np.array([[0.5, -1.0, 2.0]], np.float32)
    want = x
    for layer in (layers[0], layers[2]):
        want = np.maximum(want @ layer.weight.numpy(force=True).T + layer.bias.numpy(force=True), 0)
    np.testing.assert_allclose(layers(torch.from_numpy(x)).numpy(force=True), want, rtol=1e-6)


def test_initial_weights_come_from_the_given_generator_alone():
    before = torch.get_rng_state()
    one, two = (linear(3, 2, torch.Generator().manual_seed(4)).weight for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, linear(3, 2, torch.Generator().manual_seed(5)).weight)
