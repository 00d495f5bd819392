"""How one gradient changes one row: the settings of each optimizer, and the functions that apply them.

The arithmetic is in ``optimizer_rules.py``, in the order in which ``cpp/optimizer_kernels.inl`` does the
same, so that both give the same bits. Each class states its rule; g is the gradient plus
weight_decay·w. All state is float32 and starts at 0 unless a class says otherwise.

Axes: D columns of one slice, S floats of its optimizer state.
References: Duchi, Hazan & Singer, JMLR 2011 (Adagrad); Kingma & Ba, ICLR 2015 (Adam); Reddi, Kale &
Kumar, ICLR 2018 (AMSGrad); McMahan et al., KDD 2013 (FTRL); Yang et al., ICML 2010 (group lasso online);
Zeiler, arXiv:1212.5701 (AdaDelta). Row-wise rules keep one float, fed with the mean of g², for the row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.table.optimizer_rules import RULES, Numbers
from recsys.table.schedules import Schedule, check_learning_rate, rate_at
from recsys.table.setting_checks import (
    check_flag,
    check_fraction,
    check_not_negative,
    check_positive,
    check_positive_fraction,
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stepping:
    """What all but the moving average have."""

    learning_rate: float | Schedule
    """Factor of the step, > 0, or a schedule of it."""

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD(_Stepping):
    """w -= lr·g. No state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum(_Stepping):
    """n' = μ·n − lr·g; w += n', or with Nesterov w += (1 + μ)·n' − μ·n. State: n of each column."""

    momentum: float = 0.9
    """μ, what is kept of the last step; in [0, 1)."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""
    is_nesterov: bool = False
    """Whether to step from where the momentum leads."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        check_fraction("momentum", self.momentum)
        check_not_negative("weight_decay", self.weight_decay)
        check_flag("is_nesterov", self.is_nesterov)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad(_Stepping):
    """n += g²; w -= lr·g/√n. State: n of each column."""

    initial_accumulator: float = 0.1
    """n of a new row; >= 0. It bounds the first steps: there is no epsilon."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""
    is_decoupled: bool = False
    """Whether the decay leaves g alone and takes lr·weight_decay·w from the old w; needs a weight_decay."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        check_not_negative("initial_accumulator", self.initial_accumulator)
        check_not_negative("weight_decay", self.weight_decay)
        check_flag("is_decoupled", self.is_decoupled)
        if self.is_decoupled and self.weight_decay == 0:
            raise ConfigError("is_decoupled needs a weight_decay > 0, got 0: set one, or leave the flag out")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWiseAdagrad(_Stepping):
    """n += mean(g²); w -= lr·g/√n. State: n."""

    initial_accumulator: float = 0.1
    """n of a new row; >= 0. It bounds the first steps: there is no epsilon."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        check_not_negative("initial_accumulator", self.initial_accumulator)
        check_not_negative("weight_decay", self.weight_decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moments(_Stepping):
    """m and v average g and g²; w -= L·m/(√v + ε), L = lr·√(1 − β2ᵗ)/(1 − β1ᵗ), t the steps of this row."""

    beta1: float = 0.9
    """What m keeps at each step; in [0, 1)."""
    beta2: float = 0.99
    """What v keeps at each step; in (0, 1)."""
    epsilon: float = 0.01
    """ε, against large steps where v is small; > 0."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        check_fraction("beta1", self.beta1)
        check_positive_fraction("beta2", self.beta2)
        check_positive("epsilon", self.epsilon)
        check_not_negative("weight_decay", self.weight_decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam(_Moments):
    """m and v of each column. State: m, v of each column; β1ᵗ, β2ᵗ, which start at 1."""

    is_nesterov: bool = False
    """Whether to step along β1·m + (1 − β1)·g instead of m."""

    def __post_init__(self) -> None:
        _Moments.__post_init__(self)
        check_flag("is_nesterov", self.is_nesterov)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWiseAdam(_Moments):
    """One v for the slice, the average of mean(g²). State: m of each column; v; β1ᵗ, β2ᵗ, starting at 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AMSGrad(_Moments):
    """The largest v so far for v. State: m, v, largest v of each column; β1ᵗ, β2ᵗ, which start at 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FTRL(_Stepping):
    """Adagrad with an exact L1: w is 0 where abs(z) <= l1, else −lr·(z − sgn(z)·l1)/(√n + β + l2·lr).

    n += g²; z += g − w·(√n' − √n)/lr. State: n, lr·z of each column; z starts where its solution is the
    row's first w. Keeping lr·z makes the rule right under a schedule: a new rate scales new
    gradients only. Weights that are assigned over a row need that row's state started anew.
    """

    initial_accumulator: float = 0.1
    """n of a new row; >= 0."""
    beta: float = 0.0
    """β, added to √n; >= 0."""
    l1: float = 0.0
    """Weight of the sum of abs(w); >= 0."""
    l2: float = 0.0
    """Weight of half the sum of w²; >= 0."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        for name in ("initial_accumulator", "beta", "l1", "l2"):
            check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFTRL(_Stepping):
    """FTRL with λ‖w‖ for L1: the whole slice is 0 where ‖z‖ <= λ, else −lr·z·(1 − λ/‖z‖)/(√n + β + l2·lr).

    State, and what is said of it, as in FTRL.
    """

    initial_accumulator: float = 0.0
    """n of a new row; >= 0."""
    beta: float = 1.0
    """β, added to √n; >= 0."""
    group_lasso: float = 0.0
    """λ, weight of the slice's norm; >= 0."""
    l2: float = 0.0
    """Weight of half the sum of w²; >= 0."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        for name in ("initial_accumulator", "beta", "group_lasso", "l2"):
            check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAdagrad(_Stepping):
    """n += max(g²); η = lr/(β + √n); z = g − w/η; w is 0 where ‖z‖ <= λ, else −η·z·(1 − λ/‖z‖). State: n."""

    initial_accumulator: float = 0.1
    """n of a new row; >= 0."""
    beta: float = 0.0
    """β, added to √n; >= 0."""
    group_lasso: float = 0.0
    """λ, weight of the slice's norm; >= 0."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        for name in ("initial_accumulator", "beta", "group_lasso", "weight_decay"):
            check_not_negative(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSProp(_Stepping):
    """n = ρ·n + (1 − ρ)·g²; w -= lr·g/(√n + ε). State: n of each column."""

    decay: float = 0.9
    """ρ, what n keeps at each step; in (0, 1)."""
    epsilon: float = 1.0
    """ε, against large steps where n is small; > 0."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""
    is_averaged: bool = True
    """Whether g² enters n by 1 − ρ; else n is a fading sum, 1/(1 − ρ) times as large."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        check_positive_fraction("decay", self.decay)
        check_positive("epsilon", self.epsilon)
        check_not_negative("weight_decay", self.weight_decay)
        check_flag("is_averaged", self.is_averaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaDelta(_Stepping):
    """d = g·√(u + ε)/√(a + ε); w -= lr·d; a and u average g² and d². State: a, u of each column."""

    decay: float = 0.9
    """What a and u keep at each step; in (0, 1)."""
    epsilon: float = 0.01
    """ε, which gets the first steps going; > 0."""
    weight_decay: float = 0.0
    """Pull towards 0, per unit of weight; >= 0."""

    def __post_init__(self) -> None:
        _Stepping.__post_init__(self)
        check_positive_fraction("decay", self.decay)
        check_positive("epsilon", self.epsilon)
        check_not_negative("weight_decay", self.weight_decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingAverage:
    """w = μ·w + (1 − μ)·g, where g is a statistic rather than a gradient. No state and no learning rate."""

    momentum: float = 0.9
    """μ, what is kept at each step; in [0, 1)."""

    def __post_init__(self) -> None:
        check_fraction("momentum", self.momentum)


Optimizer = (
    SGD
    | Momentum
    | Adagrad
    | RowWiseAdagrad
    | Adam
    | RowWiseAdam
    | AMSGrad
    | FTRL
    | GroupFTRL
    | GroupAdagrad
    | RMSProp
    | AdaDelta
    | MovingAverage
)

KINDS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "adam": Adam,
    "rowwise_adam": RowWiseAdam,
    "amsgrad": AMSGrad,
    "ftrl": FTRL,
    "group_ftrl": GroupFTRL,
    "group_adagrad": GroupAdagrad,
    "rmsprop": RMSProp,
    "adadelta": AdaDelta,
    "moving_average": MovingAverage,
}
"""Names in JSON, in the order of the C++ enumeration."""

_RULE_OF = {kind: RULES[name] for name, kind in KINDS.items()}


def core_numbers(optimizer: Optimizer) -> tuple[float, ...]:
    """The settings but the learning rate, in the order of the class; a flag is 0 or 1. At most 8."""
    return tuple(float(getattr(optimizer, f.name)) for f in fields(optimizer) if f.name != "learning_rate")


def learning_rate_at(optimizer: Optimizer, step: int) -> np.float32:
    """The learning rate of one step; 0 where the optimizer has none."""
    return np.float32(0) if isinstance(optimizer, MovingAverage) else rate_at(optimizer.learning_rate, step)


def state_dim(optimizer: Optimizer, dim: int) -> int:
    """Floats of state, S, that a slice of ``dim`` columns keeps in each row."""
    rule = _RULE_OF[type(optimizer)]
    return rule.per_column * dim + rule.per_row


def initial_state(optimizer: Optimizer, w_D: Floats, rate: np.float32) -> Floats:
    """State of a row's slice that starts at ``w_D`` when the learning rate is ``rate``, (S,)."""
    with np.errstate(all="ignore"):
        return _RULE_OF[type(optimizer)].start(_numbers(optimizer), w_D, rate)


def update(
    optimizer: Optimizer, w_D: Floats, state_S: Floats, g_D: Floats, rate: np.float32
) -> tuple[Floats, Floats]:
    """Weights and state of a slice after one gradient; the arguments stay as they are."""
    # Overflow and division by 0 have defined ends, which the rules state.
    with np.errstate(all="ignore"):
        return _RULE_OF[type(optimizer)].step(_numbers(optimizer), rate, w_D, state_S, g_D)


def _numbers(optimizer: Optimizer) -> Numbers:
    return tuple(np.float32(number) for number in core_numbers(optimizer))
