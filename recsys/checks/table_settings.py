"""Any valid settings of a table, as hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from recsys.table import (
    BF16,
    FP16,
    FP32,
    FTRL,
    LFU,
    LRU,
    SGD,
    AdaDelta,
    Adagrad,
    Adam,
    Admission,
    AdmitAll,
    AMSGrad,
    Capacity,
    ClipByNorm,
    ClipByValue,
    Codec,
    Constant,
    CosineDecay,
    DistanceLFU,
    Expiry,
    ExponentialDecay,
    GroupAdagrad,
    GroupFTRL,
    Initializer,
    InverseSqrt,
    Momentum,
    MovingAverage,
    Occurrence,
    Optimizer,
    Probabilistic,
    RMSProp,
    RowWiseAdagrad,
    RowWiseAdam,
    SliceSpec,
    TableSpec,
    Uniform,
    WarmUp,
    Zeros,
)
from recsys.table.clipping import Clip
from recsys.table.schedules import Schedule

_SIZES = st.floats(0.001, 2.0)
_FEW = st.integers(1, 4)
# Zero switches a term off, which is a case of its own.
_OR_ZERO = st.one_of(st.just(0.0), _SIZES)
_FRACTIONS = st.one_of(st.just(0.0), st.floats(0.01, 0.999))
_POSITIVE_FRACTIONS = st.floats(0.01, 0.999)
_FLAGS = st.booleans()

SCHEDULES: st.SearchStrategy[Schedule] = st.one_of(
    st.builds(WarmUp, peak=_SIZES, steps=_FEW),
    st.builds(ExponentialDecay, start=_SIZES, rate=_POSITIVE_FRACTIONS, steps=_FEW, floor=st.just(0.0005)),
    st.builds(CosineDecay, start=_SIZES, steps=_FEW, warm_up_steps=st.integers(0, 3)),
    st.builds(InverseSqrt, peak=_SIZES, warm_up_steps=_FEW),
)
_RATES = st.one_of(_SIZES, SCHEDULES)
_MOMENTS = {
    "learning_rate": _RATES,
    "beta1": _FRACTIONS,
    "beta2": _POSITIVE_FRACTIONS,
    "epsilon": _SIZES,
    "weight_decay": _OR_ZERO,
}
_FOLLOWING = {"learning_rate": _RATES, "initial_accumulator": _OR_ZERO, "beta": _OR_ZERO}

OPTIMIZERS: Sequence[st.SearchStrategy[Optimizer]] = (
    st.builds(SGD, learning_rate=_RATES),
    st.builds(Momentum, learning_rate=_RATES, momentum=_FRACTIONS, weight_decay=_OR_ZERO, is_nesterov=_FLAGS),
    st.builds(Adagrad, learning_rate=_RATES, initial_accumulator=_OR_ZERO, weight_decay=_OR_ZERO),
    st.builds(
        Adagrad,
        learning_rate=_RATES,
        initial_accumulator=_OR_ZERO,
        weight_decay=_SIZES,
        is_decoupled=st.just(True),
    ),
    st.builds(RowWiseAdagrad, learning_rate=_RATES, initial_accumulator=_OR_ZERO, weight_decay=_OR_ZERO),
    st.builds(Adam, **_MOMENTS, is_nesterov=_FLAGS),
    st.builds(RowWiseAdam, **_MOMENTS),
    st.builds(AMSGrad, **_MOMENTS),
    st.builds(FTRL, **_FOLLOWING, l1=_OR_ZERO, l2=_OR_ZERO),
    st.builds(GroupFTRL, **_FOLLOWING, group_lasso=_OR_ZERO, l2=_OR_ZERO),
    st.builds(GroupAdagrad, **_FOLLOWING, group_lasso=_OR_ZERO, weight_decay=_OR_ZERO),
    st.builds(
        RMSProp,
        learning_rate=_RATES,
        decay=_POSITIVE_FRACTIONS,
        epsilon=_SIZES,
        weight_decay=_OR_ZERO,
        is_averaged=_FLAGS,
    ),
    st.builds(
        AdaDelta, learning_rate=_RATES, decay=_POSITIVE_FRACTIONS, epsilon=_SIZES, weight_decay=_OR_ZERO
    ),
    st.builds(MovingAverage, momentum=_FRACTIONS),
)
"""Every optimizer, one strategy for each."""

INITIALIZERS: st.SearchStrategy[Initializer] = st.one_of(
    st.just(Zeros()),
    st.builds(Constant, value=st.floats(-2, 2)),
    st.builds(Uniform, low=st.floats(-2, 0), high=st.floats(0, 2)),
)
LEARNABLE_CODECS: st.SearchStrategy[Codec] = st.one_of(
    st.just(FP32()),
    st.builds(FP16, rounding=st.sampled_from(["nearest", "stochastic"])),
    st.builds(BF16, rounding=st.sampled_from(["nearest", "stochastic"])),
)
CLIPS: st.SearchStrategy[Clip] = st.one_of(
    st.builds(ClipByValue, limit=_SIZES), st.builds(ClipByNorm, limit=_SIZES)
)
ADMISSIONS: st.SearchStrategy[Admission] = st.one_of(
    st.just(AdmitAll()),
    # So narrow that keys share cells and that counts are halved.
    st.builds(Occurrence, threshold=_FEW, width=st.just(16), depth=_FEW, window=st.integers(0, 4)),
    st.builds(Probabilistic, threshold=_FEW, rule=st.sampled_from(["equal", "linear"])),
)
EXPIRIES: st.SearchStrategy[Expiry] = st.builds(
    Expiry,
    max_idle_s=st.one_of(st.none(), st.integers(1, 60)),
    by_feature=st.sampled_from([(), ((2048, 20),), ((0, 50), (4095, 10))]),
    max_skew_s=st.integers(0, 40),
)
CAPACITIES: st.SearchStrategy[Capacity] = st.builds(
    Capacity,
    max_rows=st.integers(1, 7),
    policy=st.one_of(
        st.just(LFU()), st.just(LRU()), st.builds(DistanceLFU, exponent=st.sampled_from([1, 2, 16]))
    ),
)


def slices(optimizer: st.SearchStrategy[Optimizer], *, is_clipped: bool) -> st.SearchStrategy[SliceSpec]:
    """Any slice with such an optimizer; ``name`` is to be replaced where there are several."""
    return st.builds(
        SliceSpec,
        name=st.just("slice"),
        dim=st.sampled_from([1, 2, 3, 8, 16, 17, 35]),
        optimizer=optimizer,
        initializer=INITIALIZERS,
        codec=LEARNABLE_CODECS,
        clip=CLIPS if is_clipped else st.one_of(st.none(), CLIPS),
    )


def specs(
    *, admission: st.SearchStrategy[Admission], capacity: st.SearchStrategy[Capacity | None]
) -> st.SearchStrategy[TableSpec]:
    """Any table that learns, with such an admission rule and cap."""

    def with_slices(nonfinite: str) -> st.SearchStrategy[TableSpec]:
        some = st.lists(
            slices(st.one_of(*OPTIMIZERS), is_clipped=nonfinite == "clip"), min_size=1, max_size=3
        )
        return st.builds(
            TableSpec,
            name=st.just("any"),
            slices=some.map(named_apart),
            seed=st.integers(0, (1 << 64) - 1),
            missing=st.sampled_from(["zeros", "initializer"]),
            admission=admission,
            expiry=EXPIRIES,
            capacity=capacity,
            nonfinite=st.just(nonfinite),
        )

    return st.sampled_from(["refuse", "drop", "clip"]).flatmap(with_slices)


def named_apart(parts: list[SliceSpec]) -> tuple[SliceSpec, ...]:
    """The slices under names of their own."""
    return tuple(replace(part, name=f"{part.name}{i}") for i, part in enumerate(parts))
