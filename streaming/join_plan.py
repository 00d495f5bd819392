"""The rules of one domain, laid out for the join's inner loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streaming.join_rules import JoinRules, LabelRule, LatePolicy
from streaming.sampling import NegativeSampling
from streaming.shown import Shown
from streaming.windows import ABSENT, Part, Window


class Group(NamedTuple):
    """Labels whose waits end together."""

    wait_ms: int
    labels: tuple[int, ...]
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What JoinRules come to, by label number. Immutable: any number of readers."""

    rules: tuple[LabelRule, ...]
    reach_ms: tuple[int, ...]
    n_labels: int
    by_kind: dict[str, tuple[int, ...]]
    groups: tuple[Group, ...]
    """By ascending wait; none where nothing waits."""
    group_of: tuple[Group, ...]
    is_deferred: tuple[bool, ...]
    """Whether an answer is stated only when the wait ends."""
    is_fast: bool
    late_policy: LatePolicy
    sampling: NegativeSampling
    first_wait_ms: int
    forget_after_ms: int


def plan_of(rules: JoinRules, remember_ms: int) -> Plan:
    """The plan of these rules; requests are remembered so long after their last window."""
    labels = rules.labels
    is_fast = rules.mode == "fast_emit"
    waits = sorted({rule.wait_ms for rule in labels})
    groups = tuple(_group(labels, wait_ms) for wait_ms in waits)
    return Plan(
        rules=labels,
        reach_ms=tuple(rule.reach_ms for rule in labels),
        n_labels=len(labels),
        by_kind={
            kind: tuple(number for number, rule in enumerate(labels) if rule.kind == kind)
            for kind in {rule.kind for rule in labels}
        },
        groups=() if is_fast else groups,
        group_of=tuple(groups[waits.index(rule.wait_ms)] for rule in labels),
        is_deferred=tuple(rules.emit == "in_order" or rule.combine != "first" for rule in labels),
        is_fast=is_fast,
        late_policy=rules.late_policy,
        sampling=rules.sampling,
        first_wait_ms=waits[0],
        forget_after_ms=max(rule.reach_ms for rule in labels) + remember_ms,
    )


def new_states(window: Window, shown: Shown, n_labels: int) -> tuple[bytearray, int]:
    """States of an impression's slots, and how many of its items its request has shown before."""
    items = shown.item_ids
    states = bytearray(len(items) * n_labels)
    if not window.parts and len(set(items)) == len(items):
        return states, 0
    known = {item for part in window.parts for item in part.shown.item_ids}
    n_known = 0
    for position, item in enumerate(items):
        if item in known:
            n_known += 1
            start = position * n_labels
            states[start : start + n_labels] = bytes([ABSENT]) * n_labels
        known.add(item)
    return states, n_known


def find_item(window: Window, item_id: int) -> tuple[Part, int] | None:
    """The impression that showed the item first, and where; None where none has."""
    for part in window.parts:
        items = part.shown.item_ids
        if item_id in items:
            position = items.index(item_id)
            if part.states[position * len(part.states) // len(items)] != ABSENT:
                return part, position
    return None


def _group(labels: Sequence[LabelRule], wait_ms: int) -> Group:
    numbers = tuple(number for number, rule in enumerate(labels) if rule.wait_ms == wait_ms)
    return Group(wait_ms, numbers, sum(1 << number for number in numbers))
