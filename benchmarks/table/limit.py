"""What memory allows: the rate of prefetched random gathers that touch what an operation must touch.

The C++ beside this file is compiled for the machine when it is first needed. Axes: B batches of N keys,
L index lines a key.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.hashing import mix64_each
from table.ids import Ids
from table.timing import Call, seconds

Places = NDArray[np.uint32]

LINE = 64
HUGE_PAGE = 1 << 21
INDEX_BYTES_PER_KEY = 13.5
SECOND_ARRAY = 0x5EED
"""Salt of the rows' places, which must not follow from the index lines."""
ROUNDS = 3
PREFETCHES = [(0, 0), *((distance, level) for level in (0, 1) for distance in (16, 32, 48, 64, 128, 256))]
"""(distance in keys, into the second-level cache only): the fastest is kept."""


class Job(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_void_p),
        ("lines", ctypes.c_void_p),
        ("lines_per_key", ctypes.c_size_t),
        ("rows", ctypes.c_void_p),
        ("places", ctypes.c_void_p),
        ("lines_per_row", ctypes.c_size_t),
        ("out", ctypes.c_void_p),
        ("n", ctypes.c_size_t),
        ("distance", ctypes.c_uint32),
        ("into_l2", ctypes.c_uint32),
    )


class Memory:
    """Bytes on huge pages, all written to, unmapped with this object. Any number of readers."""

    def __init__(self, size: float) -> None:
        self.size = -(-int(size) // HUGE_PAGE) * HUGE_PAGE
        self.at = library().limit_map(self.size)
        if self.at is None:
            raise MemoryError(f"no {self.size:,} bytes to measure the limit on")

    def __del__(self) -> None:
        if getattr(self, "at", None) is not None:
            library().limit_unmap(self.at, self.size)


class Limit:
    """Gathers from an index of a footprint, from rows, or from both. One caller at a time.

    Give ``prepare`` the batches of a measurement; it finds the fastest prefetch for them.
    """

    def __init__(self, *, index_bytes: float = 0, n_rows: int = 0, dim: int = 16, threads: int = 1) -> None:
        if dim not in (16, 32, 64, 128) or threads not in (1, 2):
            raise ValueError(f"want dim 16, 32, 64 or 128 and 1 or 2 threads; got {dim} and {threads}")
        self._index = Memory(index_bytes) if index_bytes else None
        self._rows = Memory(n_rows * dim * 4) if n_rows else None
        self._n_rows, self._dim = n_rows, dim
        self._run = library().limit_run if threads == 1 else library().limit_run_by_two

    def prepare(self, ids_BN: Ids, *, lines_per_key: int = 1) -> list[Call]:
        """One call for each batch: reads the index lines of its keys and copies out their rows.

        A key always has the same lines and row, so frequent keys are as warm here as in a table. Where it
        found most of its keys in their first bucket, a table has to read 1 line a key; for a miss, 2.
        """
        if lines_per_key not in (1, 2):
            raise ValueError(f"lines_per_key must be 1 or 2, got {lines_per_key}")
        out_ND = np.zeros((ids_BN.shape[1], self._dim if self._rows else 0), dtype=np.float32)
        jobs = [self._job(ids_N, lines_per_key, out_ND) for ids_N in ids_BN]
        calls: list[Call] = [partial(self._run, ctypes.byref(job)) for job in jobs]
        took = {prefetch: _took(jobs, calls, prefetch) for prefetch in PREFETCHES}
        self.prefetch = min(took, key=took.__getitem__)
        _set(jobs, self.prefetch)
        return calls

    def _job(self, ids_N: Ids, lines_per_key: int, out_ND: NDArray[np.float32]) -> Job:
        job = Job(lines_per_key=lines_per_key, lines_per_row=self._dim * 4 // LINE, n=len(ids_N))
        if self._index is not None:
            lines_NL = lines_of(ids_N, self._index.size // LINE, lines_per_key)
            job.index, job.lines = self._index.at, lines_NL.ctypes.data
            job.keeps_lines = lines_NL
        if self._rows is not None:
            places_N = lines_of(ids_N ^ np.uint64(SECOND_ARRAY), self._n_rows, 1)
            job.rows, job.places, job.out = self._rows.at, places_N.ctypes.data, out_ND.ctypes.data
            job.keeps_places, job.keeps_out = places_N, out_ND
        return job


def lines_of(ids_N: Ids, n_lines: int, lines_per_key: int) -> Places:
    """Lines that the keys hash to, (N, L), each in [0, n_lines); n_lines < 2 ** 32."""
    hash_N = mix64_each(ids_N)
    halves_NL = np.stack([hash_N >> np.uint64(32), hash_N & np.uint64(0xFFFFFFFF)], axis=1)[:, :lines_per_key]
    return np.ascontiguousarray((halves_NL * np.uint64(n_lines)) >> np.uint64(32), dtype=np.uint32)


@functools.cache
def library() -> ctypes.CDLL:
    """The gathers, compiled for this machine into a folder that lives as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="table-limit-")
    built = Path(folder.name) / "limit.so"
    source = Path(__file__).with_suffix(".cpp")
    options = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["g++", *options, "-o", str(built), str(source)], check=True)
    loaded = ctypes.CDLL(str(built))
    loaded.keeps_folder = folder
    loaded.limit_map.restype = ctypes.c_void_p
    loaded.limit_map.argtypes = [ctypes.c_size_t]
    loaded.limit_unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    for run in (loaded.limit_run, loaded.limit_run_by_two):
        run.restype = ctypes.c_uint64
    return loaded


def _took(jobs: Sequence[Job], calls: Sequence[Call], prefetch: tuple[int, int]) -> float:
    _set(jobs, prefetch)
    return min(seconds(calls) for _ in range(ROUNDS))


def _set(jobs: Sequence[Job], prefetch: tuple[int, int]) -> None:
    for job in jobs:
        job.distance, job.into_l2 = prefetch
