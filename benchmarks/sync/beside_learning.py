"""What a seal a second leaves of the rate of learning, and what it holds and takes."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from document import Figure

from infra.broker import EmbeddedBroker
from recsys.features import RaggedKeys
from recsys.ranking.learner import RankingLearner
from streaming.kafka import KafkaConfig, KafkaSink, create_topics
from streaming.topics import ALL_TOPICS
from sync.subjects import (
    MIB,
    MICRO_BATCH,
    N_FEATURES,
    SEED,
    UPDATES,
    keys_of,
    learn,
    milliseconds,
    new_learner,
    one,
    seal,
    spread,
    sync_of,
    teach,
)
from training.sync import DeltaSync


def training_figures(turns: int) -> list[Figure]:
    """What is left of the rate of learning beside a seal a second, followed keys included."""
    random = np.random.default_rng(SEED)
    batches = [keys_of(MICRO_BATCH, random) for _ in range(2_000)]
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        sink = KafkaSink(KafkaConfig(bootstrap=broker.bootstrap))
        alone, synced = new_learner(batches), new_learner(batches)
        sync = sync_of(synced, sink, "fp32")
        seal(sync)
        rates: dict[str, list[float]] = {"alone": [], "synced": []}
        sealing_ms, rows, turned = [], sync.rows_sent, sync.bytes_sent
        for turn in range(turns):
            for name in sorted(rates, reverse=bool(turn % 2)):
                if name == "alone":
                    rates[name].append(learn_for(2.0, alone, batches))
                else:
                    rates[name].append(learn_for(2.0, synced, batches, sync, sealing_ms))
        seals, rows, turned = len(sealing_ms), sync.rows_sent - rows, sync.bytes_sent - turned
        paced_ms = []
        for _ in range(2 * turns):
            teach(synced, random)
            paced_ms.append(milliseconds(partial(seal, sync)))
        sink.close()
    kept = [with_it / without for with_it, without in zip(rates["synced"], rates["alone"], strict=True)]
    updates = [rate * N_FEATURES for rate in rates["synced"]]
    per_seal = rows / seals
    paced_kept = [1 - took / 1000 for took in paced_ms]
    return [
        spread(f"training_rate_kept_at_{UPDATES}_per_s", paced_kept, "ratio", bar=(">=", 0.9)),
        spread(f"training_seal_at_{UPDATES}_per_s", paced_ms, "ms"),
        spread("training_rate_kept_at_full_speed", kept, "ratio"),
        spread("training_updates_at_full_speed", updates, "updates/s"),
        spread("training_seal_at_full_speed", sealing_ms, "ms"),
        one("training_rows_per_seal_at_full_speed", per_seal, "rows"),
        one("training_touched_share_at_full_speed", per_seal / float(np.median(updates)), "rows/update"),
        one("training_bytes_per_seal_at_full_speed", turned / seals / MIB, "MiB"),
    ]


def learn_for(
    seconds: float,
    learner: RankingLearner,
    batches: list[RaggedKeys],
    sync: DeltaSync | None = None,
    sealing_ms: list[float] | None = None,
) -> float:
    """Examples a second, learned for so long, sealed at the end of each second."""
    begun = sealed = time.perf_counter()
    learned = 0
    while True:
        learn(learner, batches[learned // MICRO_BATCH % len(batches)])
        learned += MICRO_BATCH
        now = time.perf_counter()
        if sync is not None and sealing_ms is not None and now - sealed >= min(1.0, seconds / 2):
            seal(sync)
            sealed = time.perf_counter()
            sealing_ms.append(1e3 * (sealed - now))
        if time.perf_counter() - begun >= seconds:
            return learned / (time.perf_counter() - begun)
