"""Both stores keep the same promises; the one on disk keeps them also when its process or its disk fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from join_streams import memory_states, rocks_states, shown

from streaming.errors import StateUnavailable
from streaming.spill import RocksStore
from streaming.window_store import NEVER_MS
from streaming.windows import Part, Window, memory_bytes

STATES = {
    "memory": memory_states,
    "rocks": rocks_states,
    "rocks, few timers": partial(rocks_states, max_timers=2),
}
MOST_OPENED = 3
REQUESTS = [f"r{n}" for n in range(3)]


def window_of(request_id, due_ms, time_ms=0, n_items=1):
    part = Part(shown(request_id[1:], time_ms, range(n_items)), bytearray(n_items))
    return Window(request_id, due_ms, due_ms, [part])


class StoreAgainstDict(RuleBasedStateMachine):
    """Any calls in any order: the store holds what a dict holds that is copied at each commit."""

    make_states = memory_states

    @initialize(max_bytes=st.sampled_from([1, 10_000, 1 << 30]))
    def open_first(self, max_bytes):
        self.max_bytes = max_bytes
        self.context = type(self).make_states()
        self.reopen = self.context.__enter__()
        self.committed, self.model, self.ledger = ({}, 0), {}, None
        self.now_ms = self.n_opened = 0
        self.kill()

    def teardown(self):
        if hasattr(self, "context"):
            self.context.__exit__(None, None, None)

    @rule(waits_ms=st.dictionaries(st.sampled_from(REQUESTS), st.integers(1, 9), min_size=1))
    def put(self, waits_ms):
        for request, wait_ms in waits_ms.items():
            self.put_one(request, wait_ms)

    def put_one(self, request, wait_ms):
        window = self.store.get(request)
        assert (window is not None) == (request in self.model)
        if window is None:
            window = window_of(request, 0, self.now_ms)
        window.due_ms = self.now_ms + wait_ms
        self.store.put(window)
        self.model[request] = window.due_ms

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data):
        request = data.draw(st.sampled_from(sorted(self.model)))
        self.store.remove(self.store.get(request))
        del self.model[request]

    @rule(step_ms=st.integers(1, 6))
    def pass_time(self, step_ms):
        self.now_ms += step_ms
        due = sorted((due_ms, request) for request, due_ms in self.model.items() if due_ms <= self.now_ms)
        popped = []
        while (window := self.store.pop_due(self.now_ms)) is not None:
            popped.append((window.due_ms, window.request_id))
            self.store.remove(window)
            del self.model[window.request_id]
        assert popped == due
        assert self.store.next_due_ms > self.now_ms

    @rule(age_ms=st.integers(0, 9))
    def commit(self, age_ms):
        self.ledger = b"%d" % self.now_ms
        self.store.commit(self.ledger, keep_from_ms=self.now_ms - age_ms)
        self.committed = dict(self.model), self.now_ms

    @rule()
    def restore(self):
        assert self.store.restore() == self.ledger
        model, self.now_ms = self.committed
        self.model = dict(model)

    @precondition(lambda self: self.n_opened < MOST_OPENED)
    @rule()
    def kill(self):
        self.n_opened += 1
        self.store = self.reopen()
        self.store.bound_cache(self.max_bytes)
        self.restore()

    @invariant()
    def agrees(self):
        if hasattr(self, "store"):
            assert self.store.n_windows == len(self.model)
            assert self.store.next_due_ms <= min(self.model.values(), default=NEVER_MS)


@pytest.mark.parametrize("state", STATES)
def test_a_store_is_a_dict_with_timers_that_goes_back_to_its_last_commit(state):
    machine = type("Machine", (StoreAgainstDict,), {"make_states": staticmethod(STATES[state])})
    case = machine.TestCase
    case.settings = settings(max_examples=15, stateful_step_count=50, deadline=None)
    case().runTest()


def store_with(folder, n_windows, **settings_):
    store = RocksStore(folder, **settings_)
    for n in range(n_windows):
        store.put(window_of(f"r{n}", 10 + n, time_ms=n))
    return store


def test_after_a_commit_nothing_old_stays_in_memory_and_all_can_be_found(tmp_path):
    store = store_with(tmp_path, 500, max_timers=20)
    assert store.n_cached == 500
    store.commit(b"", keep_from_ms=490)
    assert (store.n_windows, store.n_cached) == (500, 10)
    assert len(store._timers) <= 20
    assert store.get("r3").parts[0].shown.event_time_ms == 3
    due = []
    while (window := store.pop_due(10**6)) is not None:
        due.append(window.request_id)
        store.remove(window)
    assert due == [f"r{n}" for n in range(500)]
    store.close()


def test_nothing_of_a_removed_window_stays_on_disk(tmp_path):
    store = store_with(tmp_path, 20)
    for due_ms in (500, 700, 600):
        for n in range(20):
            window = store.get(f"r{n}")
            window.due_ms = due_ms + n
            store.put(window)
        store.commit(b"ledger", keep_from_ms=10)
    for n in range(20):
        store.remove(store.get(f"r{n}"))
    store.commit(b"ledger", keep_from_ms=10)
    assert list(store._db.keys()) == [b"m"]
    store.close()


@given(st.integers(1, 60_000), st.integers(1, 30))
@settings(max_examples=20)
def test_the_cache_holds_no_more_than_it_may_once_all_is_committed(max_bytes, n_items):
    with rocks_states() as reopen:
        store = reopen()
        store.bound_cache(max_bytes)
        for n in range(20):
            store.put(window_of(f"r{n}", 10**6, n_items=n_items))
        taken = sum(window.cached_bytes for window in store._changed.values())
        assert store.wants_commit == (2 * taken > max_bytes)
        store.commit(b"", keep_from_ms=-1)
        for n in range(20):
            store.get(f"r{n}")
            held = sum(window.cached_bytes for window in store._clean.values())
            assert held <= max_bytes or store.n_cached <= 1
        assert not store.wants_commit


def test_what_is_counted_as_memory_is_near_what_is_taken():
    for n_items, n_windows in ((1, 2000), (10, 1000), (100, 100)):
        tracemalloc.start()
        windows = [window_of(f"r{n}", n, n_items=n_items) for n in range(n_windows)]
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert 0.6 < sum(map(memory_bytes, windows)) / taken < 1.7


def test_a_folder_that_is_open_already_is_refused(tmp_path):
    store = RocksStore(tmp_path)
    with pytest.raises(StateUnavailable, match="lock"):
        RocksStore(tmp_path)
    store.close()


COMMITTING = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_spill import commit_for_ever
commit_for_ever(Path({folder!r}))
"""


