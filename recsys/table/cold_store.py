"""Whole rows of a table on disk, in RocksDB: what a TieredTable keeps of its rows that have long been idle.

A key is 8 bytes, big-endian, so that RocksDB's order is that of the numbers. A value is a row's weights and
state as float32, then last_seen_s and count as uint32, all little-endian. One more key, a single zero
byte, which stands before all others, holds what the rows belong to.

Axes: N keys of one call, R rows found, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch

from recsys.errors import ConfigError, SnapshotError
from recsys.table.rows import rows_at
from recsys.table.spec import TableSpec
from recsys.table.table import Keys, Mask, TableRows

_OWNER = b"\0"
_FORMAT = 1
_FIRST_KEY = bytes(8)
_BEYOND_KEYS = b"\xff" * 9
_WRITE_BUFFER_BYTES = 16 << 20
_BLOOM_BITS = 10
"""A key that is not there costs a disk read in one of a hundred cases."""


class ColdStore:
    """Rows under 64-bit keys in a folder. One thread at a time; one open store per folder.

    What ``put`` and ``delete`` have returned from survives the death of the process: it is in the
    write-ahead log. What survives the loss of power is up to when the system wrote that log out.
    """

    def __init__(self, path: Path, spec: TableSpec, *, cache_bytes: int = 64 << 20) -> None:
        """Open the folder, making it if need be, for rows of ``spec``, and count its rows (3 million/s).

        ``cache_bytes`` (>= 0) of memory hold blocks that were read lately. Raises SnapshotError if the
        folder has rows of another spec, and what RocksDB raises if it cannot open it.
        """
        if cache_bytes < 0:
            raise ConfigError(f"cache_bytes must be >= 0, got {cache_bytes}")
        self._path, self._spec = path, spec
        self._row = np.dtype(
            [
                ("weights", "<f4", (spec.dim,)),
                ("state", "<f4", (spec.state_dim,)),
                ("last_seen_s", "<u4"),
                ("count", "<u4"),
            ]
        )
        self._cache = Cache(cache_bytes)
        self._db = Rdict(str(path), _options(self._cache))
        self._claim()
        self._n_rows = sum(len(keys_N) for keys_N in self._key_chunks())

    @property
    def spec(self) -> TableSpec:
        """Whose rows these are."""
        return self._spec

    def __len__(self) -> int:
        """Number of rows."""
        return self._n_rows

    def get(self, keys_N: Keys) -> tuple[Mask, TableRows]:
        """Which keys have a row, (N,), and those rows, in the order of the call."""
        values = self._values(keys_N)
        found_N = np.array([value is not None for value in values], dtype=np.bool_)
        return found_N, self._rows(keys_N[found_N], [value for value in values if value is not None])

    def contains(self, keys_N: Keys) -> Mask:
        """Which keys have a row, (N,)."""
        return np.array([value is not None for value in self._values(keys_N)], dtype=np.bool_)

    def put(self, rows: TableRows) -> None:
        """Store rows whose distinct keys have none yet, all of them or none."""
        rows = rows_at(rows, np.argsort(rows.keys_N))  # RocksDB takes them faster in its own order
        content_R = np.empty(len(rows.keys_N), dtype=self._row)
        content_R["weights"], content_R["state"] = rows.weights_ND, rows.state_NS
        content_R["last_seen_s"], content_R["count"] = rows.last_seen_s_N, rows.count_N
        values = content_R.view(f"V{self._row.itemsize}").tolist()
        batch = WriteBatch(raw_mode=True)
        for key, value in zip(_to_bytes(rows.keys_N), values, strict=True):
            batch.put(key, value)
        self._db.write(batch)
        self._n_rows += len(rows.keys_N)

    def delete(self, keys_N: Keys) -> None:
        """Drop the rows of distinct keys, which must be there, all of them or none."""
        batch = WriteBatch(raw_mode=True)
        for key in _to_bytes(keys_N):
            batch.delete(key)
        self._db.write(batch)
        self._n_rows -= len(keys_N)

    def keys(self) -> Keys:
        """All keys, ascending."""
        return np.concatenate([np.empty(0, dtype=np.uint64), *self._key_chunks()])

    def scan(self, first_key: int, max_rows: int) -> tuple[TableRows, int]:
        """Rows by ascending key, from ``first_key`` on, and the key to go on from; 0 when all were seen."""
        pairs: list[tuple[Any, bytes]] = list(
            islice(self._db.items(from_key=first_key.to_bytes(8, "big")), max_rows)
        )
        rows = self._rows(_from_bytes([key for key, _ in pairs]), [value for _, value in pairs])
        if len(pairs) < max_rows:
            return rows, 0
        return rows, (int(rows.keys_N[-1]) + 1) % (1 << 64)

    def clear(self) -> None:
        """Drop all rows, and give their disk space back."""
        if self._n_rows:
            self._db.delete_range(_FIRST_KEY, _BEYOND_KEYS)
            self._db.compact_range(None, None)
            self._n_rows = 0

    def close(self) -> None:
        """Write out what is in memory. The store cannot be used afterwards."""
        self._db.close()

    def bytes_on_disk(self) -> int:
        """Size of all files in the folder, logs and rows that are yet to be compacted away included."""
        return sum(file.stat().st_size for file in self._path.iterdir())

    def bytes_in_memory(self) -> int:
        """What RocksDB holds: cached blocks, rows yet to be written out, indexes and filters."""
        names = ("rocksdb.cur-size-all-mem-tables", "rocksdb.estimate-table-readers-mem")
        held: int = self._cache.get_usage() + sum(self._db.property_int_value(name) or 0 for name in names)
        return held

    def _claim(self) -> None:
        wanted = _FORMAT.to_bytes(4, "little") + self._spec.fingerprint.to_bytes(8, "little")
        found = self._db.get(_OWNER)
        if found is None and next(iter(self._db.keys()), None) is None:
            self._db[_OWNER] = found = wanted
        if found != wanted:
            self._db.close()
            raise SnapshotError(
                f"{self._path} belongs to {'nobody' if found is None else found.hex()}, want {wanted.hex()} "
                f"(table {self._spec.name!r}); open it with the spec it was made for, or another folder"
            )

    def _values(self, keys_N: Keys) -> list[bytes | None]:
        return cast("list[bytes | None]", self._db[_to_bytes(keys_N)])

    def _rows(self, keys_R: Keys, values: list[bytes]) -> TableRows:
        content = b"".join(values)
        if any(len(value) != self._row.itemsize for value in values):
            raise SnapshotError(
                f"{self._path} has {len(content)} bytes for {len(values)} rows of {self._row.itemsize}; "
                "it is damaged: remove it and restore a snapshot"
            )
        content_R = np.frombuffer(content, dtype=self._row)
        return TableRows(
            keys_N=keys_R,
            weights_ND=np.ascontiguousarray(content_R["weights"], dtype=np.float32),
            state_NS=np.ascontiguousarray(content_R["state"], dtype=np.float32),
            last_seen_s_N=content_R["last_seen_s"].astype(np.uint32),
            count_N=content_R["count"].astype(np.uint32),
        )

    def _key_chunks(self) -> Iterator[Keys]:
        keys = self._db.keys(from_key=_FIRST_KEY)
        while chunk := list(islice(keys, 65_536)):
            yield _from_bytes(chunk)


def _options(cache: Cache) -> Options:
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(_BLOOM_BITS, block_based=False)
    blocks.set_block_cache(cache)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.none())  # weights look random
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(1)
    return options


def _to_bytes(keys_N: Keys) -> list[Any]:
    as_bytes: list[Any] = keys_N.astype(">u8").view("V8").tolist()
    return as_bytes


def _from_bytes(keys: list[Any]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(keys), dtype=">u8").astype(np.uint64)
