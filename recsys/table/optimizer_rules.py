"""The arithmetic of every optimizer, operation by operation as ``cpp/optimizer_kernels.inl`` does it.

Everything is float32 and the order of operations is part of the rule, so both give the same bits.
``numbers`` are the settings of the optimizer's class, without the learning rate, in the order in which
the class declares them; a flag is 0 or 1.

Where a divisor would be 0 the step is 0. Where a squared gradient overflows, the accumulator stays
infinite and its columns stay where they are: no rule makes a NaN of it.

Axes: D columns of one slice, S floats of its state: first the arrays of D, then what the row has once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.table.row_sums import sum_of_squares

Floats = NDArray[np.float32]
Numbers = tuple[np.float32, ...]
Stepped = tuple[Floats, Floats]

_ONE = np.float32(1)
_LEAST_NORMAL = np.finfo(np.float32).tiny
# Squares of less than this lose their bits; a slice that small starts as one of zeros.
_LEAST_NORM = np.float32(2.0**-60)


class Rule(NamedTuple):
    """State size, first state and step of one optimizer."""

    per_column: int
    """Floats of state for each column."""
    per_row: int
    """Floats of state for the slice as a whole."""
    start: Callable[[Numbers, Floats, np.float32], Floats]
    """(numbers, w_D, rate) -> state of a row that starts at these weights, (S,)."""
    step: Callable[[Numbers, np.float32, Floats, Floats, Floats], Stepped]
    """(numbers, rate, w_D, state_S, g_D) -> weights and state after one gradient."""


def sgd(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """w -= lr·g."""
    return w_D - rate * g_D, state_S


def momentum(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """n' = μ·n − lr·g; w += n', or with Nesterov w += (1 + μ)·n' − μ·n. State: n_D."""
    mu, weight_decay, is_nesterov = numbers
    g_D = g_D + weight_decay * w_D
    n_D = mu * state_S - rate * g_D
    step_D = (_ONE + mu) * n_D - mu * state_S if is_nesterov else n_D
    return w_D + step_D, n_D


