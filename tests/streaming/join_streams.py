"""Events for joins under test, in orders in which they may arrive, and a way to run them through lives."""

from __future__ import annotations

import math
import struct
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from join_oracle import Statement

from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.events import decode_shown, encode_impression
from streaming.label_join import LabelJoin
from streaming.shown import Shown, assemble
from streaming.spill import RocksStore
from streaming.topics import FEEDBACK, IMPRESSIONS
from streaming.window_store import MemoryStore

SHOWN_FROM, FEEDBACK_FROM = (IMPRESSIONS, 0), (FEEDBACK, 0)
INPUTS = [SHOWN_FROM, FEEDBACK_FROM]
FAR_MS = 10**7
MARKS = struct.Struct("<3q")


def shown(request, time_ms, items, domain="home"):
    n = len(items)
    keys = RaggedKeys(np.arange(n, dtype=np.uint64), np.ones((n, 1), np.uint8))
    return decode_shown(
        encode_impression(
            Impression(
                request_id=f"r{request}" if n else "",
                user_id=7,
                event_time_ms=time_ms,
                domain=domain,
                model_version="m1",
                schema_fingerprint=1,
                item_ids_K=np.array(items, np.uint64),
                scores_K=np.full(n, 0.5, np.float32),
                propensities_K=np.ones(n, np.float32),
                keys=keys,
            )
        )
    )


def acted(event_id, request, item, time_ms, kind="click", value=1.0):
    return Feedback(
        event_id=event_id,
        request_id=f"r{request}",
        user_id=7,
        item_id=item,
        kind=kind,
        value=value,
        event_time_ms=time_ms,
    )


def heartbeats(time_ms):
    return [shown(0, time_ms, []), acted(0, 0, 0, time_ms, kind="")]


def give(join, event):
    if isinstance(event, Shown):
        join.add_shown(SHOWN_FROM, event, received_at_ms=FAR_MS)
    else:
        join.add_feedback(FEEDBACK_FROM, event, received_at_ms=FAR_MS)


def rows_of(join):
    """[(example id, Statement, delay)] of what was made since the last call, by way of a batch."""
    rows = join.take()
    if not rows:
        return []
    batch = assemble(rows, join.label_names)
    labels = [[None if math.isnan(value) else value for value in own] for own in batch.label_BL.tolist()]
    statements = map(
        Statement,
        batch.request_id_B,
        batch.item_id_B.tolist(),
        batch.event_time_ms_B.tolist(),
        map(tuple, labels),
        batch.weight_B.tolist(),
        [row.rate for row in rows],
        batch.is_late_B.tolist(),
        batch.is_fast_B.tolist(),
    )
    return list(zip(batch.example_id_B.tolist(), statements, batch.delay_ms_B.tolist(), strict=True))


def join_of(config, store=None):
    return LabelJoin(config, INPUTS, store or MemoryStore())


def made(join, *events, at_ms=None):
    """What is stated after these events, the watermark having come to a time: (item, labels, weight)."""
    beats = [] if at_ms is None else heartbeats(at_ms + join._config.allowed_disorder_ms)
    for event in [*events, *beats]:
        give(join, event)
    return [(stated.item_id, stated.labels, stated.weight) for _, stated, _ in rows_of(join)]


def assert_as_expected(made, want):
    """Every statement of the oracle is made once, and no other."""
    assert Counter(stated for _, stated, _ in made) == Counter(dict.fromkeys(want, 1))
    assert all(delay in want[stated] for _, stated, delay in made)
    assert len({example_id for example_id, _, _ in made}) == len(made)


def arrive(random, lanes, disorder_ms):
    """The events of each lane within the disorder, then all lanes interleaved at will."""
    late = [sorted(lane, key=lambda e: e.event_time_ms + random.randint(0, disorder_ms)) for lane in lanes]
    picks = [number for number, lane in enumerate(late) for _ in lane]
    random.shuffle(picks)
    left = [iter(lane) for lane in late]
    return [next(left[pick]) for pick in picks], late


@contextmanager
def memory_states():
    """A way to open the state again and again, as the last commit left it."""
    last = MemoryStore()

    def reopen():
        nonlocal last
        last = MemoryStore(last.committed)
        return last

    yield reopen


@contextmanager
def rocks_states(**settings):
    """As ``memory_states``, in a folder."""
    last = None
    with TemporaryDirectory() as folder:

        def reopen():
            nonlocal last
            if last is not None:
                last.close()
            last = RocksStore(Path(folder), **settings)
            return last

        yield reopen
        if last is not None:
            last.close()


def run(config, events, store):
    """All that one undisturbed life makes."""
    join = LabelJoin(config, INPUTS, store)
    for event in [*events, *heartbeats(FAR_MS)]:
        give(join, event)
    return rows_of(join), join


class Lives:
    """A join that is killed again and again, between the log that it reads and the log that it writes.

    What a life has written stays, also what it wrote after its last commit; the next one reads on from
    that commit, in an order of its own, and holds back what it finds.
    """

    def __init__(self, config, lanes, reopen):
        self._config, self._reopen = config, reopen
        self._lanes = [[*lane, beat] for lane, beat in zip(lanes, heartbeats(FAR_MS), strict=True)]
        self.output = []

    def run(self, random, *, lives, commit_every, longest_life=30, in_step=0.0):
        """``in_step`` is the share of events that are read in the order of their times."""
        for _ in range(lives):
            self._live(random, commit_every, in_step, stop_after=random.randint(0, longest_life))
        self._live(random, commit_every, in_step, stop_after=None)

    def _live(self, random, commit_every, in_step, *, stop_after):
        join = LabelJoin(self._config, INPUTS, self._reopen())
        marks = join.restore()
        at, held_from = (
            ([0, 0], 0) if marks is None else (list(MARKS.unpack(marks)[:2]), MARKS.unpack(marks)[2])
        )
        held = {example_id for example_id, _, _ in self.output[held_from:]}
        join.hold_back(held)
        n_read = 0
        while lanes := [number for number in (0, 1) if at[number] < len(self._lanes[number])]:
            if n_read == stop_after:
                written = rows_of(join)
                self.output += written[: random.randint(0, len(written))]
                return
            if random.random() < in_step:
                lane = min(lanes, key=lambda one: self._lanes[one][at[one]].event_time_ms)
            else:
                lane = random.choice(lanes)
            give(join, self._lanes[lane][at[lane]])
            at[lane] += 1
            n_read += 1
            if random.randrange(commit_every) == 0:
                self.output += rows_of(join)
                # What is held back must be found again by the next life.
                join.commit(MARKS.pack(*at, held_from if held else len(self.output)))
        self.output += rows_of(join)
        assert join.windows_in_memory + join.windows_on_disk == 0
