"""Which cluster's network a row passes, against cosines in numpy; folded and not, hard and soft."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig, DistributionClusters
from recsys.multidomain.domain_net import NetShape

CLUSTERS, FEATURES, DIM = 3, 4, 5
WIDTH = FEATURES * DIM
CONFIG = ClusterConfig(clusters=CLUSTERS, rows_per_move=32, warm_up_moves=1)


def rows(n, seed, offset=0.0):
    return torch.randn(n, FEATURES, DIM, generator=torch.Generator().manual_seed(seed)) + offset


def moved_clusters(offset):
    clusters = DistributionClusters(CONFIG, WIDTH, torch.Generator().manual_seed(0))
    for seed in range(5):
        clusters.note(rows(64, seed, offset).flatten(1))
        clusters.adapt()
    return clusters


def moved_net(**settings):
    shape = NetShape(n_features=FEATURES, dim=DIM, n_out=2, n_domains=2, domain_feature=0)
    config = AdaptDHMConfig(clusters=CONFIG, hidden=(6,), **settings)
    net = config.build(shape, torch.Generator().manual_seed(0))
    for seed in range(5):
        net(rows(64, seed), torch.zeros(64, dtype=torch.int64))
        net.adapt()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)), alpha=0.3
            )
    return net.eval()


@given(st.integers(0, 1_000), st.floats(-3, 3), st.booleans())
def test_a_row_goes_to_the_centre_of_the_largest_cosine_with_it(seed, offset, is_folded):
    clusters, x_BD = moved_clusters(offset).eval(), rows(40, seed, offset).flatten(1)
    if is_folded:
        clusters.fold()
    centred_BD = (x_BD - clusters.mean_D).numpy().astype(np.float64)
    cosine_BK = centred_BD @ clusters.centres_KD.numpy().T.astype(np.float64)
    cosine_BK /= np.linalg.norm(centred_BD, axis=1, keepdims=True)
    ordered_BK = np.sort(cosine_BK, axis=1)
    is_clear_B = ordered_BK[:, -1] - ordered_BK[:, -2] > 1e-4
    assert is_clear_B.mean() > 0.9
    np.testing.assert_array_equal(
        clusters.route(x_BD).numpy()[is_clear_B], cosine_BK.argmax(axis=1)[is_clear_B]
    )


def test_training_on_routes_by_the_centres_as_they_have_become():
    clusters = moved_clusters(2.0).eval()
    clusters.fold()
    clusters.train()
    for seed in range(5, 300):
        clusters.note(rows(64, seed, -2.0).flatten(1))
        clusters.adapt()
    x_BD = rows(400, 999, -2.0).flatten(1)
    assert torch.bincount(clusters.route(x_BD), minlength=CLUSTERS).min() > 40


def test_clusters_in_training_are_not_folded():
    with pytest.raises(ConfigError, match="call eval"):
        moved_clusters(0.0).fold()


@given(st.integers(0, 1_000))
def test_a_soft_output_is_the_mean_of_all_clusters_networks_by_the_row_s_coefficients(seed):
    net, vector_BFV = moved_net(soft=True), rows(7, seed)
    with torch.no_grad():
        got = net(vector_BFV, torch.zeros(7, dtype=torch.int64)).numpy()
        of_each = [net.net(vector_BFV.flatten(1), torch.full((7,), k)).numpy() for k in range(CLUSTERS)]
        similarity_BK = net.clusters.similarity_BK(vector_BFV.flatten(1)).numpy().astype(np.float64)
    r_BK = np.exp(similarity_BK - similarity_BK.max(axis=1, keepdims=True))
    r_BK /= r_BK.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got, sum(r_BK[:, [k]] * of_each[k] for k in range(CLUSTERS)), atol=1e-4)


@given(st.integers(0, 1_000), st.booleans())
def test_a_folded_net_gives_the_same_bits(seed, is_soft):
    net, vector_BFV, domain_B = moved_net(soft=is_soft), rows(30, seed), torch.zeros(30, dtype=torch.int64)
    with torch.no_grad():
        before = net(vector_BFV, domain_B)
        net.fold()
        assert torch.equal(net(vector_BFV, domain_B), before)
