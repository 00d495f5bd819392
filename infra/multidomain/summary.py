"""Trials to figures: means over seeds with intervals, and differences of two models seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from infra.multidomain.arms import ARMS, SWEEPS, SWEPT
from infra.multidomain.compare import Compared
from infra.multidomain.costs import Cost
from infra.multidomain.trial import Trial
from recsys.evaluation.intervals import Interval, mean_interval, paired_difference

OURS = "adapt_dhm"
"""The model that the others are compared with."""
METRICS = ("auc", "mean_domain_auc", "worst_domain_auc", "gauc", "log_loss", "calibration", "purity")
PAIRED = ("auc", "mean_domain_auc")
COLLAPSED_SHARE = 0.9
"""A model whose largest cluster has more of the rows is, in effect, one of a single cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSummary:
    """Where a model puts test rows, over all seeds."""

    smallest_share: float
    """Of any cluster under any seed."""
    largest_share: float
    """The same."""
    least_purity: float | None
    """Of any seed; None where nobody knows what is to be found."""

    @property
    def is_collapsed(self) -> bool:
        """Whether one cluster has nearly all rows, under some seed."""
        return self.largest_share > COLLAPSED_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A model on one data set, over all seeds."""

    name: str
    is_control: bool
    is_swept: bool
    """Whether it is here for a sweep alone."""
    cost: Cost
    metrics: dict[str, Interval]
    """Of METRICS, those that are defined."""
    domain_auc: dict[str, Interval]
    ours_less_this: dict[str, Interval]
    """Of PAIRED; empty for OURS itself, or where it was not run."""
    step_ms: float
    """Median over seeds."""
    epochs: float
    """Mean of those that were chosen."""
    unfinished: int
    """Trials that were best at the last epoch they were given: with more they might be better."""
    clusters: ClusterSummary | None
    first: Trial
    """The trial of the first seed, for what is not to be averaged: clusters have no common order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """A data set and what its models gave."""

    name: str
    title: str
    at_equal_cost: bool
    one_row_of: int
    """1 where all rows are used."""
    rows: dict[str, int]
    """Of each part."""
    n_domains: int
    """As the models count them, with one for all that they do not know."""
    domains: tuple[str, ...]
    """Those with a test AUC, in the order in which they are shown."""
    seeds: int
    models: tuple[ModelSummary, ...]

    def model(self, name: str) -> ModelSummary | None:
        """A model by name; None if it was not run."""
        return next((model for model in self.models if model.name == name), None)

    @property
    def compared(self) -> tuple[ModelSummary, ...]:
        """The models that are not here for a sweep alone, the best AUC first."""
        models = (model for model in self.models if not model.is_swept)
        return tuple(sorted(models, key=lambda m: -m.metrics["auc"].mean if "auc" in m.metrics else math.inf))

    @property
    def sweeps(self) -> dict[str, dict[str, ModelSummary]]:
        """Setting to values to models, of the settings of which every value was run."""
        found: dict[str, dict[str, ModelSummary]] = {}
        for setting, values in SWEEPS.items():
            models = {value: self.model(name) for value, name in values.items()}
            known = {value: model for value, model in models.items() if model is not None}
            if len(known) == len(values):
                found[setting] = known
        return found


def summary_of(compared: Compared) -> DataSummary:
    """All figures of one data set."""
    data, trials = compared.data, compared.trials
    domains = {domain for own in trials.values() for trial in own for domain in trial.domain_auc}
    return DataSummary(
        name=data.name,
        title=data.title,
        at_equal_cost=data.at_equal_cost,
        one_row_of=data.one_row_of,
        rows={part: len(places) for part, places in data.split(0).items()},
        n_domains=data.tower.domains.n_domains,
        domains=tuple(sorted(domains, key=_natural)),
        seeds=max(map(len, trials.values()), default=0),
        models=tuple(_model(name, own, trials.get(OURS, [])) for name, own in trials.items()),
    )


def _model(name: str, own: Sequence[Trial], ours: Sequence[Trial]) -> ModelSummary:
    domains = sorted({domain for trial in own for domain in trial.domain_auc}, key=_natural)
    return ModelSummary(
        name=name,
        is_control=ARMS[name].is_control,
        is_swept=name in SWEPT,
        cost=own[0].cost,
        metrics=_intervals({metric: [trial.scores.get(metric) for trial in own] for metric in METRICS}),
        domain_auc=_intervals(
            {domain: [trial.domain_auc.get(domain) for trial in own] for domain in domains}
        ),
        ours_less_this={} if name == OURS or not ours else {m: _lead(ours, own, m) for m in PAIRED},
        step_ms=float(np.median([trial.step_ms for trial in own])),
        epochs=float(np.mean([trial.epoch for trial in own])),
        unfinished=sum(trial.epoch == len(trial.valid_auc) for trial in own),
        clusters=_clusters(own),
        first=own[0],
    )


def _lead(ours: Sequence[Trial], others: Sequence[Trial], metric: str) -> Interval:
    return paired_difference([t.scores[metric] for t in ours], [t.scores[metric] for t in others])


def _clusters(trials: Sequence[Trial]) -> ClusterSummary | None:
    if not trials[0].shares:
        return None
    purities = [trial.scores["purity"] for trial in trials if "purity" in trial.scores]
    return ClusterSummary(
        smallest_share=min(min(trial.shares) for trial in trials),
        largest_share=max(max(trial.shares) for trial in trials),
        least_purity=min(purities) if purities else None,
    )


def _intervals(values: dict[str, list[float | None]]) -> dict[str, Interval]:
    """Of each name, over the seeds that have a value of it; not of a name that has none."""
    known = {name: list(_finite(of_seeds)) for name, of_seeds in values.items()}
    return {name: mean_interval(of_seeds) for name, of_seeds in known.items() if of_seeds}


def _finite(values: Iterable[float | None]) -> Iterable[float]:
    return (value for value in values if value is not None and math.isfinite(value))


def _natural(domain: str) -> tuple[int, str]:
    """Numbers by their size, before words."""
    return (int(domain), "") if domain.isdigit() else (1 << 62, domain)
