"""Means, paired leads and criteria, from trials whose outcome is stated."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.multidomain.compare import Compared
from infra.multidomain.criteria import Figure, figures_of
from infra.multidomain.data import Comparison
from infra.multidomain.summary import DataSummary, summary_of
from infra.multidomain.trial import Trial
from tests.infra.multidomain.conftest import MakeTrial

AUCS = st.lists(st.tuples(st.floats(0.5, 1.0), st.floats(0.5, 1.0)), min_size=2, max_size=6)


def judged(tiny: Comparison, trials: Mapping[str, list[Trial]]) -> dict[str, Figure]:
    return {
        figure.name: figure for figure in figures_of(summary_of(Compared(data=tiny, trials=dict(trials))))
    }


def summarised(tiny: Comparison, **trials: list[Trial]) -> DataSummary:
    return summary_of(Compared(data=tiny, trials=trials))


@given(AUCS)
def test_leads_are_taken_seed_by_seed_and_judged_by_their_mean(
    tiny: Comparison, stated: MakeTrial, aucs: list[tuple[float, float]]
) -> None:
    trials = {
        "star": [stated("star", seed, auc) for seed, (auc, _) in enumerate(aucs)],
        "adapt_dhm": [stated("adapt_dhm", seed, auc) for seed, (_, auc) in enumerate(aucs)],
    }
    lead = statistics.fmean(ours - star for star, ours in aucs)
    figure = judged(tiny, trials)["syn2: auc less that of star"]
    assert figure.value == pytest.approx(lead, abs=1e-12)
    assert figure.holds == (figure.value >= 0.004)
    assert figure.bar == ">= 0.004"
    assert figure.low is not None
    assert figure.high is not None
    assert figure.low <= figure.value <= figure.high


def test_figures_are_means_over_seeds_without_those_that_are_not_defined(
    tiny: Comparison, stated: MakeTrial
) -> None:
    nan = {"auc": float("nan"), "mean_domain_auc": 0.5}
    found = summarised(
        tiny,
        single=[stated("single", 0, 0.6), stated("single", 1, 0.8), stated("single", 2, 0, scores=nan)],
    )
    model = found.model("single")
    assert model is not None
    assert model.metrics["auc"].mean == pytest.approx(0.7)
    assert set(model.metrics) == {"auc", "mean_domain_auc", "log_loss"}
    assert found.domains == ("1", "2", "10")
    assert not figures_of(found)


@pytest.mark.parametrize(("largest", "is_collapsed"), [(0.89, False), (0.91, True)])
def test_a_model_with_nearly_all_rows_in_one_cluster_under_some_seed_is_collapsed(
    tiny: Comparison, stated: MakeTrial, largest: float, is_collapsed: bool
) -> None:
    trials = [
        stated("adapt_dhm", 0, 0.7, shares=[0.3, 0.3, 0.4]),
        stated("adapt_dhm", 1, 0.7, shares=[largest, 1 - largest, 0.0]),
    ]
    model = summarised(tiny, adapt_dhm=trials).model("adapt_dhm")
    assert model is not None
    assert model.clusters is not None
    assert model.clusters.is_collapsed == is_collapsed
    assert model.clusters.smallest_share == 0.0


def test_clusters_are_judged_by_the_worst_seed(tiny: Comparison, stated: MakeTrial) -> None:
    def ours(seed: int, purity: float, smallest: float) -> Trial:
        shares = [smallest, 0.5, 0.5 - smallest]
        return stated(
            "adapt_dhm",
            seed,
            0.7,
            shares=shares,
            scores={"auc": 0.7, "mean_domain_auc": 0.7, "purity": purity},
        )

    good = judged(tiny, {"adapt_dhm": [ours(0, 0.95, 0.2), ours(1, 0.9, 0.22)]})
    bad = judged(tiny, {"adapt_dhm": [ours(0, 0.95, 0.2), ours(1, 0.89, 0.19)]})
    names = ("syn2: purity of clusters, the worst seed", "syn2: smallest cluster, the worst seed")
    assert [(good[name].value, good[name].holds) for name in names] == [(0.9, True), (0.2, True)]
    assert [(bad[name].value, bad[name].holds) for name in names] == [(0.89, False), (0.19, False)]


def test_a_lead_says_what_its_peer_costs_and_whether_it_was_trained_to_the_end(
    tiny: Comparison, stated: MakeTrial
) -> None:
    ours = [stated("adapt_dhm", 0, 0.7)]
    dear = replace(ours[0].cost, relative_flops=1.5, budgets=2)
    ended, rising = {"epoch": 1, "valid_auc": [0.6, 0.5]}, {"epoch": 2, "valid_auc": [0.5, 0.6]}

    def noted(**changes: object) -> Figure:
        trials = {"adapt_dhm": ours, "star": [stated("star", 0, 0.6, **changes)]}
        return judged(tiny, trials)["syn2: auc less that of star"]

    assert noted(**ended).note == ""
    assert noted(**ended, cost=dear).note == "a row of star costs 1.50 single nets"
    assert noted(**rising).note == "star was still getting better in 1 of 1 trials"
    assert noted(**ended).value == pytest.approx(0.1)
    assert (noted(**ended).low, noted(**ended).high) == (None, None)


def test_what_is_lost_without_the_label_may_be_little(tiny: Comparison, stated: MakeTrial) -> None:
    name = "syn2: auc lost without the domain label"
    for lost, holds in ((0.0009, True), (0.0011, False)):
        free = [stated("adapt_dhm_label_free", 0, 0.7 - lost)]
        figures = judged(tiny, {"adapt_dhm": [stated("adapt_dhm", 0, 0.7)], "adapt_dhm_label_free": free})
        assert figures[name].value == pytest.approx(lost)
        assert figures[name].holds == holds


def test_three_clusters_need_not_be_the_best_but_nearly(tiny: Comparison, stated: MakeTrial) -> None:
    models = {"1": "one_cluster", "2": "adapt_dhm_clusters_2", "3": "adapt_dhm"}
    models |= {value: f"adapt_dhm_clusters_{value}" for value in ("5", "8")}
    for best, holds in ((0.701, True), (0.703, False)):
        aucs = dict.fromkeys(models, 0.69) | {"3": 0.7, "5": best}
        figures = judged(tiny, {model: [stated(model, 0, aucs[k])] for k, model in models.items()})
        figure = figures["syn2: auc of the best number of clusters (5) less that of 3"]
        assert figure.value == pytest.approx(best - 0.7)
        assert figure.holds == holds
