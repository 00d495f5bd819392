"""Replay online against batch training, and how often a server should be synced; print one JSON document.

    python benchmarks/replay_sync_interval.py [--quick] [--seeds 5] [--data-dir FOLDER]

The oldest 5/7 of a stream are learned in one pass. The rest is cut into N shards: the server takes what was
learned, answers a shard, and the shard is learned (Monolith, algorithm 1). Scored is the AUC over the whole
online part at once; the paper's mean over shards stands beside it, and falls with N by itself.
A seed gives the initial weights; on synthetic streams also the world. Labels of the recorded ones are the
same for all seeds, so their intervals say nothing about other logs. Pin threads with OMP_NUM_THREADS=1.
What came out is in docs/replays/sync_interval.md.

Reference: Liu et al., "Monolith", ORSUM@RecSys 2022, arXiv:2209.07663, sec. 3.2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from document import Figure, print_document
from replays.figures import difference_figures, figure, mean_figure, score_figures
from replays.models import Model, recipe_model, synthetic_model
from replays.recorded import recorded_stream
from replays.stream import Stream
from replays.syncing import (
    SyncArm,
    is_monotone,
    mean_shard_auc,
    online_start,
    pooled_scores,
    serve,
    shard_edges,
    shares,
)
from replays.synthetic import World, make_stream

from feature_store.errors import DatasetUnavailable
from infra.recipes.kuairand import kuairand
from infra.recipes.movielens import movielens
from infra.recipes.recipe import Recipe

SHARDS = (10, 50, 100, 400)
FINEST, DELAYED_SHARDS = SHARDS[-1], 100
FROZEN = SyncArm(name="frozen", shards=1)
ONLINE = tuple(SyncArm(name=f"online_{n}", shards=n) for n in SHARDS)
SPARSE_ONLY = (
    SyncArm(name="dense_hourly", shards=FINEST, dense="hourly"),
    SyncArm(name="dense_daily", shards=FINEST, dense="daily"),
    SyncArm(name="dense_frozen", shards=FINEST, dense="frozen"),
)
DELAYED = tuple(
    SyncArm(name=f"delay_{name}", shards=DELAYED_SHARDS, delay_s=delay_s)
    for name, delay_s in {"1min": 60, "10min": 600, "1h": 3600, "6h": 21_600, "1d": 86_400}.items()
)
ARMS = [FROZEN, *ONLINE, *SPARSE_ONLY, *DELAYED]
UNITS = {"auc": "auc", "log_loss": "nats"}

NULL = World(n_events=600_000, n_users=200, n_items=100)
WORLDS = {
    "null": NULL,
    "drift": World(n_events=600_000, n_users=200, n_items=100, drift=0.05),
    "births": World(n_events=600_000, n_users=200, n_items=100, user_days=3.0, item_days=3.0),
}
NULL_BAR = 0.002
QUICK_EVENTS, QUICK_ROWS = 100_000, 60_000
RECORDED = {"movielens": (movielens, 4.0), "kuairand": (kuairand, 1.0)}

Streams = Callable[[int], tuple[Stream, Model]]
"""The stream and the model of one seed."""


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    seeds = list(range(options.seeds))
    figures = []
    for name, world in WORLDS.items():
        sized = replace(world, n_events=QUICK_EVENTS) if options.quick else world
        figures += interval_figures(name, partial(synthetic, sized), seeds)
    for name, (recipe, at_least) in RECORDED.items():
        try:
            stream = recorded_stream(
                recipe(), at_least, options.data_dir, limit=QUICK_ROWS if options.quick else None
            )
        except DatasetUnavailable as reason:
            say(f"{name} is left out: {reason}")
        else:
            figures += interval_figures(name, partial(recorded, stream, recipe()), seeds)
    print_document("replay_sync_interval", figures, seeds=seeds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short streams, 2 seeds")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many; 5")
    parser.add_argument("--data-dir", type=Path, help="folder with the recorded logs; theirs by default")
    options = parser.parse_args()
    options.seeds = options.seeds or (2 if options.quick else 5)
    return options


def synthetic(world: World, seed: int) -> tuple[Stream, Model]:
    return make_stream(world, seed), synthetic_model(seed)


def recorded(stream: Stream, recipe: Recipe, seed: int) -> tuple[Stream, Model]:
    return stream, recipe_model(recipe, seed)


def interval_figures(name: str, streams: Streams, seeds: list[int]) -> list[Figure]:
    """Every arm: its scores, and what it gains on the frozen model or loses by lateness."""
    outcomes: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in ARMS}
    figures = []
    for seed in seeds:
        stream, model = streams(seed)
        first = online_start(stream, model)
        served = serve(stream, model, ARMS)
        for arm in ARMS:
            outcomes[arm.name].append(pooled_scores(stream, served[arm.name], first))
        for arm in ONLINE:
            edges = shard_edges(stream, model, arm.shards)
            for which in (arm.name, FROZEN.name):
                found = mean_shard_auc(stream, served[which], edges)
                outcomes[which][-1][f"mean_of_{arm.shards}_shards.auc"] = found
        if seed == seeds[0]:
            figures = [
                figure(f"{name}.share_{key}", value, "share") for key, value in shares(stream, first).items()
            ]
            span_s = float(stream.time_s_N[-1] - stream.time_s_N[first])
            figures += [figure(f"{name}.interval_{n}", span_s / n / 60, "minutes") for n in SHARDS]
        say(
            f"{name} seed {seed}: "
            + ", ".join(f"{arm.name} {outcomes[arm.name][-1]['auc']:.4f}" for arm in ARMS)
        )
    for arm in ARMS:
        figures += score_figures(f"{name}.{arm.name}", outcomes[arm.name], UNITS)
    return figures + gain_figures(name, outcomes)


def gain_figures(name: str, outcomes: dict[str, list[dict[str, float]]]) -> list[Figure]:
    frozen = outcomes[FROZEN.name]
    parts = {key: "auc" for key in frozen[0] if key.rpartition(".")[2] == "auc" and "shards" not in key}
    figures = []
    for arm in ONLINE:
        gains = difference_figures(f"{name}.{arm.name}", outcomes[arm.name], FROZEN.name, frozen, parts)
        if name == "null":
            gains[0]["bar"] = f"within {NULL_BAR:g} of 0"
            gains[0]["holds"] = abs(gains[0]["value"]) <= NULL_BAR
        else:
            gains[0] = mean_figure(
                gains[0]["name"],
                [mine["auc"] - other["auc"] for mine, other in zip(outcomes[arm.name], frozen, strict=True)],
                "auc",
                bar="> 0",
            )
        figures += gains
    for arm in (*SPARSE_ONLY, *DELAYED):
        same = f"online_{arm.shards}"
        figures += difference_figures(
            f"{name}.{arm.name}", outcomes[arm.name], same, outcomes[same], {"auc": "auc"}
        )
    means = [float(np.mean([one["auc"] for one in outcomes[arm.name]])) for arm in ONLINE]
    monotone = figure(f"{name}.auc_rises_with_each_finer_interval", float(is_monotone(means)), "truth")
    return [*figures, monotone]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
