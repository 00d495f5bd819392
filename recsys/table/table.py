"""The contract of an embedding table over exact 64-bit keys, and the checks at its edge.

Axes: N keys of one call, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.table.spec import TableSpec

Keys = NDArray[np.uint64]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Seconds = NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableRows:
    """Whole rows on their way into or out of a table; the arrays are in the order of the keys."""

    keys_N: Keys
    """Which rows; a key given twice means the later row."""
    weights_ND: Floats
    """Weights of all slices."""
    state_NS: Floats
    """Optimizer state of all slices; S may be 0."""
    last_seen_s_N: Seconds
    """Event time of the newest gradient, in seconds since 1970; 0 before the first."""

    def check(self, spec: TableSpec) -> None:
        """Raise ShapeError unless the arrays fit a table of this spec."""
        n = check_keys(self.keys_N)
        check_floats("weights_ND", self.weights_ND, (n, spec.dim))
        check_floats("state_NS", self.state_NS, (n, spec.state_dim))
        _check_array("last_seen_s_N", self.last_seen_s_N, np.uint32, (n,))


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMemory:
    """Where a table's bytes are."""

    bytes_live: int
    """Of rows that hold a key."""
    bytes_reserved: int
    """Of all row slabs, free rows included."""
    bytes_index: int
    """Of the index from keys to rows."""


class EmbeddingTable(Protocol):
    """Rows of float32 under 64-bit keys, learned in place. Each implementation states who may call at once.

    Arrays must be C-contiguous and of the exact dtype and shape; anything else raises ShapeError
    and changes nothing. Nothing is ever cast.
    """

    @property
    def spec(self) -> TableSpec:
        """Layout and rules."""

    def lookup(self, keys_N: Keys) -> Floats:
        """Weights of each key, (N, D). Never inserts; a missing key reads as ``spec.missing`` says."""

    def contains(self, keys_N: Keys) -> Mask:
        """Whether each key has a row, (N,)."""

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        """One optimizer step of every distinct key along the sum of its gradients, in order of occurrence.

        A missing key first gets a row at its initial values. A row's last_seen_s never goes back.
        Raises GradientError, with nothing changed, when a sum is not finite, and ConfigError
        unless ``event_time_s`` (seconds since 1970) fits 32 bits.
        """

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        """Set weights, inserting missing keys with their initial state; the last of equal keys wins."""

    def erase(self, keys_N: Keys) -> int:
        """Drop rows and their state; return how many there were."""

    def keys(self) -> Keys:
        """All keys, ascending."""

    def __len__(self) -> int:
        """Number of rows."""

    def drain_touched(self) -> Keys:
        """Keys learned, assigned or erased since the last drain: each once, none lost, ascending."""

    def export_rows(self, keys_N: Keys) -> TableRows:
        """Whole rows as they are now. Raises KeyError for a key without a row."""

    def import_rows(self, rows: TableRows) -> None:
        """Write whole rows, inserting missing keys. Marks nothing as touched."""

    def clear(self) -> None:
        """Drop all rows and all touched marks: the table is as newly built."""

    def memory(self) -> TableMemory:
        """Bytes in use."""


def check_keys(keys_N: Keys) -> int:
    """N. Raises ShapeError unless the keys are a C-contiguous uint64 vector."""
    if not isinstance(keys_N, np.ndarray) or keys_N.dtype != np.uint64:
        got = keys_N.dtype if isinstance(keys_N, np.ndarray) else type(keys_N).__name__
        raise ShapeError(f"keys must be a uint64 array, got {got}; view int64 keys as np.uint64 first")
    if keys_N.ndim != 1 or not keys_N.flags.c_contiguous:
        raise ShapeError(
            f"keys must be C-contiguous of shape (N,), got shape {keys_N.shape} and strides {keys_N.strides}"
        )
    return len(keys_N)


def check_floats(name: str, array: Floats, shape: tuple[int, int]) -> None:
    """Raise ShapeError unless ``array`` is C-contiguous float32 of this shape."""
    _check_array(name, array, np.float32, shape)


def check_event_time(event_time_s: int) -> None:
    """Raise ConfigError unless the time is whole seconds in 32 bits."""
    if not isinstance(event_time_s, int | np.integer) or not 0 <= event_time_s < 1 << 32:
        raise ConfigError(f"event_time_s must be whole seconds in 0..2**32-1, got {event_time_s!r}")


def _check_array(name: str, array: Any, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{name} must be a {np.dtype(dtype).name} array, got {got}; convert it first")
    if array.shape != shape or not array.flags.c_contiguous:
        raise ShapeError(
            f"{name} must be C-contiguous of shape {shape}, "
            f"got shape {array.shape} and strides {array.strides}"
        )
