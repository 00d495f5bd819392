"""Learning-rate schedules against torch's schedulers and against their shapes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.table.schedules import (
    SCHEDULES,
    CosineDecay,
    ExponentialDecay,
    InverseSqrt,
    WarmUp,
    check_learning_rate,
    rate_at,
)

RATES = st.floats(1e-6, 10.0)
STEPS = st.integers(1, 50)


def torch_rates(make_scheduler, start, n_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=start)
    scheduler = make_scheduler(optimizer)
    for _ in range(n_steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


@given(RATES, STEPS)
def test_cosine_decay_falls_as_in_torch_and_then_stays(start, steps):
    want = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps, 1e-7), start, steps + 1)
    schedule = CosineDecay(start=start, steps=steps, end=1e-7)
    assert [schedule.at(step) for step in range(steps + 1)] == pytest.approx(list(want))
    assert schedule.at(10 * steps) == pytest.approx(1e-7)


@given(RATES, st.floats(0.5, 0.99), STEPS)
def test_exponential_decay_falls_as_in_torch_down_to_its_floor(start, rate, steps):
    gamma = rate ** (1 / steps)
    want = list(torch_rates(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma), start, 20))
    free = ExponentialDecay(start=start, rate=rate, steps=steps)
    held = ExponentialDecay(start=start, rate=rate, steps=steps, floor=0.9 * start)
    assert [free.at(step) for step in range(20)] == pytest.approx(want)
    assert [held.at(step) for step in range(20)] == pytest.approx([max(0.9 * start, x) for x in want])


@given(RATES, STEPS)
def test_a_warm_up_rises_evenly_from_its_first_step_to_the_peak_at_its_last(peak, steps):
    for schedule in (
        WarmUp(peak=peak, steps=steps),
        InverseSqrt(peak=peak, warm_up_steps=steps),
        CosineDecay(start=peak, steps=5, warm_up_steps=steps),
    ):
        rise = [schedule.at(step) for step in range(steps)]
        assert rise == pytest.approx(np.linspace(peak / steps, peak, steps))
    assert WarmUp(peak=peak, steps=steps).at(100 * steps) == peak


@given(RATES, STEPS, st.integers(1, 10))
def test_inverse_sqrt_halves_whenever_the_steps_are_four_times_as_many(peak, warm_up_steps, times):
    schedule = InverseSqrt(peak=peak, warm_up_steps=warm_up_steps)
    first = times * warm_up_steps
    assert schedule.at(4 * first - 1) == pytest.approx(schedule.at(first - 1) / 2)


@given(RATES, st.integers(0, 1000))
def test_a_plain_number_is_a_constant_rate_in_float32(rate, step):
    assert rate_at(rate, step) == np.float32(rate)
    assert rate_at(rate, step).dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("warm_up", {"peak": 0.0, "steps": 1}, "peak must be > 0"),
        ("warm_up", {"peak": 0.1, "steps": 0}, "steps must be an integer >= 1"),
        ("warm_up", {"peak": 0.1, "steps": 1.5}, "steps must be an integer >= 1"),
        ("exponential_decay", {"start": 0.1, "rate": 1.0, "steps": 1}, "rate must be > 0 and < 1"),
        ("exponential_decay", {"start": 0.1, "rate": 0.5, "steps": 1, "floor": 0.1}, "floor must be < start"),
        ("cosine_decay", {"start": 0.1, "steps": 1, "end": -0.1}, "end must be >= 0"),
        (
            "cosine_decay",
            {"start": 0.1, "steps": 1, "warm_up_steps": -1},
            "warm_up_steps must be an integer >= 0",
        ),
        ("inverse_sqrt", {"peak": math.inf, "warm_up_steps": 1}, "peak must be > 0 and finite"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_when_built(kind, fields, message):
    with pytest.raises(ConfigError, match=message):
        SCHEDULES[kind](**fields)


def test_a_learning_rate_is_a_positive_number_or_a_schedule():
    check_learning_rate(WarmUp(peak=0.1, steps=1))
    with pytest.raises(ConfigError, match="learning_rate must be > 0"):
        check_learning_rate("fast")
