"""The promotion gate: what it lets through, and what it says when it does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from training.promotion.gate import GateConfig, decide

GATE = GateConfig(min_examples=1000, max_log_loss_ratio=1.01, calibration_low=0.9, calibration_high=1.1)
GOOD = {"examples": 5000.0, "auc": 0.75, "log_loss": 0.5, "calibration": 1.0}
ANY = st.floats(allow_nan=True, allow_infinity=True)
METRICS = st.fixed_dictionaries({}, optional={"examples": ANY, "log_loss": ANY, "calibration": ANY})


@given(METRICS, st.none() | METRICS)
def test_nothing_passes_that_breaks_a_bound_or_lacks_a_figure(
    candidate: dict[str, float], champion: dict[str, float] | None
) -> None:
    decision = decide(candidate, champion, GATE)
    assert decision.passed == (not decision.reasons)
    if decision.passed:
        assert candidate["examples"] >= 1000
        assert 0.9 <= candidate["calibration"] <= 1.1
        assert champion is None or candidate["log_loss"] <= champion["log_loss"] * 1.01
        assert math.isfinite(candidate["log_loss"])


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_a_sound_candidate_passes_exactly_when_its_loss_is_within_the_ratio(
    mine: float, theirs: float
) -> None:
    decision = decide({**GOOD, "log_loss": mine}, {"log_loss": theirs}, GATE)
    assert decision.passed == (mine <= theirs * 1.01)


def test_the_first_candidate_needs_no_champion() -> None:
    assert decide(GOOD, None, GATE).passed


@pytest.mark.parametrize("name", ["examples", "log_loss", "calibration"])
def test_a_figure_that_is_not_a_number_never_passes(name: str) -> None:
    assert not decide({**GOOD, name: math.nan}, GOOD, GATE).passed
    assert not decide({**GOOD, name: math.nan}, None, GATE).passed


def test_a_refusal_names_every_reason() -> None:
    decision = decide({"examples": 10.0, "log_loss": 0.7, "calibration": 1.5}, GOOD, GATE)
    assert decision.reasons == (
        "it learned from 10 examples, wanted 1000",
        "its calibration is 1.5000, wanted 0.9 to 1.1",
        "its log loss is 0.700000, wanted at most 0.505000",
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_examples": -1}, "min_examples must be >= 0, got -1"),
        ({"max_log_loss_ratio": 0.0}, "max_log_loss_ratio must be > 0, got 0.0"),
        ({"calibration_low": 1.2}, "want 0 <= calibration_low <= calibration_high, got 1.2 and 1.1"),
    ],
)
def test_a_gate_that_cannot_be_is_refused_when_built(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GateConfig(**settings)  # type: ignore[arg-type]
