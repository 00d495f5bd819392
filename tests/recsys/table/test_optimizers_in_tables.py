"""Every optimizer inside a table: the native one and the dictionary learn the same bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.table.clipping import ClipByNorm, ClipByValue
from recsys.table.native import NativeTable
from recsys.table.optimizers import (
    FTRL,
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
)
from recsys.table.reference import ReferenceTable
from recsys.table.schedules import WarmUp
from recsys.table.spec import SliceSpec, TableSpec, Uniform, Zeros

RATE = WarmUp(peak=0.1, steps=3)
# Every setting away from 0, where a mistake would hide.
OPTIMIZERS = [
    SGD(learning_rate=RATE),
    Momentum(learning_rate=RATE, weight_decay=0.01),
    Momentum(learning_rate=RATE, weight_decay=0.01, is_nesterov=True),
    Adagrad(learning_rate=RATE, weight_decay=0.01),
    Adagrad(learning_rate=RATE, weight_decay=0.01, is_decoupled=True),
    RowWiseAdagrad(learning_rate=RATE, weight_decay=0.01),
    Adam(learning_rate=RATE, weight_decay=0.01),
    Adam(learning_rate=RATE, weight_decay=0.01, is_nesterov=True),
    RowWiseAdam(learning_rate=RATE, weight_decay=0.01),
    AMSGrad(learning_rate=RATE, weight_decay=0.01),
    FTRL(learning_rate=RATE, beta=1.0, l1=0.05, l2=0.1),
    GroupFTRL(learning_rate=RATE, beta=1.0, group_lasso=0.05, l2=0.1),
    GroupAdagrad(learning_rate=RATE, beta=1.0, group_lasso=0.05, weight_decay=0.01),
    RMSProp(learning_rate=RATE, weight_decay=0.01),
    RMSProp(learning_rate=RATE, weight_decay=0.01, is_averaged=False),
    AdaDelta(learning_rate=RATE, weight_decay=0.01),
    MovingAverage(),
]
GRADIENTS = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.sampled_from([1, 3, 8, 16, 17, 33])),
    elements=st.floats(-(2.0**66), 2.0**66, width=32),
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: str(optimizer)[:60])
@pytest.mark.parametrize("clip", [None, ClipByValue(limit=0.5), ClipByNorm(limit=0.5)])
@settings(max_examples=15, deadline=None)
@given(GRADIENTS)
def test_native_and_reference_agree_to_the_bit(optimizer, clip, gradients_TD):
    dim, start = gradients_TD.shape[1], Uniform(low=-0.5, high=0.5)
    part = SliceSpec(name="only", dim=dim, optimizer=optimizer, initializer=start, clip=clip)
    spec = TableSpec(name="bits", slices=(part,))
    native, reference, key_1 = NativeTable(spec), ReferenceTable(spec), np.array([5], dtype=np.uint64)
    for g_D in gradients_TD:
        for table in (native, reference):
            table.learn(key_1, g_D[None, :].copy(), event_time_s=1)
        got, want = native.export_rows(key_1), reference.export_rows(key_1)
        assert got.weights_ND.tobytes() == want.weights_ND.tobytes()
        assert got.state_NS.tobytes() == want.state_NS.tobytes()


@pytest.mark.parametrize("make_table", [NativeTable, ReferenceTable])
def test_a_table_follows_its_schedule_by_learn_calls(make_table):
    part = SliceSpec(name="only", dim=1, optimizer=SGD(learning_rate=RATE), initializer=Zeros())
    table = make_table(TableSpec(name="warm", slices=(part,)))
    key_1, one_11 = np.array([5], dtype=np.uint64), np.ones((1, 1), np.float32)
    weights = []
    for _ in range(4):
        table.learn(key_1, one_11.copy(), event_time_s=1)
        weights.append(float(table.lookup(key_1)[0, 0]))
    # Steps of a third, two thirds, and twice the whole of 0.1.
    np.testing.assert_allclose(weights, [-0.1 / 3, -0.1, -0.2, -0.3], atol=1e-6)
