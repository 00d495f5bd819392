"""The embedding table in C++: what serves and trains. The only importer of ``recsys.table._core``.

Axes: N keys of one call, B bags, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, GradientError
from recsys.table import _core, codecs, optimizers, retention
from recsys.table.admission import Occurrence, core_rule
from recsys.table.clipping import CLIPS
from recsys.table.codecs import BF16, FP16, OneBit
from recsys.table.initializers import low_and_width
from recsys.table.ledger import COUNTERS, check_ledger
from recsys.table.refusals import (
    check_at_least,
    check_learnable,
    gradient_refusal,
    missing_row,
    no_follower,
)
from recsys.table.rows import rows_at
from recsys.table.sizes import max_rows
from recsys.table.spec import SliceSpec, TableSpec
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

# The core knows kinds by their place in these lists.
_OPTIMIZERS = list(optimizers.KINDS.values())
_CODECS = list(codecs.KINDS.values())
_CLIPS = [type(None), *CLIPS.values()]
_NONFINITE = ["refuse", "drop", "clip"]


class NativeTable:
    """An EmbeddingTable over the C++ core. Any number of readers beside one writer; a reader sees whole rows.

    Readers are lookup, lookup_bags, contains, row_numbers, export_rows, scan and len; all others write or
    wait for the writer. Every call releases the GIL. ``threads`` (>= 1) is how many a call of 8,192 keys or
    more may use.
    """

    def __init__(self, spec: TableSpec, threads: int = 2) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be >= 1, got {threads}")
        self._spec, self._dim = spec, spec.dim
        max_idle_s, max_skew_s, by_feature = retention.core_expiry(spec.expiry)
        policy, exponent = retention.core_score(spec.capacity.policy if spec.capacity else retention.LRU())
        self._core = _core.Table(
            slices=[_core_slice(spec, i, part) for i, part in enumerate(spec.slices)],
            admission=core_rule(spec.admission, spec.filter_seed),
            max_idle_s=max_idle_s,
            max_skew_s=max_skew_s,
            by_feature=by_feature,
            max_rows=max_rows(spec) if spec.capacity else None,
            policy=policy,
            exponent=exponent,
            missing_reads_initial=spec.missing == "initializer",
            nonfinite=_NONFINITE.index(spec.nonfinite),
            threads=threads,
        )
        self._steps = 0

    @property
    def spec(self) -> TableSpec:
        return self._spec

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def clock_s(self) -> int:
        return self._core.clock_s or 0

    def lookup(self, keys_N: Keys) -> Floats:
        rows_ND = np.empty((check_keys(keys_N), self._dim), dtype=np.float32)
        self._core.lookup(keys_N, rows_ND)
        return rows_ND

    def lookup_bags(self, keys_N: Keys, bags: Bags) -> Floats:
        sums_BD = np.empty((bags.check(check_keys(keys_N)), self._dim), dtype=np.float32)
        self._core.lookup_bags(keys_N, bags.offsets, bags.scale_B, sums_BD)
        return sums_BD

    def contains(self, keys_N: Keys) -> Mask:
        mask_N = np.empty(check_keys(keys_N), dtype=np.bool_)
        self._core.contains(keys_N, mask_N)
        return mask_N

    def row_numbers(self, keys_N: Keys) -> RowNumbers:
        rows_N = np.empty(check_keys(keys_N), dtype=np.int64)
        self._core.row_numbers(keys_N, rows_N)
        return rows_N

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        check_floats("grads_ND", grads_ND, (check_keys(keys_N), self._dim))
        check_event_time(event_time_s)
        check_learnable(self._spec)
        self._learned(self._core.learn(keys_N, grads_ND, int(event_time_s), self._rates()))

    def learn_bags(self, keys_N: Keys, bags: Bags, grads_BD: Floats, *, event_time_s: int) -> None:
        check_floats("grads_BD", grads_BD, (bags.check(check_keys(keys_N)), self._dim))
        check_event_time(event_time_s)
        check_learnable(self._spec)
        refused = self._core.learn_bags(
            keys_N, bags.offsets, bags.scale_B, grads_BD, int(event_time_s), self._rates()
        )
        self._learned(refused)

    def admit(self, keys_N: Keys, *, event_time_s: int) -> RowNumbers:
        rows_N = np.empty(check_keys(keys_N), dtype=np.int64)
        check_event_time(event_time_s)
        self._core.admit(keys_N, int(event_time_s), self._rates(), rows_N)
        return rows_N

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        check_floats("weights_ND", weights_ND, (check_keys(keys_N), self._dim))
        self._core.assign(keys_N, weights_ND, self._rates())

    def erase(self, keys_N: Keys) -> int:
        check_keys(keys_N)
        return self._core.erase(keys_N)

    def sweep(self, max_rows: int) -> int:
        check_at_least("max_rows", max_rows, 0)
        return self._core.sweep(max_rows)

    def keys(self) -> Keys:
        return self._core.keys()

    def __len__(self) -> int:
        return len(self._core)

    def follow(self) -> int:
        return self._core.follow()

    def drain(self, follower: int) -> Changes:
        changes = self._core.drain(follower)
        if changes is None:
            raise ConfigError(no_follower(self._spec, follower))
        return Changes(touched_N=changes[0], removed_N=changes[1])

    def unfollow(self, follower: int) -> None:
        if not self._core.unfollow(follower):
            raise ConfigError(no_follower(self._spec, follower))

    def scan(self, cursor: int, max_rows: int) -> tuple[TableRows, int]:
        check_at_least("cursor", cursor, 0)
        check_at_least("max_rows", max_rows, 1)
        rows = self._empty_rows(max_rows)
        n, following = self._core.scan(
            cursor, rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N, rows.count_N
        )
        return rows_at(rows, slice(n)), following

    def export_rows(self, keys_N: Keys) -> TableRows:
        rows = self._empty_rows(check_keys(keys_N))
        rows.keys_N[:] = keys_N
        missing = self._core.export_rows(
            keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N, rows.count_N
        )
        if missing is not None:
            raise KeyError(missing_row(self._spec, missing))
        return rows

    def import_rows(self, rows: TableRows) -> None:
        rows.check(self._spec)
        self._core.import_rows(
            rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N, rows.count_N, self._rates()
        )

    def ledger(self) -> Ledger:
        rule, clock_s = self._spec.admission, self._core.clock_s
        cells = np.zeros(
            (rule.depth, rule.width) if isinstance(rule, Occurrence) else (0, 0), dtype=np.uint16
        )
        self._core.admission_cells(cells)
        return {
            "steps": np.array([self._steps], dtype=np.uint64),
            "clock_s": np.array([-1 if clock_s is None else clock_s], dtype=np.int64),
            "counters": np.array(self._core.counters(), dtype=np.uint64),
            "admission_cells": cells,
            "admission_counters": np.array(self._core.admission_counters(), dtype=np.uint64),
        }

    def restore_ledger(self, ledger: Ledger) -> None:
        check_ledger(self._spec, ledger)
        clock_s = int(ledger["clock_s"][0])
        self._core.restore_ledger(
            None if clock_s < 0 else clock_s,
            ledger["counters"].tolist(),
            np.ascontiguousarray(ledger["admission_cells"]),
            np.ascontiguousarray(ledger["admission_counters"]),
        )
        self._steps = int(ledger["steps"][0])

    def compact(self) -> None:
        self._core.compact()

    def clear(self) -> None:
        self._core.clear()
        self._steps = 0

    def memory(self) -> TableMemory:
        live, reserved, index, filter_, changes = self._core.memory()
        return TableMemory(
            bytes_live=live,
            bytes_reserved=reserved,
            bytes_index=index,
            bytes_filter=filter_,
            bytes_changes=changes,
        )

    def counters(self) -> TableCounters:
        return TableCounters(**dict(zip(COUNTERS, self._core.counters(), strict=True)))

    def _rates(self) -> NDArray[np.float32]:
        return np.array([part.rate_at(self._steps) for part in self._spec.slices], dtype=np.float32)

    def _learned(self, refused: int | None) -> None:
        if refused is not None:
            raise GradientError(gradient_refusal(self._spec, refused))
        self._steps += 1

    def _empty_rows(self, n: int) -> TableRows:
        return TableRows(
            keys_N=np.empty(n, dtype=np.uint64),
            weights_ND=np.empty((n, self._dim), dtype=np.float32),
            state_NS=np.empty((n, self._spec.state_dim), dtype=np.float32),
            last_seen_s_N=np.empty(n, dtype=np.uint32),
            count_N=np.empty(n, dtype=np.uint32),
        )


def _core_slice(spec: TableSpec, index: int, part: SliceSpec) -> Any:
    low, width = low_and_width(part.initializer)
    numbers = optimizers.core_numbers(part.optimizer)
    return _core.Slice(
        dim=part.dim,
        optimizer=_OPTIMIZERS.index(type(part.optimizer)),
        numbers=[*numbers, *[0.0] * (8 - len(numbers))],
        codec=_CODECS.index(type(part.codec)),
        amplitude=part.codec.amplitude if isinstance(part.codec, OneBit) else 0.0,
        stochastic=isinstance(part.codec, FP16 | BF16) and part.codec.rounding == "stochastic",
        clip=_CLIPS.index(type(part.clip)),
        clip_limit=part.clip.limit if part.clip else 0.0,
        low=float(low),
        width=float(width),
        seed=spec.slice_seed(index),
    )
