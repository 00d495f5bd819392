"""AdaSparse against the paper's equations, one neuron at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.ada_sparse import AdaSparseConfig, gate
from recsys.multidomain.domain_net import NetShape

OWN = 1
SHAPE = NetShape(n_features=3, dim=2, n_out=2, n_domains=3, domain_feature=OWN)
# A wide epsilon, so that many gates close.
CONFIG = AdaSparseConfig(hidden=(5, 4), epsilon=0.7, alpha_start=1.5, alpha_growth=0.25, alpha_end=2.1)


def net_of(config=CONFIG):
    """A net of doubles, no parameter of which is at its start."""
    generator = torch.Generator().manual_seed(0)
    net = config.build(SHAPE, generator).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return net


def rows(n, seed=0):
    vector_BFV = torch.randn(n, 3, 2, generator=torch.Generator().manual_seed(seed)).double()
    return vector_BFV, torch.arange(n) % 3


def step(net, seed=0):
    net(*rows(4, seed))
    net.adapt()


def obvious_gate(score, alpha, config):
    value = config.beta / (1.0 + math.exp(-alpha * score))
    return value if value > config.epsilon else 0.0


def obvious_ada_sparse(net, config, x_FV, alpha):
    """Outputs of one row, (O,), and how many of its gates are closed."""
    state = {name: value.numpy(force=True) for name, value in net.state_dict().items()}
    own, h, closed = x_FV[OWN], np.concatenate([x_FV[0], x_FV[2]]), 0
    for number in range(len(config.hidden) + 1):
        score = (
            state[f"pruners.{number}.0.weight"] @ np.concatenate([own, h]) + state[f"pruners.{number}.0.bias"]
        )
        gates = np.array([obvious_gate(one, alpha, config) for one in score])
        closed += int((gates == 0).sum())
        h = h * gates
        if number == 0:
            h = np.concatenate([own, h])
        h = state[f"layers.{number}.0.weight"] @ h + state[f"layers.{number}.0.bias"]
        if number < len(config.hidden):
            h = np.maximum(h, 0)
    return h, closed


@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=15)
@given(n=st.integers(1, 6), seed=st.integers(0, 1000))
def test_a_row_gives_the_paper_s_equations(training, n, seed):
    net = net_of().train(training)
    vector_BFV, domain_B = rows(n, seed)
    got = net(vector_BFV, domain_B).numpy(force=True)
    for row in range(n):
        want, _ = obvious_ada_sparse(net, CONFIG, vector_BFV[row].numpy(), CONFIG.alpha_start)
        np.testing.assert_allclose(got[row], want, rtol=1e-9, atol=1e-9)


def test_gates_grow_steeper_with_each_step_up_to_the_end():
    net, (vector_BFV, domain_B) = net_of(), rows(1, 5)
    for alpha in (1.5, 1.75, 2.0, 2.1, 2.1):
        want, closed = obvious_ada_sparse(net, CONFIG, vector_BFV[0].numpy(), alpha)
        assert 0 < closed < 4 + 5 + 4
        np.testing.assert_allclose(net.eval()(vector_BFV, domain_B)[0].numpy(force=True), want, rtol=1e-9)
        step(net.train())


def test_neither_serving_nor_passes_without_gradients_count_as_steps():
    net = net_of()
    with torch.no_grad():
        step(net)
    step(net.eval())
    assert net.steps.item() == 0
    step(net.train())
    net.adapt()
    assert net.steps.item() == 1


@given(st.floats(-50, 50), st.floats(0.1, 20), st.floats(0.5, 4), st.floats(0, 0.4))
def test_a_gate_is_shut_or_lies_between_epsilon_and_beta(score, alpha, beta, epsilon):
    value = gate(torch.tensor([[score]]), torch.tensor([alpha]), beta=beta, epsilon=epsilon).item()
    assert value == 0.0 or np.float32(epsilon) <= value <= np.float32(beta)


def test_a_gate_without_a_score_lets_all_through_by_default():
    config = AdaSparseConfig()
    open_gate = gate(torch.zeros(1, 2), torch.ones(1), beta=config.beta, epsilon=config.epsilon)
    assert open_gate.tolist() == [[1.0, 1.0]]


def test_no_gradient_passes_a_shut_gate():
    score = torch.tensor([[-20.0, 0.5]], requires_grad=True)
    h = torch.ones(1, 2, requires_grad=True)
    (h * gate(score, torch.ones(1), beta=2.0, epsilon=1e-2)).sum().backward()
    assert [bool(x) for x in score.grad[0]] == [False, True]
    assert [bool(x) for x in h.grad[0]] == [False, True]


def test_the_domain_s_own_vector_is_not_pruned():
    net, (vector_BFV, domain_B) = net_of(AdaSparseConfig(hidden=(5,))).eval(), rows(3)
    with torch.no_grad():
        net.pruners[0][0].bias.fill_(-1e3)
    vector_BFV.requires_grad_()
    net(vector_BFV, domain_B).sum().backward()
    assert vector_BFV.grad[:, OWN].any()
    assert not vector_BFV.grad[:, [0, 2]].any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": ()},
        {"epsilon": 2.0},
        {"epsilon": -0.1},
        {"alpha_start": 0.0},
        {"alpha_start": 6.0},
        {"alpha_growth": -1.0},
    ],
)
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AdaSparseConfig(**wrong)


def test_the_domain_as_the_only_feature_is_refused():
    alone = NetShape(n_features=1, dim=2, n_out=1, n_domains=2, domain_feature=0)
    with pytest.raises(ConfigError, match="besides the domain's"):
        CONFIG.build(alone, torch.Generator())