def commit_for_ever(folder):
    """Each commit n holds the windows n - 9 ... n, and says so once it has returned."""
    store = RocksStore(folder)
    ledger = store.restore()
    n = int(ledger) if ledger else 0
    while True:
        n += 1
        store.put(window_of(f"r{n}", n))
        if (old := store.get(f"r{n - 10}")) is not None:
            store.remove(old)
        store.commit(b"%d" % n, keep_from_ms=n % 3)
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()


def test_killed_at_any_moment_it_stands_as_after_its_last_commit(tmp_path):
    script = COMMITTING.format(here=str(Path(__file__).parent), folder=str(tmp_path / "state"))
    last = 0
    for n_commits in (1, 40, 7):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            for _ in range(n_commits):
                last = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            said = [
                int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")
            ]
        last = said[-1] if said else last
        store = RocksStore(tmp_path / "state")
        n = int(store.restore())
        assert n in (last, last + 1)
        known = [m for m in range(n + 2) if store.get(f"r{m}") is not None]
        assert known == list(range(max(1, n - 9), n + 1))
        assert store.n_windows == len(known)
        store.close()


FILLING = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from test_spill import fill_until_full
fill_until_full(Path({folder!r}), lambda n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)))
"""


def fill_until_full(folder, limit_files):
    """Commits until a file may grow no more; says which were made."""
    store = RocksStore(folder)
    store.put(window_of("r0", 5))
    store.commit(b"0", keep_from_ms=0)
    limit_files(200_000)
    for n in range(1, 1000):
        store.put(window_of(f"r{n}", 5, n_items=100))
        try:
            store.commit(b"%d" % n, keep_from_ms=0)
        except StateUnavailable as error:
            sys.stdout.write(f"{n - 1} {error}")
            with suppress(StateUnavailable):
                store.close()
            return


def test_a_full_disk_is_an_error_that_says_so_and_leaves_the_last_commit(tmp_path):
    script = FILLING.format(here=str(Path(__file__).parent), folder=str(tmp_path / "state"))
    filled = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    n, _, message = filled.stdout.partition(" ")
    assert "File too large" in message, filled
    assert "see to the disk" in message
    store = RocksStore(tmp_path / "state")
    assert int(store.restore()) == int(n) > 1
    assert store.n_windows == int(n) + 1
    assert all(store.get(f"r{m}") is not None for m in range(int(n) + 1))
    store.close()