def adagrad(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """n += g²; w -= lr·g / √n. Decoupled decay shrinks the old w by lr·wd instead. State: n_D."""
    _, weight_decay, is_decoupled = numbers
    coupled, shrink = (np.float32(0), rate * weight_decay) if is_decoupled else (weight_decay, np.float32(0))
    g_D = g_D + coupled * w_D
    n_D = state_S + g_D * g_D
    return w_D - shrink * w_D - g_D * _over_root(rate, n_D), n_D


def rowwise_adagrad(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """n += mean(g²); w -= lr·g / √n. State: n."""
    _, weight_decay = numbers
    g_D = g_D + weight_decay * w_D
    n_1 = state_S + sum_of_squares(g_D) / np.float32(len(g_D))
    return w_D - g_D * _over_root(rate, n_1), n_1


def adam(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """w -= L·m / (√v + ε), L = lr·√(1 − β2ᵗ)/(1 − β1ᵗ). State: m_D, v_D, β1ᵗ, β2ᵗ."""
    beta1, beta2, epsilon, weight_decay, is_nesterov = numbers
    dim = len(w_D)
    g_D = g_D + weight_decay * w_D
    m_D = _average(beta1, state_S[:dim], g_D)
    v_D = _average(beta2, state_S[dim : 2 * dim], g_D * g_D)
    power_2 = _next_powers(state_S[2 * dim :], beta1, beta2)
    ahead_D = _average(beta1, m_D, g_D) if is_nesterov else m_D
    w_D = w_D - ahead_D * (_corrected(rate, power_2) / (np.sqrt(v_D) + epsilon))
    return w_D, np.concatenate([m_D, v_D, power_2])


def rowwise_adam(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """Adam with one v, of mean(g²), for the slice. State: m_D, v, β1ᵗ, β2ᵗ."""
    beta1, beta2, epsilon, weight_decay = numbers
    dim = len(w_D)
    g_D = g_D + weight_decay * w_D
    m_D = _average(beta1, state_S[:dim], g_D)
    v_1 = _average(beta2, state_S[dim : dim + 1], sum_of_squares(g_D) / np.float32(dim))
    power_2 = _next_powers(state_S[dim + 1 :], beta1, beta2)
    w_D = w_D - m_D * (_corrected(rate, power_2) / (np.sqrt(v_1) + epsilon))
    return w_D, np.concatenate([m_D, v_1, power_2])


def amsgrad(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """Adam over the largest v so far. State: m_D, v_D, largest_D, β1ᵗ, β2ᵗ."""
    beta1, beta2, epsilon, weight_decay = numbers
    dim = len(w_D)
    g_D = g_D + weight_decay * w_D
    m_D = _average(beta1, state_S[:dim], g_D)
    v_D = _average(beta2, state_S[dim : 2 * dim], g_D * g_D)
    largest_D = np.maximum(state_S[2 * dim : 3 * dim], v_D)
    power_2 = _next_powers(state_S[3 * dim :], beta1, beta2)
    w_D = w_D - m_D * (_corrected(rate, power_2) / (np.sqrt(largest_D) + epsilon))
    return w_D, np.concatenate([m_D, v_D, largest_D, power_2])


def ftrl(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """w = 0 where abs(y) <= lr·l1, else (sgn(y)·lr·l1 − y) / (√n + β + l2·lr). State: n_D, y_D.

    y is the paper's z times the rate: y += lr·g − w·(√n' − √n).
    """
    _, _, l1, _ = numbers
    n_D, y_D, divisor_D, moves_D = _follow(numbers, rate, w_D, state_S, g_D)
    threshold = rate * l1
    solved_D = (np.copysign(threshold, y_D) - y_D) / divisor_D
    solved_D = np.where(np.abs(y_D) <= threshold, np.float32(0), solved_D)
    return np.where(moves_D, solved_D, w_D), np.concatenate([n_D, y_D])


def group_ftrl(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """FTRL whose slice is 0 where ‖y‖ <= lr·λ, else −y·(1 − lr·λ/‖y‖) / (√n + β + l2·lr). State: n_D, y_D."""
    _, _, group_lasso, _ = numbers
    n_D, y_D, divisor_D, moves_D = _follow(numbers, rate, w_D, state_S, g_D)
    solved_D = _shrunk(y_D, rate * group_lasso) / divisor_D
    return np.where(moves_D, solved_D, w_D), np.concatenate([n_D, y_D])


def group_adagrad(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """n += max(g²); y = η·g − w, η = lr/(β + √n); w = 0 where ‖y‖ <= η·λ, else −y·(1 − η·λ/‖y‖). State: n."""
    _, beta, group_lasso, weight_decay = numbers
    g_D = g_D + weight_decay * w_D
    n_1 = state_S + np.max(g_D * g_D)
    divisor = beta + np.sqrt(n_1[0])
    if not divisor > 0:
        return w_D, n_1
    eta = rate / divisor
    return _shrunk(eta * g_D - w_D, eta * group_lasso), n_1


def rmsprop(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """n = ρ·n + (1 − ρ)·g², or plain + g²; w -= lr·g / (√n + ε). State: n_D."""
    rho, epsilon, weight_decay, is_averaged = numbers
    g_D = g_D + weight_decay * w_D
    n_D = rho * state_S + (_ONE - rho if is_averaged else _ONE) * (g_D * g_D)
    return w_D - g_D * (rate / (np.sqrt(n_D) + epsilon)), n_D


def adadelta(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """d = g·√(u + ε)/√(a + ε); w -= lr·d. a and u average g² and d². State: a_D, u_D."""
    rho, epsilon, weight_decay = numbers
    dim = len(w_D)
    g_D = g_D + weight_decay * w_D
    u_D = state_S[dim:]
    a_D = _average(rho, state_S[:dim], g_D * g_D)
    d_D = g_D * (np.sqrt(u_D + epsilon) / np.sqrt(a_D + epsilon))
    return w_D - rate * d_D, np.concatenate([a_D, _average(rho, u_D, d_D * d_D)])


def moving_average(numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats) -> Stepped:
    """w = μ·w + (1 − μ)·g."""
    (mu,) = numbers
    return _average(mu, w_D, g_D), state_S


def _average(kept: np.float32, old_D: Floats, new_D: Floats | np.float32) -> Floats:
    # Not old + (1 − kept)·(new − old): that makes a NaN of an infinite old.
    return kept * old_D + (_ONE - kept) * new_D


def _over_root(rate: np.float32, n_D: Floats) -> Floats:
    scale_D = np.zeros_like(n_D)
    np.divide(rate, np.sqrt(n_D), out=scale_D, where=n_D > 0)
    return scale_D


def _next_powers(power_2: Floats, beta1: np.float32, beta2: np.float32) -> Floats:
    powers_2 = power_2 * np.array([beta1, beta2])
    # Below the normal range a product can round back to itself and be slow; 1 − power is 1 long before.
    return np.where(powers_2 < _LEAST_NORMAL, np.float32(0), powers_2)


def _corrected(rate: np.float32, power_2: Floats) -> np.float32:
    """Adam's rate, less the bias of averages that started at 0."""
    return np.float32(rate * np.sqrt(_ONE - power_2[1]) / (_ONE - power_2[0]))


def _follow(
    numbers: Numbers, rate: np.float32, w_D: Floats, state_S: Floats, g_D: Floats
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """n', y', the divisor of the solution, and which columns may move, of the FTRL family."""
    _, beta, _, l2 = numbers
    n_D, y_D = state_S[: len(w_D)], state_S[len(w_D) :]
    new_n_D = n_D + g_D * g_D
    root_D = np.sqrt(new_n_D)
    divisor_D = root_D + beta + l2 * rate
    new_y_D = y_D + (rate * g_D - w_D * (root_D - np.sqrt(n_D)))
    moves_D = np.isfinite(new_n_D) & (divisor_D > 0)
    return new_n_D, np.where(moves_D, new_y_D, y_D), divisor_D, moves_D


def _shrunk(y_D: Floats, threshold: np.float32) -> Floats:
    """−y with its norm lowered by the threshold, and 0 where it is not above it."""
    norm = np.sqrt(sum_of_squares(y_D))
    return np.zeros_like(y_D) if norm <= threshold else y_D * (threshold / norm - _ONE)


def _start_at_zero(n_floats: int) -> Callable[[Numbers, Floats, np.float32], Floats]:
    return lambda numbers, w_D, rate: np.zeros(n_floats * len(w_D), dtype=np.float32)


def _start_adam(n_arrays: int, n_scalars: int) -> Callable[[Numbers, Floats, np.float32], Floats]:
    def start(numbers: Numbers, w_D: Floats, rate: np.float32) -> Floats:
        zeros = np.zeros(n_arrays * len(w_D) + n_scalars, dtype=np.float32)
        return np.concatenate([zeros, np.ones(2, dtype=np.float32)])

    return start


def _start_accumulators(numbers: Numbers, w_D: Floats, rate: np.float32) -> Floats:
    return np.full(len(w_D), numbers[0])


def _start_accumulator(numbers: Numbers, w_D: Floats, rate: np.float32) -> Floats:
    return np.full(1, numbers[0])


def _start_ftrl(numbers: Numbers, w_D: Floats, rate: np.float32) -> Floats:
    """The y whose solution is w_D."""
    n_D, divisor, l1 = _start_following(numbers, w_D, rate)
    return np.concatenate([n_D, -(w_D * divisor) - np.sign(w_D) * (rate * l1)])


def _start_group_ftrl(numbers: Numbers, w_D: Floats, rate: np.float32) -> Floats:
    """The y whose solution is w_D."""
    n_D, divisor, group_lasso = _start_following(numbers, w_D, rate)
    norm = np.sqrt(sum_of_squares(w_D))
    push = rate * group_lasso / norm if norm > _LEAST_NORM else np.float32(0)
    return np.concatenate([n_D, -(w_D * (divisor + push))])


def _start_following(
    numbers: Numbers, w_D: Floats, rate: np.float32
) -> tuple[Floats, np.float32, np.float32]:
    accumulator, beta, l1, l2 = numbers
    return np.full(len(w_D), accumulator), np.sqrt(accumulator) + beta + l2 * rate, l1


RULES: dict[str, Rule] = {
    "sgd": Rule(0, 0, _start_at_zero(0), sgd),
    "momentum": Rule(1, 0, _start_at_zero(1), momentum),
    "adagrad": Rule(1, 0, _start_accumulators, adagrad),
    "rowwise_adagrad": Rule(0, 1, _start_accumulator, rowwise_adagrad),
    "adam": Rule(2, 2, _start_adam(2, 0), adam),
    "rowwise_adam": Rule(1, 3, _start_adam(1, 1), rowwise_adam),
    "amsgrad": Rule(3, 2, _start_adam(3, 0), amsgrad),
    "ftrl": Rule(2, 0, _start_ftrl, ftrl),
    "group_ftrl": Rule(2, 0, _start_group_ftrl, group_ftrl),
    "group_adagrad": Rule(0, 1, _start_accumulator, group_adagrad),
    "rmsprop": Rule(1, 0, _start_at_zero(1), rmsprop),
    "adadelta": Rule(2, 0, _start_at_zero(2), adadelta),
    "moving_average": Rule(0, 0, _start_at_zero(0), moving_average),
}
"""By the name in JSON, in the order of the C++ enumeration."""
