"""The replay of a domain's jump compares like with like, and reads its curves rightly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replays.jumping import JUMPED_DOMAIN, curve_of, kuairand_jump, recovered_after, synthetic_jump

from recsys.keys import unpack

TOLERANCE = 0.01


def rows_of(rows):
    return list(map(tuple, rows.keys.keys_T.reshape(len(rows.label_N), -1).tolist()))


def test_from_the_jump_on_both_streams_hold_the_same_rows_and_before_it_others_of_that_domain_alone():
    data = synthetic_jump(4_000, 50)
    jumped, always = rows_of(data.jumped), rows_of(data.always)
    assert jumped[data.at_row :] == always[data.at_row :]
    differ = [a for a, b in zip(jumped[: data.at_row], always[: data.at_row], strict=True) if a != b]
    assert len(differ) > 50
    assert {unpack(row[-1])[1] for row in differ} == {JUMPED_DOMAIN}
    assert {unpack(row[-1])[1] for row in rows_of(data.probe)} == {JUMPED_DOMAIN}


def test_on_kuairand_the_two_tabs_change_places_half_way_and_the_probe_is_of_both(recsys_data):
    data = kuairand_jump(recsys_data, (4, 6))

    def tabs(rows):
        starts = rows.keys.offsets[:-1] + rows.keys.lengths_NF[:, :2].sum(axis=1, dtype=np.int64)
        return (rows.keys.keys_T[starts] & np.uint64((1 << 52) - 1)).astype(int) - 1

    jumped, always = tabs(data.jumped), tabs(data.always)
    np.testing.assert_array_equal(jumped[data.at_row :], always[data.at_row :])
    before = slice(0, data.at_row)
    swapped = np.isin(jumped[before], (4, 6))
    np.testing.assert_array_equal(10 - jumped[before][swapped], always[before][swapped])
    np.testing.assert_array_equal(jumped[before][~swapped], always[before][~swapped])
    assert set(tabs(data.probe)) == {4, 6}


def test_a_curve_has_a_value_for_every_look_and_no_deficit_without_a_jump():
    data = synthetic_jump(3_000, 40)
    found = curve_of(data, "adapt_dhm", 0, [0, 500, 1_000])
    assert len(found.jumped) == len(found.always) == 3
    assert all(0.0 < value < 1.0 for value in found.jumped)
    alike = type(data)(**{name: getattr(data, name) for name in data.__slots__} | {"jumped": data.always})
    np.testing.assert_array_equal(curve_of(alike, "adapt_dhm", 0, [0, 500]).deficit, 0.0)


@given(st.lists(st.floats(0.0, 0.1), min_size=2, max_size=10))
def test_recovery_is_the_moment_from_which_the_deficit_stays_within_the_tolerance(deficit):
    events = [100 * place for place in range(len(deficit))]
    found = recovered_after(events, np.array(deficit), TOLERANCE)
    fine = np.linspace(0, events[-1], 5_000)
    above = fine[np.interp(fine, events, deficit) > TOLERANCE + 1e-12]
    if deficit[-1] > TOLERANCE:
        assert found == float("inf")
    else:
        assert found == pytest.approx(above[-1] if len(above) else 0.0, abs=0.2)
