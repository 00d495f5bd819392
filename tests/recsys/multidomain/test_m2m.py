"""M2M against the paper's equations, one example at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_net import NetShape
from recsys.multidomain.m2m import M2MConfig

FEATURES, DIM, DOMAINS, OUTPUTS, DOMAIN_FEATURE = 3, 4, 3, 2, 1
EXPERTS, WIDTH = 3, 5
SHAPE = NetShape(
    n_features=FEATURES, dim=DIM, n_out=OUTPUTS, n_domains=DOMAINS, domain_feature=DOMAIN_FEATURE
)


def net_of(seed=0, **settings):
    """A net whose biases are not zero either."""
    config = M2MConfig(feed_forward=6, experts=EXPERTS, expert_dim=WIDTH, **settings)
    net = config.build(SHAPE, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return net


def rows(domains, seed=0):
    vector_BFV = torch.randn(len(domains), FEATURES, DIM, generator=torch.Generator().manual_seed(seed))
    return vector_BFV, torch.tensor(domains)


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def softmax(logits):
    share = np.exp(logits - logits.max())
    return share / share.sum()


class ObviousM2M:
    """The same weights in float64, used for one row at a time."""

    def __init__(self, net, *, heads, tower_layers, has_output_towers):
        self.state = {name: value.numpy(force=True).astype(float) for name, value in net.state_dict().items()}
        self.heads, self.tower_layers = heads, tower_layers
        self.n_tasks = OUTPUTS if has_output_towers else 1

    def linear(self, name, x):
        return self.state[f"{name}.weight"] @ x + self.state[f"{name}.bias"]

    def norm(self, name, x):
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def attended(self, vector_FV):
        query, key, value = (
            [self.linear(f"transformer.{part}.0", field) for field in vector_FV]
            for part in ("query", "key", "value")
        )
        width, out = DIM // self.heads, []
        for f in range(FEATURES):
            mixed = []
            for head in range(self.heads):
                at = slice(head * width, (head + 1) * width)
                share = softmax(np.array([query[f][at] @ key[g][at] for g in range(FEATURES)]) / width**0.5)
                mixed.append(sum(share[g] * value[g][at] for g in range(FEATURES)))
            out.append(self.linear("transformer.out.0", np.concatenate(mixed)))
        return out

    def transformed(self, vector_FV):
        out = []
        for field, attended in zip(vector_FV, self.attended(vector_FV), strict=True):
            x = self.norm("transformer.norm_attention", field + attended)
            hidden = np.maximum(self.linear("transformer.feed_forward.0", x), 0)
            x = x + self.linear("transformer.feed_forward.2", hidden)
            out.append(self.norm("transformer.norm_feed_forward", x))
        return np.concatenate(out)

    def meta(self, name, z, s):
        def layer(part, x):
            weight = self.linear(f"{name}.{part}.weight", s).reshape(len(z), len(z))
            return x @ weight + self.linear(f"{name}.{part}.bias.0", s)

        return layer("second", leaky(layer("first", z)))

    def outputs(self, vector_FV):
        s = leaky(self.linear("scenario.0", vector_FV[DOMAIN_FEATURE]))
        x = self.transformed(vector_FV)
        experts = [leaky(self.linear(f"experts.{k}.0", x)) for k in range(EXPERTS)]
        out = []
        for t in range(self.n_tasks):
            score = [
                self.state["score_Z1"][:, 0]
                @ self.meta("attention", np.concatenate([expert, self.state["task_TE"][t]]), s)
                for expert in experts
            ]
            h = sum(a * expert for a, expert in zip(softmax(np.array(score)), experts, strict=True))
            for number in range(self.tower_layers):
                h = leaky(self.meta(f"tower.{number}", h, s) + h)
            out.append(h @ self.state["read_TEO"][t])
        return np.concatenate(out) + self.state["read_O"]


@settings(max_examples=20, deadline=None)
@given(
    domains=st.lists(st.integers(0, DOMAINS - 1), min_size=1, max_size=6),
    seed=st.integers(0, 999),
    config=st.fixed_dictionaries(
        {
            "heads": st.sampled_from([1, 2, 4]),
            "tower_layers": st.integers(1, 2),
            "has_output_towers": st.booleans(),
        }
    ),
    training=st.booleans(),
)
def test_each_row_gets_what_the_equations_give_for_it_alone(domains, seed, config, training):
    net = net_of(seed, **config).train(training)
    vector_BFV, domain_B = rows(domains, seed)
    obvious = ObviousM2M(net, **config)
    want = [obvious.outputs(row.numpy().astype(float)) for row in vector_BFV]
    np.testing.assert_allclose(net(vector_BFV, domain_B).numpy(force=True), want, rtol=1e-3, atol=1e-4)


def test_the_scenario_is_read_from_the_vector_of_the_domain_and_never_from_its_index():
    net = net_of()
    vector_BFV, _ = rows([0, 0])
    known, unknown = torch.tensor([0, 1]), torch.tensor([DOMAINS - 1, DOMAINS - 1])
    assert torch.equal(net(vector_BFV, known), net(vector_BFV, unknown))


def test_the_scenario_changes_what_is_made_of_equal_experts():
    net = net_of()
    vector_BFV, domain_B = rows([0])
    before = net(vector_BFV, domain_B)
    with torch.no_grad():
        net.scenario[0].bias.add_(1.0)
    assert (net(vector_BFV, domain_B) - before).abs().min() > 1e-3


def test_without_a_scenario_the_attention_starts_as_two_ordinary_layers_and_the_tower_as_its_input():
    net = M2MConfig(expert_dim=WIDTH).build(SHAPE, torch.Generator().manual_seed(0))
    width, nowhere_BE = 2 * WIDTH, torch.zeros(2, WIDTH)
    z_BMZ = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(1))
    first_ZZ, second_ZZ = (
        layer.weight.bias.view(width, width) for layer in (net.attention.first, net.attention.second)
    )
    want = torch.nn.functional.leaky_relu(z_BMZ @ first_ZZ, 0.1) @ second_ZZ
    torch.testing.assert_close(net.attention(z_BMZ, nowhere_BE), want)
    bound = 2**0.5 * (6 / (2 * width)) ** 0.5
    assert 0.8 * bound < first_ZZ.abs().max() <= bound
    assert not net.tower[0](z_BMZ[..., :WIDTH], nowhere_BE).any()


def test_gradients_reach_every_weight():
    net = net_of()
    net(*rows([0, 2, 1])).square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_heads_that_do_not_divide_the_vectors_are_refused_when_built():
    with pytest.raises(ConfigError, match="heads must divide the vectors' dim, 4; got 3"):
        M2MConfig(heads=3).build(SHAPE, torch.Generator())


@pytest.mark.parametrize("name", ["heads", "feed_forward", "experts", "expert_dim", "tower_layers"])
def test_a_size_of_zero_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name}=0"):
        M2MConfig(**{name: 0})
