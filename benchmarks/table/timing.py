"""Timing side by side: every arm runs once in each repeat, so that a ratio is of one moment of the machine.

Axes: R repeats. An arm is a list of calls without arguments, one for each batch, prepared beforehand.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from document import Figure
from numpy.typing import NDArray

Call = Callable[[], object]
Times = NDArray[np.float64]

WARM_PART = 4
"""One part in so many of an arm's calls is run untimed before it."""


def seconds(calls: Sequence[Call]) -> float:
    """How long the calls take, one after another."""
    begun = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - begun


def each_seconds(calls: Sequence[Call]) -> Times:
    """How long each call takes, for quantiles of single calls."""
    at = np.empty(len(calls) + 1)
    at[0] = time.perf_counter()
    for i, call in enumerate(calls):
        call()
        at[i + 1] = time.perf_counter()
    return np.diff(at)


def interleaved(arms: Mapping[str, Sequence[Call]], repeats: int) -> dict[str, Times]:
    """Seconds of each arm in each repeat, (R,), after one repeat that is not counted.

    The order turns by one arm a repeat, so that no arm always follows the same other one. An arm runs its
    last calls once more before its timed ones: otherwise a small table would be timed while it takes back
    the caches from the arm before. Let a batch list touch more than the caches hold.
    """
    names = list(arms)
    took = {name: np.empty(repeats) for name in names}
    was_on = gc.isenabled()
    gc.disable()
    try:
        for repeat in range(-1, repeats):
            turn = (repeat + 1) % len(names)
            for name in names[turn:] + names[:turn]:
                seconds(arms[name][-max(1, len(arms[name]) // WARM_PART) :])
                took_s = seconds(arms[name])
                if repeat >= 0:
                    took[name][repeat] = took_s
    finally:
        if was_on:
            gc.enable()
    return took


def rate(name: str, n_ids: int, took_R: Times) -> Figure:
    """Million ids a second where each repeat handled ``n_ids``: the median and the quartiles."""
    return _figure(name, n_ids / took_R / 1e6, "M/s", None)


def ratio(name: str, took_R: Times, other_R: Times, *, bar: float | None = None) -> Figure:
    """How many times the rate of the other arm on the same ids; paired repeat by repeat."""
    return _figure(name, other_R / took_R, "ratio", bar)


def _figure(name: str, values_R: Times, unit: str, bar: float | None) -> Figure:
    low, median, high = (round(float(q), 3) for q in np.quantile(values_R, [0.25, 0.5, 0.75]))
    return {
        "name": name,
        "value": median,
        "unit": unit,
        "bar": None if bar is None else f">= {bar:g}",
        "holds": None if bar is None else median >= bar,
        "low": low,
        "high": high,
    }
