"""Scoring times of an AdaptDHM beside a DeepFM of the same widths, over the features of KuaiRand.

A request is one user's: what is the user's or the request's is the same for all candidates. ``adapt`` routes
by all features, so that a request's rows share one or two clusters; ``adapt_split`` routes by those of the
video alone, which spreads each request over all of them, the dearest case.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from document import Figure
from sync.subjects import spread

from infra.recipes.kuairand import SCHEMA
from infra.recipes.recipe import wide_and_vector
from recsys.features import RaggedKeys
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.tower import MultiDomainConfig
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.ranking.tower import TowerConfig
from recsys.table.native import NativeTable

SEED, SKEW, CANDIDATES, DIM = 0, 1.1, 200, 8
HISTORY = {"watched": 10, "long_watched": 10}
OF_ITEM = ("video", "tag", "duration", "video_tab")
IDS = {"user": 27_000, "video": 7_500, "watched": 7_500, "long_watched": 7_500, "video_tab": 30_000, "tab": 5}
FEW_IDS = 30
NAMES = SCHEMA.names
BAR = ("<=", 1.15)


def serving_figures(hidden: tuple[int, ...], rounds: int) -> list[Figure]:
    """Times of single calls, interleaved, and the ratios of their quantiles round by round."""
    random = np.random.default_rng(SEED)
    scorers = {name: scorer_of(tower) for name, tower in towers(hidden).items()}
    requests = [keys_of(CANDIDATES, random, one_user=True) for _ in range(200)]
    quantiles: dict[str, list[tuple[float, float]]] = {name: [] for name in scorers}
    for number in range(-1, rounds):
        took_ms: dict[str, list[float]] = {name: [] for name in scorers}
        for request in requests:
            for name, scorer in scorers.items():
                begun = time.perf_counter()
                scorer.score(request)
                took_ms[name].append(1e3 * (time.perf_counter() - begun))
        if number >= 0:
            for name, values in took_ms.items():
                quantiles[name].append((np.quantile(values, 0.5), np.quantile(values, 0.99)))
        print(f"serving {hidden}: round {number}", file=sys.stderr)
    at = "serving_" + "_".join(map(str, hidden))
    figures = []
    for place, quantile in enumerate(("p50", "p99")):
        by_name = {name: np.array(values)[:, place] for name, values in quantiles.items()}
        figures += [spread(f"{at}.{name}.{quantile}", by_name[name].tolist(), "ms") for name in by_name]
        for name, bar in (("adapt", BAR), ("adapt_split", None), ("single", None)):
            ratio = (by_name[name] / by_name["deepfm"]).tolist()
            figures.append(spread(f"{at}.{name}_over_deepfm.{quantile}", ratio, "ratio", bar=bar))
    return figures


def towers(hidden: tuple[int, ...]) -> dict[str, TowerConfig]:
    clusters = ClusterConfig(warm_up_moves=2)
    of_item = tuple(NAMES.index(name) for name in OF_ITEM)
    nets = {
        "adapt": AdaptDHMConfig(hidden=hidden, clusters=clusters),
        "adapt_split": AdaptDHMConfig(hidden=hidden, clusters=clusters, routing_features=of_item),
        "single": SingleNetConfig(hidden=hidden),
    }
    place = NAMES.index("tab")
    domains = FeatureDomains(feature=place, values=(0, 1, 2, 3, 4))
    of_domains: dict[str, TowerConfig] = {
        name: MultiDomainConfig(
            n_features=len(NAMES), vector_dim=DIM, domains=domains, domain_feature=place, net=net
        )
        for name, net in nets.items()
    }
    return of_domains | {"deepfm": DeepFMConfig(n_features=len(NAMES), vector_dim=DIM, hidden=hidden)}


def scorer_of(tower: TowerConfig) -> RankingScorer:
    """A scorer of a model that has learned long enough for its centres to have started."""
    random, pooling = np.random.default_rng(SEED + 1), dict.fromkeys(NAMES, "mean")
    table = NativeTable(wide_and_vector("bench", dim=DIM, wide_rate=0.05, vector_rate=0.02), threads=1)
    learner = RankingLearner(table, tower, pooling)
    for _ in range(30):
        labels_B = (random.random(512) < 0.5).astype(np.float32)
        learner.learn(keys_of(512, random, one_user=False), labels_B, event_time_s=1)
    return RankingScorer(table, tower, pooling, learner.dense_weights())


def keys_of(n: int, random: np.random.Generator, *, one_user: bool) -> RaggedKeys:
    """Keys of ``n`` rows under a Zipf law of each feature's ids."""
    parts, lengths_NF = [], np.ones((n, len(NAMES)), np.uint8)
    for place, feature in enumerate(SCHEMA.features):
        length = HISTORY.get(feature.name, 1)
        n_drawn = 1 if one_user and feature.name not in OF_ITEM else n
        ids = random.zipf(SKEW, (n_drawn, length)).astype(np.uint64) % np.uint64(
            IDS.get(feature.name, FEW_IDS)
        )
        parts.append(np.broadcast_to(ids + (np.uint64(feature.number) << np.uint64(52)), (n, length)))
        lengths_NF[:, place] = length
    return RaggedKeys(np.concatenate(parts, axis=1).ravel(), lengths_NF)
