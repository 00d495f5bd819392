"""HAMUR against the paper's equations, one row at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_net import NetShape
from recsys.multidomain.hamur import HamurConfig
from recsys.multidomain.partitioned_norm import PartitionedNormConfig

DOMAINS, RANK = 3, 2
SHAPE = NetShape(n_features=2, dim=3, n_out=2, n_domains=DOMAINS, domain_feature=0)
NORM = PartitionedNormConfig(momentum=0.5, min_rows=3, epsilon=1e-3)
HIDDEN = (6, 5, 4)
ADAPTERS = pytest.mark.parametrize("adapters", [1, 2, 3])


def rows(domains, seed=0):
    vector_BFV = torch.randn(len(domains), 2, 3, generator=torch.Generator().manual_seed(seed))
    return vector_BFV.double(), torch.tensor(domains)


def net_of(adapters=1):
    """A net of doubles that has seen rows of all domains; no parameter is at its start."""
    generator = torch.Generator().manual_seed(0)
    config = HamurConfig(hidden=HIDDEN, adapters=adapters, rank=RANK, hyper=(4,), norm=NORM)
    net = config.build(SHAPE, generator).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    for seed in range(3):
        net(*rows([0, 1, 2] * 4, seed))
        net.adapt()
    return net


class ObviousHamur:
    """All rows of a batch, a layer at a time, each row by itself but for the statistics."""

    def __init__(self, net, domains, *, training):
        self.state = {name: value.numpy(force=True) for name, value in net.state_dict().items()}
        self.domains, self.training = domains, training

    def linear(self, name, x, domain):
        """A layer of the domain's own; ``name`` ends with its number."""
        bank, number = name.rsplit(".", 1)
        weight = self.state[f"{bank}.weights.{number}"][domain]
        return x @ weight + self.state[f"{bank}.biases.{number}"][domain]

    def core(self, x):
        inner = np.maximum(self.state["hyper.0.weight"] @ x + self.state["hyper.0.bias"], 0)
        flat = self.state["hyper.2.weight"] @ inner + self.state["hyper.2.bias"]
        return flat.reshape(RANK, RANK)

    def normal(self, name, rows_BH):
        out = np.empty_like(rows_BH)
        for row, domain in enumerate(self.domains):
            part = rows_BH[self.domains == domain]
            mean, variance = (self.state[f"{name}.{what}"][domain] for what in ("mean", "variance"))
            if self.training and len(part) >= NORM.min_rows:
                mean, variance = part.mean(axis=0), part.var(axis=0)
            scale = self.state[f"{name}.shared_scale"] * self.state[f"{name}.own_scale"][domain]
            shift = self.state[f"{name}.shared_shift"] + self.state[f"{name}.own_shift"][domain]
            out[row] = scale * (rows_BH[row] - mean) / np.sqrt(variance + NORM.epsilon) + shift
        return out

    def adapted(self, name, h_BH, cores):
        added = []
        for h, core, domain in zip(h_BH, cores, self.domains, strict=True):
            inner = np.maximum(self.linear(f"{name}.down.0", h, domain) @ core, 0)
            added.append(self.linear(f"{name}.up.0", inner, domain))
        return h_BH + self.normal(f"{name}.norm", np.array(added))

    def outputs(self, vector_BFV, layers):
        """``layers``: for each, its name and the adapter that follows, if one does."""
        h = vector_BFV.reshape(len(vector_BFV), -1)
        cores = [self.core(x) for x in h]
        for number, (name, adapter) in enumerate(layers):
            h = np.array([self.linear(name, x, domain) for x, domain in zip(h, self.domains, strict=True)])
            if number < len(HIDDEN):
                h = np.maximum(h, 0)
            if adapter is not None:
                h = self.adapted(adapter, h, cores)
        return h


LAYERS = {
    1: [("stages.0.0", None), ("stages.0.1", None), ("stages.0.2", "adapters.0"), ("stages.1.0", None)],
    2: [
        ("stages.0.0", None),
        ("stages.0.1", "adapters.0"),
        ("stages.1.0", "adapters.1"),
        ("stages.2.0", None),
    ],
    3: [
        ("stages.0.0", "adapters.0"),
        ("stages.1.0", "adapters.1"),
        ("stages.2.0", "adapters.2"),
        ("stages.3.0", None),
    ],
}


@ADAPTERS
@pytest.mark.parametrize("training", [True, False])
@settings(max_examples=10)
@given(domains=st.lists(st.integers(0, DOMAINS - 1), min_size=1, max_size=9))
def test_a_row_gives_the_paper_s_equations(training, adapters, domains):
    net = net_of(adapters).train(training)
    obvious = ObviousHamur(net, np.array(domains), training=training)
    vector_BFV, domain_B = rows(domains, 7)
    got = net(vector_BFV, domain_B).numpy(force=True)
    want = obvious.outputs(vector_BFV.numpy(), LAYERS[adapters])
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)


@ADAPTERS
def test_a_training_pass_moves_the_statistics_of_every_adapter(adapters):
    net = net_of(adapters)
    before = [adapter.norm.mean.clone() for adapter in net.adapters]
    net(*rows([0, 1, 2] * 4, 7))
    net.adapt()
    assert not any(
        torch.equal(adapter.norm.mean, mean) for adapter, mean in zip(net.adapters, before, strict=True)
    )


def test_only_the_hyper_network_learns_from_rows_of_every_domain():
    net = net_of(2)
    net(*rows([0] * 5 + [2], 7)).square().sum().backward()
    banks = [*net.stages, *(bank for adapter in net.adapters for bank in (adapter.down, adapter.up))]
    for bank in banks:
        for stacked in bank.parameters():
            assert not stacked.grad[1].any()
    assert all(parameter.grad.any() for parameter in net.hyper.parameters())


@pytest.mark.parametrize("wrong", [{"adapters": 0}, {"adapters": 4}, {"rank": 0}])
def test_settings_without_a_meaning_are_refused(wrong):
    with pytest.raises(ConfigError, match="rank >= 1 and adapters 1 to 3"):
        HamurConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"hyper": ()}])
def test_layers_without_a_width_are_refused(wrong):
    with pytest.raises(ConfigError, match="hidden must hold"):
        HamurConfig(**wrong)
