"""What growth costs at worst, and what comes back when rows have expired."""

from __future__ import annotations

import mmap
import os
from functools import partial
from pathlib import Path

import numpy as np
from document import Figure
from numpy.typing import NDArray

from table.ids import universe_keys
from table.limit import HUGE_PAGE
from table.maps import plain
from table.subjects import embedding_table, fill, key_map
from table.timing import each_seconds

PAUSE_BAR_MS, RELEASE_BAR = 20.0, 0.25


def growth_figures(from_keys: int, to_keys: int) -> list[Figure]:
    """The longest call while a map grows by 1,000 new keys a call."""
    table = key_map(None)
    fill(table, universe_keys(from_keys))
    worst_ms, load = [], []
    for begin in range(from_keys, to_keys, 1_000_000):
        keys_K = universe_keys(1_000_000, first=begin).reshape(-1, 1000)
        took = each_seconds([partial(table.admit, keys_N, event_time_s=1) for keys_N in keys_K])
        worst_ms += [float(took.max()) * 1e3]
        load.append(12 * len(table) / (table.memory().bytes_index * 60 / 64))
    size = f"{from_keys // 1_000_000}M_to_{to_keys // 1_000_000}M"
    touch_ms = huge_page_ms(len(worst_ms) + 16)
    return [
        plain(f"growth_{size}_longest_call", max(worst_ms), "ms", bar=f"<= {PAUSE_BAR_MS}"),
        plain(f"growth_{size}_highest_load_seen", max(load), "ratio"),
        plain(f"growth_{size}_index_bytes_per_key", table.memory().bytes_index / len(table), "B"),
        plain(f"growth_{size}_99_percent_of_millions_within", float(np.quantile(worst_ms, 0.99)), "ms"),
        plain("first_touch_of_a_huge_page_median", float(np.median(touch_ms)), "ms"),
        plain("first_touch_of_a_huge_page_longest", float(np.max(touch_ms)), "ms"),
    ]


def huge_page_ms(pages: int) -> NDArray[np.float64]:
    """How long the first byte of each of so many fresh huge pages takes: no growth is quicker."""
    with mmap.mmap(-1, (pages + 1) * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        touches = [partial(memory.__setitem__, page * HUGE_PAGE, 1) for page in range(1, pages + 1)]
        return each_seconds(touches) * 1e3


def release_figures(n_rows: int, dim: int) -> list[Figure]:
    """Resident memory beyond what the process had before the table, at the peak and after ``compact``."""
    keys_K = universe_keys(n_rows)
    before = resident_bytes()
    table = embedding_table(dim, max_idle_s=3600)
    fill(table, keys_K, event_time_s=1)
    fill(table, np.ascontiguousarray(keys_K[::10]), event_time_s=3000)
    table.admit(keys_K[:1], event_time_s=4000)
    peak = resident_bytes() - before
    while table.sweep(1 << 20):
        pass
    table.compact()
    left = resident_bytes() - before
    kept = float(table.contains(np.ascontiguousarray(keys_K[::10])).mean())
    return [
        plain("resident_after_90_percent_expired", left / peak, "ratio", bar=f"<= {RELEASE_BAR}"),
        plain("resident_peak", peak / 2**20, "MiB"),
        plain("rows_kept_of_those_seen_late", kept, "ratio", bar="== 1"),
    ]


def resident_bytes() -> int:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
