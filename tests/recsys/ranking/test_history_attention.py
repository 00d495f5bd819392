"""Attention over a history against the sum written out, and what the wrapper leaves to the ranker."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.history_attention import ActivationUnit, WithHistory, attended
from recsys.ranking.tower import Tower, export_weights, import_weights

K, ROUNDING = 3, 1e-5
LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def drawn(lengths, seed):
    """(targets, histories, unit) of normal draws."""
    generator = torch.Generator().manual_seed(seed)
    target_BK = torch.randn(len(lengths), K, generator=generator)
    history_HK = torch.randn(sum(lengths), K, generator=generator)
    unit = ActivationUnit(K, (5,), generator)
    with torch.no_grad():
        unit.mlp[0].bias.normal_(generator=generator)
        unit.mlp[2].bias.normal_(generator=generator)
    return target_BK, history_HK, unit


def obvious(target_BK, history_HK, lengths, unit, *, normalise):
    """The sums, (B, K), row after row in float64."""
    w1, b1, w2, b2 = (parameter.detach().double().numpy() for parameter in unit.parameters())
    target_BK, history_HK = target_BK.double().numpy(), history_HK.double().numpy()
    sums, start = [], 0
    for t, length in zip(target_BK, lengths, strict=True):
        history = history_HK[start : start + length]
        start += length
        a = np.array(
            [w2[0] @ np.maximum(w1 @ np.concatenate([h, t, h - t, h * t]) + b1, 0) + b2[0] for h in history]
        )
        if normalise and length:
            a = np.exp(a) / np.exp(a).sum()
        sums.append(sum((weight * h for weight, h in zip(a, history, strict=True)), np.zeros(K)))
    return np.stack(sums)


@settings(deadline=None)
@given(LENGTHS, st.integers(0, 2**31), st.booleans())
def test_each_history_is_summed_with_its_units_weights(lengths, seed, normalise):
    target_BK, history_HK, unit = drawn(lengths, seed)
    got = attended(target_BK, history_HK, torch.tensor(lengths), unit, normalise=normalise)
    want = obvious(target_BK, history_HK, lengths, unit, normalise=normalise)
    np.testing.assert_allclose(got.numpy(force=True), want, atol=10 * ROUNDING, rtol=ROUNDING)


@settings(deadline=None)
@given(LENGTHS.filter(sum), st.integers(0, 2**31), st.booleans())
def test_targets_histories_and_units_get_the_gradient_of_a_padded_sum(lengths, seed, normalise):
    target_BK, history_HK, unit = drawn(lengths, seed)
    target_BK, history_HK = target_BK.requires_grad_(), history_HK.requires_grad_()
    learned = [target_BK, history_HK, *unit.parameters()]
    got = attended(target_BK, history_HK, torch.tensor(lengths), unit, normalise=normalise)
    weight_BK = torch.randn(got.shape, generator=torch.Generator().manual_seed(1))
    got_grads = torch.autograd.grad((weight_BK * got).sum(), learned)

    is_there_BM = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    padded_BMK = torch.zeros(*is_there_BM.shape, K).masked_scatter(is_there_BM[..., None], history_HK)
    t_BMK = target_BK[:, None].expand_as(padded_BMK)
    pair = torch.cat([padded_BMK, t_BMK, padded_BMK - t_BMK, padded_BMK * t_BMK], dim=-1)
    a_BM = unit.mlp(pair)[..., 0]
    if normalise:
        a_BM = torch.softmax(a_BM.masked_fill(~is_there_BM, -1e9), dim=1)
    want = ((a_BM * is_there_BM)[..., None] * padded_BMK).sum(dim=1)
    want_grads = torch.autograd.grad((weight_BK * want).sum(), learned)
    for got_grad, want_grad in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(got_grad, want_grad, atol=20 * ROUNDING, rtol=10 * ROUNDING)


def test_softmax_weights_of_huge_logits_stay_finite():
    unit = ActivationUnit(K, (), torch.Generator())
    with torch.no_grad():
        unit.mlp[0].weight.zero_()[0, 0] = 1e4
    history_HK = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [1, 2, 0]])
    got = attended(torch.zeros(2, K), history_HK, torch.tensor([3, 0]), unit, normalise=True)
    torch.testing.assert_close(got, torch.tensor([[1.0, 1, 0], [0, 0, 0]]))


RANKER = DeepFMConfig(n_features=3, vector_dim=K)


def test_only_a_historys_vector_columns_are_replaced():
    config = WithHistory(tower=RANKER, target=0, histories=(2,), hidden=(5,))
    tower, lengths_BF = config.build(), np.array([[1, 2, 3], [1, 0, 0]], np.uint8)
    rows_TD = torch.randn(7, 1 + K, generator=torch.Generator().manual_seed(2))
    pooled_BFD = tower.pool(rows_TD, lengths_BF, np.array([False, True, True])).view(2, 3, 1 + K)
    want = torch.zeros(2, 3, 1 + K)
    want[0, 0], want[0, 1], want[1, 0] = rows_TD[0], rows_TD[1:3].mean(dim=0), rows_TD[6]
    want[0, 2, 0] = rows_TD[3:6, 0].mean()
    attended_1K = obvious(rows_TD[:1, 1:], rows_TD[3:6, 1:], [3], tower.units[0], normalise=False)
    want[0, 2, 1:] = torch.tensor(attended_1K[0])
    torch.testing.assert_close(pooled_BFD, want, atol=ROUNDING, rtol=ROUNDING)


def test_each_history_has_a_unit_of_its_own():
    tower = WithHistory(tower=RANKER, target=1, histories=(0, 2)).build()
    assert len(tower.units) == 2
    assert not torch.equal(tower.units[0].mlp[0].weight, tower.units[1].mlp[0].weight)


def test_a_configuration_builds_the_same_bits_each_time_and_they_travel():
    one, two, other = (
        WithHistory(tower=RANKER, target=0, histories=(2,), seed=seed).build() for seed in (1, 1, 2)
    )
    weights = export_weights(one)
    assert all(np.array_equal(value, export_weights(two)[name]) for name, value in weights.items())
    assert not np.array_equal(weights["units.0.mlp.0.weight"], export_weights(other)["units.0.mlp.0.weight"])
    import_weights(other, weights)
    assert all(np.array_equal(value, export_weights(other)[name]) for name, value in weights.items())


class Counting(Tower):
    """A ranker that counts what is asked of it."""

    def __init__(self, **settings):
        super().__init__()
        self.adapted = self.folded = 0

    trains_as_it_serves = False

    def adapt(self):
        self.adapted += 1

    def fold(self):
        self.folded += 1

    def forward(self, pooled_BW, domain_B):
        return pooled_BW[:, :2] + domain_B[:, None]


class CountingConfig:
    """Two tasks and, for domains, any object."""

    n_features, vector_dim, n_tasks, domains, build = 3, K, 2, "the domains", Counting


def test_all_but_the_pooling_is_the_rankers():
    config = WithHistory(tower=CountingConfig(), target=0, histories=(1,))
    assert (config.n_features, config.vector_dim, config.n_tasks, config.domains) == (3, K, 2, "the domains")
    tower = config.build()
    tower.adapt()
    tower.fold()
    tower.fold()
    assert (tower.ranker.adapted, tower.ranker.folded, tower.trains_as_it_serves) == (1, 2, False)
    assert WithHistory(tower=RANKER, target=0, histories=(1,)).build().trains_as_it_serves
    assert tower(torch.ones(1, 9), torch.tensor([4])).tolist() == [[5, 5]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"histories": ()}, "at least one history"),
        ({"histories": (3,)}, "different places of 0 to 2"),
        ({"target": -1}, "different places of 0 to 2"),
        ({"histories": (0, 1)}, "different places"),
        ({"histories": (1, 1)}, "different places"),
        ({"hidden": ()}, "hidden must hold"),
        ({"tower": WithHistory(tower=RANKER, target=0, histories=(1,))}, "already has histories"),
    ],
    ids=str,
)
def test_histories_that_cannot_be_attended_to_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        WithHistory(**({"tower": RANKER, "target": 0, "histories": (1,)} | settings))
