"""Product networks against the formula, one row at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from recsys.errors import ConfigError
from recsys.multidomain.product_mlp import ProductMLP

WIDTHS = (3, 5, 4, 2)
SETS = 4
INDICES = st.lists(st.integers(0, SETS - 1), min_size=1, max_size=12)
HEADS = pytest.mark.parametrize("head", ["product_all", "product_last"])


def network(head="product_all", seed=0):
    """Product networks of doubles, none of whose parameters is at its start."""
    generator = torch.Generator().manual_seed(seed)
    networks = ProductMLP(SETS, WIDTHS, generator, head=head).double()
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    return networks


def inputs(n, seed=0):
    return torch.randn(n, WIDTHS[0], generator=torch.Generator().manual_seed(seed)).double()


def obvious(networks, x_I, one):
    """Outputs of one row, (O,), by the weights' definition; torch, so that it has gradients too."""
    n_layers, h = len(WIDTHS) - 1, x_I
    n_separate = n_layers - len(networks.shared_weights)
    for number in range(n_layers):
        weight, bias = networks.own_weights[number][one], networks.own_biases[number][one]
        if number >= n_separate:
            weight = networks.shared_weights[number - n_separate] * weight
            bias = networks.shared_biases[number - n_separate] + bias
        h = h @ weight + bias
        if number < n_layers - 1:
            h = h.clamp(min=0)
    return h


@HEADS
@settings(max_examples=25)
@given(index=INDICES, seed=st.integers(0, 1000))
def test_outputs_and_gradients_are_those_of_one_product_at_a_time(head, index, seed):
    networks, x_BI = network(head, seed), inputs(len(index), seed)
    parameters = list(networks.parameters())
    got = networks(x_BI, torch.tensor(index))
    want = torch.stack([obvious(networks, x_I, one) for x_I, one in zip(x_BI, index, strict=True)])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(out.square().sum(), parameters) for out in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_all_sets_start_as_one_network_whose_specific_factors_are_one():
    networks, x_BI = ProductMLP(SETS, WIDTHS, torch.Generator().manual_seed(0)), inputs(6).float()
    of_each = [networks(x_BI, torch.full((6,), one)) for one in range(SETS)]
    for out_BO in of_each[1:]:
        assert torch.equal(out_BO, of_each[0])
    h = x_BI.numpy()
    for number, weight_IO in enumerate(networks.shared_weights):
        h = h @ weight_IO.numpy(force=True)
        if number < len(networks.shared_weights) - 1:
            h = np.maximum(h, 0)
    np.testing.assert_allclose(of_each[0].numpy(force=True), h, rtol=1e-5, atol=1e-6)


def test_separate_hidden_layers_start_apart():
    networks = ProductMLP(2, WIDTHS, torch.Generator().manual_seed(0), head="product_last")
    x_BI = inputs(6).float()
    one, two = (networks(x_BI, torch.full((6,), one)) for one in range(2))
    assert not torch.allclose(one, two)


@pytest.mark.parametrize(
    ("head", "want"),
    [
        ("product_all", (1 + SETS) * (3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2)),
        ("product_last", SETS * (3 * 5 + 5 + 5 * 4 + 4) + (1 + SETS) * (4 * 2 + 2)),
    ],
)
def test_parameters_grow_by_one_network_a_set(head, want):
    networks = ProductMLP(SETS, WIDTHS, torch.Generator(), head=head)
    assert sum(parameter.numel() for parameter in networks.parameters()) == want


@pytest.mark.parametrize("n_sets", [1, 3, 300])
def test_a_row_costs_one_network_however_many_there_are(n_sets):
    networks = ProductMLP(n_sets, WIDTHS, torch.Generator().manual_seed(0))
    index_B = torch.arange(600) % n_sets
    with FlopCounterMode(display=False) as counter:
        networks(inputs(600).float(), index_B)
    assert counter.get_total_flops() == 600 * 2 * (3 * 5 + 5 * 4 + 4 * 2)


def test_a_set_without_rows_is_not_looked_at():
    networks = network()
    with torch.no_grad():
        for weight in networks.own_weights:
            weight[1] = torch.nan
    out = networks(inputs(3), torch.tensor([0, 2, 3]))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in networks.own_weights)
    assert networks.shared_weights[0].grad.isfinite().all()


@HEADS
@settings(max_examples=10)
@given(index=INDICES)
def test_folded_products_give_the_same_bits(head, index):
    networks, index_B = network(head).eval(), torch.tensor(index)
    x_BI = inputs(len(index))
    with torch.no_grad():
        before = networks(x_BI, index_B)
        networks.fold()
        assert torch.equal(networks(x_BI, index_B), before)


def test_training_on_forgets_folded_products():
    networks, x_BI, index_B = network().eval(), inputs(3), torch.tensor([0, 1, 1])
    networks.fold()
    networks.train()
    with torch.no_grad():
        for weight in networks.shared_weights:
            weight.mul_(2.0)
    networks.eval()
    want = torch.stack([obvious(networks, *row) for row in zip(x_BI, index_B, strict=True)])
    torch.testing.assert_close(networks(x_BI, index_B), want, rtol=1e-12, atol=1e-12)


def test_a_net_in_training_is_not_folded():
    with pytest.raises(ConfigError, match="call eval"):
        network().fold()


@pytest.mark.parametrize(("n_sets", "widths", "head"), [(0, WIDTHS, "product_all"), (2, (3,), "product_all")])
def test_sizes_that_make_no_network_are_refused(n_sets, widths, head):
    with pytest.raises(ConfigError, match="n_sets >= 1"):
        ProductMLP(n_sets, widths, torch.Generator(), head=head)


def test_an_unknown_head_is_refused():
    with pytest.raises(ConfigError, match="'product_some'"):
        ProductMLP(2, WIDTHS, torch.Generator(), head="product_some")
