"""The update rules against torch.optim and against values worked out by hand, alone and in tables."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.errors import ConfigError
from recsys.table.native import NativeTable
from recsys.table.optimizers import SGD, Adagrad, Optimizer, RowWiseAdagrad, initial_state, update
from recsys.table.reference import ReferenceTable
from recsys.table.spec import SliceSpec, TableSpec, Zeros

START_D = np.array([0.5, -0.25], dtype=np.float32)
GRADIENTS_TD = np.array([[0.1, -0.2], [-0.3, 0.05], [0.02, 0.0]], dtype=np.float32)
GOLDEN = [
    (SGD(learning_rate=0.1), [0.5180000, -0.2350000]),
    (Adagrad(learning_rate=0.1), [0.5324632, -0.2097931]),
    (RowWiseAdagrad(learning_rate=0.1), [0.5393802, -0.2055139]),
]
GOLDEN_TOLERANCE = 1e-6
ROUNDING = 1e-5
GRADIENTS = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.floats(-4, 4, width=32))


def stepped(optimizer: Optimizer, start_D, gradients_TD):
    w_D, state_S = start_D, initial_state(optimizer, len(start_D))
    for g_D in gradients_TD:
        w_D, state_S = update(optimizer, w_D, state_S, g_D)
    return w_D


def torch_stepped(make_optimizer, start_D, gradients_TD):
    w_D = torch.nn.Parameter(torch.tensor(start_D, dtype=torch.float64))
    optimizer = make_optimizer([w_D])
    for g_D in gradients_TD:
        w_D.grad = torch.tensor(g_D, dtype=torch.float64)
        optimizer.step()
    return w_D.detach().numpy()


@settings(deadline=None)
@given(GRADIENTS, st.floats(0.01, 1.0))
def test_sgd_takes_the_steps_of_torch(gradients_TD, rate):
    start_D = np.full(3, 0.5, np.float32)
    want_D = torch_stepped(lambda w: torch.optim.SGD(w, lr=rate), start_D, gradients_TD)
    got_D = stepped(SGD(learning_rate=rate), start_D, gradients_TD)
    np.testing.assert_allclose(got_D, want_D, atol=ROUNDING)


@settings(deadline=None)
@given(GRADIENTS, st.floats(0.01, 1.0), st.floats(0.01, 2.0))
def test_adagrad_takes_the_steps_of_torch(gradients_TD, rate, accumulator):
    start_D = np.full(3, 0.5, np.float32)
    want_D = torch_stepped(
        lambda w: torch.optim.Adagrad(w, lr=rate, eps=0, initial_accumulator_value=accumulator),
        start_D,
        gradients_TD,
    )
    optimizer = Adagrad(learning_rate=rate, initial_accumulator=accumulator)
    np.testing.assert_allclose(stepped(optimizer, start_D, gradients_TD), want_D, atol=ROUNDING)


@settings(deadline=None)
@given(arrays(np.float32, 5, elements=st.floats(-4, 4, width=32)))
def test_row_wise_adagrad_is_adagrad_where_all_columns_get_the_same_gradient(gradient_T):
    start_D, gradients_TD = np.full(3, 0.5, np.float32), np.repeat(gradient_T[:, None], 3, axis=1)
    want_D = torch_stepped(
        lambda w: torch.optim.Adagrad(w, lr=0.1, eps=0, initial_accumulator_value=0.1), start_D, gradients_TD
    )
    got_D = stepped(RowWiseAdagrad(learning_rate=0.1), start_D, gradients_TD)
    np.testing.assert_allclose(got_D, want_D, atol=ROUNDING)


@pytest.mark.parametrize(("optimizer", "golden_D"), GOLDEN)
def test_three_steps_end_at_the_golden_values(optimizer, golden_D):
    got_D = stepped(optimizer, START_D, GRADIENTS_TD)
    np.testing.assert_allclose(got_D, golden_D, atol=GOLDEN_TOLERANCE)


@pytest.mark.parametrize("make_table", [NativeTable, ReferenceTable])
@pytest.mark.parametrize(("optimizer", "golden_D"), GOLDEN)
def test_a_table_ends_at_the_golden_values(make_table, optimizer, golden_D):
    part = SliceSpec(name="only", dim=2, optimizer=optimizer, initializer=Zeros())
    table = make_table(TableSpec(name="golden", slices=(part,)))
    key_1 = np.array([5], dtype=np.uint64)
    table.assign(key_1, START_D[None, :])
    for g_D in GRADIENTS_TD:
        table.learn(key_1, g_D[None, :], event_time_s=1)
    np.testing.assert_allclose(table.lookup(key_1)[0], golden_D, atol=GOLDEN_TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([SGD, Adagrad, RowWiseAdagrad]),
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 19)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
)
def test_native_and_reference_agree_to_the_bit_for_gradients_of_any_size(rule, gradients_TD):
    dim = gradients_TD.shape[1]
    part = SliceSpec(name="only", dim=dim, optimizer=rule(learning_rate=0.1), initializer=Zeros())
    spec = TableSpec(name="bits", slices=(part,))
    native, reference, key_1 = NativeTable(spec), ReferenceTable(spec), np.array([5], dtype=np.uint64)
    for g_D in gradients_TD:
        for table in (native, reference):
            table.learn(key_1, g_D[None, :].copy(), event_time_s=1)
        assert native.lookup(key_1).tobytes() == reference.lookup(key_1).tobytes()


@pytest.mark.parametrize("rule", [Adagrad, RowWiseAdagrad])
def test_a_zero_gradient_on_a_zero_accumulator_moves_nothing(rule):
    optimizer = rule(learning_rate=0.1, initial_accumulator=0.0)
    assert stepped(optimizer, START_D, np.zeros((2, 2), np.float32)).tolist() == START_D.tolist()


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e39])
@pytest.mark.parametrize("rule", [SGD, Adagrad, RowWiseAdagrad])
def test_a_learning_rate_that_is_not_positive_and_finite_is_refused(rule, rate):
    with pytest.raises(ConfigError, match="learning_rate must be > 0"):
        rule(learning_rate=rate)


@pytest.mark.parametrize("rule", [Adagrad, RowWiseAdagrad])
def test_a_negative_accumulator_is_refused(rule):
    with pytest.raises(ConfigError, match="initial_accumulator must be >= 0"):
        rule(learning_rate=0.1, initial_accumulator=-0.1)
