"""The update rules against torch.optim, optimality conditions, closed forms and golden values."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.errors import ConfigError
from recsys.table.optimizer_rules import RULES
from recsys.table.optimizers import (
    FTRL,
    KINDS,
    SGD,
    AdaDelta,
    Adagrad,
    Adam,
    AMSGrad,
    GroupAdagrad,
    GroupFTRL,
    Momentum,
    MovingAverage,
    RMSProp,
    RowWiseAdagrad,
    RowWiseAdam,
    core_numbers,
    initial_state,
    learning_rate_at,
    state_dim,
    update,
)
from recsys.table.schedules import WarmUp

START_D, ORIGIN_D = np.array([0.5, -0.25], dtype=np.float32), np.zeros(2, dtype=np.float32)
GRADIENTS_TD = np.array([[0.1, -0.2], [-0.3, 0.05], [0.02, 0.0]], dtype=np.float32)
GOLDEN = [
    (SGD(learning_rate=0.1), START_D, [0.5180000, -0.2350000]),
    (Momentum(learning_rate=0.1), START_D, [0.5279000, -0.2053000]),
    (Momentum(learning_rate=0.1, is_nesterov=True), START_D, [0.5431100, -0.1947700]),
    (Adagrad(learning_rate=0.1), START_D, [0.5324632, -0.2097931]),
    (Adagrad(learning_rate=0.1, weight_decay=0.01), START_D, [0.5291314, -0.2082113]),
    (Adagrad(learning_rate=0.1, weight_decay=0.01, is_decoupled=True), START_D, [0.5309579, -0.2091374]),
    (RowWiseAdagrad(learning_rate=0.1), START_D, [0.5393802, -0.2055139]),
    (Adam(learning_rate=0.1), START_D, [0.5133635, -0.1272436]),
    (Adam(learning_rate=0.1, is_nesterov=True), START_D, [0.5124971, -0.0850167]),
    (AMSGrad(learning_rate=0.1), START_D, [0.5133044, -0.1273260]),
    (FTRL(learning_rate=0.1), ORIGIN_D, [0.0324632, 0.0402069]),
    (FTRL(learning_rate=0.1, l1=0.05, l2=0.1, beta=1.0), ORIGIN_D, [0.0086260, 0.0072332]),
    (GroupFTRL(learning_rate=0.1, group_lasso=0.05, l2=0.1), ORIGIN_D, [0.0096500, 0.0096249]),
    (GroupAdagrad(learning_rate=0.1, group_lasso=0.05), START_D, [0.4998839, -0.1943232]),
    (RMSProp(learning_rate=0.1), START_D, [0.5157646, -0.2358976]),
    (RMSProp(learning_rate=0.1, is_averaged=False), START_D, [0.5121895, -0.2375132]),
    (AdaDelta(learning_rate=0.1), START_D, [0.5108540, -0.2379144]),
    (MovingAverage(), START_D, [0.3476000, -0.1939500]),
]
GOLDEN_TOLERANCE = 1e-6
ROUNDING = 2e-5

WEIGHTS = arrays(np.float32, 3, elements=st.floats(-2, 2, width=32))
GRADIENTS = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(-4, 4, width=32))
RATE, DECAY = st.floats(0.01, 1.0), st.sampled_from([0.0, 0.05])


def step(optimizer, w_D, state_S, g_D, at=0):
    return update(optimizer, w_D, state_S, g_D, learning_rate_at(optimizer, at))


def stepped(optimizer, start_D, gradients_TD):
    w_D, state_S = start_D, initial_state(optimizer, start_D, learning_rate_at(optimizer, 0))
    for at, g_D in enumerate(gradients_TD):
        w_D, state_S = step(optimizer, w_D, state_S, g_D, at)
    return w_D


def torch_stepped(make_optimizer, start_D, gradients_TD, settings_at=lambda t: {}):
    w_D = torch.nn.Parameter(torch.tensor(start_D, dtype=torch.float64))
    optimizer = make_optimizer([w_D])
    for t, g_D in enumerate(gradients_TD):
        w_D.grad = torch.tensor(g_D, dtype=torch.float64)
        optimizer.param_groups[0].update(settings_at(t))
        optimizer.step()
    return w_D.detach().numpy()


@settings(deadline=None)
@given(WEIGHTS, GRADIENTS, RATE, st.sampled_from([0.5, 0.9]), DECAY, st.booleans())
def test_sgd_and_momentum_take_the_steps_of_torch(start_D, gradients_TD, rate, mu, decay, is_nesterov):
    want_D = torch_stepped(lambda w: torch.optim.SGD(w, lr=rate), start_D, gradients_TD)
    got_D = stepped(SGD(learning_rate=rate), start_D, gradients_TD)
    np.testing.assert_allclose(got_D, want_D, atol=ROUNDING)
    want_D = torch_stepped(
        lambda w: torch.optim.SGD(w, lr=rate, momentum=mu, weight_decay=decay, nesterov=is_nesterov),
        start_D,
        gradients_TD,
    )
    optimizer = Momentum(learning_rate=rate, momentum=mu, weight_decay=decay, is_nesterov=is_nesterov)
    np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=ROUNDING)


@settings(deadline=None)
@given(WEIGHTS, GRADIENTS, RATE, st.floats(0.01, 2.0), DECAY)
def test_adagrad_takes_the_steps_of_torch(start_D, gradients_TD, rate, start, decay):
    want_D = torch_stepped(
        lambda w: torch.optim.Adagrad(w, lr=rate, eps=0, initial_accumulator_value=start, weight_decay=decay),
        start_D,
        gradients_TD,
    )
    optimizer = Adagrad(learning_rate=rate, initial_accumulator=start, weight_decay=decay)
    np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=ROUNDING)


@settings(deadline=None)
@given(WEIGHTS, GRADIENTS, RATE, DECAY, st.sampled_from([(Adam, False), (AMSGrad, True)]))
def test_adam_and_amsgrad_take_the_steps_of_torch(start_D, gradients_TD, rate, decay, rule):
    ours, is_amsgrad = rule
    # torch adds epsilon after the correction of v's bias, we add it before.
    want_D = torch_stepped(
        lambda w: torch.optim.Adam(w, lr=rate, betas=(0.8, 0.9), weight_decay=decay, amsgrad=is_amsgrad),
        start_D,
        gradients_TD,
        lambda t: {"eps": 0.01 / np.sqrt(1 - 0.9 ** (t + 1))},
    )
    optimizer = ours(learning_rate=rate, beta1=0.8, beta2=0.9, weight_decay=decay)
    np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=10 * ROUNDING)


@settings(deadline=None)
@given(WEIGHTS, GRADIENTS, RATE, DECAY)
def test_rmsprop_and_adadelta_take_the_steps_of_torch(start_D, gradients_TD, rate, decay):
    want_D = torch_stepped(
        lambda w: torch.optim.RMSprop(w, lr=rate, alpha=0.75, eps=0.1, weight_decay=decay),
        start_D,
        gradients_TD,
    )
    averaged = RMSProp(learning_rate=rate, decay=0.75, epsilon=0.1, weight_decay=decay)
    # A sum is 1/(1 - 0.75) = 4 averages, so its root is twice theirs.
    summed = dataclasses.replace(averaged, learning_rate=2 * rate, epsilon=0.2, is_averaged=False)
    for optimizer in (averaged, summed):
        np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=ROUNDING)
    want_D = torch_stepped(
        lambda w: torch.optim.Adadelta(w, lr=rate, rho=0.75, eps=0.1, weight_decay=decay),
        start_D,
        gradients_TD,
    )
    optimizer = AdaDelta(learning_rate=rate, decay=0.75, epsilon=0.1, weight_decay=decay)
    np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=ROUNDING)


@settings(deadline=None)
@given(arrays(np.float32, 5, elements=st.floats(-4, 4, width=32)), st.integers(1, 40))
def test_row_wise_rules_are_their_column_wise_ones_where_all_columns_get_the_same_gradient(gradient_T, dim):
    start_D, gradients_TD = np.full(dim, 0.5, np.float32), np.repeat(gradient_T[:, None], dim, axis=1)
    for by_row, by_column in ((RowWiseAdagrad, Adagrad), (RowWiseAdam, Adam)):
        want_D = stepped(by_column(learning_rate=0.1, weight_decay=0.01), start_D, gradients_TD)
        got_D = stepped(by_row(learning_rate=0.1, weight_decay=0.01), start_D, gradients_TD)
        np.testing.assert_allclose(got_D, want_D, atol=ROUNDING)


@settings(deadline=None)
@given(WEIGHTS, GRADIENTS, RATE)
def test_ftrl_without_penalties_takes_the_steps_of_adagrad_from_any_start(start_D, gradients_TD, rate):
    want_D = torch_stepped(
        lambda w: torch.optim.Adagrad(w, eps=0, initial_accumulator_value=0.1),
        start_D,
        gradients_TD,
        lambda t: {"lr": rate * min(1.0, (t + 1) / 4)},
    )
    for rule in (FTRL, GroupFTRL):
        optimizer = rule(learning_rate=WarmUp(peak=rate, steps=4), initial_accumulator=0.1, beta=0.0)
        np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=ROUNDING)


@given(GRADIENTS, RATE, st.floats(0.01, 2.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_ftrl_minimises_its_regularised_sum_of_losses(gradients_TD, rate, l1, l2, beta):
    optimizer = FTRL(learning_rate=rate, l1=l1, l2=l2, beta=beta)
    w_D, state_S = (
        np.zeros(3, np.float32),
        initial_state(optimizer, np.zeros(3, np.float32), np.float32(rate)),
    )
    z_D, n_D = np.zeros(3), np.full(3, 0.1)
    for g_D in gradients_TD.astype(np.float64):
        # The objective z·w + (√n + β)w²/2lr + l2·w²/2 + l1·abs(w) gains a linear and a centred term.
        z_D += g_D - w_D * (np.sqrt(n_D + g_D**2) - np.sqrt(n_D)) / rate
        n_D += g_D**2
        w_D, state_S = step(optimizer, w_D, state_S, g_D.astype(np.float32))
        slope_D = z_D + w_D * ((np.sqrt(n_D) + beta) / rate + l2)
        slack, free_D = 1e-4 / rate, w_D != 0
        assert (np.abs(slope_D[~free_D]) <= l1 + slack).all()
        np.testing.assert_allclose(slope_D[free_D], -l1 * np.sign(w_D[free_D]), atol=slack)


@given(WEIGHTS, RATE, st.floats(0.0, 2.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_start_that_is_not_zero_survives_gradients_of_zero(start_D, rate, penalty, l2, beta):
    zero_TD = np.zeros((2, 3), np.float32)
    for optimizer in (
        FTRL(learning_rate=rate, l1=penalty, l2=l2, beta=beta),
        GroupFTRL(learning_rate=rate, group_lasso=penalty, l2=l2, beta=beta, initial_accumulator=0.1),
    ):
        np.testing.assert_allclose(stepped(optimizer, start_D, zero_TD), start_D, atol=ROUNDING)


@given(GRADIENTS, RATE, st.floats(0.0, 2.0))
def test_group_ftrl_is_ftrl_where_the_group_is_one_column(gradients_TD, rate, penalty):
    ftrl = FTRL(learning_rate=rate, l1=penalty, l2=0.1)
    group = GroupFTRL(learning_rate=rate, group_lasso=penalty, l2=0.1, initial_accumulator=0.1, beta=0.0)
    want_D = stepped(ftrl, START_D[:1], gradients_TD[:, :1])
    np.testing.assert_allclose(stepped(group, START_D[:1], gradients_TD[:, :1]), want_D, atol=ROUNDING)


@given(WEIGHTS, GRADIENTS, RATE, st.floats(0.0, 3.0))
def test_group_adagrad_steps_to_the_minimum_of_its_proximal_problem(w_D, gradients_TD, rate, group_lasso):
    optimizer = GroupAdagrad(learning_rate=rate, group_lasso=group_lasso)
    state_S, n = initial_state(optimizer, w_D, np.float32(rate)), 0.1
    for g_D in gradients_TD.astype(np.float64):
        n += np.max(g_D**2)
        eta = rate / np.sqrt(n)
        free_D = w_D - eta * g_D
        w_D, state_S = step(optimizer, w_D, state_S, g_D.astype(np.float32))
        # argmin of norm(u - free)²/2 + eta·group_lasso·norm(u)
        norm = np.linalg.norm(free_D)
        want_D = free_D * max(0.0, 1.0 - eta * group_lasso / norm) if norm > 0 else free_D
        np.testing.assert_allclose(w_D, want_D, atol=ROUNDING)


# FTRL takes first weights that are not 0 for learned ones, so its slice starts at 0.
@pytest.mark.parametrize("dim", [1, 2, 16, 17])
@pytest.mark.parametrize(("rule", "start"), [(GroupFTRL, 0.0), (GroupAdagrad, 0.5)])
def test_a_strong_group_lasso_makes_the_whole_slice_exactly_zero(rule, start, dim):
    gradients_TD = np.linspace(-1, 1, 3 * dim, dtype=np.float32).reshape(3, dim)
    optimizer = rule(learning_rate=0.1, group_lasso=1000.0)
    assert stepped(optimizer, np.full(dim, start, np.float32), gradients_TD).tobytes() == bytes(4 * dim)
    assert stepped(rule(learning_rate=0.1), np.full(dim, start, np.float32), gradients_TD).any()


@given(WEIGHTS, GRADIENTS, st.floats(0.0, 0.9))
def test_a_moving_average_weighs_statistics_by_their_age(start_D, statistics_TD, mu):
    kept_T = mu ** np.arange(len(statistics_TD))[::-1]
    want_D = mu ** len(statistics_TD) * start_D + (1 - mu) * kept_T @ statistics_TD
    np.testing.assert_allclose(
        stepped(MovingAverage(momentum=mu), start_D, statistics_TD), want_D, atol=ROUNDING
    )


@pytest.mark.parametrize(("optimizer", "start_D", "golden_D"), GOLDEN, ids=lambda part: str(part)[:60])
def test_three_steps_end_at_the_golden_values(optimizer, start_D, golden_D):
    got_D = stepped(optimizer, start_D, GRADIENTS_TD)
    assert got_D.dtype == np.float32
    np.testing.assert_allclose(got_D, golden_D, atol=GOLDEN_TOLERANCE)


@pytest.mark.parametrize("rule", sorted(set(KINDS.values()) - {SGD, Momentum, MovingAverage}, key=str))
@given(arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_no_finite_gradient_makes_a_weight_of_an_accumulating_rule_infinite(rule, gradients_TD):
    assert np.isfinite(stepped(rule(learning_rate=0.1), np.full(3, 0.5, np.float32), gradients_TD)).all()


@pytest.mark.parametrize("rule", [Adagrad, RowWiseAdagrad, FTRL, GroupAdagrad])
def test_a_zero_gradient_on_a_zero_accumulator_moves_nothing(rule):
    optimizer = rule(learning_rate=0.1, initial_accumulator=0.0)
    assert stepped(optimizer, START_D, np.zeros((2, 2), np.float32)).tolist() == START_D.tolist()


def test_every_kind_has_a_rule_and_a_place_in_the_core():
    assert list(RULES) == list(KINDS)
    assert core_numbers(Adam(learning_rate=0.1, is_nesterov=True)) == (0.9, 0.99, 0.01, 0.0, 1.0)
    assert [state_dim(kind(learning_rate=0.1), 5) for kind in (SGD, RowWiseAdam, AMSGrad)] == [0, 8, 17]


STEPPING = [kind for kind in KINDS.values() if kind is not MovingAverage]
NOT_RATES = [-1.0, np.nan, np.inf, 1e39, "0.1", True]


@pytest.mark.parametrize(
    ("rule", "wrong", "message"),
    [
        *((rule, {"learning_rate": 0.0}, "learning_rate must be > 0") for rule in STEPPING),
        *((SGD, {"learning_rate": rate}, "learning_rate must be > 0") for rate in NOT_RATES),
        (Adagrad, {"initial_accumulator": -0.1}, "initial_accumulator must be >= 0"),
        (Adagrad, {"is_decoupled": True}, "is_decoupled needs a weight_decay"),
        (RowWiseAdagrad, {"weight_decay": -0.1}, "weight_decay must be >= 0"),
        (Momentum, {"momentum": 1.0}, "momentum must be >= 0 and < 1"),
        (Adam, {"beta1": 0.99999999999}, "beta1 must be >= 0 and < 1 in float32"),
        (RowWiseAdam, {"beta2": 0.0}, "beta2 must be > 0"),
        (AMSGrad, {"epsilon": 1e-60}, "epsilon must be > 0"),
        (Adam, {"is_nesterov": 1}, "is_nesterov must be true or false"),
        (FTRL, {"l1": -1.0}, "l1 must be >= 0"),
        (GroupFTRL, {"group_lasso": np.inf}, "group_lasso must be >= 0 and finite"),
        (GroupAdagrad, {"beta": np.nan}, "beta must be >= 0"),
        (RMSProp, {"decay": 1.0}, "decay must be > 0 and < 1"),
        (AdaDelta, {"epsilon": 0}, "epsilon must be > 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_when_the_optimizer_is_built(rule, wrong, message):
    with pytest.raises(ConfigError, match=message):
        rule(**{"learning_rate": 0.1, **wrong})
