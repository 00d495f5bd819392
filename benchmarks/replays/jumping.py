"""Streams in which a domain's distribution jumps, and how far a learner then is from where it should be.

Each stream comes twice: with the jump, and as if the new state had always been. From the jump on both hold
the same rows, so what one learner knows less than the other is what the jump cost, and nothing else.

Axes: N rows of a stream, P rows of a probe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.datasets.examples import examples_of
from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.synthetic import Jump, syn2
from infra.multidomain.arms import ARMS
from infra.multidomain.data import DAY_MS, KUAIRAND_TABS, UTC_OFFSET_MS
from infra.recipes.kuairand import SCHEMA
from infra.recipes.recipe import wide_and_vector
from recsys.evaluation.ranking_metrics import auc
from recsys.features import FeatureSchema, RaggedKeys
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.tower import MultiDomainConfig
from recsys.ranking.learner import RankingLearner
from recsys.table.native import NativeTable
from training.epochs import predict_rows
from training.micro_batches import micro_batches

Floats = NDArray[np.float32]

MICRO_BATCH, VECTOR_DIM = 64, 8
JUMPED_DOMAIN = 1


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows in the order in which they are learned."""

    keys: RaggedKeys
    label_N: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Jumping:
    """A stream with a jump, the same as if its new state had always been, and rows to probe with."""

    name: str
    jumped: Rows
    always: Rows
    at_row: int
    probe: Rows
    """Of the new state, and of the domains that jumped only; in neither stream."""
    tower: MultiDomainConfig
    hidden: tuple[int, ...]


def synthetic_jump(n_rows: int, n_probe: int) -> Jumping:
    """syn2 in which one domain's likeliest latent becomes the next one half way."""
    at_row = n_rows // 2
    # Twelve domains: so many more rows hold as many of the one as the probe wants.
    n_all = n_rows + 12 * n_probe
    jumped, always = (syn2(n_rows=n_all, jump=Jump(domain=JUMPED_DOMAIN, at_row=at)) for at in (at_row, 0))
    probe = np.flatnonzero((always.domain_N == JUMPED_DOMAIN) & (np.arange(n_all) >= n_rows))
    stream = np.arange(n_rows)
    return Jumping(
        "synthetic",
        Rows(jumped.keys.take(stream), jumped.label_N[:n_rows]),
        Rows(always.keys.take(stream), always.label_N[:n_rows]),
        at_row,
        Rows(always.keys.take(probe), always.label_N[probe]),
        _tower(jumped.schema, "domain", tuple(range(1, 13)), wide=False),
        (16,),
    )


def kuairand_jump(folder: Path, tabs: tuple[int, int]) -> Jumping:
    """KuaiRand's clicks, two tabs taken for each other from half way on; the last day is the probe."""
    dataset = load_kuairand(folder)
    log = dataset.log
    rows = log.distinct_rows()
    day_N = (log.event_time_ms_N[rows] + UTC_OFFSET_MS) // DAY_MS
    in_stream = day_N < day_N.max()
    stream, last = rows[in_stream], rows[~in_stream]
    at_row = len(stream) // 2
    domain_N = log.domain_index_N
    first, second = (tab + 1 for tab in tabs)
    swapped_N = np.where(domain_N == first, second, np.where(domain_N == second, first, domain_N))
    half_N = np.where(np.arange(len(stream)) < at_row, domain_N[stream], swapped_N[stream])
    probe = last[np.isin(domain_N[last], (first, second))]

    def keys_of(places: NDArray[np.int64], domain: NDArray[np.int64]) -> RaggedKeys:
        columns = dataset.columns(
            log.user_id_N[places], log.item_id_N[places], domain, log.event_time_ms_N[places]
        )
        return SCHEMA.encode(columns, len(places))

    label_N = examples_of(dataset, SCHEMA, rows=stream).label_B
    return Jumping(
        f"kuairand_tabs_{tabs[0]}_{tabs[1]}",
        Rows(keys_of(stream, half_N), label_N),
        Rows(keys_of(stream, swapped_N[stream]), label_N),
        at_row,
        Rows(keys_of(probe, swapped_N[probe]), examples_of(dataset, SCHEMA, rows=probe).label_B),
        _tower(SCHEMA, "tab", tuple(tab + 1 for tab in KUAIRAND_TABS), wide=True),
        (64, 32),
    )


def _tower(schema: FeatureSchema, domain: str, values: tuple[int, ...], *, wide: bool) -> MultiDomainConfig:
    place = schema.names.index(domain)
    return MultiDomainConfig(
        n_features=len(schema.features),
        vector_dim=VECTOR_DIM,
        domains=FeatureDomains(feature=place, values=values),
        domain_feature=place,
        net=SingleNetConfig(),
        wide=wide,
    )


@dataclass(frozen=True, slots=True)
class Curve:
    """Probe AUC after so many events since the jump, with it and as if it had always been."""

    events: list[int]
    jumped: list[float]
    always: list[float]

    @property
    def deficit(self) -> NDArray[np.float64]:
        """What the jump still costs, in AUC."""
        return np.array(self.always) - np.array(self.jumped)


def curve_of(data: Jumping, arm: str, seed: int, looks: list[int]) -> Curve:
    """Learn both streams once, and probe after each of ``looks`` events since the jump."""
    jumped, always = (
        _probed(data, _learner(data, arm, seed), looks, rows) for rows in (data.jumped, data.always)
    )
    return Curve(looks, jumped, always)


def _probed(data: Jumping, learner: RankingLearner, looks: list[int], rows: Rows) -> list[float]:
    found, waiting = [], [data.at_row + events for events in looks]
    for piece, part in micro_batches(rows.keys, MICRO_BATCH):
        while waiting and part.start >= waiting[0]:
            found.append(auc(predict_rows(learner, data.probe.keys)[:, 0], data.probe.label_N))
            waiting.pop(0)
        if not waiting:
            break
        learner.learn(piece, rows.label_N[part], event_time_s=1)
    # A look that falls into the last piece is taken at the end.
    found += [auc(predict_rows(learner, data.probe.keys)[:, 0], data.probe.label_N) for _ in waiting]
    return found


def _learner(data: Jumping, arm: str, seed: int) -> RankingLearner:
    tower = replace(data.tower, net=ARMS[arm].make(data.hidden, 1.0), seed=seed)
    spec = replace(wide_and_vector(data.name, dim=VECTOR_DIM, wide_rate=0.05, vector_rate=0.05), seed=seed)
    pooling = {f"feature_{place}": "mean" for place in range(tower.n_features)}
    return RankingLearner(NativeTable(spec, threads=1), tower, pooling)  # type: ignore[arg-type]


def recovered_after(events: list[int], deficit: NDArray[np.float64], tolerance: float) -> float:
    """Events after which the deficit is within the tolerance, and stays so; infinite where it never is.

    Between two looks it is taken for a straight line.
    """
    above = np.flatnonzero(deficit > tolerance)
    if not len(above):
        return 0.0
    last = int(above[-1])
    if last + 1 == len(deficit):
        return float("inf")
    share = (deficit[last] - tolerance) / (deficit[last] - deficit[last + 1])
    return events[last] + float(share) * (events[last + 1] - events[last])
