"""How one gradient changes one row: settings, and the rules as pure functions over float32.

A rule is written operation by operation, in the order in which ``cpp/slices.h`` does the same, so
that both give the same bits. There is no epsilon: the initial accumulator keeps the first step
finite, and where an accumulator is still 0 the step is skipped.

Axes: D columns of one slice, S floats of its optimizer state.
References: Duchi, Hazan & Singer, JMLR 2011 (Adagrad); row-wise Adagrad keeps one accumulator for
the row, fed with the mean of the squared gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError

Floats = NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """w -= lr * g. No state."""

    learning_rate: float
    """Step per unit of gradient; > 0."""

    def __post_init__(self) -> None:
        _check_learning_rate(self.learning_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad:
    """n += g²; w -= lr * g / sqrt(n), one n for each column."""

    learning_rate: float
    """Step at an accumulator of 1; > 0."""
    initial_accumulator: float = 0.1
    """n of a new row; >= 0."""

    def __post_init__(self) -> None:
        _check_learning_rate(self.learning_rate)
        _check_accumulator(self.initial_accumulator)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWiseAdagrad:
    """n += mean(g²); w -= lr * g / sqrt(n), one n for the slice of a row."""

    learning_rate: float
    """Step at an accumulator of 1; > 0."""
    initial_accumulator: float = 0.1
    """n of a new row; >= 0."""

    def __post_init__(self) -> None:
        _check_learning_rate(self.learning_rate)
        _check_accumulator(self.initial_accumulator)


Optimizer = SGD | Adagrad | RowWiseAdagrad


def state_dim(optimizer: Optimizer, dim: int) -> int:
    """Floats of state, S, that a slice of ``dim`` columns keeps in each row."""
    match optimizer:
        case SGD():
            return 0
        case Adagrad():
            return dim
        case RowWiseAdagrad():
            return 1


def initial_state(optimizer: Optimizer, dim: int) -> Floats:
    """State of a new row's slice, (S,)."""
    start = 0.0 if isinstance(optimizer, SGD) else optimizer.initial_accumulator
    return np.full(state_dim(optimizer, dim), start, dtype=np.float32)


def update(optimizer: Optimizer, w_D: Floats, state_S: Floats, g_D: Floats) -> tuple[Floats, Floats]:
    """Weights and state of a slice after one gradient."""
    rate = np.float32(optimizer.learning_rate)
    # A square may overflow: the accumulator is then infinite and the step 0, which is the rule.
    with np.errstate(over="ignore", under="ignore"):
        match optimizer:
            case SGD():
                return w_D - rate * g_D, state_S
            case Adagrad():
                return adagrad(w_D, state_S, g_D, rate)
            case RowWiseAdagrad():
                return row_wise_adagrad(w_D, state_S, g_D, rate)


def adagrad(w_D: Floats, n_D: Floats, g_D: Floats, rate: np.float32) -> tuple[Floats, Floats]:
    """Weights and accumulators after one gradient."""
    n_D = n_D + g_D * g_D
    moves_D = n_D > 0
    step_D = np.zeros_like(w_D)
    np.divide(rate * g_D, np.sqrt(n_D), out=step_D, where=moves_D)
    return w_D - step_D, n_D


def row_wise_adagrad(w_D: Floats, n_1: Floats, g_D: Floats, rate: np.float32) -> tuple[Floats, Floats]:
    """Weights and the row's accumulator, (1,), after one gradient."""
    squares = np.float32(0.0)
    # One by one: np.sum adds in pairs, which rounds differently.
    for g in g_D:
        squares = squares + g * g
    n_1 = n_1 + squares / np.float32(len(g_D))
    if n_1[0] == 0:
        return w_D, n_1
    root_1: Floats = np.sqrt(n_1)
    return w_D - rate * g_D / root_1, n_1


def _check_learning_rate(rate: float) -> None:
    if not 0 < rate <= _LARGEST:
        raise ConfigError(f"learning_rate must be > 0 and finite in float32, got {rate}")


def _check_accumulator(start: float) -> None:
    if not 0 <= start <= _LARGEST:
        raise ConfigError(f"initial_accumulator must be >= 0 and finite in float32, got {start}")
