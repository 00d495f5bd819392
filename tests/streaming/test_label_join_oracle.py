"""The join against an oracle that sees every event at once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from join_oracle import expected
from join_streams import (
    Lives,
    acted,
    arrive,
    assert_as_expected,
    memory_states,
    rocks_states,
    run,
    shown,
)

from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.sampling import NegativeSampling

WAIT_MS, DISORDER_MS, SKEW_MS = 100, 30, 20
# Coarse, so that events often lie exactly on the edge of a window.
TIMES_MS = st.integers(0, 45).map(lambda n: 10 * n)
STATES = {
    "memory": memory_states,
    "cached": rocks_states,
    "spilled": partial(rocks_states, max_timers=2),
}


def by_position(impression, position):
    return (0.25, 0.5, 1.0)[(position + len(impression.domain)) % 3]


@st.composite
def labels(draw, mode):
    """One to four labels, some of which end together, and some of one kind."""
    reach = st.sampled_from([None, 180, 300])
    rules = {
        "click": LabelRule(kind="click", wait_ms=WAIT_MS, attribution_ms=draw(reach)),
        "like": LabelRule(kind="like", wait_ms=WAIT_MS, attribution_ms=draw(reach)),
        "buy": LabelRule(kind="buy", wait_ms=draw(st.sampled_from([40, 150])), attribution_ms=300),
    }
    if mode == "wait":
        combine = st.sampled_from(["first", "max", "sum"])
        rules["watched"] = LabelRule(
            kind="watch", name="watched", wait_ms=WAIT_MS, at_least=None, combine=draw(combine)
        )
        rules["long"] = LabelRule(
            kind="watch", name="long", wait_ms=150, at_least=20, combine=draw(combine), attribution_ms=200
        )
    names = draw(st.lists(st.sampled_from(sorted(rules)), min_size=1, max_size=4, unique=True))
    return tuple(rules[name] for name in names)


@st.composite
def join_rules(draw, names=None, mode=None, emit=None):
    mode = mode or draw(st.sampled_from(["wait", "wait", "fast_emit"]))
    emit = emit or ("at_once" if mode == "fast_emit" else draw(st.sampled_from(["at_once", "in_order"])))
    rate = st.sampled_from([1.0, 0.5, 0.1, by_position])
    return JoinRules(
        labels=draw(labels(mode)),
        mode=mode,
        emit=emit,
        late_policy=draw(st.sampled_from(["retract", "emit_positive", "drop"])),
        sampling=NegativeSampling(seed=draw(st.integers(0, 5)), rate=draw(rate)),
    )


@st.composite
def configs(draw, **given_rules):
    rules = draw(join_rules(**given_rules))
    shop = replace(
        rules,
        labels=tuple(replace(rule, wait_ms=rule.wait_ms - 10) for rule in rules.labels),
        late_policy=draw(st.sampled_from(["retract", "drop"])),
        sampling=NegativeSampling(rate=0.3),
    )
    return JoinConfig(
        rules=rules,
        by_domain={"shop": shop} if draw(st.booleans()) else {},
        allowed_disorder_ms=DISORDER_MS,
        skew_ms=SKEW_MS,
        remember_ms=draw(st.sampled_from([0, 50])),
        cache_horizon_ms=1,
        cache_max_bytes=draw(st.sampled_from([1, 5_000, 1 << 20])),
    )


@st.composite
def lanes(draw, *, disagree=False):
    """Impressions, some requests in two pages, and feedback, with copies of both.

    Unless they may disagree, an item's feedbacks of one kind have one value: else which comes first counts.
    """
    items = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)
    impressions = []
    for request in range(draw(st.integers(1, 4))):
        domain = draw(st.sampled_from(["home", "shop"]))
        time_ms = draw(TIMES_MS)
        impressions.append(shown(request, time_ms, draw(items), domain))
        if draw(st.booleans()):
            page = [3 + item for item in draw(items)]
            impressions.append(shown(request, draw(st.just(time_ms) | TIMES_MS), page, domain))
    values = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 30.0]), min_size=12, max_size=12))
    feedback = []
    for event_id in range(draw(st.integers(0, 14))):
        request, item = draw(st.integers(0, 4)), draw(st.integers(0, 5))
        kind = draw(st.sampled_from(["click", "like", "buy", "watch", "share"]))
        which = draw(st.integers(0, 11)) if disagree else (5 * request + item + len(kind)) % 12
        feedback.append(acted(event_id, request, item, draw(TIMES_MS), kind, values[which]))
    return tuple(
        [*lane, *draw(st.lists(st.sampled_from(lane), max_size=3))] if lane else []
        for lane in (impressions, feedback)
    )


@settings(max_examples=150)
@given(configs(), lanes(), st.randoms(use_true_random=False))
def test_any_arrival_within_the_disorder_gives_the_oracles_rows(config, events, random):
    want = expected(config, *events)
    with memory_states() as reopen:
        for _ in range(2):
            arrived, _ = arrive(random, events, DISORDER_MS)
            made, join = run(config, arrived, reopen())
            assert_as_expected(made, want)
            assert join.windows_in_memory == 0


@given(configs(mode="wait", emit="in_order"), lanes(disagree=True), st.randoms(use_true_random=False))
def test_in_order_gives_one_sequence_also_where_feedback_disagrees(config, events, random):
    rules = replace(config.rules, labels=tuple(replace(r, attribution_ms=None) for r in config.rules.labels))
    config = replace(config, rules=rules, by_domain={})
    want = expected(config, *events)
    with memory_states() as reopen:
        (one, _), (other, _) = (
            run(config, arrive(random, events, DISORDER_MS)[0], reopen()) for _ in range(2)
        )
    assert_as_expected(one, want)
    assert one == other
    ends = [stated.event_time_ms + max(r.wait_ms for r in rules.labels) for _, stated, _ in one]
    assert len({r.wait_ms for r in rules.labels}) > 1 or ends == sorted(ends)


@pytest.mark.parametrize("state", STATES)
@settings(max_examples=30)
@given(configs(), lanes(), st.randoms(use_true_random=False), st.integers(0, 4), st.integers(1, 12))
def test_killed_again_and_again_it_still_gives_the_oracles_rows(
    state, config, events, random, lives, commit_every
):
    _, in_lanes = arrive(random, events, DISORDER_MS)
    with STATES[state]() as reopen:
        lives_of = Lives(config, in_lanes, reopen)
        lives_of.run(random, lives=lives, commit_every=commit_every)
        assert_as_expected(lives_of.output, expected(config, *events))


CLICK = LabelRule(kind="click", wait_ms=400, attribution_ms=900)
LIKE = LabelRule(kind="like", wait_ms=400)
WATCHED = LabelRule(kind="watch", wait_ms=700, at_least=None, combine="sum")
VOLUME = JoinConfig(
    rules=JoinRules(labels=(CLICK, LIKE, WATCHED), sampling=NegativeSampling(rate=0.3)),
    by_domain={
        "shop": JoinRules(labels=(CLICK, LIKE, WATCHED), emit="in_order", late_policy="emit_positive")
    },
    allowed_disorder_ms=50,
    skew_ms=SKEW_MS,
    cache_horizon_ms=100,
    cache_max_bytes=1 << 20,
)


def many_events(random, n_events):
    """Three items a request and about as many answers, some of them too late, twice, early or astray."""
    n_requests = n_events // 5
    impressions, feedback = [], []
    for request in range(n_requests):
        time_ms = random.randint(0, n_requests)
        domain = random.choice(["home", "shop"])
        impressions.append(shown(request, time_ms, random.sample(range(9), 3), domain))
        for _ in range(4):
            item, kind = random.randint(0, 9), random.choice(["click", "like", "watch", "share"])
            after_ms = random.choice([-20, -5, 100, 399, 400, 650, 1000])
            value = float((request + item) % 3)
            feedback.append(acted(len(feedback), request, item, max(0, time_ms + after_ms), kind, value))
    impressions += random.sample(impressions, n_requests // 50)
    feedback += random.sample(feedback, n_requests // 25)
    return random.sample(impressions, int(0.99 * len(impressions))), feedback


@pytest.mark.parametrize(
    "n_events", [100_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_long_stream_through_three_kills_gives_the_oracles_rows(n_events):
    random = Random(0)
    events = many_events(random, n_events)
    _, in_lanes = arrive(random, events, VOLUME.allowed_disorder_ms)
    with rocks_states() as reopen:
        lives = Lives(VOLUME, in_lanes, reopen)
        lives.run(random, lives=3, commit_every=2000, longest_life=n_events // 2, in_step=0.7)
        assert_as_expected(lives.output, expected(VOLUME, *events))
