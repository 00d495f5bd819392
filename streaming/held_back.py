"""Statements that an earlier life of the joiner has made, and a new one must not make again."""

from __future__ import annotations

from streaming.shown import Shown
from streaming.statements import NEGATIVE, POSITIVE, example_id, statement


class HeldBack:
    """Ids of examples that are in the output already. False when there are none. One caller at a time."""

    def __init__(self, example_ids: set[int], keys: set[int] | None = None) -> None:
        """``keys`` are those of all items that the examples are about, where they are known."""
        self.ids = set(example_ids)
        self.keys = keys

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, shown: Shown, position: int, stated: int) -> bool:
        """Whether this statement is in the output; it is made but once, so it is then forgotten."""
        key = shown.key(position)
        if self.keys is not None and key not in self.keys:
            return False
        own = example_id(key, stated)
        if own in self.ids:
            self.ids.remove(own)
            return True
        return False

    def has_positive(self, shown: Shown, position: int, label: int) -> bool:
        """Whether a positive of this label is in the output."""
        return example_id(shown.key(position), statement(1 << label, POSITIVE)) in self.ids

    def negatives(self, shown: Shown, position: int, group: int) -> int:
        """Bits of those labels of ``group`` that a negative in the output is about.

        A negative is about those labels of its group that had not been answered, which may be others
        than in the life before; so each subset is looked for.
        """
        key, found, subset = shown.key(position), 0, group
        if self.keys is not None and key not in self.keys:
            return 0
        while subset:
            if example_id(key, statement(subset, NEGATIVE)) in self.ids:
                found |= subset
            subset = (subset - 1) & group
        return found
