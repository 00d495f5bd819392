"""Metrics of a sampled stream are those of the stream in which nothing was left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.progressive import N_BINS, ProgressiveMetrics, Tally
from recsys.ranking.statements import Statements

ROUNDING = 1e-6
# Powers of two, because 1 / k is float32 on the wire: cancelling terms must not be left with its rounding.
ALIKE = st.sampled_from([1, 2, 4, 8, 16])
ROWS = st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=4, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


def tally(rows: list[tuple[float, bool]], *, rate: float = 1.0, fast: bool = False, weight: int = 1) -> Tally:
    counted = Tally()
    add(counted, rows, rate=rate, fast=fast, weight=weight)
    return counted


def add(
    counted: Tally, rows: list[tuple[float, bool]], *, rate: float = 1.0, fast: bool = False, weight: int = 1
) -> None:
    n = len(rows)
    stated = Statements(
        sample_rate_B=np.full(n, rate, np.float32),
        is_fast_B=np.full(n, fast),
        weight_B=np.full(n, weight, np.float32),
    )
    p_B, label_B = (np.array([row[i] for row in rows], np.float32) for i in (0, 1))
    counted.add(p_B, label_B, stated)


def plain(rows: list[tuple[float, bool]]) -> dict[str, float]:
    counted = Tally()
    counted.add(np.array([p for p, _ in rows], np.float32), np.array([y for _, y in rows], np.float32))
    return counted.metrics()


@given(ROWS, ALIKE)
def test_one_kept_negative_of_k_alike_counts_as_all_k(rows: list[tuple[float, bool]], k: int) -> None:
    whole = [row for row in rows for _ in range(1 if row[1] else k)]
    assert tally(rows, rate=1 / k).metrics() == pytest.approx(plain(whole), rel=ROUNDING)


@given(ROWS, ALIKE)
def test_an_early_negative_that_turns_positive_is_counted_as_positive_alone(
    rows: list[tuple[float, bool]], k: int
) -> None:
    # Of k alike impressions each, one early negative is kept, and all positives follow.
    counted = tally([(p, False) for p, _ in rows], rate=1 / k, fast=True)
    turned = [row for row in rows if row[1] for _ in range(k)]
    add(counted, turned, rate=1 / k, fast=True)
    assert counted.metrics() == pytest.approx(plain([row for row in rows for _ in range(k)]), rel=ROUNDING)


@given(ROWS, st.floats(0.01, 0.99))
def test_a_negative_taken_back_leaves_no_trace(rows: list[tuple[float, bool]], p: float) -> None:
    counted = tally(rows)
    add(counted, [(p, False)], rate=0.1)
    add(counted, [(p, False)], rate=0.1, weight=-1)
    assert counted.metrics() == pytest.approx(plain(rows), rel=ROUNDING, abs=ROUNDING)


def test_a_sample_estimates_the_auc_and_calibration_of_the_whole() -> None:
    rng = np.random.default_rng(1)
    p_N = rng.beta(1, 6, 200_000)
    label_N = rng.random(200_000) < p_N
    kept_N = label_N | (rng.random(200_000) < 0.1)
    found = tally(list(zip(p_N[kept_N], label_N[kept_N], strict=True)), rate=0.1).metrics()
    whole = plain(list(zip(p_N, label_N, strict=True)))
    for name, tolerance in (("auc", 0.004), ("calibration", 0.02), ("log_loss", 0.01)):
        assert found[name] == pytest.approx(whole[name], abs=tolerance), name


def test_a_window_of_nothing_but_withdrawals_has_no_auc_and_does_no_harm() -> None:
    metrics = ProgressiveMetrics(1000)
    p, y = np.array([0.2, 0.6], np.float32), np.array([0.0, 1.0], np.float32)
    metrics.add(p, y, 500)
    back = Statements(
        sample_rate_B=np.ones(1, np.float32),
        is_fast_B=np.zeros(1, np.bool_),
        weight_B=-np.ones(1, np.float32),
    )
    metrics.add(p[:1], y[:1], 1500, stated=back)
    metrics.add(p, y, 2500)
    assert [window["window_start_ms"] for window in metrics.finished] == [0, 1000]
    assert np.isnan(metrics.finished[1]["auc"])
    assert metrics.total.metrics()["examples"] == pytest.approx(3)


def test_rows_without_the_label_are_passed_over() -> None:
    counted = Tally()
    p_B = np.array([0.3, np.nan, 0.6], np.float32)
    counted.add(p_B, np.array([0.0, np.nan, 1.0], np.float32))
    assert counted.metrics() == plain([(0.3, False), (0.6, True)])


def test_a_snapshot_of_whole_counts_goes_on() -> None:
    before, after = ProgressiveMetrics(1000), ProgressiveMetrics(1000)
    before.add(np.array([0.3, 0.6], np.float32), np.array([0.0, 1.0], np.float32), 500)
    state = before.state()
    for which in ("total", "window"):
        for kind in ("positives", "negatives"):
            state[f"{which}.{kind}"] = state[f"{which}.{kind}"].astype(np.int64)
    after.load_state(state)
    assert after.total.metrics() == before.total.metrics()
    assert after.total.negatives_S.shape == (N_BINS,)
    back = Statements(
        sample_rate_B=np.array([0.3], np.float32),
        is_fast_B=np.zeros(1, np.bool_),
        weight_B=np.ones(1, np.float32),
    )
    after.add(np.array([0.3], np.float32), np.zeros(1, np.float32), 600, stated=back)
    assert after.total.metrics()["examples"] == pytest.approx(2 + 1 / 0.3, rel=ROUNDING)
