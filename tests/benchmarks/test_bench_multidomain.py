"""The forms that the benchmark of multi-domain models compares, and what it says of their costs."""

from __future__ import annotations

import pytest
import torch
from multidomain.steps import step_figures
from multidomain.subjects import NAIVE, batches, tower_of

N_DOMAINS, ROWS = 5, 40


@pytest.mark.parametrize("name", NAIVE)
def test_a_form_that_computes_all_domains_gives_what_the_bucketed_one_gives(name: str) -> None:
    (batch,) = batches(N_DOMAINS, 1, ROWS)
    found = []
    for one in (name, NAIVE[name][0]):
        batch.pooled_BW.grad = None
        tower = tower_of(one, N_DOMAINS)
        with torch.no_grad():
            for parameter in tower.parameters():
                parameter.mul_(1.5).add_(0.01)
        out_BL = tower(batch.pooled_BW, batch.domain_B)
        out_BL.square().sum().backward()
        assert batch.pooled_BW.grad is not None
        found.append((out_BL, batch.pooled_BW.grad, [weight.grad for weight in tower.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_a_model_of_clusters_costs_as_much_for_thirty_domains_as_for_two() -> None:
    costs = {}
    for n_domains in (2, 30):
        figures = {figure["name"]: figure for figure in step_figures(n_domains, 1, ("adapt", "star_plain"))}
        at = f"n{n_domains}"
        costs[n_domains] = [figures[f"{at}.adapt.{what}"]["value"] for what in ("parameters", "flops")]
        assert figures[f"{at}.adapt_over_star_plain.parameters"]["holds"]
    assert costs[2] == costs[30]
