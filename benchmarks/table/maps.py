"""Key to row: look-ups of keys that are all there or all missing, and inserts into a full map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from document import Figure

from table import peers
from table.ids import UNIVERSES, Ids, key_batches, universe_keys
from table.limit import INDEX_BYTES_PER_KEY, Limit
from table.subjects import fill, key_map
from table.timing import Call, interleaved, rate, ratio

Maps = Mapping[str, peers.IdMap]

BATCH, RIVAL_BATCHES = 16_384, 24
LIMIT_BAR, EVALUATION_BAR, TRAINING_BAR, UPSERT_BAR, THREADS_BAR, BYTES_BAR = 0.6, 10.0, 30.0, 0.5, 1.7, 13.5
HASH_LOAD = 0.75
TRAINING_EVERY = 16


def lookup_figures(n_keys: int, *, with_peers: bool, repeats: int) -> list[Figure]:
    """Rates on a map that is full to its declared capacity, beside the limit and the peers."""
    keys_K = universe_keys(n_keys)
    table = key_map(n_keys)
    fill(table, keys_K)
    limit = Limit(index_bytes=INDEX_BYTES_PER_KEY * n_keys)
    rivals = {"mch": peers.TorchrecSorted(keys_K), "hash_zch": hashed(keys_K)} if with_peers else {}
    others = (
        {"dict": peers.PythonDict(keys_K), "searchsorted": peers.NumpySorted(keys_K)} if with_peers else {}
    )
    size = f"{n_keys // 1_000_000}M"
    figures: list[Figure] = []
    batches = 32 if n_keys <= 1_000_000 else 96
    for draw, first in (("uniform", 0), ("zipf", 0), ("uniform", n_keys)):
        what = f"find_{size}_{'miss' if first else draw}"
        ids_BN = key_batches(draw, (batches, BATCH), n_keys, seed=3, first=first)
        arms: dict[str, list[Call]] = {
            "ours": [partial(table.row_numbers, ids_N) for ids_N in ids_BN],
            "limit": limit.prepare(ids_BN, lines_per_key=2 if first else 1),
        }
        took = interleaved(arms, repeats)
        figures.append(rate(what, ids_BN.size, took["ours"]))
        figures.append(rate(f"{what}_limit", ids_BN.size, took["limit"]))
        figures.append(ratio(f"{what}_vs_limit", took["ours"], took["limit"], bar=LIMIT_BAR))
        figures += rival_figures(
            what, table.row_numbers, rivals, others, ids_BN[:RIVAL_BATCHES], repeats=repeats
        )
    memory = table.memory()
    figures.append(
        plain(f"index_bytes_per_key_{size}", memory.bytes_index / n_keys, "B", bar=f"<= {BYTES_BAR}")
    )
    metadata = (memory.bytes_live / n_keys) - table.spec.row_bytes
    figures.append(plain(f"metadata_bytes_per_key_{size}", metadata, "B"))
    return figures


def rival_figures(
    what: str, find: Callable, rivals: Maps, others: Maps, ids_BN: Ids, *, repeats: int
) -> list[Figure]:
    """How many times the rate of each other map ours has; the bar is on the faster of torchrec's."""
    if not rivals:
        return []
    arms = {"ours": [partial(find, ids_N) for ids_N in ids_BN]}
    arms |= {name: rival.calls(ids_BN) for name, rival in (rivals | others).items()}
    took = interleaved(arms, repeats)
    faster = min(rivals, key=lambda name: float(np.median(took[name])))
    return [
        ratio(f"{what}_vs_{name}", took["ours"], took[name], bar=EVALUATION_BAR if name == faster else None)
        for name in arms
        if name != "ours"
    ]


def hashed(keys_K: Ids) -> peers.TorchrecHashed:
    return peers.TorchrecHashed(keys_K, load=HASH_LOAD)


