"""SAR-Net against its equations, expert by expert and row by row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_net import NetShape
from recsys.multidomain.partitioned_norm import PartitionedNormConfig
from recsys.multidomain.sar_net import SARNetConfig

FEATURES, DIM, DOMAINS, DOMAIN_FEATURE = 3, 2, 4, 1
OWN, SHARED, WIDTH, EPSILON, MIN_ROWS = 2, 3, 4, 1e-5, 16
SHAPE = NetShape(n_features=FEATURES, dim=DIM, n_out=2, n_domains=DOMAINS, domain_feature=DOMAIN_FEATURE)
CONFIG = SARNetConfig(
    shared_experts=SHARED,
    domain_experts=OWN,
    expert_dim=WIDTH,
    hidden=(5, 6),
    norm=PartitionedNormConfig(momentum=0.9, min_rows=MIN_ROWS, epsilon=EPSILON),
)


def net_of(seed=0):
    """A net that is not at the start of anything, except for its statistics."""
    net = CONFIG.build(SHAPE, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return net


def rows(domains, seed=0):
    vector_BFV = torch.randn(len(domains), FEATURES, DIM, generator=torch.Generator().manual_seed(seed))
    return vector_BFV, torch.tensor(domains)


def linear(state, name, x):
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def raw_experts(state, vector_FV, domain):
    """x' of one row, and what its experts give before their norms, own ones first."""
    x = state["scale_ND"][domain] * vector_FV.ravel() + state["shift_ND"][domain]
    own = [
        x @ state[f"own.{number}.weights.0"][domain] + state[f"own.{number}.biases.0"][domain]
        for number in range(OWN)
    ]
    return x, own, [linear(state, f"shared.{number}.0", x) for number in range(SHARED)]


def affine(state, name, one):
    scale = state[f"{name}.shared_scale"] * state[f"{name}.own_scale"][one]
    return scale, state[f"{name}.shared_shift"] + state[f"{name}.own_shift"][one]


def obvious_sar_net(net, vector_BFV, domains, moments):
    """Outputs, (B, O), given ``moments(name, set, its rows)``: mean and variance to normalise by."""
    state = {name: value.numpy(force=True).astype(float) for name, value in net.state_dict().items()}
    vectors = vector_BFV.numpy().astype(float)
    raw = [raw_experts(state, row, domain) for row, domain in zip(vectors, domains, strict=True)]
    out = []
    for (x, own, shared), row, domain in zip(raw, vectors, domains, strict=True):
        normed = []
        for name, one, here, everywhere in (
            ("own_norm", domain, own, [r[1] for r, d in zip(raw, domains, strict=True) if d == domain]),
            ("shared_norm", 0, shared, [r[2] for r in raw]),
        ):
            mean, variance = moments(name, one, np.array(everywhere).reshape(len(everywhere), -1))
            scale, shift = affine(state, name, one)
            z = scale * (np.concatenate(here) - mean) / np.sqrt(variance + EPSILON) + shift
            normed.extend(z.reshape(-1, WIDTH))
        logits = linear(state, "gate.0", np.concatenate([x, row[DOMAIN_FEATURE]]))
        share = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        h = sum(weight * expert for weight, expert in zip(share, normed, strict=True))
        for layer in (0, 2):
            h = np.maximum(linear(state, f"mlp.{layer}", h), 0)
        out.append(linear(state, "mlp.4", h))
    return np.array(out)


def of_the_batch(name, one, part):
    """A new net's moments in training: small parts are left as they are."""
    return (part.mean(axis=0), part.var(axis=0)) if len(part) >= MIN_ROWS else (0.0, 1.0)


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 3, 16, 21]), min_size=DOMAINS, max_size=DOMAINS).filter(any),
    seed=st.integers(0, 999),
)
def test_a_training_pass_normalises_by_the_batch_where_it_holds_enough_rows(sizes, seed):
    domains = np.random.default_rng(seed).permutation(np.repeat(np.arange(DOMAINS), sizes)).tolist()
    net = net_of(seed).train()
    vector_BFV, domain_B = rows(domains, seed)
    want = obvious_sar_net(net, vector_BFV, domains, of_the_batch)
    np.testing.assert_allclose(net(vector_BFV, domain_B).numpy(force=True), want, rtol=1e-3, atol=1e-4)


def test_evaluation_normalises_by_the_statistics_that_training_left():
    net = net_of().train()
    vector_BFV, domain_B = rows([0] * 20 + [2] * 40)
    net(vector_BFV, domain_B)
    net.adapt()
    state = {name: value.numpy(force=True).astype(float) for name, value in net.state_dict().items()}
    seen = [
        raw_experts(state, row, domain)
        for row, domain in zip(vector_BFV.numpy().astype(float), domain_B.tolist(), strict=True)
    ]
    own, shared = (np.array([np.concatenate(r[kind]) for r in seen]) for kind in (1, 2))

    def of_what_was_seen(name, one, part):
        """After one batch its own moments; for a domain without rows, those of all rows."""
        among = {"shared_norm": shared, "own_norm": own}[name]
        if name == "own_norm" and one in {0, 2}:
            among = among[domain_B.numpy() == one]
        return among.mean(axis=0), among.var(axis=0)

    net.eval()
    asked_BFV, asked_B = rows([2, 0, 3, 0], seed=1)
    want = obvious_sar_net(net, asked_BFV, asked_B.tolist(), of_what_was_seen)
    np.testing.assert_allclose(net(asked_BFV, asked_B).numpy(force=True), want, rtol=1e-3, atol=1e-4)
    net.fold()
    np.testing.assert_allclose(net(asked_BFV, asked_B).numpy(force=True), want, rtol=1e-3, atol=1e-4)


def test_statistics_move_by_adapt_and_never_by_a_pass():
    net = net_of().train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    net(*rows([1] * 20))
    assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
    net.adapt()
    assert {name for name, value in net.named_buffers() if torch.equal(value, before[name])} == set()


def test_the_transform_starts_as_the_identity():
    net = CONFIG.build(SHAPE, torch.Generator().manual_seed(0))
    assert torch.equal(net.scale_ND, torch.ones(DOMAINS, FEATURES * DIM))
    assert torch.equal(net.shift_ND, torch.zeros(DOMAINS, FEATURES * DIM))


def test_shared_parts_learn_from_every_domain_and_own_ones_from_theirs():
    net = net_of().train()
    net(*rows([0] * 20 + [2] * 3)).square().sum().backward()
    for shared in (net.shared, net.gate, net.mlp):
        assert all(parameter.grad.abs().sum() > 0 for parameter in shared.parameters())
    own = [net.scale_ND, net.shift_ND, *(expert.weights[0] for expert in net.own)]
    for by_N in own:
        assert (by_N.grad.abs().flatten(1).sum(1) > 0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("wrong", [{"shared_experts": 0}, {"domain_experts": 0}, {"expert_dim": 0}])
def test_a_size_of_zero_is_refused(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}=0"):
        SARNetConfig(**wrong)
