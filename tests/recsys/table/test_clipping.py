"""Bounds on gradients, against torch's own clipping."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.errors import ConfigError
from recsys.table.clipping import CLIPS, ClipByNorm, ClipByValue, clip
from recsys.table.row_sums import sum_of_squares

ROUNDING = 1e-5
GRADIENT = arrays(np.float32, st.integers(1, 70), elements=st.floats(-100, 100, width=32))
ANY_GRADIENT = arrays(
    np.float32, st.integers(1, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


# torch adds 1e-6 to the norm, which a limit of 1 or more makes small.
@given(GRADIENT, st.floats(1.0, 200.0))
def test_clipping_by_value_and_norm_does_what_torch_does(g_D, limit):
    parameter = torch.nn.Parameter(torch.zeros(len(g_D), dtype=torch.float64))
    parameter.grad = torch.tensor(g_D, dtype=torch.float64)
    torch.nn.utils.clip_grad_value_([parameter], limit)
    np.testing.assert_allclose(clip(ClipByValue(limit=limit), g_D), parameter.grad, rtol=ROUNDING)
    parameter.grad = torch.tensor(g_D, dtype=torch.float64)
    torch.nn.utils.clip_grad_norm_([parameter], limit)
    np.testing.assert_allclose(
        clip(ClipByNorm(limit=limit), g_D), parameter.grad, rtol=2 * ROUNDING, atol=1e-9
    )


@given(ANY_GRADIENT, st.floats(1e-6, 1e38))
def test_a_gradient_whose_squares_overflow_is_still_scaled_to_the_limit(g_D, limit):
    norm = np.linalg.norm(g_D.astype(np.float64))
    clipped_D = clip(ClipByNorm(limit=limit), g_D)
    assert np.linalg.norm(clipped_D.astype(np.float64)) == pytest.approx(
        min(norm, limit), rel=ROUNDING, abs=1e-18
    )


@given(GRADIENT)
def test_a_gradient_within_its_bound_keeps_its_bits(g_D):
    for rule in (None, ClipByValue(limit=101.0), ClipByNorm(limit=1000.0)):
        assert clip(rule, g_D).tobytes() == g_D.tobytes()


@given(GRADIENT)
def test_the_sum_of_squares_is_right_to_rounding(g_D):
    want = float(np.sum(np.square(g_D.astype(np.float64))))
    assert float(sum_of_squares(g_D)) == pytest.approx(want, rel=ROUNDING, abs=1e-30)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", CLIPS)
def test_a_limit_that_is_not_positive_and_finite_is_refused(kind, limit):
    with pytest.raises(ConfigError, match="limit must be > 0"):
        CLIPS[kind](limit=limit)
