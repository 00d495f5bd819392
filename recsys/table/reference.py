"""The embedding table as a dictionary: slow, obvious, and bit for bit what the native one must do.

Rows are numbered, since the order of eviction, sweeping and scanning goes by number: a new row takes
the number that was freed last, or the next one.

Axes: N keys of one call, B bags, D weights of a row, S floats of its optimizer state, U distinct keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recsys.errors import ConfigError, GradientError
from recsys.hashing import mix64
from recsys.table import clipping, codecs, initializers, optimizers, retention
from recsys.table.admission import AdmissionFilter
from recsys.table.ledger import check_ledger
from recsys.table.refusals import (
    check_at_least,
    check_learnable,
    gradient_refusal,
    missing_row,
    no_follower,
)
from recsys.table.sizes import max_rows, whole_row_bytes
from recsys.table.spec import LEARNABLE_CODECS, TableSpec
from recsys.table.table import (
    Bags,
    Changes,
    Floats,
    Keys,
    Ledger,
    Mask,
    RowNumbers,
    TableCounters,
    TableMemory,
    TableRows,
    check_event_time,
    check_floats,
    check_keys,
)

EVICTION_WINDOW = 256
"""Rows among which those to evict are chosen; an eighth of them goes at a time."""
_MASK = (1 << 64) - 1
_LARGEST_COUNT = (1 << 32) - 1


@dataclass(slots=True)
class _Row:
    number: int
    weights_D: Floats
    state_S: Floats
    last_seen_s: int = 0
    count: int = 0


class ReferenceTable:
    """An EmbeddingTable over a dict. One thread only."""

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._max_rows = max_rows(spec)
        self._followers: dict[int, set[int]] = {}
        self._next_follower = 0
        self._sweep_cursor = self._eviction_cursor = 0
        self._clock_s: int | None = None
        self.clear()

    @property
    def spec(self) -> TableSpec:
        return self._spec

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def clock_s(self) -> int:
        return self._clock_s or 0

    def lookup(self, keys_N: Keys) -> Floats:
        rows_ND = np.zeros((check_keys(keys_N), self._spec.dim), dtype=np.float32)
        for i, key in enumerate(keys_N.tolist()):
            if key in self._rows:
                rows_ND[i] = self._rows[key].weights_D
            elif self._spec.missing == "initializer":
                rows_ND[i] = self._initial_weights(key)
        return rows_ND

    def lookup_bags(self, keys_N: Keys, bags: Bags) -> Floats:
        n_bags = bags.check(check_keys(keys_N))
        rows_ND = self.lookup(keys_N)
        sums_BD = np.zeros((n_bags, self._spec.dim), dtype=np.float32)
        for bag in range(n_bags):
            for i in range(bags.offsets[bag], bags.offsets[bag + 1]):
                sums_BD[bag] += rows_ND[i]
        return sums_BD if bags.scale_B is None else sums_BD * bags.scale_B[:, None]

    def contains(self, keys_N: Keys) -> Mask:
        check_keys(keys_N)
        return np.array([key in self._rows for key in keys_N.tolist()], dtype=np.bool_)

    def row_numbers(self, keys_N: Keys) -> RowNumbers:
        check_keys(keys_N)
        rows = [self._rows.get(key) for key in keys_N.tolist()]
        return np.array([-1 if row is None else row.number for row in rows], dtype=np.int64)

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        check_floats("grads_ND", grads_ND, (check_keys(keys_N), self._spec.dim))
        check_event_time(event_time_s)
        check_learnable(self._spec)
        occurrences: dict[int, int] = {}
        sums: dict[int, Floats] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for key, grad_D in zip(keys_N.tolist(), grads_ND, strict=True):
                sums[key] = sums[key] + grad_D if key in sums else grad_D
                occurrences[key] = occurrences.get(key, 0) + 1
        sums = self._finite(sums)
        self._tick(int(event_time_s))
        for key in self._let_in(sums, occurrences):
            self._step(self._rows[key], key, sums[key])
            self._see(self._rows[key], occurrences[key])
            self._touch(key)
        self._steps += 1

    def learn_bags(self, keys_N: Keys, bags: Bags, grads_BD: Floats, *, event_time_s: int) -> None:
        n_bags = bags.check(check_keys(keys_N))
        check_floats("grads_BD", grads_BD, (n_bags, self._spec.dim))
        with np.errstate(over="ignore", invalid="ignore"):
            scaled_BD = grads_BD if bags.scale_B is None else grads_BD * bags.scale_B[:, None]
        self.learn(keys_N, np.repeat(scaled_BD, np.diff(bags.offsets), axis=0), event_time_s=event_time_s)

    def admit(self, keys_N: Keys, *, event_time_s: int) -> RowNumbers:
        check_keys(keys_N)
        check_event_time(event_time_s)
        self._tick(int(event_time_s))
        occurrences = dict(Counter(keys_N.tolist()))
        for key in self._let_in(occurrences, occurrences):
            self._see(self._rows[key], occurrences[key])
            self._touch(key)
        return self.row_numbers(keys_N)

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        check_floats("weights_ND", weights_ND, (check_keys(keys_N), self._spec.dim))
        last = dict(zip(keys_N.tolist(), weights_ND, strict=True))
        for key in self._place(last, pinned=set(last)):
            row = self._rows[key]
            row.weights_D = self._stored(key, 0, last[key])
            row.state_S = self._following(row)
            self._touch(key)

    def erase(self, keys_N: Keys) -> int:
        check_keys(keys_N)
        present = [key for key in dict.fromkeys(keys_N.tolist()) if key in self._rows]
        for key in present:
            self._drop(key)
        return len(present)

    def sweep(self, max_rows: int) -> int:
        check_at_least("max_rows", max_rows, 0)
        gone = 0
        for _ in range(min(max_rows, len(self._numbered))):
            key = self._numbered[self._sweep_cursor % len(self._numbered)]
            self._sweep_cursor = (self._sweep_cursor + 1) % len(self._numbered)
            if key is None:
                continue
            if retention.is_expired(self._spec.expiry, key, self._rows[key].last_seen_s, self.clock_s):
                self._drop(key)
                gone += 1
        self._expired += gone
        return gone

    def keys(self) -> Keys:
        return np.array(sorted(self._rows), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._rows)

    def follow(self) -> int:
        follower = self._next_follower
        self._next_follower += 1
        self._followers[follower] = set()
        return follower

    def drain(self, follower: int) -> Changes:
        changed = self._noted(follower)
        touched, removed = changed & self._rows.keys(), changed - self._rows.keys()
        self._followers[follower] = set()
        return Changes(
            touched_N=np.array(sorted(touched), dtype=np.uint64),
            removed_N=np.array(sorted(removed), dtype=np.uint64),
        )

    def unfollow(self, follower: int) -> None:
        self._noted(follower)
        del self._followers[follower]

    def scan(self, cursor: int, max_rows: int) -> tuple[TableRows, int]:
        check_at_least("cursor", cursor, 0)
        check_at_least("max_rows", max_rows, 1)
        end = min(cursor + max_rows, len(self._numbered))
        keys = [key for key in self._numbered[cursor:end] if key is not None]
        rows = self.export_rows(np.array(keys, dtype=np.uint64))
        return rows, 0 if end == len(self._numbered) else end

    def export_rows(self, keys_N: Keys) -> TableRows:
        n = check_keys(keys_N)
        weights_ND = np.empty((n, self._spec.dim), dtype=np.float32)
        state_NS = np.empty((n, self._spec.state_dim), dtype=np.float32)
        last_seen_s_N = np.empty(n, dtype=np.uint32)
        count_N = np.empty(n, dtype=np.uint32)
        for i, key in enumerate(keys_N.tolist()):
            if key not in self._rows:
                raise KeyError(missing_row(self._spec, key))
            row = self._rows[key]
            weights_ND[i], state_NS[i] = row.weights_D, row.state_S
            last_seen_s_N[i], count_N[i] = row.last_seen_s, row.count
        return TableRows(
            keys_N=keys_N.copy(),
            weights_ND=weights_ND,
            state_NS=state_NS,
            last_seen_s_N=last_seen_s_N,
            count_N=count_N,
        )

    def import_rows(self, rows: TableRows) -> None:
        rows.check(self._spec)
        last = {key: i for i, key in enumerate(rows.keys_N.tolist())}
        for key in self._place(last, pinned=set(last)):
            row, i = self._rows[key], last[key]
            row.weights_D = self._stored(key, 0, rows.weights_ND[i])
            row.state_S = rows.state_NS[i].copy()
            row.last_seen_s, row.count = int(rows.last_seen_s_N[i]), int(rows.count_N[i])

    def ledger(self) -> Ledger:
        state = self._filter.state()
        counters = [self._admitted, self._filtered, self._expired, self._evicted, self._dropped_gradients]
        return {
            "steps": np.array([self._steps], dtype=np.uint64),
            "clock_s": np.array([-1 if self._clock_s is None else self._clock_s], dtype=np.int64),
            "counters": np.array(counters, dtype=np.uint64),
            "admission_cells": state["cells"],
            "admission_counters": state["counters"],
        }

    def restore_ledger(self, ledger: Ledger) -> None:
        check_ledger(self._spec, ledger)
        self._filter.restore({"cells": ledger["admission_cells"], "counters": ledger["admission_counters"]})
        self._steps = int(ledger["steps"][0])
        self._clock_s = None if ledger["clock_s"][0] < 0 else int(ledger["clock_s"][0])
        self._admitted, self._filtered, self._expired, self._evicted, self._dropped_gradients = (
            int(counter) for counter in ledger["counters"]
        )

    def compact(self) -> None:
        n = len(self._rows)
        free = [number for number in range(n) if self._numbered[number] is None]
        high = [key for key in self._numbered[n:] if key is not None]
        for number, key in zip(free, high, strict=True):
            self._rows[key].number = number
            self._numbered[number] = key
        del self._numbered[n:]
        self._free.clear()
        self._sweep_cursor = self._eviction_cursor = 0

    def clear(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._numbered: list[int | None] = []
        self._free: list[int] = []
        self._filter = AdmissionFilter(self._spec.admission, self._spec.filter_seed)
        self._steps, self._sweep_cursor, self._eviction_cursor = 0, 0, 0
        self._clock_s = None
        self._admitted = self._filtered = self._expired = self._evicted = self._dropped_gradients = 0
        for changed in self._followers.values():
            changed.clear()

    def memory(self) -> TableMemory:
        """Bytes of the arrays' contents; what the dictionary itself takes is not counted."""
        row_bytes = whole_row_bytes(self._spec)
        return TableMemory(
            bytes_live=len(self._rows) * row_bytes,
            bytes_reserved=len(self._numbered) * row_bytes,
            bytes_index=12 * len(self._rows),
            bytes_filter=self._filter.state()["cells"].nbytes,
            bytes_changes=8 * sum(len(changed) for changed in self._followers.values()),
        )

    def counters(self) -> TableCounters:
        return TableCounters(
            admitted=self._admitted,
            filtered=self._filtered,
            expired=self._expired,
            evicted=self._evicted,
            dropped_gradients=self._dropped_gradients,
        )

    def _finite(self, sums: dict[int, Floats]) -> dict[int, Floats]:
        """The sums that are learned from, as ``spec.nonfinite`` says."""
        bad = [key for key, sum_D in sums.items() if not np.isfinite(sum_D).all()]
        if bad and self._spec.nonfinite == "refuse":
            raise GradientError(gradient_refusal(self._spec, bad[0]))
        self._dropped_gradients += len(bad)
        if self._spec.nonfinite == "drop":
            return {key: sum_D for key, sum_D in sums.items() if key not in bad}
        return {key: np.nan_to_num(sum_D) if key in bad else sum_D for key, sum_D in sums.items()}

    def _tick(self, event_time_s: int) -> None:
        accepted = retention.accepted_time(event_time_s, self._clock_s, self._spec.expiry.max_skew_s)
        self._event_time_s = accepted
        self._clock_s = max(self._clock_s or 0, accepted)

    def _let_in(self, keys: Iterable[int], occurrences: dict[int, int]) -> list[int]:
        """Those of ``keys`` that have a row now, in order; the others were asked about, in that order."""
        wanted = [key for key in keys if key in self._rows or self._filter.admit(key, occurrences[key])]
        self._filtered += sum(1 for _ in keys) - len(wanted)
        return self._place(wanted, pinned=set(occurrences))

    def _place(self, keys: Iterable[int], *, pinned: set[int]) -> list[int]:
        """Those of ``keys`` that have a row now, in order; makes rows, and room for them, where need be."""
        placed = []
        for key in keys:
            if key not in self._rows:
                if len(self._rows) >= self._max_rows and not self._evict(pinned):
                    self._filtered += 1
                    continue
                self._add(key)
            placed.append(key)
        return placed

    def _add(self, key: int) -> None:
        if not self._free:
            self._numbered.append(None)
        number = self._free.pop() if self._free else len(self._numbered) - 1
        weights_D = self._initial_weights(key)
        self._rows[key] = _Row(number, weights_D, self._initial_state(weights_D))
        self._numbered[number] = key
        self._admitted += 1

    def _evict(self, pinned: set[int]) -> bool:
        """Drop the lowest eighth of the next window of rows, at least one; False if none may go."""
        for _ in range(0, len(self._numbered), EVICTION_WINDOW):
            begin = self._eviction_cursor
            end = min(begin + EVICTION_WINDOW, len(self._numbered))
            self._eviction_cursor = 0 if end == len(self._numbered) else end
            window = [key for key in self._numbered[begin:end] if key is not None and key not in pinned]
            if not window:
                continue
            count_W = np.array([self._rows[key].count for key in window], dtype=np.uint32)
            last_seen_W = np.array([self._rows[key].last_seen_s for key in window], dtype=np.uint32)
            assert self._spec.capacity is not None
            score_W = retention.scores(self._spec.capacity.policy, count_W, last_seen_W, self.clock_s)
            victims = retention.victims(score_W, last_seen_W, max(1, len(window) // 8))
            for victim in victims.tolist():
                self._drop(window[victim])
            self._evicted += len(victims)
            return True
        return False

    def _drop(self, key: int) -> None:
        number = self._rows.pop(key).number
        self._numbered[number] = None
        self._free.append(number)
        self._touch(key)

    def _touch(self, key: int) -> None:
        for changed in self._followers.values():
            changed.add(key)

    def _noted(self, follower: int) -> set[int]:
        if follower not in self._followers:
            raise ConfigError(no_follower(self._spec, follower))
        return self._followers[follower]

    def _initial_weights(self, key: int) -> Floats:
        weights = [
            initializers.initial_weights(part.initializer, self._spec.slice_seed(i), key, part.dim)
            for i, part in enumerate(self._spec.slices)
        ]
        return self._stored(key, 0, np.concatenate(weights))

    def _initial_state(self, weights_D: Floats) -> Floats:
        states = [
            optimizers.initial_state(
                part.optimizer, weights_D[self._spec.slice(part.name)], part.rate_at(self._steps)
            )
            for part in self._spec.slices
        ]
        return np.concatenate(states)

    def _see(self, row: _Row, occurrences: int) -> None:
        row.last_seen_s = max(row.last_seen_s, self._event_time_s)
        row.count = min(row.count + occurrences, _LARGEST_COUNT)

    def _following(self, row: _Row) -> Floats:
        """The state once weights were assigned: FTRL's weights follow from its state, so that begins anew."""
        anew_S, state_S, s = self._initial_state(row.weights_D), row.state_S.copy(), 0
        for part in self._spec.slices:
            s_end = s + optimizers.state_dim(part.optimizer, part.dim)
            if isinstance(part.optimizer, optimizers.FTRL | optimizers.GroupFTRL):
                state_S[s:s_end] = anew_S[s:s_end]
            s = s_end
        return state_S

    def _step(self, row: _Row, key: int, grad_D: Floats) -> None:
        weights, state, s = [], [], 0
        for part in self._spec.slices:
            columns = self._spec.slice(part.name)
            s_end = s + optimizers.state_dim(part.optimizer, part.dim)
            clipped_D = clipping.clip(part.clip, grad_D[columns])
            new_w_D, new_s_S = optimizers.update(
                part.optimizer,
                row.weights_D[columns],
                row.state_S[s:s_end],
                clipped_D,
                part.rate_at(self._steps),
            )
            weights.append(new_w_D)
            state.append(new_s_S)
            s = s_end
        row.weights_D = self._stored(key, row.count, np.concatenate(weights))
        row.state_S = np.concatenate(state)

    def _stored(self, key: int, count: int, weights_D: Floats) -> Floats:
        """The weights as the codecs keep them. Stochastic rounding draws by (slice, key, count)."""
        kept = []
        for i, part in enumerate(self._spec.slices):
            stream = mix64((mix64(self._spec.slice_seed(i) ^ key) + count) & _MASK)
            w_1D = weights_D[None, self._spec.slice(part.name)]
            # A table has to hold what a learner that diverged gives it; the codec by itself refuses that.
            is_nan_D = np.isnan(w_1D[0])
            encoded = codecs.encode(
                part.codec, np.where(is_nan_D, np.float32(0), w_1D), np.array([stream], dtype=np.uint64)
            )
            kept.append(codecs.decode(part.codec, encoded, part.dim)[0])
            if isinstance(part.codec, LEARNABLE_CODECS):
                kept[-1] = np.where(is_nan_D, np.float32(np.nan), kept[-1])
        return np.concatenate(kept)
