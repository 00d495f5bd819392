"""Replay that one snapshot a day is enough, and that offsets make it lossless; print one JSON document.

    python benchmarks/replay_daily_snapshot.py [--quick] [--draws 20] [--shards 100] [--data-dir FOLDER]

One of many logical shards dies at a random moment and is put back as it was 0 to 3 days before; the day
after is predicted and learned, and compared with the same day unharmed. Then the arithmetic: the share of
user-days lost, and reading on from the snapshot's offsets, which loses nothing and takes a*λ/(μ-λ).
A draw gives the moment and the shard. Pin threads with OMP_NUM_THREADS=1.
What came out is in docs/replays/daily_snapshot.md.

Reference: Liu et al., "Monolith", ORSUM@RecSys 2022, arXiv:2209.07663, sec. 2.3 and 3.3.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import torch
from document import Figure, print_document
from replays.failures import (
    AGES_S,
    DAY_S,
    LOST,
    UNHARMED,
    all_users,
    catch_up_s,
    draw_failures,
    losses,
    lost_user_days,
    play,
    pooled_auc_of_users_hit,
    row_at,
    rows_differing_after_replay,
)
from replays.figures import figure, mean_figure
from replays.models import Model, recipe_model, synthetic_model
from replays.recorded import recorded_stream
from replays.stream import Stream
from replays.synthetic import World, make_stream

from feature_store.errors import DatasetUnavailable
from infra.recipes.kuairand import kuairand

SEED = 0
CLICKED = 1.0
WORLD = World(
    n_events=300_000, n_users=2_000, n_items=500, days=10.0, drift=0.02, user_days=10.0, item_days=5.0
)
QUICK_EVENTS, QUICK_DRAWS = 60_000, 4
DAILY_FAILURES, SHARD_COUNTS, DAYS = (0.01, 0.001), (10, 100, 1000), 20_000
BACKLOG = 20_000
ARRIVAL_SHARES = (0.1, 0.5)


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    world = replace(WORLD, n_events=QUICK_EVENTS) if options.quick else WORLD
    streams = {"synthetic": (make_stream(world, SEED), synthetic_model(SEED))}
    if not options.quick:
        try:
            stream = recorded_stream(kuairand(), CLICKED, options.data_dir)
            streams["kuairand"] = stream, recipe_model(kuairand(), SEED)
        except DatasetUnavailable as reason:
            say(f"kuairand is left out: {reason}")
    figures = []
    for name, (stream, model) in streams.items():
        figures += loss_figures(name, stream, model, options)
        figures += replay_figures(name, stream, model, quick=options.quick)
    figures += arithmetic_figures(streams["synthetic"][0])
    print_document("replay_daily_snapshot", figures, seeds=[SEED])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short synthetic stream, 4 draws")
    parser.add_argument("--draws", type=int, metavar="N", help="failures; 20")
    parser.add_argument("--shards", type=int, metavar="N", default=100, help="logical shards; 100")
    parser.add_argument("--data-dir", type=Path, help="folder with KuaiRand; RECSYS_DATA where not given")
    options = parser.parse_args()
    options.draws = options.draws or (QUICK_DRAWS if options.quick else 20)
    return options


def loss_figures(name: str, stream: Stream, model: Model, options: argparse.Namespace) -> list[Figure]:
    """The day after a failure minus the same day unharmed, by the age of what was put back."""
    shards = options.shards
    draws = draw_failures(stream, model, n_draws=options.draws, n_shards=shards, seed=SEED)
    play(stream, model, draws, shards)
    figures, unharmed = [], pooled_auc_of_users_hit(stream, draws, shards, UNHARMED)
    for arm, found in losses(stream, draws, shards).items():
        prefix = f"{name}.{'age_' if arm != LOST else ''}{arm}"
        for what, values in found.items():
            figures.append(mean_figure(f"{prefix}.{what}_minus_unharmed", values, what.rpartition(".")[2]))
        hit = pooled_auc_of_users_hit(stream, draws, shards, arm)
        figures.append(figure(f"{prefix}.users_hit.pooled_auc_minus_unharmed", hit - unharmed, "auc"))
        say(f"{prefix}: auc {figures[-4]['value']:+.5f}, of users hit {figures[-1]['value']:+.5f}")
    return figures


def replay_figures(name: str, stream: Stream, model: Model, *, quick: bool) -> list[Figure]:
    """Reading on from the snapshot's offsets: what differs, and how long it takes."""
    at = row_at(stream, model, int(stream.time_s_N[-1]) - 2 * DAY_S)
    figures = []
    for age, age_s in AGES_S.items():
        differing = rows_differing_after_replay(stream, model, at=at, age_s=age_s)
        figures.append(exactly_none(f"{name}.replay_from_{age}.differing", differing))
    backlog = BACKLOG // 4 if quick else BACKLOG
    _, alone_per_s = catch_up_s(stream, model, at=at, backlog=backlog, per_s=0.0)
    figures.append(figure(f"{name}.replay_rate", alone_per_s, "1/s"))
    for share in ARRIVAL_SHARES:
        arrivals_per_s = share * alone_per_s
        took_s, rate_per_s = catch_up_s(stream, model, at=at, backlog=backlog, per_s=arrivals_per_s)
        # By its speed of these very seconds: a shared machine is not equally fast all the time.
        wanted_s = backlog / (rate_per_s - arrivals_per_s)
        prefix = f"{name}.catch_up_at_{share:g}_of_the_rate"
        figures += [
            figure(f"{prefix}.time", took_s, "s"),
            figure(f"{prefix}.rate", rate_per_s, "1/s"),
            figure(f"{prefix}.time_over_formula", took_s / wanted_s, "ratio"),
        ]
    return figures


def arithmetic_figures(stream: Stream) -> list[Figure]:
    """Lost user-days drawn for many shard counts, over f*S, S a day: near 1/2, for ages are even below S."""
    users = all_users(stream)
    figures = []
    for n_shards, failures in product(SHARD_COUNTS, DAILY_FAILURES):
        lost = partial(lost_user_days, users, n_shards=n_shards, daily_failures=failures, days=DAYS)
        shares = [lost(seed=seed) / failures for seed in range(5)]
        name = f"lost_user_days_over_fS.shards_{n_shards}.f_{failures:g}"
        figures.append(mean_figure(name, shares, "ratio"))
    return figures


def exactly_none(name: str, value: int) -> Figure:
    made = figure(name, value, "numbers")
    made["bar"], made["holds"] = "= 0", value == 0
    return made


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
