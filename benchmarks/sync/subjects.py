"""A learner, its sync and a replica of it, of the MovieLens recipe under a Zipf law of keys."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from document import Figure

from infra.recipes.movielens import movielens
from infra.wiring.recipes import make_scorer, make_table
from recsys.features import RaggedKeys
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest, write_snapshot
from serving.replica import ApplyOutcome, Replica
from streaming.deltas import DeltaPublisher, decode_delta
from streaming.row_codecs import CodecName
from streaming.sink import EventSink
from training.sync import DeltaSync, SyncConfig

SEED = 0
RECIPE = movielens()
N_FEATURES = len(RECIPE.schema.features)
IDS, SKEW = 200_000, 1.1
MICRO_BATCH = 64
UPDATES = 20_000
EXAMPLES = UPDATES // N_FEATURES
MIB = 2**20


def keys_of(n: int, random: np.random.Generator) -> RaggedKeys:
    """Keys of ``n`` rows, one a feature, under a Zipf law over so many ids a feature."""
    ids_NF = random.zipf(SKEW, (n, N_FEATURES)).astype(np.uint64) % np.uint64(IDS)
    keys_NF = ids_NF + (np.arange(N_FEATURES, dtype=np.uint64) << np.uint64(52))
    return RaggedKeys(keys_NF.ravel(), np.ones((n, N_FEATURES), np.uint8))


def new_learner(batches: list[RaggedKeys]) -> RankingLearner:
    """A learner that already knows the frequent keys."""
    learner = RankingLearner(make_table(RECIPE), RECIPE.tower, RECIPE.pooling, RECIPE.adam)
    for batch in batches:
        learn(learner, batch)
    return learner


def learn(learner: RankingLearner, batch: RaggedKeys) -> None:
    labels_B = (batch.keys_T[::N_FEATURES] % 2).astype(np.float32)
    learner.step(batch, labels_B, event_time_s=1)


def teach(learner: RankingLearner, random: np.random.Generator) -> None:
    """Learn so many examples that 20,000 rows are updated, repeats included."""
    for _ in range(EXAMPLES // MICRO_BATCH):
        learn(learner, keys_of(MICRO_BATCH, random))
    learn(learner, keys_of(EXAMPLES % MICRO_BATCH, random))


_moments = itertools.count(1)


def seal(sync: DeltaSync) -> None:
    """One seal that has something new to say."""
    moment = next(_moments)
    if not sync.seal(as_of_ms=moment, sealed_at_ms=moment):
        sys.exit("a seal did not arrive; is the broker there?")


def apply(replica: Replica, values: list[bytes]) -> None:
    outcomes = {replica.apply(decode_delta(value)) for value in values}
    if outcomes != {ApplyOutcome.APPLIED}:
        sys.exit(f"got {outcomes}, wanted every delta applied: {replica.refusal}")


def sync_of(learner: RankingLearner, sink: EventSink, codec: CodecName) -> DeltaSync:
    config = SyncConfig(model=RECIPE.name, incarnation=1, codec=codec)
    return DeltaSync(learner, DeltaPublisher(sink), config)


def replica_of(learner: RankingLearner, sync: DeltaSync, codec: CodecName = "fp32") -> Replica:
    manifest = Manifest(
        model=RECIPE.name,
        incarnation=1,
        table_sequence=sync.table_sequence,
        dense_sequence=sync.dense_sequence,
        delta_position=sync.position(),
        as_of_ms=0,
        examples=0,
        source_offsets={},
        marks={},
        recipe=RECIPE.name,
        schema_fingerprint=RECIPE.schema.fingerprint,
    )
    replica = Replica(partial(make_scorer, RECIPE), RECIPE.schema.fingerprint, codec=codec)
    with tempfile.TemporaryDirectory() as folder:
        replica.load(write_snapshot(Path(folder), manifest, learner.table, learner.dense_state(), {}))
    return replica


def milliseconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begun)


def spread(name: str, values: list[float], unit: str, bar: tuple[str, float] | None = None) -> Figure:
    low, median, high = (round(float(q), 3) for q in np.quantile(values, [0.25, 0.5, 0.75]))
    figure = Figure(name=name, value=median, unit=unit, bar=None, holds=None, low=low, high=high)
    if bar is not None:
        figure["bar"] = f"{bar[0]} {bar[1]:g}"
        figure["holds"] = median >= bar[1] if bar[0] == ">=" else median <= bar[1]
    return figure


def one(name: str, value: float, unit: str) -> Figure:
    return Figure(name=name, value=round(value, 3), unit=unit, bar=None, holds=None, low=None, high=None)
