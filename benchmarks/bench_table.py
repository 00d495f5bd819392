"""Time the table against what memory allows and against its peers; print one JSON document.

    OMP_NUM_THREADS=1 python benchmarks/bench_table.py [--quick] [--only PART]

Every ratio is of arms that took turns in this run; ``low`` and ``high`` are quartiles over the turns.
docs/benchmarks.md tells what each figure means.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from document import Figure, print_document
from table.growth import growth_figures, release_figures
from table.maps import lookup_figures, lost_figures, thread_figures, upsert_figures
from table.module_speed import module_figures
from table.readers import reader_figures
from table.row_lookups import row_figures
from table.snapshot_speed import disk_figures, learning_figures
from table.tier_speed import tier_figures

from recsys.table.native import NativeTable

M = 1_000_000
LARGEST_WITH_PEERS = 16 * M
Part = Callable[[], list[Figure]]

one_thread = partial(NativeTable, threads=1)


def parts(*, is_quick: bool) -> dict[str, list[Part]]:
    """What is measured, by name; each part frees what it built before the next begins."""
    repeats = 3 if is_quick else 7
    sizes = [M] if is_quick else [M, 16 * M, 64 * M]
    few = M // 5 if is_quick else M
    return {
        "find": [
            partial(lookup_figures, n, with_peers=n <= LARGEST_WITH_PEERS, repeats=repeats) for n in sizes
        ],
        "rows": [partial(row_figures, M if is_quick else 10 * M, dim, repeats=repeats) for dim in (16, 64)],
        "step": [step for dim in (16, 64) for step in steps(dim, is_quick=is_quick)],
        "upsert": [
            *[partial(upsert_figures, n, with_peers=n == M, repeats=repeats) for n in sizes],
            partial(lost_figures, 100_000),
        ],
        "threads": [partial(thread_figures, M if is_quick else 16 * M, repeats=repeats)],
        "growth": [partial(growth_figures, M, (2 if is_quick else 64) * M)],
        "readers": [partial(reader_figures, M, 300 if is_quick else 1500)],
        "memory": [partial(release_figures, (1 if is_quick else 10) * M, 16)],
        "snapshot": [
            in_a_folder(partial(disk_figures, one_thread, rows=few, repeats=repeats)),
            in_a_folder(partial(learning_figures, one_thread, rows=few, repeats=repeats)),
        ],
        "tier": [in_a_folder(partial(tier_figures, one_thread, rows=few // 10, repeats=2))],
    }


def steps(dim: int, *, is_quick: bool) -> list[Part]:
    """One table of a million rows under small and large batches, and 26 tables, smaller ones at dim 64."""
    rows_of_26 = 100_000 if is_quick else (M if dim == 16 else M // 4)
    step = partial(module_figures, dim=dim, draw="zipf", repeats=3 if is_quick else 7)
    return [
        partial(step, n_rows=M, n_features=1, n_ids=4096, n_batches=64),
        partial(step, n_rows=M, n_features=1, n_ids=65_536, n_batches=8),
        partial(step, n_rows=rows_of_26, n_features=26, n_ids=4096, n_batches=4),
    ]


def in_a_folder(measure: Callable[..., list[Figure]]) -> Part:
    """Give ``measure`` a folder that is dropped afterwards."""

    def run() -> list[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            return measure(folder=Path(folder))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small tables: under 45 s instead of 10 min")
    parser.add_argument("--only", metavar="PART", help="one part: " + ", ".join(parts(is_quick=True)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = parts(is_quick=arguments.quick)
    if arguments.only is not None:
        chosen = {arguments.only: chosen[arguments.only]}
    figures: list[Figure] = []
    for name, measures in chosen.items():
        begun = time.perf_counter()
        for measure in measures:
            figures += measure()
            gc.collect()
        print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
    print_document("table", figures, seeds=[0, 3, 5, 6, 7, 11, 21, 22])


if __name__ == "__main__":
    main()
