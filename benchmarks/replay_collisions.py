"""Replay Monolith's claim that a table without collisions ranks better, and print one JSON document.

    python benchmarks/replay_collisions.py [--quick] [--seeds 5] [--epochs 4] [--data-dir FOLDER]
    python benchmarks/replay_collisions.py --tune

MovieLens-1M, liked = 3.5 stars or more, a DeepFM over user and movie. Three protocols: ``random`` (a random
fifth to test on) and ``temporal`` (the newest fifth) train for several epochs; ``online`` goes through the
log once, predicts each batch before it learns it, and is scored on the newest fifth. Settings and epochs are
chosen on validation parts only: ``--tune`` prints what they were chosen by, with a seed of its own.
Pin threads with OMP_NUM_THREADS=1. What came out is in docs/replays/collisions.md.

Reference: Liu et al., "Monolith: Real Time Recommendation System With Collisionless Embedding Table",
ORSUM@RecSys 2022, arXiv:2209.07663, sec. 3.1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

from collisions.arms import MOVIE, USER, Arm, exact, hashed_into, main_arms
from collisions.ratings import Ratings, random_split, read_ratings, temporal_split
from collisions.report import (
    EXACT,
    Outcomes,
    arm_figures,
    collision_figures,
    difference_figures,
    figure,
    mean_figure,
    victim_figures,
)
from collisions.training import (
    Outcome,
    TrainingConfig,
    constant_score,
    table_spec,
    train_in_epochs,
    train_online,
)
from document import Figure, print_document

from infra.settings import settings_from
from recsys.table import FP16, FP32

IN_EPOCHS = TrainingConfig(learning_rate=0.1, epochs=4, batch=512)
ONLINE = TrainingConfig(learning_rate=0.2, epochs=1, batch=128)
SPLITS = {"random": random_split, "temporal": temporal_split}
TUNING_SEED = 1000
LEARNING_RATES, WEIGHT_DECAYS = (0.02, 0.05, 0.1, 0.2, 0.4), (0.0, 0.1)
DAY_S = 86_400
THRESHOLDS = (0, 1, 2, 5, 10, 15, 50)
IDLE_LIMITS_S = {
    "1h": 3600,
    "1d": DAY_S,
    "7d": 7 * DAY_S,
    "30d": 30 * DAY_S,
    "90d": 90 * DAY_S,
    "1y": 365 * DAY_S,
}
QUICK_RATINGS = 100_000
HASHED = ("hashed_paper", "hashed_20", "hashed_50")
COMPACT, SAME_BYTES = "compact", "hashed_same_bytes"

Train = Callable[[Arm, int], Outcome]
"""One arm under one seed."""


def main() -> None:
    options = parsed()
    ratings = read_ratings(
        options.data_dir, settings_from(os.environ).cache_dir, limit=QUICK_RATINGS if options.quick else None
    )
    say(f"{len(ratings)} ratings, {ratings.n_users} users, {ratings.n_movies} movies")
    if options.tune:
        print_document("replay_collisions_tuning", tuning_figures(ratings), seeds=[TUNING_SEED])
        return
    seeds = list(range(options.seeds))
    config = replace(IN_EPOCHS, epochs=options.epochs)
    figures = [
        found for arm in main_arms() if arm.name in HASHED for found in collision_figures(arm, ratings, seeds)
    ]
    for protocol in SPLITS:
        figures += epoch_figures(protocol, ratings, config, seeds)
    print_document("replay_collisions", [*figures, *online_figures(ratings, seeds)], seeds=seeds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the oldest 100,000 ratings, 2 seeds, 2 epochs")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many; 5")
    parser.add_argument("--epochs", type=int, metavar="N", help="of the random and the temporal split; 4")
    parser.add_argument("--data-dir", type=Path, help="folder with ratings; ml-1m from the registry")
    parser.add_argument("--tune", action="store_true", help="print validation scores over a grid, and stop")
    options = parser.parse_args()
    options.seeds = options.seeds or (2 if options.quick else 5)
    options.epochs = options.epochs or (2 if options.quick else IN_EPOCHS.epochs)
    return options


def epoch_figures(protocol: str, ratings: Ratings, config: TrainingConfig, seeds: list[int]) -> list[Figure]:
    """All arms over several epochs. Nothing expires: shuffled events have no idle time."""
    split = SPLITS[protocol]

    def train(arm: Arm, seed: int) -> Outcome:
        return train_in_epochs(arm, ratings, split(len(ratings), seed), config, seed)

    compact = Arm(name=COMPACT, encode=exact, codec=FP16(), threshold=5)
    outcomes = run(protocol, [*main_arms(), compact], seeds, train)
    outcomes |= run_same_bytes(protocol, outcomes[COMPACT], config, seeds, train)
    constant = [constant_score(ratings, split(len(ratings), seed)) for seed in seeds]
    return [
        mean_figure(f"{protocol}.constant.auc", [score.auc for score in constant], "auc"),
        mean_figure(f"{protocol}.constant.log_loss", [score.log_loss for score in constant], "nats"),
        *figures_of(protocol, outcomes, ratings, seeds),
    ]


def online_figures(ratings: Ratings, seeds: list[int]) -> list[Figure]:
    """All arms in one pass over time, and the sweeps of admission, expiry and storage."""
    sweep = [
        *(Arm(name=f"admitted_at_{t}", encode=exact, threshold=t) for t in THRESHOLDS if t),
        *(Arm(name=f"idle_{name}", encode=exact, max_idle_s=s) for name, s in IDLE_LIMITS_S.items()),
        Arm(name="idle_users_30d", encode=exact, max_idle_s=30 * DAY_S, expiring=(USER,)),
        Arm(name="idle_movies_30d", encode=exact, max_idle_s=30 * DAY_S, expiring=(MOVIE,)),
        Arm(name="stored_fp16", encode=exact, codec=FP16()),
    ]
    compact = Arm(name=COMPACT, encode=exact, codec=FP16(), threshold=5, max_idle_s=IDLE_LIMITS_S["30d"])

    def train(arm: Arm, seed: int) -> Outcome:
        return train_online(arm, ratings, ONLINE, seed)

    begun = time.perf_counter()
    train(main_arms()[0], TUNING_SEED)
    rate = len(ratings) / (time.perf_counter() - begun)
    outcomes = run("online", [*main_arms(), *sweep, compact], seeds, train)
    outcomes |= run_same_bytes("online", outcomes[COMPACT], ONLINE, seeds, train)
    return [figure("online.ratings_per_s", rate, "1/s"), *figures_of("online", outcomes, ratings, seeds)]


def run(protocol: str, arms: list[Arm], seeds: list[int], train: Train) -> Outcomes:
    outcomes: Outcomes = {arm.name: [] for arm in arms}
    for seed, arm in product(seeds, arms):
        begun = time.perf_counter()
        outcome = train(arm, seed)
        outcomes[arm.name].append(outcome)
        took_s = time.perf_counter() - begun
        say(f"{protocol} seed {seed} {arm.name}: auc {outcome.chosen.auc:.4f} in {took_s:.1f} s")
    return outcomes


def run_same_bytes(
    protocol: str, compact: list[Outcome], config: TrainingConfig, seeds: list[int], train: Train
) -> Outcomes:
    """Hashed tables of the bytes that the compact arm needed at its peak, with float32 and float16 rows."""
    outcomes: Outcomes = {}
    for name, codec in ((SAME_BYTES, FP32()), (f"{SAME_BYTES}_fp16", FP16())):
        outcomes[name] = []
        for seed, budget in zip(seeds, compact, strict=True):
            arm = Arm(name=name, encode=exact, codec=codec)
            n_rows = budget.n_bytes // table_spec(arm, config, seed).row_bytes
            arm = replace(arm, encode=hashed_into(n_rows))
            outcomes[name] += run(protocol, [arm], [seed], train)[name]
    return outcomes


def figures_of(protocol: str, outcomes: Outcomes, ratings: Ratings, seeds: list[int]) -> list[Figure]:
    figures = []
    for name, of_arm in outcomes.items():
        figures += arm_figures(f"{protocol}.{name}", of_arm)
        if name != EXACT:
            figures += difference_figures(protocol, name, outcomes, bar="< 0" if name in HASHED else None)
    for arm in main_arms():
        if arm.name in HASHED:
            figures += victim_figures(protocol, arm, outcomes, ratings, seeds)
    for other in (SAME_BYTES, f"{SAME_BYTES}_fp16"):
        figures += difference_figures(protocol, COMPACT, outcomes, than=other, bar="> 0")
    return figures


def tuning_figures(ratings: Ratings) -> list[Figure]:
    """Validation AUC at its best epoch over a grid, of the two arms that differ most."""
    arms = [arm for arm in main_arms() if arm.name in (EXACT, "hashed_50")]
    figures = []
    for arm, rate, decay in product(arms, LEARNING_RATES, WEIGHT_DECAYS):
        trains: dict[str, Callable[[], Outcome]] = {
            "online": partial(
                train_online,
                arm,
                ratings,
                replace(ONLINE, learning_rate=rate, weight_decay=decay),
                TUNING_SEED,
            )
        }
        for protocol, split in SPLITS.items():
            config = replace(IN_EPOCHS, learning_rate=rate, weight_decay=decay)
            parts = split(len(ratings), TUNING_SEED)
            trains[protocol] = partial(train_in_epochs, arm, ratings, parts, config, TUNING_SEED)
        for protocol, train in trains.items():
            outcome = train()
            best = outcome.validation[outcome.best_epoch].auc
            say(f"{protocol} {arm.name} rate {rate} decay {decay}: validation auc {best:.4f}")
            figures.append(figure(f"{protocol}.{arm.name}.rate_{rate}.decay_{decay}", best, "auc"))
    return figures


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
