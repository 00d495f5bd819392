"""PEPNet against the paper's equations, one example at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_net import NetShape
from recsys.multidomain.pepnet import PEPNetConfig

FEATURES, DIM, DOMAINS, OUTPUTS, DOMAIN_FEATURE = 4, 2, 3, 2, 1
PRIORS = (3, 0)
SHAPE = NetShape(
    n_features=FEATURES, dim=DIM, n_out=OUTPUTS, n_domains=DOMAINS, domain_feature=DOMAIN_FEATURE
)


def net_of(seed=0, **settings):
    """A net whose biases are not zero either."""
    config = PEPNetConfig(hidden=(5, 4), gate_hidden=6, prior_features=PRIORS, **settings)
    net = config.build(SHAPE, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return net


def rows(domains, seed=0):
    vector_BFV = torch.randn(len(domains), FEATURES, DIM, generator=torch.Generator().manual_seed(seed))
    return vector_BFV, torch.tensor(domains)


def gate(state, prefix, z):
    h = np.maximum(state[f"{prefix}.mlp.0.weight"] @ z + state[f"{prefix}.mlp.0.bias"], 0)
    return 2 / (1 + np.exp(-(state[f"{prefix}.mlp.2.weight"] @ h + state[f"{prefix}.mlp.2.bias"])))


def obvious_pepnet(net, vector_FV, domain, *, has_epnet, has_ppnet, has_output_towers):
    """Outputs of one row, (O,), in float64, tower after tower."""
    state = {name: value.numpy(force=True).astype(float) for name, value in net.state_dict().items()}
    vector_FV = vector_FV.numpy().astype(float)
    x = vector_FV.ravel()
    if has_epnet:
        x = x * gate(state, "input_gate", np.concatenate([vector_FV[DOMAIN_FEATURE], x]))
    prior = np.concatenate([*(vector_FV[place] for place in PRIORS), x])
    n_towers = OUTPUTS if has_output_towers else 1
    out = []
    for tower in range(n_towers):
        of_tower, h = domain * n_towers + tower, x
        for number in range(2):
            weight, bias = (state[f"towers.{kind}.{number}"][of_tower] for kind in ("weights", "biases"))
            h = np.maximum(h @ weight + bias, 0)
            if has_ppnet:
                h = h * np.split(gate(state, f"hidden_gates.{number}", prior), n_towers)[tower]
        out.append(h @ state["towers.weights.2"][of_tower] + state["towers.biases.2"][of_tower])
    return np.concatenate(out)


@settings(max_examples=30, deadline=None)
@given(
    domains=st.lists(st.integers(0, DOMAINS - 1), min_size=1, max_size=9),
    seed=st.integers(0, 999),
    flags=st.fixed_dictionaries(
        {name: st.booleans() for name in ("has_epnet", "has_ppnet", "has_output_towers")}
    ),
    training=st.booleans(),
)
def test_each_row_gets_what_the_gated_towers_of_its_domain_give_alone(domains, seed, flags, training):
    net = net_of(seed, **flags).train(training)
    vector_BFV, domain_B = rows(domains, seed)
    want = [
        obvious_pepnet(net, row, domain, **flags) for row, domain in zip(vector_BFV, domains, strict=True)
    ]
    np.testing.assert_allclose(net(vector_BFV, domain_B).numpy(force=True), want, rtol=1e-4, atol=1e-5)


def test_gates_of_zero_weights_are_one_and_leave_plain_towers():
    net, plain = net_of(), net_of(has_epnet=False, has_ppnet=False)
    plain.load_state_dict(net.state_dict(), strict=False)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "gate" in name:
                parameter.zero_()
    vector_BFV, domain_B = rows([0, 2, 1, 2])
    torch.testing.assert_close(net(vector_BFV, domain_B), plain(vector_BFV, domain_B))


def test_hidden_gates_pass_no_gradient_but_to_the_priors():
    net = net_of()
    vector_BFV, domain_B = rows([0, 2, 1])
    vector_BFV.requires_grad_()
    with torch.no_grad():  # The gates are then the only way to the output.
        net.towers.weights[0].zero_()
        net.towers.biases[0].fill_(1.0)
    net(vector_BFV, domain_B).square().sum().backward()
    reached_F = vector_BFV.grad.abs().sum(dim=(0, 2)) > 0
    assert [place for place in range(FEATURES) if reached_F[place]] == sorted(PRIORS)


def test_the_input_gate_passes_no_gradient_but_to_the_domain():
    net = net_of(has_ppnet=False)
    vector_BFV, domain_B = rows([0, 2, 1])
    vector_BFV.requires_grad_()
    x_BD = vector_BFV.flatten(1)
    with torch.no_grad():
        factor_BD = net.input_gate(torch.cat([vector_BFV[:, DOMAIN_FEATURE], x_BD], dim=1))
    past_the_gate = net.towers(x_BD * factor_BD, domain_B * OUTPUTS)
    want_BFV = torch.autograd.grad(past_the_gate.sum(), vector_BFV)[0]
    got_BFV = torch.autograd.grad(net(vector_BFV, domain_B)[:, 0].sum(), vector_BFV)[0]
    differs_F = [not torch.allclose(got_BFV[:, f], want_BFV[:, f], rtol=1e-4) for f in range(FEATURES)]
    assert [place for place in range(FEATURES) if differs_F[place]] == [DOMAIN_FEATURE]


def test_an_output_has_a_tower_of_its_own():
    net = net_of()
    vector_BFV, domain_B = rows([0, 2, 1])
    net(vector_BFV, domain_B)[:, 1].square().sum().backward()
    learned_S = net.towers.weights[0].grad.abs().sum(dim=(1, 2)) > 0
    assert learned_S.tolist() == [False, True] * DOMAINS


def test_a_place_that_is_not_among_the_features_is_refused_when_built():
    config = PEPNetConfig(prior_features=(0, FEATURES))
    with pytest.raises(ConfigError, match=r"prior_features must be 0 to 3, got \(0, 4\)"):
        config.build(SHAPE, torch.Generator())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({}, "PPNet needs prior_features"),
        ({"prior_features": (1, 1)}, "different places"),
        ({"prior_features": (-1,)}, "different places"),
        ({"gate_hidden": 0, "has_ppnet": False}, "gate_hidden"),
        ({"hidden": (), "has_ppnet": False}, "hidden"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, why):
    with pytest.raises(ConfigError, match=why):
        PEPNetConfig(**wrong)
