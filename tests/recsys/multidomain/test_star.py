"""STAR against the paper's equations, one row at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_net import NetShape
from recsys.multidomain.partitioned_norm import PartitionedNormConfig
from recsys.multidomain.star import StarConfig

DOMAINS, OWN = 3, 1
SHAPE = NetShape(n_features=4, dim=2, n_out=2, n_domains=DOMAINS, domain_feature=OWN)
NORM = PartitionedNormConfig(momentum=0.5, min_rows=4, epsilon=1e-3)
FULL = StarConfig(hidden=(5, 4), norm=NORM, auxiliary=(3,))
FORMS = pytest.mark.parametrize(
    "config",
    [
        FULL,
        StarConfig(hidden=(5, 4), norm=None, auxiliary=(3,)),
        StarConfig(hidden=(5,), norm=NORM, auxiliary=None),
        StarConfig(hidden=(5,), norm=None, auxiliary=None),
    ],
    ids=["full", "without norm", "without auxiliary net", "product network alone"],
)


def rows(domains, seed=0):
    """Vectors, of which the domain's own is the same in all of its rows."""
    vector_BFV = torch.randn(len(domains), 4, 2, generator=torch.Generator().manual_seed(seed)).double()
    own_NV = torch.randn(DOMAINS, 2, generator=torch.Generator().manual_seed(99)).double()
    vector_BFV[:, OWN] = own_NV[domains]
    return vector_BFV, torch.tensor(domains)


def net_of(config):
    """A net of doubles that has seen rows of all domains; no parameter is at its start."""
    generator = torch.Generator().manual_seed(0)
    net = config.build(SHAPE, generator).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    for seed in range(3):
        net(*rows([0, 1, 2] * 6, seed))
        net.adapt()
    return net


def obvious_star(net, x_FV, domain, mean, variance):
    """Outputs of one row, (O,), whose domain has ``mean`` and ``variance`` of the other features."""
    state = {name: value.numpy(force=True) for name, value in net.state_dict().items()}
    own, rest = x_FV[OWN], np.delete(x_FV, OWN, axis=0).ravel()
    if net.norm is not None:
        rest = (rest - mean) / np.sqrt(variance + NORM.epsilon)
        rest = state["norm.shared_scale"] * state["norm.own_scale"][domain] * rest
        rest = rest + state["norm.shared_shift"] + state["norm.own_shift"][domain]
    h, n_layers = np.concatenate([own, rest]), len(net.network.own_weights)
    for number in range(n_layers):
        weight, bias = f"weights.{number}", f"biases.{number}"
        h = h @ (state[f"network.shared_{weight}"] * state[f"network.own_{weight}"][domain])
        h = h + state[f"network.shared_{bias}"] + state[f"network.own_{bias}"][domain]
        if number < n_layers - 1:
            h = np.maximum(h, 0)
    if net.auxiliary is None:
        return h
    inner = np.maximum(state["auxiliary.0.weight"] @ own + state["auxiliary.0.bias"], 0)
    return h + state["auxiliary.2.weight"] @ inner + state["auxiliary.2.bias"]


@FORMS
@settings(max_examples=15)
@given(domains=st.lists(st.integers(0, DOMAINS - 1), min_size=1, max_size=8))
def test_a_served_row_gives_the_paper_s_equations_at_the_moving_statistics(config, domains):
    net = net_of(config).eval()
    vector_BFV, domain_B = rows(domains, 7)
    got = net(vector_BFV, domain_B).numpy(force=True)
    state = {name: value.numpy(force=True) for name, value in net.state_dict().items()}
    means, variances = (state.get(f"norm.{name}", np.zeros(DOMAINS)) for name in ("mean", "variance"))
    for row, domain in enumerate(domains):
        x_FV = vector_BFV[row].numpy()
        want = obvious_star(net, x_FV, domain, means[domain], variances[domain])
        np.testing.assert_allclose(got[row], want, rtol=1e-9, atol=1e-9)


@FORMS
def test_a_row_in_training_gives_the_paper_s_equations_at_its_batch_s_statistics(config):
    net, domains = net_of(config), np.array([0, 1, 1, 0, 0, 1, 0, 1, 1])
    vector_BFV, domain_B = rows(domains, 7)
    got = net(vector_BFV, domain_B).numpy(force=True)
    rest_BR = np.delete(vector_BFV.numpy(), OWN, axis=1).reshape(len(domains), -1)
    for row, domain in enumerate(domains):
        part = rest_BR[domains == domain]
        want = obvious_star(net, vector_BFV[row].numpy(), domain, part.mean(axis=0), part.var(axis=0))
        np.testing.assert_allclose(got[row], want, rtol=1e-9, atol=1e-9)


@FORMS
def test_with_a_norm_alone_a_training_pass_moves_what_is_served(config):
    net, (vector_BFV, domain_B) = net_of(config), rows([0, 1, 2] * 6, 7)
    before = net.eval()(vector_BFV, domain_B)
    net.train()(vector_BFV, domain_B)
    net.adapt()
    assert torch.equal(net.eval()(vector_BFV, domain_B), before) == (config.norm is None)


def test_a_domain_learns_from_its_own_rows_and_the_shared_weights_from_all():
    net = net_of(FULL)
    net(*rows([0] * 6 + [2] * 6, 7)).square().sum().backward()
    for stacked in (*net.network.own_weights, *net.network.own_biases, net.norm.own_shift):
        assert [bool(part.any()) for part in stacked.grad] == [True, False, True]
    assert all(bool(shared.grad.any()) for shared in net.network.shared_weights)


def test_the_domain_s_own_vector_gets_a_gradient_from_the_network_too():
    net = net_of(StarConfig(hidden=(5,), norm=NORM, auxiliary=None))
    vector_BFV, domain_B = rows([0] * 8, 7)
    vector_BFV.requires_grad_()
    net(vector_BFV, domain_B).square().sum().backward()
    assert vector_BFV.grad[:, OWN].any()


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"auxiliary": ()}, {"auxiliary": (0,)}])
def test_layers_without_a_width_are_refused(wrong):
    with pytest.raises(ConfigError, match="hidden must hold"):
        StarConfig(**wrong)
