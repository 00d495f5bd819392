"""Many tables behind the contract of one, each key in the shard that its hash names.

Rows are those of one table bit for bit, whatever the number of shards. What differs is what depends on
which keys meet in one table: each shard has a share of ``spec.capacity`` and evicts among its own rows,
its own admission sketch and draws, and its own order of sweeping and scanning.

Axes: N keys of one call, B bags, D weights of a row, S shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, GradientError
from recsys.table.ledger import check_ledger
from recsys.table.placement import MAX_SHARDS, shard_of, shares
from recsys.table.refusals import gradient_refusal, no_follower
from recsys.table.rows import joined_rows, pooled, rows_at
from recsys.table.snapshots.ledgers import ledgers_for
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
    check_event_time,
    check_floats,
    check_keys,
)

Positions = NDArray[np.intp]


class ShardedTable:
    """An EmbeddingTable over N shards. Who may call at once is up to the shards, each of which sees
    whole rows; another thread may see a call done in one shard and not yet in the next.

    Every shard is told of every call to learn or admit, if only with no keys, so that all count the same
    steps and have the same clock. A refused gradient is found before any shard learns. A shard's capacity
    is an equal part of the whole, so it may evict while another still has room.
    """

    def __init__(
        self, spec: TableSpec, n_shards: int, make_table: Callable[[TableSpec], EmbeddingTable]
    ) -> None:
        """``make_table`` is called once per shard, in order, with the shard's spec."""
        if isinstance(n_shards, bool) or not isinstance(n_shards, int) or not 1 <= n_shards <= MAX_SHARDS:
            raise ConfigError(f"table {spec.name!r}: n_shards must be in 1..{MAX_SHARDS}, got {n_shards!r}")
        shard_spec = _shard_spec(spec, n_shards)
        self._spec = spec
        self._shards = tuple(make_table(shard_spec) for _ in range(n_shards))
        self._followers: dict[int, tuple[int, ...]] = {}
        self._next_follower = 0
        self._sweep_cursor = 0

    @property
    def shards(self) -> tuple[EmbeddingTable, ...]:
        """The tables, in the order of ``shard_of``; a snapshot of each by itself loses nothing."""
        return self._shards

    @property
    def spec(self) -> TableSpec:
        return self._spec

    @property
    def steps(self) -> int:
        return self._shards[0].steps

    @property
    def clock_s(self) -> int:
        return self._shards[0].clock_s

    def lookup(self, keys_N: Keys) -> Floats:
        rows_ND = np.empty((check_keys(keys_N), self._spec.dim), dtype=np.float32)
        for shard, at_N in self._asked(keys_N):
            rows_ND[at_N] = shard.lookup(keys_N[at_N])
        return rows_ND

    def lookup_bags(self, keys_N: Keys, bags: Bags) -> Floats:
        # A bag's rows lie in several shards, and must be added in the order of the call.
        bags.check(check_keys(keys_N))
        return pooled(self.lookup(keys_N), bags.offsets, bags.scale_B)

    def contains(self, keys_N: Keys) -> Mask:
        found_N = np.empty(check_keys(keys_N), dtype=np.bool_)
        for shard, at_N in self._asked(keys_N):
            found_N[at_N] = shard.contains(keys_N[at_N])
        return found_N

    def row_numbers(self, keys_N: Keys) -> RowNumbers:
        """As promised; the number in its shard times the number of shards, plus the shard."""
        number_N = np.empty(check_keys(keys_N), dtype=np.int64)
        for index, (shard, at_N) in enumerate(zip(self._shards, self._split(keys_N), strict=True)):
            number_N[at_N] = self._numbers(index, shard.row_numbers(keys_N[at_N]))
        return number_N

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        check_floats("grads_ND", grads_ND, (check_keys(keys_N), self._spec.dim))
        check_event_time(event_time_s)
        if self._spec.nonfinite == "refuse" and not _is_finite_in_any_sum(grads_ND, len(keys_N)):
            _refuse_bad_sums(self._spec, keys_N, grads_ND)
        for shard, at_N in zip(self._shards, self._split(keys_N), strict=True):
            shard.learn(keys_N[at_N], grads_ND[at_N], event_time_s=event_time_s)

    def learn_bags(self, keys_N: Keys, bags: Bags, grads_BD: Floats, *, event_time_s: int) -> None:
        n_bags = bags.check(check_keys(keys_N))
        check_floats("grads_BD", grads_BD, (n_bags, self._spec.dim))
        check_event_time(event_time_s)
        bag_N = np.repeat(np.arange(n_bags), np.diff(bags.offsets))
        if self._spec.nonfinite == "refuse":
            with np.errstate(over="ignore", invalid="ignore"):
                scaled_BD = grads_BD if bags.scale_B is None else grads_BD * bags.scale_B[:, None]
            if not _is_finite_in_any_sum(scaled_BD, len(keys_N)):
                _refuse_bad_sums(self._spec, keys_N, scaled_BD[bag_N])
        for shard, at_N in zip(self._shards, self._split(keys_N), strict=True):
            # All of a key's occurrences go to one shard, in order: it adds up what one table would.
            ends_B = np.cumsum(np.bincount(bag_N[at_N], minlength=n_bags))
            offsets = np.concatenate([[0], ends_B]).astype(np.int64)
            part = Bags(offsets=offsets, scale_B=bags.scale_B)
            shard.learn_bags(keys_N[at_N], part, grads_BD, event_time_s=event_time_s)

    def admit(self, keys_N: Keys, *, event_time_s: int) -> RowNumbers:
        number_N = np.empty(check_keys(keys_N), dtype=np.int64)
        for index, (shard, at_N) in enumerate(zip(self._shards, self._split(keys_N), strict=True)):
            number_N[at_N] = self._numbers(index, shard.admit(keys_N[at_N], event_time_s=event_time_s))
        return number_N

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        check_floats("weights_ND", weights_ND, (check_keys(keys_N), self._spec.dim))
        for shard, at_N in self._asked(keys_N):
            shard.assign(keys_N[at_N], weights_ND[at_N])

    def erase(self, keys_N: Keys) -> int:
        check_keys(keys_N)
        return sum(shard.erase(keys_N[at_N]) for shard, at_N in self._asked(keys_N))

    def sweep(self, max_rows: int) -> int:
        rows_S = [len(shard) for shard in self._shards]
        share_S, self._sweep_cursor = shares(self._sweep_cursor, max_rows, rows_S)
        return sum(shard.sweep(share) for shard, share in zip(self._shards, share_S, strict=True) if share)

    def keys(self) -> Keys:
        return np.sort(np.concatenate([shard.keys() for shard in self._shards]))

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._shards)

    def follow(self) -> int:
        follower = self._next_follower
        self._next_follower += 1
        self._followers[follower] = tuple(shard.follow() for shard in self._shards)
        return follower

    def drain(self, follower: int) -> Changes:
        parts = [shard.drain(number) for shard, number in self._following(follower)]
        return Changes(
            touched_N=np.sort(np.concatenate([part.touched_N for part in parts])),
            removed_N=np.sort(np.concatenate([part.removed_N for part in parts])),
        )

    def unfollow(self, follower: int) -> None:
        for shard, number in self._following(follower):
            shard.unfollow(number)
        del self._followers[follower]

    def scan(self, cursor: int, max_rows: int) -> tuple[TableRows, int]:
        within, index = divmod(cursor, len(self._shards))
        rows, within = self._shards[index].scan(within, max_rows)
        if within:
            return rows, within * len(self._shards) + index
        return rows, (index + 1) % len(self._shards)

    def export_rows(self, keys_N: Keys) -> TableRows:
        check_keys(keys_N)
        at = self._split(keys_N)
        parts = [shard.export_rows(keys_N[at_N]) for shard, at_N in zip(self._shards, at, strict=True)]
        return rows_at(joined_rows(parts), np.argsort(np.concatenate(at)))

    def import_rows(self, rows: TableRows) -> None:
        rows.check(self._spec)
        for shard, at_N in self._asked(rows.keys_N):
            shard.import_rows(rows_at(rows, at_N))

    def ledger(self) -> Ledger:
        """The merged ledger, which any table takes, and behind it each shard's own."""
        parts = [shard.ledger() for shard in self._shards]
        own = {
            f"{self._ledger_prefix(i)}{name}": array
            for i, part in enumerate(parts)
            for name, array in part.items()
        }
        return {**ledgers_for(1, parts)[0], **own}

    def restore_ledger(self, ledger: Ledger) -> None:
        """From as many shards, each goes on exactly; from any other number, with the merged sketch."""
        parts = self._ledger_parts(ledger)
        for shard, part in zip(self._shards, parts, strict=True):
            check_ledger(shard.spec, part)
        for shard, part in zip(self._shards, parts, strict=True):
            shard.restore_ledger(part)

    def compact(self) -> None:
        for shard in self._shards:
            shard.compact()

    def clear(self) -> None:
        for shard in self._shards:
            shard.clear()
        self._sweep_cursor = 0

    def memory(self) -> TableMemory:
        return TableMemory(**_sums(TableMemory, [shard.memory() for shard in self._shards]))

    def counters(self) -> TableCounters:
        return TableCounters(**_sums(TableCounters, [shard.counters() for shard in self._shards]))

    def _split(self, keys_N: Keys) -> list[Positions]:
        """Where in the call the keys of each shard are, in order of occurrence."""
        shard_N = shard_of(keys_N, len(self._shards))
        ends_S = np.cumsum(np.bincount(shard_N, minlength=len(self._shards)))
        return np.split(np.argsort(shard_N, kind="stable"), ends_S[:-1])

    def _asked(self, keys_N: Keys) -> Iterator[tuple[EmbeddingTable, Positions]]:
        """The shards that have any of the keys, and where these are."""
        for shard, at_N in zip(self._shards, self._split(keys_N), strict=True):
            if len(at_N):
                yield shard, at_N

    def _numbers(self, index: int, number_N: RowNumbers) -> RowNumbers:
        return np.where(number_N < 0, -1, number_N * len(self._shards) + index)

    def _following(self, follower: int) -> list[tuple[EmbeddingTable, int]]:
        if follower not in self._followers:
            raise ConfigError(no_follower(self._spec, follower))
        return list(zip(self._shards, self._followers[follower], strict=True))

    def _ledger_prefix(self, index: int) -> str:
        return f"shard {index} of {len(self._shards)}: "

    def _ledger_parts(self, ledger: Ledger) -> Sequence[Ledger]:
        prefixes = [self._ledger_prefix(i) for i in range(len(self._shards))]
        if f"{prefixes[0]}steps" in ledger:
            return [
                {name.removeprefix(prefix): ledger[name] for name in ledger if name.startswith(prefix)}
                for prefix in prefixes
            ]
        check_ledger(self._spec, ledger)
        return ledgers_for(len(self._shards), [ledger])


