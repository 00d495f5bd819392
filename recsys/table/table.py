"""The contract of an embedding table over exact 64-bit keys, and what travels into and out of one.

Axes: N keys of one call, B bags, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

from collections.abc import Mapping
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
Counts = NDArray[np.uint32]
Offsets = NDArray[np.int64]
RowNumbers = NDArray[np.int64]
Ledger = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableRows:
    """Whole rows on their way into or out of a table; the arrays are in the order of the keys."""

    keys_N: Keys
    """Which rows; a key given twice means the later row."""
    weights_ND: Floats
    """Weights of all slices, decoded."""
    state_NS: Floats
    """Optimizer state of all slices; S may be 0."""
    last_seen_s_N: Seconds
    """Event time of the newest gradient, in seconds since 1970; 0 before the first."""
    count_N: Counts
    """Occurrences learned from, saturating; 0 before the first."""

    def check(self, spec: TableSpec) -> None:
        """Raise ShapeError unless the arrays fit a table of this spec."""
        n = check_keys(self.keys_N)
        check_floats("weights_ND", self.weights_ND, (n, spec.dim))
        check_floats("state_NS", self.state_NS, (n, spec.state_dim))
        check_array("last_seen_s_N", self.last_seen_s_N, np.uint32, (n,))
        check_array("count_N", self.count_N, np.uint32, (n,))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bags:
    """Which consecutive keys of a call are pooled together, and by how much each sum is multiplied."""

    offsets: Offsets
    """Bag b is keys offsets[b] to offsets[b + 1]; (B + 1,), from 0 up to N, never falling."""
    scale_B: Floats | None = None
    """Factor of each bag's sum; None is 1."""

    def check(self, n_keys: int) -> int:
        """B. Raises ShapeError unless the bags cover ``n_keys`` keys exactly."""
        check_array("offsets", self.offsets, np.int64, (max(1, len(self.offsets)),))
        steps = np.diff(self.offsets)
        if self.offsets[0] != 0 or self.offsets[-1] != n_keys or (len(steps) and steps.min() < 0):
            raise ShapeError(
                f"offsets must rise from 0 to the number of keys {n_keys}, "
                f"got {self.offsets[:3].tolist()}..{self.offsets[-1]}"
            )
        if self.scale_B is not None:
            check_array("scale_B", self.scale_B, np.float32, (len(steps),))
        return len(steps)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Changes:
    """Keys that changed between two drains; each key is in exactly one of the two, both ascending."""

    touched_N: Keys
    """Learned or assigned, and there now."""
    removed_N: Keys
    """Erased, expired or evicted, and not there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMemory:
    """Where a table's bytes are."""

    bytes_live: int
    """Of rows that hold a key: weights, state and their metadata (key, last seen, count, marks)."""
    bytes_reserved: int
    """Of all rows that were ever in use and not given back, free ones included."""
    bytes_index: int
    """Of the index from keys to rows."""
    bytes_filter: int
    """Of the admission filter."""
    bytes_changes: int
    """Of the keys that followers have yet to drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCounters:
    """What has happened to a table since it was built or its ledger restored."""

    admitted: int = 0
    """Keys that were given a row."""
    filtered: int = 0
    """Times that the admission filter, or a full table, kept a key of a batch out."""
    expired: int = 0
    """Rows dropped because they had idled too long."""
    evicted: int = 0
    """Rows dropped to make room."""
    dropped_gradients: int = 0
    """Summed gradients that were not finite and were passed over."""


class EmbeddingTable(Protocol):
    """Rows of float32 under 64-bit keys, learned in place. Each implementation states who may call at once.

    Arrays must be C-contiguous and of the exact dtype and shape; anything else raises ShapeError
    and changes nothing. Nothing is ever cast.
    """

    @property
    def spec(self) -> TableSpec:
        """Layout and rules."""

    @property
    def steps(self) -> int:
        """Calls of learn and learn_bags so far: what learning-rate schedules go by."""

    @property
    def clock_s(self) -> int:
        """Largest event time accepted so far, seconds since 1970; 0 before the first."""

    def lookup(self, keys_N: Keys) -> Floats:
        """Weights of each key, (N, D). Never inserts; a missing key reads as ``spec.missing`` says."""

    def lookup_bags(self, keys_N: Keys, bags: Bags) -> Floats:
        """Scaled sum of each bag's rows in order of occurrence, (B, D); an empty bag is zeros."""

    def contains(self, keys_N: Keys) -> Mask:
        """Whether each key has a row, (N,)."""

    def row_numbers(self, keys_N: Keys) -> RowNumbers:
        """Which row each key has, (N,); -1 where it has none.

        A row keeps its number until it goes or ``compact``. Numbers are small: they are given out again.
        """

    def learn(self, keys_N: Keys, grads_ND: Floats, *, event_time_s: int) -> None:
        """One optimizer step of every distinct key along the sum of its gradients, in order of occurrence.

        A missing key that ``spec.admission`` lets in first gets a row at its initial values; under a full
        ``spec.capacity`` it takes the room of a row with a low score, never of one in the same batch. A
        row's last_seen_s never goes back. Where a sum is not finite, ``spec.nonfinite`` rules: raise
        GradientError with nothing changed, or pass over that key. Raises ConfigError unless
        ``event_time_s`` (seconds since 1970) fits 32 bits, and where a slice's codec cannot be learned in.
        """

    def learn_bags(self, keys_N: Keys, bags: Bags, grads_BD: Floats, *, event_time_s: int) -> None:
        """As ``learn``, where the gradient of a key is the scaled gradient of the bag that it occurs in."""

    def admit(self, keys_N: Keys, *, event_time_s: int) -> RowNumbers:
        """Row numbers, (N,), after what ``learn`` does before its step: count occurrences, let in, make room.

        -1 where the filter or a full table keeps a key out. No step is counted.
        """

    def assign(self, keys_N: Keys, weights_ND: Floats) -> None:
        """Set weights, inserting missing keys with their initial state; the last of equal keys wins.

        State stays as it is, but for FTRL, whose weights follow from it: that begins anew from the weights.
        """

    def erase(self, keys_N: Keys) -> int:
        """Drop rows and their state; return how many there were."""

    def sweep(self, max_rows: int) -> int:
        """Look at the next ``max_rows`` >= 0 rows in turn and drop the expired; return how many went."""

    def keys(self) -> Keys:
        """All keys, ascending."""

    def __len__(self) -> int:
        """Number of rows."""

    def follow(self) -> int:
        """Begin to note changed keys for a new follower; its number. Followers do not disturb each other."""

    def drain(self, follower: int) -> Changes:
        """What changed since the follower's last drain; none is ever lost. ConfigError for a stranger."""

    def unfollow(self, follower: int) -> None:
        """Stop noting changes for a follower."""

    def scan(self, cursor: int, max_rows: int) -> tuple[TableRows, int]:
        """At most ``max_rows`` >= 1 rows from ``cursor`` on, and the cursor to go on from.

        The cursor is 0 at first, and 0 again when all were seen. A row that is there throughout a scan is
        seen exactly once, however much is learned meanwhile, as long as nobody calls ``compact``.
        """

    def export_rows(self, keys_N: Keys) -> TableRows:
        """Whole rows as they are now. Raises KeyError for a key without a row."""

    def import_rows(self, rows: TableRows) -> None:
        """Write whole rows, inserting missing keys. Marks nothing as touched and asks no filter."""

    def ledger(self) -> Ledger:
        """What a snapshot must keep besides rows: steps, clock, counters and the admission filter."""

    def restore_ledger(self, ledger: Ledger) -> None:
        """Go on from a ledger of a table with the same admission rule. Raises SnapshotError, unchanged."""

    def compact(self) -> None:
        """Move rows together and give free memory back to the system."""

    def clear(self) -> None:
        """Drop all rows, the ledger and what followers have yet to drain: the table is as newly built."""

    def memory(self) -> TableMemory:
        """Bytes in use."""

    def counters(self) -> TableCounters:
        """What has happened so far."""


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
    check_array(name, array, np.float32, shape)


def check_event_time(event_time_s: int) -> None:
    """Raise ConfigError unless the time is whole seconds in 32 bits."""
    if not isinstance(event_time_s, int | np.integer) or not 0 <= event_time_s < 1 << 32:
        raise ConfigError(f"event_time_s must be whole seconds in 0..2**32-1, got {event_time_s!r}")


def check_array(name: str, array: Any, dtype: type, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless ``array`` is C-contiguous, of this dtype and shape."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ShapeError(f"{name} must be a {np.dtype(dtype).name} array, got {got}; convert it first")
    if array.shape != shape or not array.flags.c_contiguous:
        raise ShapeError(
            f"{name} must be C-contiguous of shape {shape}, "
            f"got shape {array.shape} and strides {array.strides}"
        )
