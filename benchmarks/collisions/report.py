"""From the outcomes of all seeds to figures with intervals.

A mean is given with Student's 95 % interval over seeds. Arms are compared seed by seed: the same seed means
the same split, the same order, the same dense weights to start from and a hash salt of its own, so that what
both arms share drops out of the difference.

Axes: S seeds, N ratings, T test ratings, U users, M movies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from document import Figure
from numpy.typing import NDArray
from scipy import stats

from collisions.arms import Arm
from collisions.hashing import collision_rate, sharing
from collisions.ratings import Ratings
from collisions.training import Outcome, score

Outcomes = dict[str, list[Outcome]]
"""Of each arm by its name, in the order of the seeds."""

EXACT = "exact"


def figure(name: str, value: float, unit: str) -> Figure:
    """One value that has no interval and no bar."""
    return {
        "name": name,
        "value": float(value),
        "unit": unit,
        "bar": None,
        "holds": None,
        "low": None,
        "high": None,
    }


def mean_figure(name: str, values_S: Sequence[float], unit: str, bar: str | None = None) -> Figure:
    """Mean over seeds and its interval, none for a single seed. A bar, "< 0" or "> 0", asks for all of it."""
    mean = float(np.mean(values_S))
    made = figure(name, mean, unit)
    if len(values_S) > 1:
        half = float(stats.t.ppf(0.975, len(values_S) - 1) * stats.sem(values_S))
        made["low"], made["high"] = mean - half, mean + half
        if bar is not None:
            made["bar"], made["holds"] = bar, mean + half < 0 if bar == "< 0" else mean - half > 0
    return made


def arm_figures(prefix: str, outcomes: list[Outcome]) -> list[Figure]:
    """What one arm reached and cost; ``auc`` is of the test part, at the epoch that validation picks."""
    figures = [
        mean_figure(f"{prefix}.auc", [outcome.chosen.auc for outcome in outcomes], "auc"),
        figure(f"{prefix}.auc_sd", _sd([outcome.chosen.auc for outcome in outcomes]), "auc"),
        mean_figure(f"{prefix}.log_loss", [outcome.chosen.log_loss for outcome in outcomes], "nats"),
        figure(f"{prefix}.log_loss_sd", _sd([outcome.chosen.log_loss for outcome in outcomes]), "nats"),
        mean_figure(
            f"{prefix}.validation_auc",
            [outcome.validation[outcome.best_epoch].auc for outcome in outcomes],
            "auc",
        ),
        mean_figure(f"{prefix}.epoch", [outcome.best_epoch + 1 for outcome in outcomes], "epochs"),
        mean_figure(f"{prefix}.rows", [outcome.rows for outcome in outcomes], "rows"),
        mean_figure(f"{prefix}.bytes", [outcome.n_bytes for outcome in outcomes], "bytes"),
    ]
    if all(outcome.rows for outcome in outcomes):
        per_row = [outcome.n_bytes / outcome.rows for outcome in outcomes]
        figures.append(mean_figure(f"{prefix}.bytes_per_row", per_row, "bytes"))
    for epoch in range(len(outcomes[0].test)):
        scores = [outcome.test[epoch] for outcome in outcomes]
        figures += [
            mean_figure(f"{prefix}.auc_epoch_{epoch + 1}", [score.auc for score in scores], "auc"),
            mean_figure(f"{prefix}.log_loss_epoch_{epoch + 1}", [score.log_loss for score in scores], "nats"),
        ]
    return figures


def difference_figures(
    protocol: str, name: str, outcomes: Outcomes, than: str = EXACT, bar: str | None = None
) -> list[Figure]:
    """Arm ``name`` minus arm ``than``, seed by seed; ``bar`` is for the difference of AUC."""
    pairs = list(zip(outcomes[name], outcomes[than], strict=True))
    auc_S = [mine.chosen.auc - other.chosen.auc for mine, other in pairs]
    loss_S = [mine.chosen.log_loss - other.chosen.log_loss for mine, other in pairs]
    prefix = f"{protocol}.{name}"
    return [
        mean_figure(f"{prefix}.auc_minus_{than}", auc_S, "auc", bar),
        figure(f"{prefix}.auc_minus_{than}_sd", _sd(auc_S), "auc"),
        figure(f"{prefix}.seeds_worse_than_{than}", sum(gap < 0 for gap in auc_S), "seeds"),
        mean_figure(f"{prefix}.log_loss_minus_{than}", loss_S, "nats"),
    ]


def collision_figures(arm: Arm, ratings: Ratings, seeds: list[int]) -> list[Figure]:
    """How many ids of a hashed arm really share a row, and how many ratings meet such an id."""
    users_S, movies_S, met_S = [], [], []
    for seed in seeds:
        encoding = arm.encode(ratings.n_users, ratings.n_movies, seed)
        users_S.append(collision_rate(encoding.keys_UP[:, 0]))
        movies_S.append(collision_rate(encoding.keys_MP[:, 0]))
        met_S.append(float(meets_shared_row(arm, ratings, seed).mean()))
    return [
        mean_figure(f"{arm.name}.user_collision_rate", users_S, "share"),
        mean_figure(f"{arm.name}.movie_collision_rate", movies_S, "share"),
        mean_figure(f"{arm.name}.ratings_that_meet_a_shared_row", met_S, "share"),
    ]


def victim_figures(
    protocol: str, arm: Arm, outcomes: Outcomes, ratings: Ratings, seeds: list[int]
) -> list[Figure]:
    """The arm minus exact among the test ratings that meet a shared row, and among all others.

    The others are the control: if collisions do the harm, they lose little or nothing.
    """
    gaps: dict[str, list[float]] = {"met": [], "unmet": []}
    for seed, mine, other in zip(seeds, outcomes[arm.name], outcomes[EXACT], strict=True):
        met_T = meets_shared_row(arm, ratings, seed)[mine.test_T]
        label_T = ratings.label_N[mine.test_T]
        for name, part_T in (("met", met_T), ("unmet", ~met_T)):
            auc = score(mine.logit_T[part_T], label_T[part_T]).auc
            gaps[name].append(auc - score(other.logit_T[part_T], label_T[part_T]).auc)
    return [
        mean_figure(f"{protocol}.{arm.name}.{name}_auc_minus_{EXACT}", gaps_S, "auc")
        for name, gaps_S in gaps.items()
    ]


def meets_shared_row(arm: Arm, ratings: Ratings, seed: int) -> NDArray[np.bool_]:
    """Whether the user or the movie of a rating shares its row with another id, (N,)."""
    encoding = arm.encode(ratings.n_users, ratings.n_movies, seed)
    shared_U, shared_M = (sharing(keys[:, 0]) for keys in (encoding.keys_UP, encoding.keys_MP))
    met_N: NDArray[np.bool_] = shared_U[ratings.user_N] | shared_M[ratings.movie_N]
    return met_N


def _sd(values_S: Sequence[float]) -> float:
    return float(np.std(values_S, ddof=1)) if len(values_S) > 1 else 0.0
