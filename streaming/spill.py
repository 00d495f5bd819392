"""The joiner's on-disk part: windows in RocksDB, the young ones in memory over it.

    "m"                  format, number of windows, ledger of the last commit
    "a" request          a window's bytes: small, written at each commit before which it changed
    "s" request number   one impression of it as it came: large, written once
    "t" due request      its timer; due in order of time, no value

Only a commit writes, in one batch that is synced, so a process that dies leaves its last commit. Windows
that changed since stay in memory; the others may leave it at any time, and nothing of them stays there,
their timers included.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count, takewhile
from pathlib import Path
from typing import TypeVar

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from streaming.errors import StateUnavailable
from streaming.events import decode_shown
from streaming.window_store import NEVER_MS
from streaming.windows import Window, decode_window, encode_window, memory_bytes, parts_of

T = TypeVar("T")

_FORMAT = 1
_META = struct.Struct("<BQ")
_DUE = struct.Struct(">Q")
_NUMBER = struct.Struct(">H")
_EPOCH = 1 << 63
_META_KEY = b"m"
_TIMERS = b"t"
_LONG_AGO_MS = -(1 << 63)
_BLOCK_CACHE_BYTES = 16 << 20
_WRITE_BUFFER_BYTES = 16 << 20
_BLOOM_BITS = 10


class RocksStore:
    """A WindowStore in a folder. One caller at a time; one open store per folder."""

    def __init__(self, path: Path, *, max_timers: int = 20_000) -> None:
        """Open the folder as it was last committed, making it if need be. Raises StateUnavailable.

        About ``max_timers`` that are due soonest are kept in memory.
        """
        self._path, self._max_timers = path, max_timers
        self._db = self._tried(lambda: _opened(path))
        self._max_bytes = 1 << 62
        self._n_windows: int
        self._horizon_ms = self.next_due_ms = NEVER_MS
        self.restore()

    @property
    def n_windows(self) -> int:
        """As WindowStore says."""
        return self._n_windows

    @property
    def n_cached(self) -> int:
        """As WindowStore says."""
        return len(self._changed) + len(self._clean)

    @property
    def wants_commit(self) -> bool:
        """As WindowStore says: they take half the cache."""
        return 2 * self._changed_bytes > self._max_bytes

    def bound_cache(self, max_bytes: int) -> None:
        """As WindowStore says; what has changed since the last commit may exceed it."""
        self._max_bytes = max_bytes

    def get(self, request_id: str) -> Window | None:
        """As WindowStore says."""
        window = self._changed.get(request_id) or self._clean.get(request_id)
        if window is not None or not self._n_saved or request_id in self._removed:
            return window
        return self._load(request_id)

    def put(self, window: Window) -> None:
        """As WindowStore says."""
        request_id = window.request_id
        if request_id not in self._changed:
            if self._clean.pop(request_id, None) is None:
                self._n_windows += 1
                window.cached_bytes = memory_bytes(window)
            else:
                self._clean_bytes -= window.cached_bytes
            self._changed_bytes += window.cached_bytes
            self._changed[request_id] = window
        if window.due_ms != window.armed_ms:
            window.armed_ms = window.due_ms
            heappush(self._timers, (window.due_ms, request_id))
            self.next_due_ms = min(self._timers[0][0], self._horizon_ms)

    def remove(self, window: Window) -> None:
        """As WindowStore says."""
        request_id = window.request_id
        if self._changed.pop(request_id, None) is None:
            del self._clean[request_id]
            self._clean_bytes -= window.cached_bytes
        else:
            self._changed_bytes -= window.cached_bytes
        self._n_windows -= 1
        if window.saved_due_ms is not None:
            self._removed[request_id] = (window.saved_due_ms, window.saved_parts)

    def pop_due(self, watermark_ms: int) -> Window | None:
        """As WindowStore says."""
        found, timers = None, self._timers
        while found is None:
            first_ms = timers[0][0] if timers else NEVER_MS
            if self._horizon_ms <= min(first_ms, watermark_ms):
                self._read_timers()
            elif first_ms > watermark_ms:
                break
            else:
                due_ms, request_id = heappop(timers)
                window = self.get(request_id)
                # A timer outlives its window, and the due time that it was set for.
                if window is not None and window.due_ms == due_ms:
                    found = window
        self.next_due_ms = min(timers[0][0] if timers else NEVER_MS, self._horizon_ms)
        return found

    def commit(self, ledger: bytes, *, keep_from_ms: int) -> None:
        """As WindowStore says. Where it raises StateUnavailable, the commit before stands; or this one
        does, if the disk failed after it: open the folder again to know."""
        batch = WriteBatch(raw_mode=True)
        for request_id, (due_ms, n_parts) in self._removed.items():
            batch.delete(_window_key(request_id))
            batch.delete(_timer_key(due_ms, request_id))
            for number in range(n_parts):
                batch.delete(_shown_key(request_id, number))
        for window in self._changed.values():
            _write(batch, window)
        batch.put(_META_KEY, _META.pack(_FORMAT, self._n_windows) + ledger)
        self._tried(lambda: self._db.write(batch))
        self._n_saved = self._n_windows
        self._removed.clear()
        self._settle(keep_from_ms)
        self._drop_timers()

    def restore(self) -> bytes | None:
        """As WindowStore says."""
        meta: bytes | None = self._tried(lambda: self._db.get(_META_KEY))
        version: int
        version, self._n_windows = (_FORMAT, 0) if meta is None else _META.unpack_from(meta)
        if version != _FORMAT:
            raise StateUnavailable(
                f"{self._path} is joiner state of format {version}, want {_FORMAT}; "
                "start with an empty folder to join the log again"
            )
        self._n_saved = self._n_windows
        self._changed: dict[str, Window] = {}
        self._clean: dict[str, Window] = {}
        self._removed: dict[str, tuple[int, int]] = {}
        self._changed_bytes = self._clean_bytes = 0
        # In memory are all timers due before the horizon, and all that were set since the last commit.
        self._timers: list[tuple[int, str]] = []
        self._horizon_ms = self.next_due_ms = _LONG_AGO_MS if self._n_windows else NEVER_MS
        return None if meta is None else meta[_META.size :]

    def close(self) -> None:
        """As WindowStore says."""
        self._tried(self._db.close)

    def _load(self, request_id: str) -> Window | None:
        value = self._tried(lambda: self._db.get(_window_key(request_id)))
        if value is None:
            return None
        keys = [_shown_key(request_id, number) for number in range(parts_of(value))]
        shown = self._tried(lambda: [decode_shown(self._db[key]) for key in keys])
        window = decode_window(request_id, value, shown)
        window.cached_bytes = memory_bytes(window)
        self._evict(window.cached_bytes)
        self._clean[request_id] = window
        self._clean_bytes += window.cached_bytes
        return window

    def _settle(self, keep_from_ms: int) -> None:
        """After a commit: what had changed may go, the oldest first."""
        for request_id, window in self._changed.items():
            window.saved_due_ms, window.saved_parts = window.due_ms, len(window.parts)
            if window.newest_ms >= keep_from_ms:
                window.cached_bytes = memory_bytes(window)
                self._clean[request_id] = window
                self._clean_bytes += window.cached_bytes
        self._changed.clear()
        self._changed_bytes = 0
        for window in list(takewhile(lambda one: one.newest_ms < keep_from_ms, self._clean.values())):
            self._forget(window)
        self._evict(0)

    def _evict(self, needed_bytes: int) -> None:
        free_bytes = self._max_bytes - needed_bytes
        while self._clean and self._clean_bytes + self._changed_bytes > free_bytes:
            self._forget(next(iter(self._clean.values())))

    def _forget(self, window: Window) -> None:
        del self._clean[window.request_id]
        self._clean_bytes -= window.cached_bytes

    def _read_timers(self) -> None:
        """Take from disk the timers that are due next, all of one due time together."""
        due_ms = self._horizon_ms
        start = _TIMERS + _DUE.pack(due_ms + _EPOCH)
        keys = self._tried(lambda: iter(self._db.keys(from_key=start)))
        for n_read in count():
            key = self._tried(lambda: next(keys, None))
            if key is None:
                break
            before_ms, due_ms = due_ms, _DUE.unpack_from(key, 1)[0] - _EPOCH
            if n_read >= self._max_timers // 2 and due_ms > before_ms:
                self._horizon_ms = due_ms
                return
            heappush(self._timers, (due_ms, key[1 + _DUE.size :].decode()))
        self._horizon_ms = NEVER_MS

    def _drop_timers(self) -> None:
        """After a commit all timers are on disk."""
        if len(self._timers) > self._max_timers:
            self._timers.sort()
            self._horizon_ms = min(self._horizon_ms, self._timers[self._max_timers // 2][0])
        if self._horizon_ms < NEVER_MS:
            # In place, for they may be in use.
            self._timers[:] = sorted(timer for timer in self._timers if timer[0] < self._horizon_ms)
        self.next_due_ms = min(self._timers[0][0] if self._timers else NEVER_MS, self._horizon_ms)

    def _tried(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as error:  # rocksdict raises nothing more special
            raise StateUnavailable(
                f"joiner state in {self._path}: {error}; see to the disk and start again from the last commit"
            ) from error


def _opened(path: Path) -> Rdict:
    path.mkdir(parents=True, exist_ok=True)
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(_BLOOM_BITS, block_based=False)
    blocks.set_block_cache(Cache(_BLOCK_CACHE_BYTES))
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.none())  # keys of features look random
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_keep_log_file_num(1)
    db = Rdict(str(path), options)
    writes = WriteOptions()
    writes.sync = True
    db.set_write_options(writes)
    return db


def _write(batch: WriteBatch, window: Window) -> None:
    request_id = window.request_id
    batch.put(_window_key(request_id), encode_window(window))
    for number in range(window.saved_parts, len(window.parts)):
        batch.put(_shown_key(request_id, number), window.parts[number].shown.raw)
    if window.due_ms != window.saved_due_ms:
        if window.saved_due_ms is not None:
            batch.delete(_timer_key(window.saved_due_ms, request_id))
        batch.put(_timer_key(window.due_ms, request_id), b"")


def _window_key(request_id: str) -> bytes:
    return b"a" + request_id.encode()


def _shown_key(request_id: str, number: int) -> bytes:
    return b"s" + request_id.encode() + _NUMBER.pack(number)


def _timer_key(due_ms: int, request_id: str) -> bytes:
    return _TIMERS + _DUE.pack(due_ms + _EPOCH) + request_id.encode()
