"""Replay what a sync of touched rows carries, by its interval; print one JSON document.

    python benchmarks/replay_sync_cost.py [--quick] [--seeds 3] [--data-dir FOLDER]

A stream is learned once. From its middle on, the rows touched since the last seal are sealed after every
1,000 to 64,000 examples: how many, which share of the table, and their bytes with keys in each codec.
A seed gives the initial weights; on the synthetic stream also the world. How long a sync takes, and what
it does to serving, is for benchmarks/bench_sync.py. What came out is in docs/replays/sync_cost.md.

Reference: Liu et al., "Monolith", ORSUM@RecSys 2022, arXiv:2209.07663, sec. 2.2.3.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from document import Figure, print_document
from replays.figures import mean_figure, score_figures
from replays.models import Model, recipe_model, synthetic_model
from replays.recorded import recorded_stream
from replays.stream import Stream
from replays.synthetic import World, make_stream
from replays.touching import growth_exponent, seal_all

from feature_store.errors import DatasetUnavailable
from infra.recipes.kuairand import kuairand
from infra.recipes.movielens import movielens

INTERVALS = [1_000, 4_000, 16_000, 64_000]
QUICK_INTERVALS = INTERVALS[:2]
UNITS = {"rows": "rows", "touched_share": "share", "bytes": "bytes", "bytes_per_row": "bytes"}
WORLD = World(n_events=260_000, n_users=50_000, n_items=10_000)
SYNTHETIC_DIM = 32
RECORDED = {"movielens": (movielens, 4.0), "kuairand": (kuairand, 1.0)}
ROWS, QUICK_ROWS = 260_000, 40_000

Streams = Callable[[int], tuple[Stream, Model]]
"""The stream and the model of one seed."""


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    seeds, n_rows = list(range(options.seeds)), QUICK_ROWS if options.quick else ROWS
    intervals = QUICK_INTERVALS if options.quick else INTERVALS
    figures = cost_figures("synthetic", partial(synthetic, n_rows), seeds, intervals)
    for name, (recipe, at_least) in RECORDED.items():
        try:
            stream = recorded_stream(recipe(), at_least, options.data_dir, limit=n_rows)
        except DatasetUnavailable as reason:
            say(f"{name} is left out: {reason}")
        else:
            figures += cost_figures(name, partial(recorded, stream, name), seeds, intervals)
    print_document("replay_sync_cost", figures, seeds=seeds)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short streams, two intervals, 2 seeds")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many; 3")
    parser.add_argument("--data-dir", type=Path, help="folder with the recorded logs; theirs by default")
    options = parser.parse_args()
    options.seeds = options.seeds or (2 if options.quick else 3)
    return options


def synthetic(n_rows: int, seed: int) -> tuple[Stream, Model]:
    world = World(n_events=n_rows, n_users=WORLD.n_users, n_items=WORLD.n_items)
    return make_stream(world, seed), synthetic_model(seed, dim=SYNTHETIC_DIM)


def recorded(stream: Stream, name: str, seed: int) -> tuple[Stream, Model]:
    return stream, recipe_model(RECORDED[name][0](), seed)


def cost_figures(name: str, streams: Streams, seeds: list[int], intervals: list[int]) -> list[Figure]:
    """Each interval's scores, and how K grows with it; the bar says that ids repeat."""
    found: dict[int, list[dict[str, float]]] = {size: [] for size in intervals}
    exponents = []
    for seed in seeds:
        stream, model = streams(seed)
        sealed = seal_all(stream, model, intervals)
        exponents.append(growth_exponent(sealed))
        for interval in sealed:
            found[interval.examples].append(interval.scores())
        say(f"{name} seed {seed}: rows {[round(one.scores()['rows']) for one in sealed]}")
    figures = []
    for size, scores_S in found.items():
        figures += score_figures(f"{name}.every_{size}", scores_S, UNITS)
    growth = mean_figure(f"{name}.growth_exponent", exponents, "power")
    growth["bar"], growth["holds"] = "< 1", growth["value"] < 1.0
    return [*figures, growth]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
