"""Centres that follow rows: their laws, their collapse under the public update rules, and its cure."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from recsys.errors import ConfigError
from recsys.multidomain import cluster_updates as updates
from recsys.multidomain.distribution_clusters import ClusterConfig, DistributionClusters

WIDTH, GROUPS = 32, 3
SEEDS = st.integers(0, 1_000)


def grouped(n, *, seed=0, spread=1.0, offset=0.0):
    """(rows (n, D), group of each): three groups around their own means, all moved by one offset."""
    random = np.random.default_rng(seed)
    means = np.random.default_rng(1).normal(size=(GROUPS, WIDTH))
    group_N = random.integers(0, GROUPS, n)
    rows = spread * (means[group_N] + 0.5 * random.normal(size=(n, WIDTH))) + offset
    return torch.tensor(rows, dtype=torch.float32), group_N


def clusters_of(**settings):
    config = ClusterConfig(**{"rows_per_move": 64, "warm_up_moves": 2, **settings})
    return DistributionClusters(config, WIDTH, torch.Generator().manual_seed(0))


def fed(clusters, batches, n=256, **rows):
    for seed in range(batches):
        clusters.note(grouped(n, seed=seed, **rows)[0])
        clusters.adapt()
    return clusters


def purity(cluster_N, group_N):
    counts = np.zeros((GROUPS, GROUPS))
    np.add.at(counts, (cluster_N.numpy(), group_N), 1)
    return counts.max(axis=1).sum() / len(group_N)


@given(SEEDS, st.sampled_from(["cosine", "paper", "swr", "adl"]))
def test_centres_are_of_unit_length_after_any_batch(seed, update):
    clusters = fed(clusters_of(update=update, rounds=2), 1 + seed % 5, offset=seed / 100)
    np.testing.assert_allclose(clusters.centres_KD.norm(dim=1).numpy(), 1.0, rtol=1e-5)


@given(SEEDS)
def test_the_order_of_a_batch_s_rows_changes_nothing(seed):
    rows, _ = grouped(128, seed=seed)
    ends = []
    for order in (np.arange(128), np.random.default_rng(seed).permutation(128)):
        clusters = fed(clusters_of(), 4)
        clusters.note(rows[order])
        clusters.adapt()
        ends.append(clusters.centres_KD.numpy())
    np.testing.assert_allclose(*ends, atol=1e-5)


@given(SEEDS, st.floats(-20, 20))
def test_a_common_offset_changes_no_cluster_once_the_mean_has_followed(seed, offset):
    plain = fed(clusters_of(mean_memory=0.0), 4)
    moved = fed(clusters_of(mean_memory=0.0), 4, offset=offset)
    rows, _ = grouped(64, seed=seed)
    assert (plain.route(rows) == moved.route(rows + offset)).float().mean() > 0.98


@pytest.mark.parametrize("spread", [1e-4, 1e-2, 1.0])
def test_the_cosine_rule_finds_the_groups_whatever_the_size_of_the_vectors(spread):
    clusters = fed(clusters_of(), 60, spread=spread, offset=spread)
    rows, group_N = grouped(1_000, seed=999, spread=spread, offset=spread)
    assert purity(clusters.route(rows), group_N) > 0.99
    assert clusters.report()["min_share"] > 0.25


@pytest.mark.parametrize("update", ["swr", "paper", "adl"])
def test_the_public_rules_collapse_where_vectors_are_small(update):
    clusters = fed(clusters_of(update=update, rounds=3), 60, spread=1e-2, offset=1e-2)
    assert clusters.report()["max_cosine"] > 0.999


def test_a_collapse_can_be_seen_in_the_report_before_it_is_cured():
    clusters = fed(clusters_of(reseed_after=3), 6)
    clusters.centres_KD[1:] = clusters.centres_KD[0] + 1e-6
    assert clusters.report()["max_cosine"] > 0.999
    fed(clusters, 30)
    rows, group_N = grouped(1_000, seed=999)
    assert clusters.report()["min_share"] > 0.25
    assert purity(clusters.route(rows), group_N) > 0.99


def test_a_centre_that_nobody_follows_starts_anew_where_rows_are_far_from_all_others():
    clusters = fed(clusters_of(reseed_after=3, memory=1.0), 4)
    # Its own rows are now least like it, and the others have centres that are more like them.
    clusters.centres_KD[0] *= -1
    rows, _ = grouped(1_000, seed=999)
    fed(clusters, 2)
    assert clusters.report()["usage_0"] < 0.1, "it is not idle, so the test shows nothing"
    fed(clusters, 2)
    assert (clusters.route(rows) == 0).float().mean() > 0.2


def test_small_batches_move_the_centres_as_large_ones_do():
    rows, _ = grouped(256)
    large, small = fed(clusters_of(rows_per_move=256), 4), fed(clusters_of(rows_per_move=256), 4)
    large.note(rows)
    large.adapt()
    for part in rows.split(32):
        small.note(part)
        small.adapt()
    for name, value in large.state_dict().items():
        if name not in ("learning_rows_RD", "learning_n_rows"):
            torch.testing.assert_close(small.state_dict()[name], value)


def test_rows_are_noted_once():
    clusters = fed(clusters_of(), 4)
    before = clusters.centres_KD.clone()
    clusters.adapt()
    assert torch.equal(clusters.centres_KD, before)


@given(SEEDS, st.integers(1, 4))
def test_a_cosine_move_is_the_formula_s(seed, rounds):
    random = np.random.default_rng(seed)
    x, centres = (random.normal(size=(n, 5)) for n in (20, 3))
    x, centres = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, centres))
    inner = centres
    for _ in range(rounds):
        r = softmax(x @ inner.T / 0.1, axis=1)
        inner = np.stack([sum(r[i, k] * x[i] for i in range(20)) / r[:, k].sum() for k in range(3)])
        inner /= np.linalg.norm(inner, axis=1, keepdims=True)
    want = 0.9 * centres + 0.1 * inner
    got = updates.cosine(
        torch.tensor(x),
        torch.tensor(centres),
        rounds=rounds,
        memory=0.9,
        temperature=0.1,
        sums=updates.weighted_sums,
    )
    np.testing.assert_allclose(got, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-5)


@given(SEEDS)
def test_farthest_first_takes_rows_and_none_twice_while_they_differ(seed):
    rows = updates.unit(grouped(30, seed=seed)[0])
    chosen = updates.farthest_first(rows, 5)
    found = [int(((rows - one).abs().sum(dim=1) == 0).nonzero()[0, 0]) for one in chosen]
    assert found[0] == 0
    assert len(set(found)) == 5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"clusters": 0}, "want clusters, rounds"),
        ({"update": "mean"}, "update must be one of"),
        ({"temperature": 0.0}, "want temperature > 0"),
        ({"rows_per_move": 2}, "rows_per_move must be >= 3 clusters, got 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        ClusterConfig(**settings)