def upsert_figures(n_keys: int, *, with_peers: bool, repeats: int) -> list[Figure]:
    """Zipf ids from a universe larger than the map, which is full: insert, evict, and answer with rows."""
    keys_K = universe_keys(n_keys)
    table, untouched = key_map(n_keys), key_map(n_keys)
    fill(table, keys_K)
    fill(untouched, keys_K)
    ids_BN = key_batches("zipf", (48, BATCH), UNIVERSES[n_keys], seed=5)
    arms: dict[str, list[Call]] = {
        "ours": [partial(table.admit, ids_N, event_time_s=2) for ids_N in ids_BN],
        "find": [partial(untouched.row_numbers, ids_N) for ids_N in ids_BN],
        "lookup": [partial(untouched.lookup, ids_N) for ids_N in ids_BN],
    }
    evicted_before = table.counters().evicted
    took = interleaved(arms, repeats)
    size = f"{n_keys // 1_000_000}M"
    calls = (repeats + 1) * 5 / 4 * ids_BN.size
    figures = [
        rate(f"upsert_{size}_zipf", ids_BN.size, took["ours"]),
        ratio(f"upsert_{size}_vs_lookup", took["ours"], took["lookup"], bar=UPSERT_BAR),
        ratio(f"upsert_{size}_vs_find", took["ours"], took["find"]),
        plain(
            f"upsert_{size}_evictions_per_id", (table.counters().evicted - evicted_before) / calls, "ratio"
        ),
    ]
    if with_peers:
        for every, bar in ((1, TRAINING_BAR), (TRAINING_EVERY, None)):
            rival = peers.TorchrecSortedTraining(keys_K, "lfu", every=every)
            part_BN = ids_BN[:16]
            took = interleaved(
                {
                    "ours": [partial(table.admit, ids_N, event_time_s=3) for ids_N in part_BN],
                    "mch": rival.calls(part_BN),
                },
                max(2, repeats // 2),
            )
            figures.append(
                ratio(f"upsert_{size}_vs_mch_train_every_{every}", took["ours"], took["mch"], bar=bar)
            )
    return figures


def lost_figures(n_keys: int) -> list[Figure]:
    """Keys of a map filled exactly to its capacity that are not found, judged by a dict."""
    table, kept = key_map(n_keys), {}
    for ids_N in key_batches("zipf", (n_keys // 512, 1024), 8 * n_keys, seed=6):
        fresh_N = ids_N[: max(0, n_keys - len(kept))]
        kept |= dict.fromkeys(fresh_N.tolist())
        table.admit(np.ascontiguousarray(fresh_N), event_time_s=1)
    keys_K = np.array(list(kept), dtype=np.uint64)
    lost = int((~table.contains(keys_K)).sum())
    return [plain("keys_lost_below_capacity", lost, "keys", bar="== 0")]


def thread_figures(n_keys: int, *, repeats: int) -> list[Figure]:
    """Two threads against one, ours and a plain random gather."""
    keys_K = universe_keys(n_keys)
    ids_BN = key_batches("uniform", (24, 4 * BATCH), n_keys, seed=7)
    # Its calls hold addresses only, so each limit is kept until they were timed.
    limits = {n: Limit(index_bytes=INDEX_BYTES_PER_KEY * n_keys, threads=n) for n in (1, 2)}
    arms: dict[str, list[Call]] = {}
    for threads, limit in limits.items():
        table = key_map(n_keys, threads=threads)
        fill(table, keys_K)
        arms[f"ours_{threads}"] = [partial(table.row_numbers, ids_N) for ids_N in ids_BN]
        arms[f"limit_{threads}"] = limit.prepare(ids_BN)
    took = interleaved(arms, repeats)
    scales = float(np.median(took["limit_1"] / took["limit_2"])) >= THREADS_BAR
    return [
        ratio("two_threads_gather", took["limit_2"], took["limit_1"]),
        ratio("two_threads_find", took["ours_2"], took["ours_1"], bar=THREADS_BAR if scales else None),
    ]


def plain(name: str, value: float, unit: str, *, bar: str | None = None) -> Figure:
    """One number without a spread."""
    limits = {"<=": lambda b: value <= b, "==": lambda b: value == b, ">=": lambda b: value >= b}
    holds = None if bar is None else bool(limits[bar[:2]](float(bar[3:])))
    return {
        "name": name, "value": round(float(value), 3), "unit": unit, "bar": bar, "holds": holds,
        "low": None, "high": None,
    }  # fmt: skip
