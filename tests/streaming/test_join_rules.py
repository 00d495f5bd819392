"""Rules that contradict themselves are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recsys.errors import ConfigError
from streaming.join_rules import JoinConfig, JoinRules, LabelRule

CLICK, LIKE = (LabelRule(kind=kind, wait_ms=10) for kind in ("click", "like"))
CONFIG = JoinConfig(rules=JoinRules(labels=(CLICK,)))


def test_a_label_is_called_by_its_kind_and_ends_with_its_wait_unless_told_otherwise():
    assert (CLICK.label_name, CLICK.reach_ms) == ("click", 10)
    named = replace(CLICK, name="tap", attribution_ms=50)
    assert (named.label_name, named.reach_ms) == ("tap", 50)
    slow = JoinRules(labels=(replace(CLICK, attribution_ms=70),))
    assert replace(CONFIG, by_domain={"shop": slow}, remember_ms=5).longest_window_ms == 75


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: LabelRule(kind="", wait_ms=1), "must not be empty"),
        (lambda: LabelRule(kind="click", wait_ms=0), "wait_ms of label 'click' must be > 0, got 0"),
        (lambda: LabelRule(kind="click", wait_ms=9, attribution_ms=8), "must be >= wait_ms, got 8 < 9"),
        (lambda: JoinRules(labels=()), "want 1 to 12 labels"),
        (lambda: JoinRules(labels=(CLICK, CLICK)), "of different names"),
        (lambda: JoinRules(labels=(CLICK,), mode="fast_emit", emit="in_order"), "cannot leave in order"),
        (lambda: JoinRules(labels=(replace(CLICK, combine="sum"),), mode="fast_emit"), "stated at once"),
        (lambda: JoinRules(labels=(replace(CLICK, at_least=None),), mode="fast_emit"), "stated at once"),
        (lambda: replace(CONFIG, skew_ms=-1), "skew_ms must be >= 0, got -1"),
        (lambda: replace(CONFIG, cache_max_bytes=0), "cache_max_bytes must be > 0, got 0"),
        (lambda: replace(CONFIG, by_domain={"x": JoinRules(labels=(LIKE,))}), r"want \('click',\)"),
    ],
)
def test_rules_that_cannot_be_are_refused_when_they_are_built(make, reason):
    with pytest.raises(ConfigError, match=reason):
        make()
