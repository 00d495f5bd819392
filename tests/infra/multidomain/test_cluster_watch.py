"""Shares and purity of clusters, by counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.multidomain.cluster_watch import clusters_of, purity, shares, shares_by_group
from infra.multidomain.costs import contender
from infra.multidomain.data import Comparison
from infra.multidomain.trial import new_learner

ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30)


@given(ROWS)
def test_shares_are_counts_over_rows_in_all_and_by_group(rows: list[tuple[int, int]]) -> None:
    cluster_N, group_N = np.array(rows).T
    assert shares(cluster_N, 3) == pytest.approx([sum(k == c for c, _ in rows) / len(rows) for k in range(3)])
    for group, found in shares_by_group(cluster_N, group_N, 3).items():
        own = [c for c, g in rows if str(g) == group]
        assert found == pytest.approx([own.count(k) / len(own) for k in range(3)])


@given(ROWS)
def test_purity_is_the_share_of_rows_with_their_clusters_commonest_latent(
    rows: list[tuple[int, int]],
) -> None:
    cluster_N, latent_N = np.array(rows).T
    commonest = sum(max([z for c, z in rows if c == k].count(z) for z in range(4)) for k in range(3))
    assert purity(cluster_N, latent_N) == pytest.approx(commonest / len(rows))


def test_a_row_has_the_cluster_whose_network_scores_it(tiny: Comparison) -> None:
    model = contender("adapt_dhm", tiny.tower, tiny.hidden, at_equal_cost=False)
    learner = new_learner(tiny, model.config, 0, 1e-3)
    rows = tiny.rows.take(tiny.split(0)["test"])
    cluster_N = clusters_of(learner, rows)
    assert cluster_N is not None
    before_N = learner.predict(rows.keys)
    moved = {name: value.copy() for name, value in learner.dense_state().items()}
    moved["weight.net.net.own_biases.1"][0] += 1.0
    learner.load_dense_state(moved)
    changed_N = learner.predict(rows.keys) != before_N
    assert (changed_N == (cluster_N == 0)).all()


def test_a_model_without_clusters_has_none(tiny: Comparison) -> None:
    model = contender("single", tiny.tower, tiny.hidden, at_equal_cost=False)
    learner = new_learner(tiny, model.config, 0, 1e-3)
    assert clusters_of(learner, tiny.rows.take(np.arange(3))) is None
