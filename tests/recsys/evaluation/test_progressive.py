"""Progressive metrics against scikit-learn and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from recsys.errors import ConfigError, ShapeError
from recsys.evaluation.progressive import ProgressiveMetrics, Tally

AUC_TOLERANCE = 1e-3
ROUNDING = 1e-6

PREDICTIONS = st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=2, max_size=200).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p for p, _ in rows], np.float32), np.array([y for _, y in rows], np.float32)


def tally_of(p: np.ndarray, y: np.ndarray) -> Tally:
    tally = Tally()
    tally.add(p, y)
    return tally


@given(PREDICTIONS)
def test_log_loss_and_calibration_equal_their_definitions(rows: list[tuple[float, bool]]) -> None:
    p, y = arrays(rows)
    metrics = tally_of(p, y).metrics()
    assert metrics["log_loss"] == pytest.approx(log_loss(y, p.astype(float)), abs=1e-4)
    assert metrics["calibration"] == pytest.approx(p.sum() / y.sum(), rel=1e-4)


def test_auc_agrees_with_the_exact_one_on_a_long_stream() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(50_000) < 0.3).astype(np.float32)
    p = (1 / (1 + np.exp(-(rng.normal(size=50_000) + y)))).astype(np.float32)
    assert tally_of(p, y).metrics()["auc"] == pytest.approx(roc_auc_score(y, p), abs=AUC_TOLERANCE)


def test_a_constant_prediction_has_auc_one_half_and_entropy_one_at_the_base_rate() -> None:
    y = np.array([1, 0, 0, 0], np.float32)
    metrics = tally_of(np.full(4, 0.25, np.float32), y).metrics()
    assert metrics["auc"] == 0.5
    assert metrics["normalized_entropy"] == pytest.approx(1.0, abs=ROUNDING)


@given(PREDICTIONS, PREDICTIONS)
def test_a_difference_of_tallies_is_the_tally_of_the_difference(
    first: list[tuple[float, bool]], second: list[tuple[float, bool]]
) -> None:
    whole = tally_of(*arrays(first + second))
    late = whole.since(tally_of(*arrays(first))).metrics()
    assert late == pytest.approx(tally_of(*arrays(second)).metrics(), abs=1e-5)


def test_windows_close_by_event_time_and_survive_a_restart() -> None:
    before, rows = ProgressiveMetrics(1000), [(0.9, True), (0.2, False)]
    p, y = arrays(rows)
    before.add(p, y, 500)
    after = ProgressiveMetrics(1000)
    after.load_state(before.state())
    after.add(p, y, 1500)
    after.add(p, y, 2500)
    assert [window["window_start_ms"] for window in after.finished] == [0, 1000]
    assert after.total.metrics()["examples"] == 6


def test_one_class_alone_has_no_auc() -> None:
    assert np.isnan(tally_of(np.array([0.5], np.float32), np.array([1], np.float32)).metrics()["auc"])


def test_bad_input_is_refused_with_a_sentence() -> None:
    with pytest.raises(ShapeError, match="one label per prediction"):
        Tally().add(np.zeros(2, np.float32), np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match="window_ms must be > 0, got 0"):
        ProgressiveMetrics(0)
