"""The embedding table as a dictionary: slow, obvious, and bit for bit what the native one must do.

Axes: N keys of one call, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.errors import GradientError
from recsys.table import initializers, optimizers
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


@dataclass(slots=True)
class _Row:
    weights_D: Floats
    state_S: Floats
    last_seen_s: int = 0


class ReferenceTable:
    """An EmbeddingTable over a dict. One thread only."""

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._rows: dict[int, _Row] = {}
        self._touched: set[int] = set()

    @property
    def spec(self) -> TableSpec:
        return self._spec

    def lookup(self, keys_N: Keys) -> Floats:
        rows_ND = np.zeros((check_keys(keys_N), self._spec.dim), dtype=np.float32)
        for i, key in enumerate(keys_N.tolist()):
            if key in self._rows:
                rows_ND[i] = self._rows[key].weights_D
            elif self._spec.missing == "initializer":
                rows_ND[i] = self._new_row(key).weights_D
        return rows_ND

    def contains(self, keys_N: Keys) -> Mask:
        check_keys(keys_N)
        return np.array([key in self._rows for key in keys_N.tolist()], dtype=np.bool_)

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        check_floats("grads_ND", grads_ND, (check_keys(keys_N), self._spec.dim))
        check_event_time(event_time_s)
        sums: dict[int, Floats] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for key, grad_D in zip(keys_N.tolist(), grads_ND, strict=True):
                sums[key] = sums[key] + grad_D if key in sums else grad_D
        for key, sum_D in sums.items():
            if not np.isfinite(sum_D).all():
                raise GradientError(gradient_refusal(self._spec, key))
        for key, sum_D in sums.items():
            row = self._rows.setdefault(key, self._new_row(key))
            row.weights_D, row.state_S = self._updated(row, sum_D)
            row.last_seen_s = max(row.last_seen_s, int(event_time_s))
            self._touched.add(key)

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        check_floats("weights_ND", weights_ND, (check_keys(keys_N), self._spec.dim))
        for key, weights_D in zip(keys_N.tolist(), weights_ND, strict=True):
            self._rows.setdefault(key, self._new_row(key)).weights_D = weights_D.copy()
            self._touched.add(key)

    def erase(self, keys_N: Keys) -> int:
        check_keys(keys_N)
        present = set(keys_N.tolist()) & self._rows.keys()
        for key in present:
            del self._rows[key]
        self._touched |= present
        return len(present)

    def keys(self) -> Keys:
        return np.array(sorted(self._rows), dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._rows)

    def drain_touched(self) -> Keys:
        touched_N = np.array(sorted(self._touched), dtype=np.uint64)
        self._touched = set()
        return touched_N

    def export_rows(self, keys_N: Keys) -> TableRows:
        n = check_keys(keys_N)
        weights_ND = np.empty((n, self._spec.dim), dtype=np.float32)
        state_NS = np.empty((n, self._spec.state_dim), dtype=np.float32)
        last_seen_s_N = np.empty(n, dtype=np.uint32)
        for i, key in enumerate(keys_N.tolist()):
            if key not in self._rows:
                raise KeyError(missing_row(self._spec, key))
            row = self._rows[key]
            weights_ND[i], state_NS[i], last_seen_s_N[i] = row.weights_D, row.state_S, row.last_seen_s
        return TableRows(
            keys_N=keys_N.copy(), weights_ND=weights_ND, state_NS=state_NS, last_seen_s_N=last_seen_s_N
        )

    def import_rows(self, rows: TableRows) -> None:
        rows.check(self._spec)
        for i, key in enumerate(rows.keys_N.tolist()):
            weights_D, state_S = rows.weights_ND[i].copy(), rows.state_NS[i].copy()
            self._rows[key] = _Row(weights_D, state_S, int(rows.last_seen_s_N[i]))

    def clear(self) -> None:
        self._rows.clear()
        self._touched.clear()

    def memory(self) -> TableMemory:
        """Bytes of the arrays' contents; what the dictionary itself takes is not counted."""
        live = len(self._rows) * 4 * (self._spec.dim + self._spec.state_dim + 1)
        return TableMemory(bytes_live=live, bytes_reserved=live, bytes_index=8 * len(self._rows))

    def _new_row(self, key: int) -> _Row:
        parts = list(enumerate(self._spec.slices))
        weights = [
            initializers.initial_weights(part.initializer, self._spec.slice_seed(i), key, part.dim)
            for i, part in parts
        ]
        state = [optimizers.initial_state(part.optimizer, part.dim) for _, part in parts]
        return _Row(np.concatenate(weights), np.concatenate(state))

    def _updated(self, row: _Row, grad_D: Floats) -> tuple[Floats, Floats]:
        weights, state, w, s = [], [], 0, 0
        for part in self._spec.slices:
            w_end, s_end = w + part.dim, s + optimizers.state_dim(part.optimizer, part.dim)
            new_w_D, new_s_S = optimizers.update(
                part.optimizer, row.weights_D[w:w_end], row.state_S[s:s_end], grad_D[w:w_end]
            )
            weights.append(new_w_D)
            state.append(new_s_S)
            w, s = w_end, s_end
        return np.concatenate(weights), np.concatenate(state)


def gradient_refusal(spec: TableSpec, key: int) -> str:
    """Message of the GradientError that both tables raise."""
    return (
        f"table {spec.name!r}: the summed gradient of key {key:#018x} is not finite; "
        "nothing was learned from this batch: drop it or clip the gradients"
    )


def missing_row(spec: TableSpec, key: int) -> str:
    """Message of the KeyError that both tables raise."""
    return f"table {spec.name!r} has no row for key {key:#018x}; ask contains() first"
