"""The join by its definition: all events at once, sorted, in a dict; no watermark, no state, no order.

It goes by the same configuration objects, and shares no other line with the join.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import NamedTuple

WORD = (1 << 64) - 1


class Statement(NamedTuple):
    """A row of the output, without its delay."""

    request_id: str
    item_id: int
    event_time_ms: int
    labels: tuple[float | None, ...]
    """None where it says nothing."""
    weight: float
    rate: float
    is_late: bool
    is_fast: bool


def expected(config, impressions, feedback):
    """{Statement: the delays that it may have}, each statement being made once."""
    shown = {}
    for impression in sorted(impressions, key=lambda one: (one.event_time_ms, one.item_ids)):
        for position, item in enumerate(impression.item_ids):
            shown.setdefault((impression.request_id, item), (impression, position))
    answers = defaultdict(list)
    for one in {one.event_id: one for one in feedback}.values():
        answers[one.request_id, one.item_id].append((one.event_time_ms, one.event_id, one.value, one.kind))
    rows = {}
    for (request_id, item), (impression, position) in shown.items():
        rules = config.by_domain.get(impression.domain, config.rules)
        rate = rules.sampling.rate
        rate = rate(impression, position) if callable(rate) else rate
        is_kept = draw(request_id, item, rules.sampling.seed) < rate
        mine = [
            (time_ms - impression.event_time_ms, event_id, value, kind)
            for time_ms, event_id, value, kind in sorted(answers[request_id, item])
            if time_ms - impression.event_time_ms >= -config.skew_ms
        ]
        for labels, delays, weight, is_late in statements(rules, mine, is_kept=is_kept):
            stated = tuple(labels.get(name) for name in rules.label_names)
            is_fast = rules.mode == "fast_emit"
            key = (request_id, item, impression.event_time_ms, stated, weight, rate, is_late, is_fast)
            rows[Statement(*key)] = delays
    return rows


def statements(rules, mine, *, is_kept):
    """(labels by name, possible delays, weight, whether late) of one item with this feedback."""
    if rules.mode == "fast_emit":
        if is_kept:
            yield dict.fromkeys(rules.label_names, 0.0), {0}, 1.0, False
        for rule in rules.labels:
            yes = [
                one[0] for one in mine if one[0] < reach(rule) and label(rule, one) and one[3] == rule.kind
            ]
            if yes:
                yield {rule.label_name: 1.0}, set(yes), 1.0, False
        return
    unanswered = defaultdict(list)
    for rule in rules.labels:
        own = [one for one in mine if one[3] == rule.kind]
        in_time = [one for one in own if one[0] < rule.wait_ms]
        if in_time:
            value, delays = combined(rule, in_time, in_order=rules.emit == "in_order")
            if value or is_kept:
                yield {rule.label_name: value}, delays, 1.0, False
        else:
            unanswered[rule.wait_ms].append(rule.label_name)
            late = [one for one in own if one[0] < reach(rule) and label(rule, one)]
            if late and rules.late_policy != "drop":
                delays = {one[0] for one in late}
                yield {rule.label_name: label(rule, late[0])}, delays, 1.0, True
                if is_kept and rules.late_policy == "retract":
                    yield {rule.label_name: 0.0}, delays, -1.0, True
    for wait_ms, names in unanswered.items():
        if is_kept:
            yield dict.fromkeys(names, 0.0), {wait_ms}, 1.0, False


def combined(rule, in_time, *, in_order):
    """(label, possible delays)."""
    values = [value for _, _, value, _ in in_time]
    if rule.combine == "first":
        return label(rule, in_time[0]), {in_time[0][0]} if in_order else {one[0] for one in in_time}
    value = max(values) if rule.combine == "max" else math.fsum(values)
    return label(rule, (0, 0, value, "")), {rule.wait_ms}


def label(rule, one):
    return one[2] if rule.at_least is None else float(one[2] >= rule.at_least)


def reach(rule):
    return rule.wait_ms if rule.attribution_ms is None else rule.attribution_ms


def draw(request_id, item, seed):
    """Uniform in [0, 1): BLAKE2b of the request and splitmix64, written down from their papers."""
    request = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "little")
    return splitmix(splitmix(request ^ splitmix(item)) ^ splitmix(seed)) / 2**64


def splitmix(state):
    z = (state + 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)
