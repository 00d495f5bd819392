"""PLE against the paper's equations, one example at a time and by name of the weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_net import NetShape
from recsys.multidomain.ple import PLEConfig

FEATURES, DIM, DOMAINS = 3, 2, 4
SHAPE = NetShape(n_features=FEATURES, dim=DIM, n_out=2, n_domains=DOMAINS, domain_feature=1)
CONFIG = PLEConfig(levels=((5, 4), (3,)), shared_experts=2, domain_experts=3, tower=(6,))


def net_of(config=CONFIG, seed=0):
    """A net whose biases are not zero either."""
    net = config.build(SHAPE, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return net


def rows(domains, seed=0):
    vector_BFV = torch.randn(len(domains), FEATURES, DIM, generator=torch.Generator().manual_seed(seed))
    return vector_BFV, torch.tensor(domains)


def through(state, prefix, x, domain=None, *, ends_linear):
    """An MLP whose layers are named ``prefix``: a domain's own ones if ``domain`` is given."""
    layers = []
    if domain is None:
        names = sorted(name for name in state if name.startswith(prefix) and name.endswith("weight"))
        layers = [(state[name].T, state[name.removesuffix("weight") + "bias"]) for name in names]
    else:
        while f"{prefix}.weights.{len(layers)}" in state:
            number = len(layers)
            layers.append(
                (state[f"{prefix}.weights.{number}"][domain], state[f"{prefix}.biases.{number}"][domain])
            )
    for number, (weight, bias) in enumerate(layers, start=1):
        x = x @ weight + bias
        if number < len(layers) or not ends_linear:
            x = np.maximum(x, 0)
    return x


def softmax(logits):
    share = np.exp(logits - logits.max())
    return share / share.sum()


def obvious_ple(net, config, vector_FV, domain):
    """Outputs of one row, (O,), in float64."""
    state = {name: value.numpy(force=True).astype(float) for name, value in net.state_dict().items()}
    own = shared = vector_FV.numpy().astype(float).ravel()
    for level in range(len(config.levels)):
        at = f"levels.{level}"
        experts = [
            through(state, f"{at}.own.{number}", own, domain, ends_linear=False)
            for number in range(config.domain_experts)
        ]
        experts += [
            through(state, f"{at}.shared.{number}.", shared, ends_linear=False)
            for number in range(config.shared_experts)
        ]
        share = softmax(through(state, f"{at}.gate", own, domain, ends_linear=True))
        next_own = sum(weight * expert for weight, expert in zip(share, experts, strict=True))
        if level < len(config.levels) - 1:
            logits = [
                through(state, f"shared_gates.{level}.own", shared, domain, ends_linear=True),
                through(state, f"shared_gates.{level}.shared.", shared, ends_linear=True),
            ]
            share = softmax(np.concatenate(logits))
            shared = sum(weight * expert for weight, expert in zip(share, experts, strict=True))
        own = next_own
    return through(state, "towers", own, domain, ends_linear=True)


@settings(max_examples=20, deadline=None)
@given(
    domains=st.lists(st.integers(0, DOMAINS - 1), min_size=1, max_size=9),
    seed=st.integers(0, 999),
    levels=st.sampled_from([((4,),), ((5, 4), (3,)), ((3,), (4,), (2,))]),
    training=st.booleans(),
)
def test_each_row_gets_what_the_levels_of_its_domain_give_alone(domains, seed, levels, training):
    config = PLEConfig(levels=levels, shared_experts=2, domain_experts=3, tower=(6,))
    net = net_of(config, seed).train(training)
    vector_BFV, domain_B = rows(domains, seed)
    want = [obvious_ple(net, config, row, domain) for row, domain in zip(vector_BFV, domains, strict=True)]
    got = net(vector_BFV, domain_B).numpy(force=True)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_shared_experts_learn_from_every_domain_and_own_ones_from_theirs():
    net = net_of()
    vector_BFV, domain_B = rows([2, 2, 2, 0, 0, 0])
    net(vector_BFV, domain_B).square().sum().backward()
    for level in net.levels:
        for expert in level.shared:
            assert all(parameter.grad.abs().sum() > 0 for parameter in expert.parameters())
        own_N = sum(weight.grad.abs().flatten(1).sum(1) for expert in level.own for weight in expert.weights)
        assert (own_N > 0).tolist() == [True, False, True, False]


def test_the_last_level_has_no_shared_gate():
    assert [len(net_of(PLEConfig(levels=((4,),) * n)).shared_gates) for n in (1, 2, 3)] == [0, 1, 2]


def test_a_gate_that_is_sure_of_one_expert_passes_on_that_one_alone():
    config = PLEConfig(levels=((4,),), shared_experts=1, domain_experts=1, tower=(6,))
    net = net_of(config)
    vector_BFV, domain_B = rows([0, 1, 3])
    with torch.no_grad():
        net.levels[0].gate.weights[0].zero_()
        net.levels[0].gate.biases[0].copy_(torch.tensor([-200.0, 200.0]).expand(DOMAINS, 2))
        want = net.towers(net.levels[0].shared[0](vector_BFV.flatten(1)), domain_B)
    torch.testing.assert_close(net(vector_BFV, domain_B), want)


@pytest.mark.parametrize(
    "wrong",
    [{"levels": ()}, {"levels": ((),)}, {"tower": (0,)}, {"shared_experts": 0}, {"domain_experts": 0}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=r"hidden|levels|experts"):
        PLEConfig(**wrong)