def _shard_spec(spec: TableSpec, n_shards: int) -> TableSpec:
    if spec.capacity is None:
        return spec
    name = "max_bytes" if spec.capacity.max_rows is None else "max_rows"
    limit = getattr(spec.capacity, name)
    if limit < n_shards:
        raise ConfigError(
            f"table {spec.name!r}: {name} {limit} leaves nothing for some of {n_shards} shards; "
            "allow more or take fewer shards"
        )
    return replace(spec, capacity=replace(spec.capacity, **{name: limit // n_shards}))


def _is_finite_in_any_sum(grads_ND: Floats, n_keys: int) -> bool:
    """Whether no sum of ``n_keys`` of these can overflow; False may also mean that it is too close to say."""
    if not grads_ND.size:
        return True
    largest = max(float(grads_ND.max()), -float(grads_ND.min()))
    # Rounding can raise a sum of n floats by a factor of (1 + 2**-24)**n, which is below 2 here.
    return n_keys < 1 << 23 and 2.0 * largest * n_keys < float(np.finfo(np.float32).max)


def _refuse_bad_sums(spec: TableSpec, keys_N: Keys, grads_ND: Floats) -> None:
    """Raise GradientError where the gradients of a key, in order of occurrence, have no finite sum."""
    by_key_N = np.argsort(keys_N, kind="stable")
    _, first_U = np.unique(keys_N[by_key_N], return_index=True)
    sums_UD = pooled(grads_ND[by_key_N], np.append(first_U, len(keys_N)).astype(np.int64))
    bad_U = ~np.isfinite(sums_UD).all(axis=1)
    if bad_U.any():
        first = int(by_key_N[first_U[bad_U]].min())
        raise GradientError(gradient_refusal(spec, int(keys_N[first])))


def _sums(kind: type[Any], parts: Sequence[Any]) -> dict[str, int]:
    return {field.name: sum(getattr(part, field.name) for part in parts) for field in fields(kind)}
