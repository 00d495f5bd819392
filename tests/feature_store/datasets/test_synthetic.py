"""The made-up sets against what their definitions say they hold."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from feature_store.datasets.synthetic import syn, syn2

# Shares over tens of thousands of rows: five standard errors and a little.
SHARE_TOLERANCE = 0.01
SYN_SHARES = np.array([30, 20, 12, 8, 7, 6, 5, 4, 3, 2, 2, 1]) / 100


@pytest.fixture(scope="module", params=[syn, syn2], ids=["syn", "syn2"])
def rows(request):
    return request.param()


def values_of(rows):
    """(fields (N, F), domain (N,)) as the keys say them: number << 52 | value."""
    keys_NF = rows.keys.keys_T.reshape(len(rows), -1)
    assert (keys_NF >> np.uint64(52) == np.arange(1, keys_NF.shape[1] + 1)).all()
    values_NF = (keys_NF & np.uint64(2**52 - 1)).astype(np.int64)
    return values_NF[:, :-1], values_NF[:, -1]


def share_by_domain(rows):
    """Share of each latent within each domain, (12, 3)."""
    return (
        np.array([np.bincount(rows.latent_N[rows.domain_N == d], minlength=3) for d in range(1, 13)])
        / (np.bincount(rows.domain_N)[1:, None])
    )


def additive_fit(logit_N, fields_NF):
    """(share of the logits' variance that one number per field and value explains, those of the last)."""
    places_NF = [np.unique(field_N, return_inverse=True)[1] for field_N in fields_NF.T]
    one_hots = [np.eye(place_N.max() + 1)[place_N] for place_N in places_NF]
    numbers, *_ = np.linalg.lstsq(np.hstack(one_hots), logit_N, rcond=None)
    explained = 1 - np.var(logit_N - np.hstack(one_hots) @ numbers) / np.var(logit_N)
    return explained, numbers[-one_hots[-1].shape[1] :]


def test_the_last_feature_is_the_domain_and_no_value_is_0(rows):
    fields_NF, domain_N = values_of(rows)
    assert rows.schema.names == (*(f"field_{field}" for field in range(fields_NF.shape[1])), "domain")
    assert domain_N.tolist() == rows.domain_N.tolist()
    assert set(rows.domain_N.tolist()) == set(range(1, 13))
    assert fields_NF.min() >= 1


def test_labels_follow_the_true_logits(rows):
    chance_N = 1 / (1 + np.exp(-rows.logit_N))
    for tenth in np.array_split(np.argsort(rows.logit_N), 10):
        assert rows.label_N[tenth].mean() == pytest.approx(chance_N[tenth].mean(), abs=0.025)
    assert set(rows.label_N.tolist()) == {0.0, 1.0}


def test_whoever_knows_the_true_logits_has_the_auc_that_they_allow(rows):
    # Each row once as a positive and once as a negative, weighted by its chance to be one.
    chance_N = 1 / (1 + np.exp(-rows.logit_N))
    allowed = roc_auc_score(
        np.repeat([1, 0], len(rows)),
        np.tile(rows.logit_N, 2),
        sample_weight=np.append(chance_N, 1 - chance_N),
    )
    assert roc_auc_score(rows.label_N, rows.logit_N) == pytest.approx(allowed, abs=0.005)


@pytest.mark.parametrize("make", [syn, syn2])
def test_a_seed_gives_the_same_rows_and_another_one_others(make):
    one, again, other = make(seed=1, n_rows=500), make(seed=1, n_rows=500), make(seed=2, n_rows=500)
    assert one.keys.keys_T.tolist() == again.keys.keys_T.tolist() != other.keys.keys_T.tolist()
    assert one.label_N.tolist() == again.label_N.tolist()


def test_syn2_has_even_domains_and_the_shares_of_its_definition():
    rows = syn2()
    assert len(rows) == 80_000
    assert np.bincount(rows.domain_N)[1:] / len(rows) == pytest.approx(np.full(12, 1 / 12), abs=0.005)
    expected = np.full((12, 3), 0.15)
    expected[np.arange(12), np.arange(12) % 3] = 0.70
    assert share_by_domain(rows) == pytest.approx(expected, abs=3 * SHARE_TOLERANCE)
    assert rows.label_N.mean() == pytest.approx(0.37, abs=0.005)


def test_only_the_last_four_fields_of_syn2_tell_the_latent():
    rows = syn2()
    fields_NF, _ = values_of(rows)
    assert fields_NF.max(axis=0).tolist() == [100] * 6 + [30] * 4
    tells_NF = (fields_NF[:, 6:] - 1) // 10 == rows.latent_N[:, None]
    # Nine times out of ten on purpose, and by chance in a third of the rest.
    assert tells_NF.mean(axis=0) == pytest.approx(np.full(4, 0.9 + 0.1 / 3), abs=SHARE_TOLERANCE)
    for latent in range(3):
        of_latent = fields_NF[rows.latent_N == latent, :6]
        assert of_latent.mean(axis=0) == pytest.approx(np.full(6, 50.5), abs=1.0)


def test_the_logit_of_syn2_is_a_sum_over_six_fields_that_depends_on_the_latent():
    rows = syn2(n_rows=12_000)
    fields_NF, _ = values_of(rows)
    of_latent = [rows.latent_N == latent for latent in range(3)]
    fits = [additive_fit(rows.logit_N[z], fields_NF[z, :6])[0] for z in of_latent]
    assert fits == pytest.approx([1.0] * 3)
    assert additive_fit(rows.logit_N, fields_NF[:, :6])[0] < 0.7


def test_syn_has_the_shares_of_its_definition():
    rows = syn()
    assert len(rows) == 120_000
    assert np.bincount(rows.domain_N)[1:] / len(rows) == pytest.approx(SYN_SHARES, abs=SHARE_TOLERANCE)
    expected = np.full((12, 3), 0.10)
    expected[np.arange(12), np.arange(12) % 3] = 0.80
    assert share_by_domain(rows) == pytest.approx(expected, abs=0.06)


def test_the_fields_of_syn_are_concentrated_and_each_latent_has_values_of_its_own():
    rows = syn()
    fields_NF, _ = values_of(rows)
    counts = np.array(
        [
            [np.bincount(field_N[rows.latent_N == z], minlength=41)[1:] for field_N in fields_NF.T]
            for z in range(3)
        ]
    )
    assert counts.shape == (3, 8, 40)
    shares = counts / counts.sum(axis=-1, keepdims=True)
    # The sum of squares of a Dirichlet(a) draw over V values is (a + 1) / (V a + 1) on average.
    assert np.square(shares).sum(axis=-1).mean() == pytest.approx(1.15 / 7, rel=0.2)
    # And draws for two latents agree no more than two draws by chance: 1 / V on average.
    assert (shares[0] * shares[1]).sum(axis=-1).mean() == pytest.approx(1 / 40, abs=0.02)


@pytest.fixture(scope="module")
def syn_parts():
    """(logit, fields, the pair of the first two, domain) of some rows of syn, and their latents."""
    rows = syn(n_rows=6_000)
    fields_NF, domain_N = values_of(rows)
    return rows.logit_N, fields_NF, fields_NF[:, 0] * 41 + fields_NF[:, 1], domain_N, rows.latent_N


def test_the_logit_of_syn_is_a_sum_over_fields_but_for_one_cross_and_the_domain(syn_parts):
    logit_N, fields_NF, pair_N, domain_N, _ = (part[syn_parts[-1] == 0] for part in syn_parts)
    explained, of_domain = additive_fit(logit_N, np.column_stack([fields_NF[:, 2:], pair_N, domain_N]))
    assert explained == pytest.approx(1.0)
    assert additive_fit(logit_N, np.column_stack([fields_NF, domain_N]))[0] < 0.99
    sines = 0.3 * np.sin(np.arange(12))
    assert of_domain - of_domain[0] == pytest.approx(sines - sines[0], abs=1e-6)


def test_the_cross_of_syn_depends_on_the_latent(syn_parts):
    logit_N, fields_NF, pair_N, domain_N, latent_N = (part[syn_parts[-1] < 2] for part in syn_parts)
    by_latent_NF = fields_NF * 2 + latent_N[:, None]
    shared_NF = np.column_stack([by_latent_NF, pair_N, domain_N])
    own_NF = np.column_stack([by_latent_NF[:, 2:], pair_N * 2 + latent_N, domain_N])
    assert additive_fit(logit_N, own_NF)[0] == pytest.approx(1.0)
    assert additive_fit(logit_N, shared_NF)[0] < 0.9995


@pytest.mark.parametrize(
    ("make", "mean", "variance"),
    # Vectors and weights are standard normal: a scale's square is what its term adds to the variance.
    [(syn, -1.2 + 0.3 * SYN_SHARES @ np.sin(np.arange(12)), 2 * 1.2**2 + 0.04), (syn2, -1.0, 2.5**2)],
    ids=["syn", "syn2"],
)
def test_over_many_seeds_the_logits_have_the_mean_and_variance_of_their_formula(make, mean, variance):
    logits = np.concatenate([make(seed=seed, n_rows=300).logit_N for seed in range(600)])
    assert logits.mean() == pytest.approx(mean, abs=0.12)
    assert logits.var() == pytest.approx(variance, rel=0.06)
