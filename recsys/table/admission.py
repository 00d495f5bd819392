"""Which keys earn a row: settings, and the filter that ``cpp/admission.h`` repeats bit for bit.

Keys seen a handful of times are under-fitted and cost memory (Liu et al., *Monolith*, 2022, sec. 3).
A filter is asked only about keys without a row, and counts occurrences, not batches.

The counting filter is a count-min sketch (Cormode & Muthukrishnan, 2005) with conservative update
(Estan & Varghese, 2002): an estimate is never below the true count, and above it only where a key
shares all of its cells. Ageing then halves all counts, so a key must come back before it is forgotten.
With a window of an eighth of the width, and every key stopping one occurrence short, early entries
were 0.5 % of the keys at a threshold of 5, 1.5 % at 16 and 8 % at 100; half that window cuts them tenfold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, SnapshotError
from recsys.hashing import mix64

_LARGEST_COUNT = (1 << 16) - 1
_LARGEST_WIDTH = 1 << 28
_LARGEST_DEPTH = 8
_MASK = (1 << 64) - 1

COUNTERS = ("admitted", "refused", "draws", "fresh", "additions")
"""What ``counters`` of a filter's state holds, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitAll:
    """Every key gets a row at its first occurrence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """A key gets a row on its ``threshold``-th occurrence: rarely earlier, later only where counts halve."""

    threshold: int
    """Occurrences, 1 to 65535."""
    width: int = 1 << 20
    """Cells in one row of the sketch: a power of two, at most 2**28; two bytes each."""
    depth: int = 4
    """Rows of the sketch, 1 to 8."""
    window: int = 0
    """Halve all counts after this many new keys, or window * threshold occurrences if that is sooner; at
    most width / 4, since a fuller sketch tells few keys apart. 0 never halves: for finite streams only."""

    def __post_init__(self) -> None:
        _check_whole("threshold", self.threshold, 1, _LARGEST_COUNT)
        _check_whole("width", self.width, 1, _LARGEST_WIDTH)
        _check_whole("depth", self.depth, 1, _LARGEST_DEPTH)
        _check_whole("window", self.window, 0, _LARGEST_WIDTH)
        if self.width & (self.width - 1):
            raise ConfigError(f"width must be a power of two, got {self.width}")
        if self.window > self.width // 4:
            raise ConfigError(
                f"window must be <= width / 4 = {self.width // 4}, got {self.window}; widen the sketch"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probabilistic:
    """A key gets a row by chance; nothing is remembered about keys that did not."""

    threshold: int
    """Occurrences, 1 to 65535."""
    rule: Literal["equal", "linear"]
    """equal: 95 % of the keys are in by ``threshold`` occurrences, however these are grouped.
    linear: c occurrences at once enter with probability min(1, c / threshold)."""

    def __post_init__(self) -> None:
        _check_whole("threshold", self.threshold, 1, _LARGEST_COUNT)
        if self.rule not in ("equal", "linear"):
            raise ConfigError(f"rule must be 'equal' or 'linear', got {self.rule!r}")


Admission = AdmitAll | Occurrence | Probabilistic
CoreRule = tuple[int, int, int, int, int, float, bool, int]


def core_rule(admission: Admission, seed: int) -> CoreRule:
    """Fields of the native rule: kind, threshold, width, depth, window, probability, linear, seed.

    The probability is that of one occurrence under the equal rule; it is worked out here alone, as
    ``pow`` may differ in its last bit from one library to the next.
    """
    if isinstance(admission, Occurrence):
        return 1, admission.threshold, admission.width, admission.depth, admission.window, 0.0, False, seed
    if isinstance(admission, Probabilistic):
        linear = admission.rule == "linear"
        probability = 0.0 if linear else 1.0 - 0.05 ** (1.0 / admission.threshold)
        return 2, admission.threshold, 0, 0, 0, probability, linear, seed
    return 0, 1, 0, 0, 0, 0.0, False, seed


def equal_probability(probability: float, occurrences: int) -> float:
    """1 - (1 - p)^c by repeated multiplication, which gives the same bits in C++."""
    out = 1.0
    for _ in range(occurrences):
        out *= 1.0 - probability
        if 1.0 - out == 1.0:  # it stays so: the rest of the loop cannot change the result
            break
    return 1.0 - out


def passes_draw(draw: int, probability: float) -> bool:
    """Whether an even 64-bit draw falls below the probability; the scaling by 2**64 is exact."""
    return probability >= 1.0 or draw < int(probability * 2.0**64)


class AdmissionFilter:
    """Decides key by key, remembering what its rule needs. One thread only."""

    def __init__(self, admission: Admission, seed: int = 0) -> None:
        """``seed``, 0 to 2**64 - 1, moves hashes and draws; keep it apart from the slices' seeds."""
        if not isinstance(admission, get_args(Admission)):
            raise ConfigError(f"{admission!r} is not an admission rule")
        _check_whole("seed", seed, 0, _MASK)
        rule = core_rule(admission, seed)
        self._kind, self._threshold, width, depth, self._window, self._probability, self._linear, _ = rule
        self._seed = seed
        self._cells = np.zeros((depth, width), dtype=np.uint16)
        self._counters = dict.fromkeys(COUNTERS, 0)

    @property
    def admitted(self) -> int:
        """Calls that gave a row."""
        return self._counters["admitted"]

    @property
    def refused(self) -> int:
        """Calls that gave none."""
        return self._counters["refused"]

    @property
    def fill(self) -> float:
        """Share of the sketch's cells that are not zero; 0 without a sketch. Reads them all."""
        return float(np.count_nonzero(self._cells)) / self._cells.size if self._cells.size else 0.0

    def admit(self, key: int, occurrences: int) -> bool:
        """Count ``occurrences`` >= 1 sightings of a key without a row; True if it gets one now."""
        if self._kind == 0:
            is_in = True
        elif self._kind == 1:
            is_in = self._count(key, occurrences) >= self._threshold
        else:
            is_in = self._draw(key, occurrences)
        self._counters["admitted" if is_in else "refused"] += 1
        return is_in

    def state(self) -> dict[str, NDArray[np.generic]]:
        """All that a later filter of the same rule needs to go on: cells (depth, width) and counters."""
        counters = np.array([self._counters[name] for name in COUNTERS], dtype=np.uint64)
        return {"cells": self._cells.copy(), "counters": counters}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Go on where ``state`` was taken. Raises SnapshotError, unchanged, if it is of another shape."""
        wanted = {"cells": (np.uint16, self._cells.shape), "counters": (np.uint64, (len(COUNTERS),))}
        for name, (dtype, shape) in wanted.items():
            array = state.get(name)
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            if array is None or array.dtype != dtype or array.shape != shape:
                raise SnapshotError(
                    f"admission {name}: got {got}, wanted {np.dtype(dtype).name} {shape}; "
                    "restore under the admission rule that was saved"
                )
        self._cells[:] = state["cells"]
        self._counters = dict(zip(COUNTERS, state["counters"].tolist(), strict=True))

    def _count(self, key: int, occurrences: int) -> int:
        depth, width = self._cells.shape
        rows = np.arange(depth)
        columns = [mix64(key ^ mix64((self._seed + row) & _MASK)) & (width - 1) for row in range(depth)]
        before = int(self._cells[rows, columns].min())
        after = min(before + occurrences, _LARGEST_COUNT)
        # Only cells below the new estimate rise: the others already owe their height to other keys.
        self._cells[rows, columns] = np.maximum(self._cells[rows, columns], np.uint16(after))
        if self._window:
            self._age(occurrences, is_new=before == 0)
        return after

    def _age(self, occurrences: int, *, is_new: bool) -> None:
        self._counters["fresh"] += is_new
        self._counters["additions"] += occurrences
        # A sketch so full that no key looks new must not stop ageing: then additions end the window.
        limit = self._window * self._threshold
        if self._counters["fresh"] >= self._window or self._counters["additions"] >= limit:
            self._cells >>= np.uint16(1)
            self._counters["fresh"] = self._counters["additions"] = 0

    def _draw(self, key: int, occurrences: int) -> bool:
        draw = mix64((mix64(self._seed ^ key) + self._counters["draws"]) & _MASK)
        self._counters["draws"] += 1
        if self._linear:
            return passes_draw(draw, occurrences / self._threshold)
        return passes_draw(draw, equal_probability(self._probability, occurrences))


def _check_whole(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} must be an integer in {low}..{high}, got {value!r}")
