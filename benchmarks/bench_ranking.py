"""Time learning, scoring and publishing of the MovieLens ranker, and print one JSON document.

    python benchmarks/bench_ranking.py [--quick]

Keys are random under a Zipf law, of about as many ids as MovieLens-1M has; only a film's genre has more
than one key. Figures are medians, ``low`` and ``high`` quartiles, and torch uses one thread. A seal holds
what 8,192 examples touched and the dense weights, and goes to a log in memory; apply takes the same
deltas, already decoded. Pin other threads with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
import torch
from document import Figure, print_document

from infra.recipes.movielens import movielens
from infra.wiring.recipes import make_scorer, make_table
from recsys.features import RaggedKeys
from recsys.keys import pack
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.snapshots import Manifest, write_snapshot
from serving.replica import ApplyOutcome, Replica
from streaming.deltas import DeltaPublisher, decode_delta
from streaming.memory_log import MemoryLog
from streaming.topics import DELTAS
from training.sync import DeltaSync, SyncConfig

SEED = 0
RECIPE = movielens()
SKEW = 1.1
USER = {"user.id": 6_040, "user.gender": 2, "user.age": 7, "request.day": 1_000}
ITEM = {"item.id": 3_883, "item.genres": 18, "item.year": 81, "item.decade": 10}
DISTINCT = USER | ITEM
SEAL_EXAMPLES = 8_192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    scale = 1 if parser.parse_args().quick else 10
    torch.set_num_threads(1)
    random = np.random.default_rng(SEED)
    figures = []
    for size in (32, 64):
        learner = new_learner(random)
        took_us = [took_s * 1e6 / size for took_s in teach(learner, random, 400 * scale * size, size)]
        figures.append(spread(f"step_micro_batch_{size}", took_us, "us/example"))
    learner = new_learner(random)
    figures += [*score_figures(learner, 1000 * scale, random), *delta_figures(learner, 12 * scale, random)]
    print_document("ranking", figures, seeds=[SEED])


def score_figures(learner: RankingLearner, requests: int, random: np.random.Generator) -> list[Figure]:
    """Of requests in which the keys of the user alone are the same for all candidates."""
    scorer = RankingScorer(learner.table, RECIPE.tower, RECIPE.pooling, learner.dense_weights())
    scorer.score(keys_of(200, random))
    batches = (keys_of(200, random, one_user=True) for _ in range(requests))
    took_ms = [seconds(partial(scorer.score, batch)) * 1e3 for batch in batches]
    p50 = spread("score_200_candidates_p50", took_ms, "ms")
    p99 = round(float(np.quantile(took_ms, 0.99)), 3)
    return [p50, {**p50, "name": "score_200_candidates_p99", "value": p99, "low": None, "high": None}]


def delta_figures(learner: RankingLearner, seals: int, random: np.random.Generator) -> list[Figure]:
    """Learn, seal, apply, and again; the replica begins at the learner's snapshot."""
    log = MemoryLog()
    sync = DeltaSync(learner, DeltaPublisher(log), SyncConfig(model=RECIPE.name, incarnation=0))
    replica = replica_of(learner)
    sealed_per_s, applied_per_s = [], []
    for number in range(1, seals + 1):
        teach(learner, random, SEAL_EXAMPLES)
        position, sent = sync.position(), sync.rows_sent
        sealing_s = seconds(partial(sync.seal, as_of_ms=number, sealed_at_ms=number))
        sealed_per_s.append((sync.rows_sent - sent) / sealing_s)
        deltas = [decode_delta(record.value) for record in log.read((DELTAS, 0), position, sync.position())]
        outcomes: list[ApplyOutcome] = []
        applying_s = seconds(partial(outcomes.extend, map(replica.apply, deltas)))
        applied_per_s.append((sync.rows_sent - sent) / applying_s)
        if set(outcomes) != {ApplyOutcome.APPLIED}:
            sys.exit(f"seal {number}: got {outcomes}, wanted every delta applied")
    return [spread("seal", sealed_per_s, "rows/s"), spread("apply", applied_per_s, "rows/s")]


def new_learner(random: np.random.Generator) -> RankingLearner:
    """A learner that already knows the frequent keys."""
    learner = RankingLearner(make_table(RECIPE), RECIPE.tower, RECIPE.pooling, RECIPE.adam)
    teach(learner, random, 4 * SEAL_EXAMPLES)
    return learner


def teach(learner: RankingLearner, random: np.random.Generator, n: int, size: int = 64) -> list[float]:
    """Learn ``n`` examples in steps of ``size``; the seconds that each step took."""
    took_s = []
    for _ in range(n // size):
        batch, labels_B = keys_of(size, random), (random.random(size) < 0.5).astype(np.float32)
        took_s.append(seconds(partial(learner.step, batch, labels_B, event_time_s=1)))
    return took_s


def replica_of(learner: RankingLearner) -> Replica:
    zeros = "incarnation table_sequence dense_sequence delta_position as_of_ms examples"
    named = {"model": RECIPE.name, "recipe": RECIPE.name, "source_offsets": {}, "marks": {}}
    fingerprint = {"schema_fingerprint": RECIPE.schema.fingerprint}
    manifest = Manifest.model_validate({**dict.fromkeys(zeros.split(), 0), **named, **fingerprint})
    replica = Replica(partial(make_scorer, RECIPE), RECIPE.schema.fingerprint)
    with tempfile.TemporaryDirectory() as folder:
        replica.load(write_snapshot(Path(folder), manifest, learner.table, learner.dense_state(), {}))
    return replica


def keys_of(n: int, random: np.random.Generator, *, one_user: bool = False) -> RaggedKeys:
    features = RECIPE.schema.features
    lengths_NF = np.ones((n, len(features)), np.uint8)
    lengths_NF[:, RECIPE.schema.names.index("genre")] = random.integers(1, 4, n)
    place_T = np.repeat(np.tile(np.arange(len(features)), n), lengths_NF.ravel())
    keys_T = np.empty(len(place_T), np.uint64)
    for place, feature in enumerate(features):
        is_users = one_user and USER.keys() >= set(feature.columns)
        drawn = random.zipf(SKEW, 1 if is_users else np.count_nonzero(place_T == place))
        ids = drawn % prod(DISTINCT[column] for column in feature.columns)
        keys_T[place_T == place] = pack(feature.number, [ids], [sum(feature.bits)])
    return RaggedKeys(keys_T, lengths_NF)


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def spread(name: str, values: list[float], unit: str) -> Figure:
    low, median, high = (round(float(q), 3) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    return Figure(name=name, value=median, unit=unit, bar=None, holds=None, low=low, high=high)


if __name__ == "__main__":
    main()
