"""The embedding table in C++: what serves and trains. The only importer of ``recsys.table._core``.

Axes: N keys of one call, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

import numpy as np

from recsys.errors import ConfigError, GradientError
from recsys.table import _core
from recsys.table.initializers import low_and_width
from recsys.table.optimizers import SGD, Adagrad, Optimizer, RowWiseAdagrad
from recsys.table.reference import gradient_refusal, missing_row
from recsys.table.spec import TableSpec
from recsys.table.table import (
    Floats,
    Keys,
    Mask,
    TableMemory,
    TableRows,
    check_event_time,
    check_floats,
    check_keys,
)

_CORE_RULES: dict[type[Optimizer], _core.Optimizer] = {
    SGD: _core.Optimizer.SGD,
    Adagrad: _core.Optimizer.ADAGRAD,
    RowWiseAdagrad: _core.Optimizer.ROW_WISE_ADAGRAD,
}


class NativeTable:
    """An EmbeddingTable over the C++ core. Any number of readers beside one writer; a reader sees whole rows.

    Readers are lookup, contains, export_rows, keys, memory and len; more writers wait for each other.
    Every call releases the GIL. ``threads`` (>= 1) is how many a call of 16,384 keys or more may use.
    """

    def __init__(self, spec: TableSpec, threads: int = 2) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be >= 1, got {threads}")
        self._spec, self._dim = spec, spec.dim
        self._core = _core.Table(
            slices=_core_slices(spec),
            missing_reads_initial=spec.missing == "initializer",
            threads=threads,
        )

    @property
    def spec(self) -> TableSpec:
        return self._spec

    def lookup(self, keys_N: Keys) -> Floats:
        rows_ND = np.empty((check_keys(keys_N), self._dim), dtype=np.float32)
        self._core.lookup(keys_N, rows_ND)
        return rows_ND

    def contains(self, keys_N: Keys) -> Mask:
        mask_N = np.empty(check_keys(keys_N), dtype=np.bool_)
        self._core.contains(keys_N, mask_N)
        return mask_N

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        check_floats("grads_ND", grads_ND, (check_keys(keys_N), self._dim))
        check_event_time(event_time_s)
        refused = self._core.learn(keys_N, grads_ND, int(event_time_s))
        if refused is not None:
            raise GradientError(gradient_refusal(self._spec, refused))

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        check_floats("weights_ND", weights_ND, (check_keys(keys_N), self._dim))
        self._core.assign(keys_N, weights_ND)

    def erase(self, keys_N: Keys) -> int:
        check_keys(keys_N)
        return self._core.erase(keys_N)

    def keys(self) -> Keys:
        return self._core.keys()

    def __len__(self) -> int:
        return len(self._core)

    def drain_touched(self) -> Keys:
        return self._core.drain_touched()

    def export_rows(self, keys_N: Keys) -> TableRows:
        n = check_keys(keys_N)
        weights_ND = np.empty((n, self._dim), dtype=np.float32)
        state_NS = np.empty((n, self._spec.state_dim), dtype=np.float32)
        last_seen_s_N = np.empty(n, dtype=np.uint32)
        missing = self._core.export_rows(keys_N, weights_ND, state_NS, last_seen_s_N)
        if missing is not None:
            raise KeyError(missing_row(self._spec, missing))
        return TableRows(
            keys_N=keys_N.copy(), weights_ND=weights_ND, state_NS=state_NS, last_seen_s_N=last_seen_s_N
        )

    def import_rows(self, rows: TableRows) -> None:
        rows.check(self._spec)
        self._core.import_rows(rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N)

    def clear(self) -> None:
        self._core.clear()

    def memory(self) -> TableMemory:
        live, reserved, index = self._core.memory()
        return TableMemory(bytes_live=live, bytes_reserved=reserved, bytes_index=index)


def _core_slices(spec: TableSpec) -> list[_core.Slice]:
    slices = []
    for i, part in enumerate(spec.slices):
        low, width = low_and_width(part.initializer)
        accumulator = 0.0 if isinstance(part.optimizer, SGD) else part.optimizer.initial_accumulator
        slices.append(
            _core.Slice(
                dim=part.dim,
                optimizer=_CORE_RULES[type(part.optimizer)],
                learning_rate=part.optimizer.learning_rate,
                initial_accumulator=accumulator,
                low=float(low),
                width=float(width),
                seed=spec.slice_seed(i),
            )
        )
    return slices
