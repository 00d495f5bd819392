"""A played log keeps its order, its feedback comes later, and it does not run ahead."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from infra.playing import PlayConfig, Player, encoded, repeated
from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.events import decode_feedback, decode_impression
from streaming.memory_log import MemoryLog
from streaming.topics import FEEDBACK, IMPRESSIONS

PAGES = st.lists(st.integers(1, 5), min_size=1, max_size=12)


def requests(pages: list[int]) -> list[tuple[Impression, list[Feedback]]]:
    """One request per page, feedback to each of its items."""
    made = []
    for number, n in enumerate(pages):
        items = np.arange(n, dtype=np.uint64) + np.uint64(10 * number)
        impression = Impression(
            request_id=f"r{number}",
            user_id=number,
            event_time_ms=1000 + number,
            item_ids_K=items,
            scores_K=np.full(n, np.nan, np.float32),
            propensities_K=np.full(n, np.nan, np.float32),
            keys=RaggedKeys(items, np.ones((n, 1), np.uint8)),
        )
        feedback = [
            Feedback(
                event_id=item,
                request_id=f"r{number}",
                user_id=number,
                item_id=item,
                kind="rating",
                value=5.0,
                event_time_ms=1001 + number,
            )
            for item in items.tolist()
        ]
        made.append((impression, feedback))
    return made


class SteppingClock:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now_ms = 5_000_000

    def __call__(self) -> int:
        self.now_ms += 1
        return self.now_ms


def played(
    pages: list[int], config: PlayConfig, max_rows: int | None = None
) -> tuple[list[Impression], list[Feedback], Player]:
    log = MemoryLog()
    player = Player(config, log, clock_ms=SteppingClock(), learned=lambda: float("inf"))
    player.play(encoded(requests(pages), max_rows))
    shown = [decode_impression(record.value) for record in log.read((IMPRESSIONS, 0), 0, 1000)]
    said = [decode_feedback(record.value) for record in log.read((FEEDBACK, 0), 0, 1000)]
    return shown, said, player


@given(PAGES, st.integers(1, 30))
def test_the_first_rows_are_sent_in_order_and_a_page_is_cut_to_fit(pages: list[int], max_rows: int) -> None:
    shown, said, player = played(pages, PlayConfig(keep_times=True), max_rows)
    whole = [item for impression, _ in requests(pages) for item in impression.item_ids_K.tolist()]
    sent = [item for impression in shown for item in impression.item_ids_K.tolist()]
    assert sent == whole[:max_rows]
    assert sorted(feedback.item_id for feedback in said) == sorted(sent)
    assert player.rows == len(sent)
    assert all(impression.event_time_ms == 1000 + impression.user_id for impression in shown)


@given(PAGES)
def test_with_the_time_of_sending_feedback_follows_its_impression(pages: list[int]) -> None:
    shown, said, _ = played(pages, PlayConfig(feedback_delay_ms=7))
    shown_ms = {impression.request_id: impression.event_time_ms for impression in shown}
    assert list(shown_ms.values()) == sorted(shown_ms.values())
    assert all(feedback.event_time_ms == shown_ms[feedback.request_id] + 7 for feedback in said)


def test_what_was_learned_before_this_log_was_played_does_not_count_as_learned_from_it() -> None:
    log, learned = MemoryLog(), 1_000_000.0
    looks = []

    def look() -> float:
        # A trainer that catches up only after it has been asked twice.
        looks.append(len(log.read((IMPRESSIONS, 0), 0, 1000)))
        return learned + (300 if len(looks) > 2 else 0)

    player = Player(
        PlayConfig(keep_times=True, max_in_flight=50), log, clock_ms=SteppingClock(), learned=look
    )
    player.play(encoded(requests([1] * 300)))
    assert looks[:3] == [0, 0, 200], "it went on while 200 rows were in flight"
    assert player.rows == 300


@given(PAGES, st.integers(1, 4))
def test_each_round_of_a_repeated_log_is_the_same_but_for_its_request_ids(pages, rounds):
    once = list(encoded(requests(pages)))
    again = list(repeated(once, rounds))
    impressions = [decode_impression(request.impression) for request in again]
    assert len({impression.request_id for impression in impressions}) == rounds * len(pages)
    for request, impression, first in zip(again, impressions, once * rounds, strict=True):
        assert impression.item_ids_K.tolist() == decode_impression(first.impression).item_ids_K.tolist()
        answered = {decode_feedback(one).request_id for one in request.feedback}
        assert answered == {request.request_id} == {impression.request_id}
