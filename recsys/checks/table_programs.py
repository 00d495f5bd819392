"""Random programs of table calls, and the checks that they run as on the reference table.

A program is a list of (method of ``_Run``, arguments). It is played on both tables; what each call
returns or refuses, and all that can be seen of the tables after it, must be equal bit for bit.

Gradients and weights are drawn from a seed, since hypothesis would take most of its time to draw them.

Axes: N keys of one call, B bags, D weights of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from recsys.checks import table_settings
from recsys.checks.table_specimens import MakeTable, all_rows, bits, row_bits, scanned
from recsys.errors import ConfigError, GradientError
from recsys.table import AdmitAll, Bags, EmbeddingTable, Occurrence, TableRows, TableSpec
from recsys.table.reference import ReferenceTable
from recsys.table.table import Floats, Keys, Ledger

_Call = tuple[str, tuple[Any, ...]]

# Few keys, so that calls meet on them; with equal low bits, and the two that often mark emptiness. Their
# top 12 bits are those of features 0, 2048 and 4095.
_KEYS = [0, 1, 2, 3, 4, 1 << 32, 1 << 51, 1 << 63, (1 << 63) + 1, (1 << 64) - 2, (1 << 64) - 1]
_SEEDS = st.integers(0, 999)
# What one number of a batch is replaced by; mostly by nothing. Squares of the large one are infinite, but not
# what steps make of it: once a weight is infinite, which NaN comes of it is up to no rule.
_ODD_WEIGHTS = st.sampled_from([None] * 8 + [0.0, -0.0, 1e-40, 1e20, -1e20])
_ODD = st.one_of(_ODD_WEIGHTS, _ODD_WEIGHTS, st.sampled_from([np.nan, np.inf, -np.inf]))
_TIMES = st.one_of(st.integers(0, 200), st.integers(0, 200), st.just((1 << 32) - 1))


def _keys(max_size: int) -> st.SearchStrategy[Keys]:
    chosen = st.lists(st.sampled_from(_KEYS), max_size=max_size)
    return chosen.map(lambda keys: np.array(keys, dtype=np.uint64))


def _bags(n_keys: int) -> st.SearchStrategy[Bags]:
    """Bags over as many keys, some of them empty, with a scale or without."""
    cuts = st.lists(st.integers(0, n_keys), max_size=4)
    scales = st.one_of(st.none(), st.just([0.5, -3.0, 0.0, 1e19, 1.0]))

    def build(cuts: list[int], scale: list[float] | None) -> Bags:
        offsets = np.array([0, *sorted(cuts), n_keys], dtype=np.int64)
        scale_B = None if scale is None else np.array(scale[: len(offsets) - 1], dtype=np.float32)
        return Bags(offsets=offsets, scale_B=scale_B)

    return st.builds(build, cuts, scales)


_KEYS_AND_BAGS = _keys(9).flatmap(lambda keys_N: st.tuples(st.just(keys_N), _bags(len(keys_N))))
_LEARNING: list[st.SearchStrategy[_Call]] = [
    st.tuples(st.just("learn"), st.tuples(_keys(9), _SEEDS, _ODD, _TIMES)),
    st.tuples(st.just("learn_bags"), st.tuples(_KEYS_AND_BAGS, _SEEDS, _ODD, _TIMES)),
]
_ANYWHERE: list[st.SearchStrategy[_Call]] = [
    *_LEARNING,
    st.tuples(st.just("assign"), st.tuples(_keys(9), _SEEDS, _ODD_WEIGHTS)),
    st.tuples(st.just("erase"), st.tuples(_keys(4))),
    st.tuples(st.just("read"), st.tuples(_KEYS_AND_BAGS)),
    st.tuples(st.sampled_from(["drain", "unfollow"]), st.tuples(st.integers(0, 3))),
    st.tuples(st.sampled_from(["follow", "snapshot", "restore", "compact", "sweep_all"]), st.just(())),
]
_BY_ROW: list[st.SearchStrategy[_Call]] = [
    *_LEARNING,
    st.tuples(st.just("admit"), st.tuples(_keys(9), _TIMES)),
    st.tuples(st.just("sweep"), st.tuples(st.integers(0, 5))),
    st.tuples(st.just("scan"), st.tuples(st.integers(1, 5))),
    st.tuples(st.just("clear"), st.just(())),
]


def _programs(calls: list[st.SearchStrategy[_Call]]) -> st.SearchStrategy[list[_Call]]:
    # A list of any size would have five calls on average, too few for rows to be recycled.
    size = st.integers(0, 40)
    return size.flatmap(lambda n: st.lists(st.one_of(*calls), min_size=n, max_size=n))


class _Run:
    """One table under a program, its followers and the last snapshot of it. One thread only."""

    def __init__(self, table: EmbeddingTable) -> None:
        self.table = table
        self._followers = [table.follow()]
        self._snapshot: tuple[TableRows, Ledger] | None = None

    def learn(self, keys_N: Keys, seed: int, odd: float | None, event_time_s: int) -> None:
        grads_ND = _numbers(len(keys_N), self.table.spec.dim, seed, odd)
        self.table.learn(keys_N, grads_ND, event_time_s=event_time_s)

    def learn_bags(self, keys_and_bags: tuple[Keys, Bags], seed: int, odd: float | None, time_s: int) -> None:
        keys_N, bags = keys_and_bags
        grads_BD = _numbers(len(bags.offsets) - 1, self.table.spec.dim, seed, odd)
        self.table.learn_bags(keys_N, bags, grads_BD, event_time_s=time_s)

    def admit(self, keys_N: Keys, event_time_s: int) -> bytes:
        return bits(self.table.admit(keys_N, event_time_s=event_time_s))

    def assign(self, keys_N: Keys, seed: int, odd: float | None) -> None:
        self.table.assign(keys_N, _numbers(len(keys_N), self.table.spec.dim, seed, odd))

    def erase(self, keys_N: Keys) -> int:
        return self.table.erase(keys_N)

    def read(self, keys_and_bags: tuple[Keys, Bags]) -> tuple[bytes, ...]:
        keys_N, bags = keys_and_bags
        with np.errstate(all="ignore"):
            sums_BD = self.table.lookup_bags(keys_N, bags)
        return bits(self.table.lookup(keys_N)), bits(sums_BD), bits(self.table.contains(keys_N))

    def sweep(self, max_rows: int) -> int:
        return self.table.sweep(max_rows)

    def sweep_all(self) -> int:
        return self.table.sweep(1000)

    def scan(self, max_rows: int) -> list[tuple[bytes, ...]]:
        return [row_bits(rows) for rows in scanned(self.table, max_rows)]

    def follow(self) -> None:
        self._followers.append(self.table.follow())

    def unfollow(self, place: int) -> None:
        self.table.unfollow(self._followers[place % len(self._followers)])

    def drain(self, place: int) -> tuple[bytes, bytes]:
        changes = self.table.drain(self._followers[place % len(self._followers)])
        return bits(changes.touched_N), bits(changes.removed_N)

    def drain_all(self) -> list[Any]:
        return [_outcome(self, "drain", (place,)) for place in range(len(self._followers))]

    def snapshot(self) -> None:
        self._snapshot = all_rows(self.table), self.table.ledger()

    def restore(self) -> None:
        if self._snapshot is not None:
            rows, ledger = self._snapshot
            self.table.clear()
            self.table.import_rows(rows)
            self.table.restore_ledger(ledger)

    def compact(self) -> None:
        self.table.compact()

    def clear(self) -> None:
        self.table.clear()


def check_any_program_runs_as_on_the_reference(make_table: MakeTable) -> None:
    """Any settings without a cap, any order of calls: the same rows, changes and counters after each call."""
    # Wide, as tables may divide their keys among sketches: none may share all its cells with another.
    occurrence = st.builds(Occurrence, threshold=st.integers(1, 4), width=st.just(1 << 12))

    @given(
        spec=table_settings.specs(admission=st.one_of(st.just(AdmitAll()), occurrence), capacity=st.none()),
        program=_programs(_ANYWHERE),
    )
    @settings(**_settings(100))
    def equal_after(spec: TableSpec, program: list[_Call]) -> None:
        run, twin = _Run(make_table(spec)), _Run(ReferenceTable(spec))
        for method, arguments in [*program, ("drain_all", ())]:
            assert _outcome(run, method, arguments) == _outcome(twin, method, arguments), method
            assert _seen_anywhere(run.table) == _seen_anywhere(twin.table), method

    equal_after()


def check_any_program_keeps_the_reference_s_row_numbers(make_table: MakeTable) -> None:
    """Any settings at all, any order of calls: also the reference's order of eviction and sweeping."""

    @given(
        spec=table_settings.specs(
            admission=table_settings.ADMISSIONS, capacity=st.one_of(st.none(), table_settings.CAPACITIES)
        ),
        program=_programs([*_ANYWHERE, *_BY_ROW]),
    )
    @settings(**_settings(150))
    def equal_after(spec: TableSpec, program: list[_Call]) -> None:
        run, twin = _Run(make_table(spec)), _Run(ReferenceTable(spec))
        for method, arguments in [*program, ("drain_all", ())]:
            assert _outcome(run, method, arguments) == _outcome(twin, method, arguments), method
            assert _seen_anywhere(run.table) == _seen_anywhere(twin.table), method
            assert _seen_by_row(run.table) == _seen_by_row(twin.table), method

    equal_after()


