"""The broker is away for a minute; tests/streaming has the short form."""

from __future__ import annotations

import pytest
from broker_outages import cut_connections, library_cleaned_up, live_through, stopped_broker

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")]

AWAY_S = 60


@pytest.fixture(autouse=True)
def nothing_is_left_for_other_tests():
    with library_cleaned_up():
        yield


@pytest.mark.parametrize("outage", [stopped_broker, cut_connections])
def test_a_minute_without_a_broker_loses_nothing_repeats_nothing_and_keeps_the_order(outage):
    values, n_sent, refusals = live_through(outage, AWAY_S)
    assert refusals > 0
    assert values == [b"before", *(b"%d" % n for n in range(n_sent)), b"after"]
