"""Partitioned norm against every row ever seen, each with its weight."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.partitioned_norm import PartitionedNorm, PartitionedNormConfig

SETS, COLUMNS = 4, 3
ANY = None
SHORT = PartitionedNormConfig(momentum=0.8, min_rows=4, epsilon=1e-3)
BATCHES = st.lists(st.lists(st.integers(0, SETS - 1), min_size=1, max_size=14), min_size=1, max_size=6)


def norm_of(config=SHORT, seed=0):
    """A norm of doubles, none of whose scales and shifts is at its start."""
    generator = torch.Generator().manual_seed(seed)
    norm = PartitionedNorm(SETS, COLUMNS, config).double()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    return norm


def rows(index, seed=0):
    """Rows whose columns differ in place and width, and by set."""
    random = np.random.default_rng(seed)
    spread = np.array([0.1, 1.0, 5.0])
    return torch.tensor(random.normal(size=(len(index), COLUMNS)) * spread + np.array(index)[:, None])


def taught(batches, config=SHORT):
    norm = norm_of(config)
    for number, index in enumerate(batches):
        norm(rows(index, number), torch.tensor(index))
        norm.adapt()
    return norm


def remembered(batches, one, momentum):
    """Rows' weight, mean and variance of set ``one`` or of ANY; later batches of the set fade a row."""
    seen = []
    for number, index in enumerate(batches):
        new = [x for x, of in zip(rows(index, number).numpy(), index, strict=True) if of == one or one is ANY]
        if new:
            seen = [(weight * momentum, x) for weight, x in seen] + [(1.0, x) for x in new]
    if not seen:
        return 0.0, np.zeros(COLUMNS), np.ones(COLUMNS)
    weights, values = np.array([weight for weight, _ in seen]), np.array([x for _, x in seen])
    mean = np.average(values, axis=0, weights=weights)
    return weights.sum(), mean, np.average((values - mean) ** 2, axis=0, weights=weights)


def moving(batches, one, config):
    """Mean and variance that count for set ``one``."""
    for source in (one, ANY):
        weight, mean, variance = remembered(batches, source, config.momentum)
        if weight >= config.min_rows:
            return mean, variance
    return np.zeros(COLUMNS), np.ones(COLUMNS)


def normal(norm, x, one, mean, variance, epsilon):
    state = {name: value.numpy(force=True) for name, value in norm.state_dict().items()}
    scale = state["shared_scale"] * state["own_scale"][one]
    return scale * (x - mean) / np.sqrt(variance + epsilon) + state["shared_shift"] + state["own_shift"][one]


@settings(max_examples=40)
@given(BATCHES)
def test_evaluation_goes_by_the_faded_rows_of_the_set_then_of_all_then_by_none(batches):
    norm, x_BD = taught(batches).eval(), rows(range(SETS), 99)
    got = norm(x_BD, torch.arange(SETS)).numpy(force=True)
    for one in range(SETS):
        mean, variance = moving(batches, one, SHORT)
        want = normal(norm, x_BD[one].numpy(), one, mean, variance, SHORT.epsilon)
        np.testing.assert_allclose(got[one], want, rtol=1e-8, atol=1e-8)


@settings(max_examples=40)
@given(BATCHES)
def test_training_goes_by_the_set_s_rows_in_the_batch_unless_they_are_few(batches):
    *earlier, index = batches
    norm, x_BD = taught(earlier), rows(index, 99)
    got, x, index = norm(x_BD, torch.tensor(index)).numpy(force=True), x_BD.numpy(), np.array(index)
    for row, one in enumerate(index):
        part = x[index == one]
        if len(part) >= SHORT.min_rows:
            mean, variance = part.mean(axis=0), part.var(axis=0)
        else:
            mean, variance = moving(earlier, one, SHORT)
        want = normal(norm, x[row], one, mean, variance, SHORT.epsilon)
        np.testing.assert_allclose(got[row], want, rtol=1e-8, atol=1e-8)


def test_by_default_fifteen_rows_are_few_and_sixteen_are_not():
    norm, index = norm_of(PartitionedNormConfig()), [0] * 15 + [1] * 16
    x_BD = rows(index)
    trained = norm(x_BD, torch.tensor(index))
    served = norm.eval()(x_BD, torch.tensor(index))
    torch.testing.assert_close(trained[:15], served[:15])
    assert not torch.allclose(trained[15:], served[15:])


def test_the_gradient_runs_through_the_batch_s_statistics_but_not_through_moving_ones():
    norm, index = norm_of(), [0] * 6 + [1] * 2
    x_BD = rows(index).requires_grad_()
    torch.autograd.gradcheck(lambda x: norm(x, torch.tensor(index)), x_BD)
    norm(x_BD, torch.tensor(index)).sum().backward()
    # A part's mean is what its shift makes it: moving one row moves the others back.
    torch.testing.assert_close(x_BD.grad[:6], torch.zeros(6, COLUMNS).double(), rtol=0, atol=1e-9)
    scale = norm.shared_scale * norm.own_scale[1] / np.sqrt(1 + SHORT.epsilon)
    torch.testing.assert_close(x_BD.grad[6:], scale.detach().expand(2, -1))


def test_only_a_training_pass_with_gradients_is_learned_from_and_only_once():
    norm, index = taught([[0] * 5]), [0] * 5

    def state():
        return torch.cat([norm.rows, norm.mean.flatten(), norm.variance.flatten()])

    before = state()
    with torch.no_grad():
        norm(rows(index, 7), torch.tensor(index))
    norm.adapt()
    norm.eval()(rows(index, 7), torch.tensor(index))
    norm.adapt()
    assert torch.equal(state(), before)
    norm.train()(rows(index, 7), torch.tensor(index))
    assert torch.equal(state(), before)
    norm.adapt()
    once = state()
    assert not torch.equal(once, before)
    norm.adapt()
    assert torch.equal(state(), once)


@settings(max_examples=15)
@given(BATCHES)
def test_a_folded_norm_gives_the_same_bits_until_it_is_trained(batches):
    norm, index = taught(batches).eval(), batches[0]
    x_BD, index_B = rows(index, 99), torch.tensor(index)
    before = norm(x_BD, index_B)
    norm.fold()
    assert torch.equal(norm(x_BD, index_B), before)
    norm.train()
    with torch.no_grad():
        norm.shared_shift.add_(1.0)
    torch.testing.assert_close(norm.eval()(x_BD, index_B), before + 1.0)


def test_a_norm_in_training_is_not_folded():
    with pytest.raises(ConfigError, match="call eval"):
        norm_of().fold()


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"momentum": -0.1}, {"min_rows": 1}, {"epsilon": 0.0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match="momentum"):
        PartitionedNormConfig(**wrong)
