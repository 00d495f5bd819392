"""Exact metrics against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from recsys.errors import ShapeError
from recsys.evaluation.ranking_metrics import auc, calibration, gauc, group_aucs, log_loss

ROWS = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.9]), st.booleans(), st.integers(0, 3)),
    min_size=2,
    max_size=60,
)


def columns(rows):
    p, y, group = (np.array(column) for column in zip(*rows, strict=True))
    return p.astype(np.float32), y.astype(np.float32), group


@given(ROWS)
def test_auc_and_log_loss_are_scikit_learn_s(rows):
    p, y, _ = columns(rows)
    if 0 < y.sum() < len(y):
        assert auc(p, y) == pytest.approx(metrics.roc_auc_score(y, p))
    else:
        assert np.isnan(auc(p, y))
    assert log_loss(p, y) == pytest.approx(metrics.log_loss(y, p.astype(np.float64), labels=[0, 1]), rel=1e-6)


@given(ROWS)
def test_gauc_weights_each_group_s_auc_by_its_rows(rows):
    p, y, group = columns(rows)
    sums = [0.0, 0.0]
    for one in set(group.tolist()):
        own = group == one
        if 0 < y[own].sum() < own.sum():
            value = metrics.roc_auc_score(y[own], p[own])
            assert group_aucs(p, y, group)[one] == pytest.approx(value)
            sums = [sums[0] + own.sum() * value, sums[1] + own.sum()]
    if sums[1]:
        assert gauc(p, y, group) == pytest.approx(sums[0] / sums[1])
    else:
        assert np.isnan(gauc(p, y, group))


def test_calibration_is_predicted_over_seen():
    assert calibration(np.array([0.5, 0.25]), np.array([1.0, 0.0])) == 0.75
    assert np.isnan(calibration(np.array([0.5]), np.array([0.0])))


def test_a_label_too_few_is_refused():
    with pytest.raises(ShapeError, match="want one label per prediction"):
        auc(np.zeros(3), np.zeros(2))
