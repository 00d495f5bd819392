"""What the comparison must show, each with the measured figure: as the specification states them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from infra.multidomain.summary import OURS, DataSummary, ModelSummary

LEADS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "syn2": (
        ("auc", "star", 0.004),
        ("auc", "by_domain", 0.004),
        ("auc", "one_cluster", 0.004),
        ("auc", "random_routing", 0.015),
        ("auc", "single", 0.0),
    ),
}
"""Data set to (metric, model, least lead over it)."""
REAL_LEADS = (
    ("auc", "single", 0.0),
    ("auc", "shared_bottom", 0.0),
    ("auc", "mmoe", 0.0),
    ("auc", "star", -0.001),
    ("mean_domain_auc", "single", 0.0),
    ("mean_domain_auc", "shared_bottom", 0.0),
    ("mean_domain_auc", "mmoe", 0.0),
    ("mean_domain_auc", "star", -0.001),
    ("mean_domain_auc", "by_domain", -0.001),
    ("mean_domain_auc", "ple", -0.001),
)
LEADS |= {"kuairand": REAL_LEADS, "movielens": REAL_LEADS}
CLUSTERED = "syn2"
LEAST_PURITY, LEAST_SHARE = 0.9, 0.2
MOST_LOST_WITHOUT_LABEL = 0.001
MOST_LOST_AT_THREE_CLUSTERS = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value and its bar."""

    name: str
    value: float
    unit: str
    bar: str
    holds: bool
    low: float | None = None
    """Lower end of the 95 % interval; None where there is none."""
    high: float | None = None
    note: str = ""
    """What is to be known with it."""


def figures_of(summary: DataSummary) -> list[Figure]:
    """The criteria that the models of a data set let us judge."""
    ours = summary.model(OURS)
    if ours is None:
        return []
    found = [*_leads(summary), *_parameters(summary, ours)]
    if summary.name == CLUSTERED:
        found += [*_clusters(summary, ours), *_label_free(summary), *_cluster_sweep(summary)]
    return found


def _leads(summary: DataSummary) -> Iterator[Figure]:
    for metric, name, least in LEADS.get(summary.name, ()):
        other = summary.model(name)
        if other is not None:
            lead = other.ours_less_this[metric]
            yield Figure(
                name=f"{summary.name}: {metric} less that of {name}",
                value=lead.mean,
                unit="AUC",
                bar=f">= {least:g}",
                holds=lead.mean >= least,
                low=_known(lead.low),
                high=_known(lead.high),
                note=_note(other, summary.seeds),
            )


def _note(other: ModelSummary, seeds: int) -> str:
    """What makes a lead over a model larger or smaller than it seems."""
    notes = []
    if other.cost.budgets > 1:
        notes.append(f"a row of {other.name} costs {other.cost.relative_flops:.2f} single nets")
    if other.unfinished:
        notes.append(f"{other.name} was still getting better in {other.unfinished} of {seeds} trials")
    return "; ".join(notes)


def _parameters(summary: DataSummary, ours: ModelSummary) -> Iterator[Figure]:
    """Where widths are the same, they grow with K as those of a network per domain do with N."""
    by_domain = summary.model("by_domain")
    if by_domain is None or by_domain.cost.scale != ours.cost.scale:
        return
    share = ours.cost.n_parameters / by_domain.cost.n_parameters
    expected = (1 + len(ours.first.shares)) / (1 + summary.n_domains)
    yield Figure(
        name=f"{summary.name}: parameters over those of a network per domain ({summary.n_domains} domains)",
        value=share,
        unit="ratio",
        bar=f"<= {expected:.4f}",
        holds=share <= expected + 1e-9,
    )


def _clusters(summary: DataSummary, ours: ModelSummary) -> Iterator[Figure]:
    if ours.clusters is None:
        return
    share, purity = ours.clusters.smallest_share, ours.clusters.least_purity
    if purity is not None:
        yield Figure(
            name=f"{summary.name}: purity of clusters, the worst seed",
            value=purity,
            unit="share",
            bar=f">= {LEAST_PURITY:g}",
            holds=purity >= LEAST_PURITY,
        )
    yield Figure(
        name=f"{summary.name}: smallest cluster, the worst seed",
        value=share,
        unit="share",
        bar=f">= {LEAST_SHARE:g}",
        holds=share >= LEAST_SHARE,
    )


def _label_free(summary: DataSummary) -> Iterator[Figure]:
    other = summary.model("adapt_dhm_label_free")
    if other is not None:
        lost = other.ours_less_this["auc"]
        yield Figure(
            name=f"{summary.name}: auc lost without the domain label",
            value=lost.mean,
            unit="AUC",
            bar=f"<= {MOST_LOST_WITHOUT_LABEL:g}",
            holds=lost.mean <= MOST_LOST_WITHOUT_LABEL,
            low=_known(lost.low),
            high=_known(lost.high),
        )


def _cluster_sweep(summary: DataSummary) -> Iterator[Figure]:
    """Flat, or with its peak near three."""
    swept = summary.sweeps.get("clusters")
    if swept is None:
        return
    means = {value: model.metrics["auc"].mean for value, model in swept.items() if "auc" in model.metrics}
    best = max(means, key=lambda value: means[value])
    yield Figure(
        name=f"{summary.name}: auc of the best number of clusters ({best}) less that of 3",
        value=means[best] - means["3"],
        unit="AUC",
        bar=f"<= {MOST_LOST_AT_THREE_CLUSTERS:g}",
        holds=means[best] - means["3"] <= MOST_LOST_AT_THREE_CLUSTERS,
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
