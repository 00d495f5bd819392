"""A table larger than memory: rows that have idled the longest move to disk, and come back to be changed.

Every row is in exactly one tier. Learning and assigning bring a cold row back first. Reading does not:
bringing a row back costs a delete on disk, and a write when the next one has to leave for it. With 50 and
90 % of the rows cold, that made lookups of zipf and of uniform keys 1.1 to 1.5 times as dear.

A row leaves memory only after the cold store's log has it, and leaves the store only after it is in
memory again. A snapshot is of the table as a whole (``scan`` spans both tiers), and restoring one replaces
both tiers: after a crash, a snapshot and the events since give the table exactly, as for one in
memory. Without a snapshot, a reopened store has the rows that were cold, each as it was when it went
there; rows that were in memory are gone, even if they were once cold.

Axes: N keys of one call, R rows of a window, D weights of a row.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from recsys.errors import ConfigError
from recsys.table.cold_store import ColdStore
from recsys.table.ledger import COUNTERS
from recsys.table.noted_keys import NotedKeys
from recsys.table.placement import shares
from recsys.table.refusals import missing_row
from recsys.table.retention import are_expired
from recsys.table.rows import joined_rows, pooled, rows_at
from recsys.table.spec import TableSpec
from recsys.table.table import (
    Bags,
    Changes,
    EmbeddingTable,
    Floats,
    Keys,
    Ledger,
    Mask,
    RowNumbers,
    TableCounters,
    TableMemory,
    TableRows,
    check_keys,
)

# How many rows are looked at for each that goes cold: those that stay are newer than those that go.
_WINDOW_PER_ROW = 4
_LAST_KEY = (1 << 64) - 1


class TieredTable:
    """An EmbeddingTable over a table in memory and rows on disk. Any number of threads; calls take turns.

    ``memory`` counts what is in memory; ``cold`` knows of the rest. Rows are swept and scanned in another
    order than a single table's, and have no numbers: ``row_numbers`` and ``admit`` are refused.
    """

    def __init__(self, hot: EmbeddingTable, cold: ColdStore, *, max_hot_rows: int) -> None:
        """Take over both; what the store holds already belongs to the table.

        ``max_hot_rows`` (>= 1) is how many rows stay in memory once a call is done; during one it may be
        more by as many as the call touches. Raises ConfigError unless ``hot`` is empty and without
        a capacity (rows go cold instead of being evicted), and both have one spec.
        """
        if isinstance(max_hot_rows, bool) or not isinstance(max_hot_rows, int) or max_hot_rows < 1:
            raise ConfigError(f"max_hot_rows must be an integer >= 1, got {max_hot_rows!r}")
        name = f"table {hot.spec.name!r}"
        if hot.spec.capacity is not None:
            raise ConfigError(f"{name}: rows go cold, so a capacity has no use, got {hot.spec.capacity}")
        if len(hot):
            raise ConfigError(f"{name}: want a new table in memory, got one of {len(hot)} rows")
        if cold.spec.fingerprint != hot.spec.fingerprint:
            raise ConfigError(f"{name}: the cold store is of {cold.spec.name!r}; open it with the same spec")
        self._hot, self._cold, self._max_hot_rows = hot, cold, max_hot_rows
        self._lock = threading.RLock()
        self._noted: dict[int, NotedKeys] = {}
        self._sweep_cursor = self._cold_cursor = self._demote_cursor = 0
        self._brought_back = self._expired_cold = 0
        self._listed_keys: Keys | None = None

    @property
    def cold(self) -> ColdStore:
        """The rows on disk; close it when done with the table."""
        return self._cold

    @property
    def spec(self) -> TableSpec:
        return self._hot.spec

    @property
    def steps(self) -> int:
        return self._hot.steps

    @property
    def clock_s(self) -> int:
        return self._hot.clock_s

    def lookup(self, keys_N: Keys) -> Floats:
        with self._lock:
            rows_ND = self._hot.lookup(keys_N)
            if len(self._cold):
                at_N = np.flatnonzero(~self._hot.contains(keys_N))
                found_N, rows = self._cold.get(keys_N[at_N])
                rows_ND[at_N[found_N]] = rows.weights_ND
            return rows_ND

    def lookup_bags(self, keys_N: Keys, bags: Bags) -> Floats:
        with self._lock:
            if not len(self._cold):
                return self._hot.lookup_bags(keys_N, bags)
            bags.check(check_keys(keys_N))
            return pooled(self.lookup(keys_N), bags.offsets, bags.scale_B)

    def contains(self, keys_N: Keys) -> Mask:
        with self._lock:
            found_N = self._hot.contains(keys_N)
            if len(self._cold):
                at_N = np.flatnonzero(~found_N)
                found_N[at_N] = self._cold.contains(keys_N[at_N])
            return found_N

    def row_numbers(self, keys_N: Keys) -> RowNumbers:
        """Raises ConfigError: a row that moves keeps no number."""
        raise ConfigError(self._numberless())

    def admit(self, keys_N: Keys, *, event_time_s: int) -> RowNumbers:
        """Raises ConfigError: a row that moves keeps no number."""
        raise ConfigError(self._numberless())

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        with self._lock:
            self._warm_up(keys_N)
            try:
                self._hot.learn(keys_N, grads_ND, event_time_s=event_time_s)
            finally:
                self._cool_down()

    def learn_bags(self, keys_N: Keys, bags: Bags, grads_BD: Floats, *, event_time_s: int) -> None:
        with self._lock:
            self._warm_up(keys_N)
            try:
                self._hot.learn_bags(keys_N, bags, grads_BD, event_time_s=event_time_s)
            finally:
                self._cool_down()

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        with self._lock:
            self._warm_up(keys_N)
            try:
                self._hot.assign(keys_N, weights_ND)
            finally:
                self._cool_down()

    def import_rows(self, rows: TableRows) -> None:
        rows.check(self.spec)
        with self._lock:
            self._warm_up(rows.keys_N)
            self._hot.import_rows(rows)
            self._cool_down()

    def erase(self, keys_N: Keys) -> int:
        with self._lock:
            n_hot = self._hot.erase(keys_N)
            gone_N = np.unique(keys_N)
            gone_N = gone_N[self._cold.contains(gone_N)]
            self._drop_cold(gone_N)
            return n_hot + len(gone_N)

    def sweep(self, max_rows: int) -> int:
        with self._lock:
            rows = [len(self._hot), len(self._cold)]
            (n_hot, n_cold), self._sweep_cursor = shares(self._sweep_cursor, max_rows, rows)
            return self._hot.sweep(n_hot) + self._sweep_cold(min(n_cold, len(self._cold)))

    def demote(self, max_rows: int) -> int:
        """Move up to ``max_rows`` rows to disk, those that have idled the longest among the next four times
        as many; return how many went. Called by itself when more than ``max_hot_rows`` are in memory.
        """
        with self._lock:
            n_rows = min(max_rows, len(self._hot))
            if n_rows < 1:
                return 0
            window = self._next_hot_rows(min(_WINDOW_PER_ROW * n_rows, len(self._hot)))
            longest_idle = np.argsort(window.last_seen_s_N, kind="stable")[:n_rows]
            rows = rows_at(window, longest_idle)
            self._cold.put(rows)
            # Erasing looks like a change to the hot table's followers. They are asked before, to know
            # what really changed, and once more after, to forget what did not.
            for follower in self._noted:
                self._gather(follower)
            self._hot.erase(rows.keys_N)
            for follower in self._noted:
                self._hot.drain(follower)
            return n_rows

    def keys(self) -> Keys:
        with self._lock:
            return np.sort(np.concatenate([self._hot.keys(), self._cold.keys()]))

    def __len__(self) -> int:
        with self._lock:
            return len(self._hot) + len(self._cold)

    def follow(self) -> int:
        with self._lock:
            follower = self._hot.follow()
            self._noted[follower] = NotedKeys()
            return follower

    def drain(self, follower: int) -> Changes:
        with self._lock:
            self._gather(follower)
            changed_N = self._noted[follower].take()
            is_there_N = self.contains(changed_N)
            return Changes(touched_N=changed_N[is_there_N], removed_N=changed_N[~is_there_N])

    def unfollow(self, follower: int) -> None:
        with self._lock:
            self._hot.unfollow(follower)
            del self._noted[follower]

    def scan(self, cursor: int, max_rows: int) -> tuple[TableRows, int]:
        """As promised for every table; rows come by ascending key, and the cursor is a key.

        Each call looks at one interval of keys in both tiers, so no row is met twice or missed for
        having moved. It lists the hot keys anew where rows were brought back since the last call.
        """
        with self._lock:
            if cursor == 0 or self._listed_keys is None:
                self._listed_keys = self._hot.keys()
            begin = int(np.searchsorted(self._listed_keys, np.uint64(cursor)))
            hot_N = self._listed_keys[begin : begin + max_rows]
            hot_last = int(hot_N[-1]) if begin + max_rows < len(self._listed_keys) else _LAST_KEY
            cold, cold_next = self._cold.scan(cursor, max_rows)
            last = min(hot_last, (cold_next - 1) % (1 << 64))
            hot_N = hot_N[self._hot.contains(hot_N)]
            both_N = np.sort(np.concatenate([hot_N, cold.keys_N]))
            if len(both_N) > max_rows:
                last = min(last, int(both_N[max_rows - 1]))
            hot = self._hot.export_rows(hot_N[hot_N <= np.uint64(last)])
            rows = joined_rows([hot, rows_at(cold, cold.keys_N <= np.uint64(last))])
            return rows_at(rows, np.argsort(rows.keys_N)), (last + 1) % (1 << 64)

    def export_rows(self, keys_N: Keys) -> TableRows:
        with self._lock:
            is_hot_N = self._hot.contains(keys_N)
            cold_N = keys_N[~is_hot_N]
            found_N, cold = self._cold.get(cold_N)
            if not found_N.all():
                raise KeyError(missing_row(self.spec, int(cold_N[~found_N][0])))
            hot = self._hot.export_rows(keys_N[is_hot_N])
            at_N = np.concatenate([np.flatnonzero(is_hot_N), np.flatnonzero(~is_hot_N)])
            return rows_at(joined_rows([hot, cold]), np.argsort(at_N))

    def ledger(self) -> Ledger:
        with self._lock:
            ledger = self._hot.ledger()
            counters = ledger["counters"].copy()
            counters[COUNTERS.index("admitted")] -= self._brought_back
            counters[COUNTERS.index("expired")] += self._expired_cold
            return {**ledger, "counters": counters}

    def restore_ledger(self, ledger: Ledger) -> None:
        with self._lock:
            self._hot.restore_ledger(ledger)
            self._brought_back = self._expired_cold = 0

    def compact(self) -> None:
        with self._lock:
            self._hot.compact()
            self._demote_cursor = 0

    def clear(self) -> None:
        with self._lock:
            self._hot.clear()
            self._cold.clear()
            for noted in self._noted.values():
                noted.take()
            self._sweep_cursor = self._cold_cursor = self._demote_cursor = 0
            self._brought_back = self._expired_cold = 0
            self._listed_keys = None

    def memory(self) -> TableMemory:
        """Bytes in memory, without what the cold store caches."""
        with self._lock:
            memory = self._hot.memory()
            noted = sum(noted.nbytes for noted in self._noted.values())
            return replace(memory, bytes_changes=memory.bytes_changes + noted)

    def counters(self) -> TableCounters:
        with self._lock:
            counters = self._hot.counters()
            return replace(
                counters,
                admitted=counters.admitted - self._brought_back,
                expired=counters.expired + self._expired_cold,
            )

    def _numberless(self) -> str:
        return (
            f"table {self.spec.name!r}: rows on two tiers have no numbers; "
            "where numbers are kept outside, use a table in memory"
        )

    def _warm_up(self, keys_N: Keys) -> None:
        """Bring back what is cold of these keys."""
        if not len(self._cold):
            return
        missing_N = np.unique(keys_N[~self._hot.contains(keys_N)])
        _, rows = self._cold.get(missing_N)
        if not len(rows.keys_N):
            return
        admitted = self._hot.counters().admitted
        self._hot.import_rows(rows)
        self._brought_back += self._hot.counters().admitted - admitted
        self._cold.delete(rows.keys_N)
        self._listed_keys = None

    def _cool_down(self) -> None:
        self.demote(len(self._hot) - self._max_hot_rows)

    def _next_hot_rows(self, n_rows: int) -> TableRows:
        """As many distinct rows as asked for, at most all, from where the last call left off."""
        parts: list[TableRows] = []
        while n_rows:
            rows, self._demote_cursor = self._hot.scan(self._demote_cursor, n_rows)
            parts.append(rows)
            n_rows -= len(rows.keys_N)
        return joined_rows(parts)

    def _sweep_cold(self, n_rows: int) -> int:
        """Drop the expired among the next ``n_rows``, at most all."""
        gone = 0
        for _ in range(2):  # up to the last key, then on from the first
            if not n_rows:
                break
            rows, self._cold_cursor = self._cold.scan(self._cold_cursor, n_rows)
            n_rows -= len(rows.keys_N)
            gone_N = rows.keys_N[are_expired(self.spec.expiry, rows.keys_N, rows.last_seen_s_N, self.clock_s)]
            self._drop_cold(gone_N)
            gone += len(gone_N)
        self._expired_cold += gone
        return gone

    def _drop_cold(self, keys_N: Keys) -> None:
        self._cold.delete(keys_N)
        for noted in self._noted.values():
            noted.add(keys_N)

    def _gather(self, follower: int) -> None:
        changes = self._hot.drain(follower)
        self._noted[follower].add(changes.touched_N)
        self._noted[follower].add(changes.removed_N)
