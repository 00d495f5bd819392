"""A slot of a fixed-size array for each key, without collisions; slots of keys that went are given out again.

The table beneath holds no weights to speak of: its row numbers are the slots.

Axes: N keys of one call, Z slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, SnapshotError
from recsys.table.admission import Admission, AdmitAll
from recsys.table.initializers import Zeros
from recsys.table.ledger import check_ledger
from recsys.table.native import NativeTable
from recsys.table.optimizers import SGD
from recsys.table.retention import LRU, Capacity, EvictionPolicy, Expiry
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import Keys, RowNumbers, TableRows

Arrays = Mapping[str, NDArray[Any]]

# Step numbers and dates may jump; only order counts, since nothing here expires.
_ANY_SKEW = (1 << 32) - 1
_LEDGER = "ledger."


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRules:
    """Who gets a slot, and who gives one up."""

    policy: EvictionPolicy = field(default_factory=LRU)
    """Which keys go when all slots are taken; never those of the batch at hand."""
    admission: Admission = field(default_factory=AdmitAll)
    """Which new keys get a slot."""
    name: str = "slots"
    """Seeds the admission filter."""
    threads: int = 2
    """Threads of a call of 8,192 keys or more; >= 1."""


class KeySlots:
    """Maps 64-bit keys one to one to slots 0 to Z - 1. One thread at a time."""

    def __init__(self, n_slots: int, rules: SlotRules) -> None:
        if n_slots < 1:
            raise ConfigError(f"want one slot or more, got {n_slots}")
        weightless = SliceSpec(name="none", dim=1, optimizer=SGD(learning_rate=1.0), initializer=Zeros())
        spec = TableSpec(
            name=rules.name,
            slices=(weightless,),
            admission=rules.admission,
            expiry=Expiry(max_skew_s=_ANY_SKEW),
            capacity=Capacity(max_rows=n_slots, policy=rules.policy),
        )
        self._table = NativeTable(spec, threads=rules.threads)
        self._owner_Z = np.zeros(n_slots, dtype=np.uint64)
        self._was_given_Z = np.zeros(n_slots, dtype=np.bool_)
        self._recycled: list[RowNumbers] = []
        self._admitted = 0

    def __len__(self) -> int:
        """Number of keys that have a slot."""
        return len(self._table)

    def slots(self, keys_N: Keys) -> RowNumbers:
        """The slot of each key, (N,); -1 where it has none. Changes nothing."""
        return self._table.row_numbers(keys_N)

    def admit(self, keys_N: Keys, *, event_time_s: int) -> RowNumbers:
        """The slot of each key, (N,), given now where need be; -1 where admission or a full batch forbids.

        ``event_time_s`` is what the policy goes by: seconds, or the number of a step.
        """
        slots_N = self._table.admit(keys_N, event_time_s=event_time_s)
        admitted = self._table.counters().admitted
        if admitted != self._admitted:
            self._note_owners(keys_N, slots_N)
            self._admitted = admitted
        return slots_N

    def take_recycled(self) -> RowNumbers:
        """Slots that went from one key to another since the last call, ascending, each once."""
        recycled = np.unique(np.concatenate([*self._recycled, np.empty(0, np.int64)]))
        self._recycled.clear()
        return recycled

    def state(self) -> dict[str, NDArray[Any]]:
        """All that ``restore`` needs: by slot, (Z,), its last key and that key's history; and the ledger."""
        keys = self._table.keys()
        taken = self._table.row_numbers(keys)
        rows = self._table.export_rows(keys)
        n_slots = len(self._owner_Z)
        state: dict[str, NDArray[Any]] = {
            "owner": self._owner_Z.copy(),
            "was_given": self._was_given_Z.copy(),
            "is_taken": np.zeros(n_slots, np.bool_),
            "last_seen_s": np.zeros(n_slots, np.uint32),
            "count": np.zeros(n_slots, np.uint32),
        }
        state["is_taken"][taken] = True
        state["last_seen_s"][taken], state["count"][taken] = rows.last_seen_s_N, rows.count_N
        return state | {_LEDGER + name: array for name, array in self._table.ledger().items()}

    def restore(self, state: Arrays) -> None:
        """Go on from a state of as many slots and the same admission rule.

        Every key keeps its slot. Which free slot the next new key gets, and where the search for keys that
        may go begins, can differ. Raises SnapshotError, and changes nothing, for any other state.
        """
        ledger = {name.removeprefix(_LEDGER): array for name, array in state.items() if _LEDGER in name}
        check_ledger(self._table.spec, ledger)
        like = {name: array for name, array in self.state().items() if _LEDGER not in name}
        for name, array in like.items():
            got = state.get(name)
            if got is None or got.dtype != array.dtype or got.shape != array.shape:
                found = "nothing" if got is None else f"{got.dtype} {got.shape}"
                raise SnapshotError(f"slots, {name}: got {found}, wanted {array.dtype} {array.shape}")
        keys = state["owner"][state["is_taken"]]
        if len(np.unique(keys)) < len(keys) or (state["is_taken"] & ~state["was_given"]).any():
            raise SnapshotError("slots: a key has two slots or a slot was never given; the state is damaged")
        self._fill(state)
        self._table.restore_ledger(ledger)
        self._owner_Z, self._was_given_Z = state["owner"].copy(), state["was_given"].copy()
        self._recycled.clear()
        self._admitted = self._table.counters().admitted

    def _note_owners(self, keys_N: Keys, slots_N: RowNumbers) -> None:
        has_slot_N = slots_N >= 0
        keys_N, slots_N = keys_N[has_slot_N], slots_N[has_slot_N]
        is_new_N = (self._owner_Z[slots_N] != keys_N) | ~self._was_given_Z[slots_N]
        keys_N, slots_N = keys_N[is_new_N], slots_N[is_new_N]
        self._recycled.append(slots_N[self._was_given_Z[slots_N]])
        self._owner_Z[slots_N], self._was_given_Z[slots_N] = keys_N, True

    def _fill(self, state: Arrays) -> None:
        """Put each key into its slot: a new table numbers its rows in the order in which they come."""
        n_used = int(np.flatnonzero(state["was_given"])[-1]) + 1 if state["was_given"].any() else 0
        is_taken, keys = state["is_taken"][:n_used], state["owner"][:n_used].copy()
        # Other keys hold the free slots meanwhile; at most as many of these are taken as there are keys.
        spare = np.setdiff1d(np.arange(n_used, dtype=np.uint64), keys[is_taken])[: int((~is_taken).sum())]
        keys[~is_taken] = spare
        self._table.clear()
        self._table.import_rows(
            TableRows(
                keys_N=keys,
                weights_ND=np.zeros((n_used, 1), np.float32),
                state_NS=np.zeros((n_used, 0), np.float32),
                last_seen_s_N=state["last_seen_s"][:n_used].copy(),
                count_N=state["count"][:n_used].copy(),
            )
        )
        # The slot freed last is given first.
        self._table.erase(spare[::-1].copy())