def _settings(max_examples: int) -> dict[str, Any]:
    # Explaining a failure reruns a program hundreds of times and says little that the program does not.
    phases = (Phase.explicit, Phase.generate, Phase.target, Phase.shrink)
    slow = (HealthCheck.too_slow, HealthCheck.data_too_large)
    return {
        "max_examples": max_examples,
        "deadline": None,
        "database": None,
        "phases": phases,
        "suppress_health_check": slow,
    }


def _numbers(n: int, dim: int, seed: int, odd: float | None) -> Floats:
    """Random numbers of many sizes, one of them ``odd`` unless that is None."""
    random = np.random.default_rng(seed)
    size_N1 = 10.0 ** random.integers(-3, 2, (n, 1))
    numbers_ND = (size_N1 * random.normal(size=(n, dim))).astype(np.float32)
    if odd is not None and n:
        numbers_ND[random.integers(n), random.integers(dim)] = odd
    return numbers_ND


def _outcome(run: _Run, method: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(run, method)(*arguments)
    except (ConfigError, GradientError) as error:
        return type(error)


def _seen_anywhere(table: EmbeddingTable) -> dict[str, Any]:
    """What any two tables that did the same agree on."""
    return {
        "rows": row_bits(all_rows(table)),
        "size": len(table),
        "steps": table.steps,
        "clock": table.clock_s,
        "counters": table.counters(),
    }


def _seen_by_row(table: EmbeddingTable) -> dict[str, Any]:
    """What tables agree on that also number their rows alike."""
    memory = table.memory()
    return {
        "numbers": bits(table.row_numbers(table.keys())),
        "memory": (memory.bytes_live, memory.bytes_reserved),
        "ledger": {name: bits(array) for name, array in table.ledger().items()},
    }
