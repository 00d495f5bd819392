"""Layers of many sets of weights against plain products, a row at a time, and autograd's gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.multidomain.bucketed_mlp import Buckets, MLPBank
from recsys.multidomain.grouped_linear import LayerOf, grouped_linear

SETS, WIDTH_IN, WIDTH_OUT = 4, 3, 2
SIZES = st.lists(st.integers(0, 4), min_size=SETS, max_size=SETS).filter(any)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()


@settings(max_examples=40)
@given(sizes=SIZES, is_product=st.booleans(), seed=st.integers(0, 1_000))
def test_outputs_and_gradients_are_those_of_each_row_by_its_set_s_weights(sizes, is_product, seed):
    x_BI, weight_SIO = drawn(sum(sizes), WIDTH_IN, seed=seed), drawn(SETS, WIDTH_IN, WIDTH_OUT, seed=seed + 1)
    bias_SO, shared_IO = drawn(SETS, WIDTH_OUT, seed=seed + 2), drawn(WIDTH_IN, WIDTH_OUT, seed=seed + 3)
    layer = LayerOf(weight_SIO, bias_SO, shared_IO if is_product else None)
    present = [one for one in range(SETS) if sizes[one]]
    got = grouped_linear(x_BI, layer, present, [sizes[one] for one in present])
    used_SIO = weight_SIO * shared_IO if is_product else weight_SIO
    of_row = [one for one in range(SETS) for _ in range(sizes[one])]
    want = torch.stack([x_I @ used_SIO[one] + bias_SO[one] for x_I, one in zip(x_BI, of_row, strict=True)])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    inputs = [x_BI, weight_SIO, bias_SO, *([shared_IO] if is_product else [])]
    gradients = [torch.autograd.grad(out.sin().sum(), inputs) for out in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@settings(max_examples=40)
@given(index=st.lists(st.integers(0, SETS - 1), min_size=1, max_size=12), seed=st.integers(0, 1_000))
def test_rows_that_were_lined_up_once_give_the_same_outputs_and_gradients(index, seed):
    bank = MLPBank(SETS, (WIDTH_IN, 5, WIDTH_OUT), torch.Generator().manual_seed(seed), ends_linear=True)
    bank, x_BI, index_B = bank.double(), drawn(len(index), WIDTH_IN, seed=seed), torch.tensor(index)
    buckets = Buckets.of(index_B, SETS)
    lined_up = buckets.put_back(bank(buckets.lined_up(x_BI), buckets.in_order()))
    inputs = [x_BI, *bank.parameters()]
    outputs = [lined_up, bank(x_BI, buckets), bank(x_BI, index_B)]
    gradients = [torch.autograd.grad(out.sin().sum(), inputs) for out in outputs]
    for one in range(2):
        torch.testing.assert_close(outputs[one], outputs[2], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradients[one], gradients[2], rtol=1e-10, atol=1e-12)


@given(index=st.lists(st.integers(0, SETS - 1), min_size=1, max_size=30))
def test_rows_lie_by_set_once_lined_up_and_in_their_old_places_once_put_back(index):
    index_B = torch.tensor(index)
    buckets = Buckets.of(index_B, SETS)
    assert buckets.lined_up(index_B.float()).tolist() == sorted(index)
    assert buckets.put_back(buckets.lined_up(index_B.float())).tolist() == index


def test_without_gradients_the_outputs_are_the_same():
    bank = MLPBank(SETS, (WIDTH_IN, 5, WIDTH_OUT), torch.Generator().manual_seed(0), ends_linear=False)
    x_BI, index_B = (
        torch.randn(9, WIDTH_IN, generator=torch.Generator().manual_seed(1)),
        torch.arange(9) % SETS,
    )
    with_gradients = bank(x_BI, index_B)
    with torch.no_grad():
        torch.testing.assert_close(bank(x_BI, index_B), with_gradients)
