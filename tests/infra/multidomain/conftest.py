"""A data set of a few hundred rows, and trials that were never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from infra.multidomain.costs import Cost
from infra.multidomain.data import Comparison, DataSource
from infra.multidomain.trial import Trial
from infra.settings import Settings

MakeTrial = Callable[..., Trial]


@pytest.fixture(scope="session")
def source() -> DataSource:
    return DataSource(name="syn2", settings=Settings(), rows=800)


@pytest.fixture(scope="session")
def tiny(source: DataSource) -> Comparison:
    return source.load()


@pytest.fixture(scope="session")
def stated() -> MakeTrial:
    """``stated(model, seed, auc, ...)`` is a trial with that outcome."""

    def make(arm: str, seed: int, auc: float, **changes: Any) -> Trial:
        plain: dict[str, Any] = {
            "cost": Cost(flops_per_row=10.0, relative_flops=1.0, budgets=1, n_parameters=7),
            "scores": {"auc": auc, "mean_domain_auc": auc, "log_loss": 0.5},
            "domain_auc": {"1": auc, "10": auc, "2": auc},
            "epoch": 1,
            "valid_auc": [auc],
            "step_ms": 1.0,
        }
        return Trial(arm=arm, seed=seed, **(plain | changes))

    return make
