"""Costs by closed form, and widths that make them equal."""

from __future__ import annotations

import pytest

from infra.multidomain.arms import ARMS, MODELS
from infra.multidomain.costs import contender
from infra.multidomain.data import Comparison
from recsys.errors import ConfigError
from recsys.multidomain.ada_sparse import AdaSparseConfig

D, H, K, N = 11 * 16, 16, 3, 13
"""Columns of a row, the hidden layer, clusters, and domains with the one for unknown ones."""
MLP = D * H + H + H + 1


@pytest.mark.parametrize(
    ("model", "n_parameters", "flops"),
    [
        ("single", 2_849, 2 * (D * H + H)),
        ("one_cluster", 5_698, 2 * (D * H + H) + 2 * D),
        ("adapt_dhm", 11_396, 2 * (D * H + H) + 2 * D * K),
        ("adapt_dhm_soft", 11_396, 2 * K * (D * H + H) + 2 * D * K),
        ("random_routing", (1 + 3) * MLP, 2 * (D * H + H)),
        ("by_domain", (1 + N) * MLP, 2 * (D * H + H)),
    ],
)
def test_parameters_and_operations_are_those_of_the_closed_form(
    tiny: Comparison, model: str, n_parameters: int, flops: int
) -> None:
    cost = contender(model, tiny.tower, (H,), at_equal_cost=False).cost
    assert (cost.n_parameters, cost.flops_per_row, cost.scale) == (n_parameters, flops, 1.0)
    assert cost.relative_flops == pytest.approx(flops / (2 * (D * H + H)))
    assert cost.budgets == -(-flops // (2 * (D * H + H)))


@pytest.mark.parametrize("model", [name for name in MODELS if name != "single"])
def test_at_equal_cost_no_row_goes_beyond_the_budgets_that_are_stated(tiny: Comparison, model: str) -> None:
    hidden = (128, 64, 32)
    budget = 2 * (D * 128 + 128 * 64 + 64 * 32 + 32)
    cost = contender(model, tiny.tower, hidden, at_equal_cost=True).cost
    assert cost.flops_per_row <= cost.budgets * budget
    assert 0.25 <= cost.scale <= 1.0
    wider = contender(model, tiny.tower, hidden, at_equal_cost=False).cost
    assert cost.scale == 1.0 or wider.flops_per_row > cost.budgets * budget


def test_a_model_whose_fixed_parts_go_beyond_the_budget_gets_several(tiny: Comparison) -> None:
    found = contender("ada_sparse", tiny.tower, (H,), at_equal_cost=True)
    assert found.cost.budgets > 1
    assert isinstance(found.config.net, AdaSparseConfig)
    assert found.config.net.hidden >= (4,)


def test_a_model_that_does_not_exist_is_refused_with_those_that_do(tiny: Comparison) -> None:
    with pytest.raises(ConfigError, match="model 'moon' does not exist; use some of single, ") as refused:
        contender("moon", tiny.tower, (H,), at_equal_cost=True)
    assert all(name in str(refused.value) for name in ARMS)
