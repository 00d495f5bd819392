"""What becomes of an item's labels, and the rows that say so.

A row is about one label where a feedback made it, and about all labels of a group that are 0 together
where the end of their wait did.
"""

from __future__ import annotations

from dataclasses import dataclass

from recsys.interactions import Feedback
from streaming.held_back import HeldBack
from streaming.join_plan import Group, Plan
from streaming.join_rules import LabelRule
from streaming.shown import Joined
from streaming.statements import KIND_MASK, NEGATIVE, POSITIVE, RETRACTION, statement
from streaming.windows import (
    ANSWERED,
    NEGATIVE_DROPPED,
    NEGATIVE_SENT,
    STATED,
    WAITING,
    Answer,
    Part,
)


@dataclass(slots=True)
class JoinCounters:
    """What became of everything that arrived. Counts since the start of the process."""

    joined: int = 0
    """Rows made from a feedback, retractions aside."""
    positives: int = 0
    """Rows of a label other than 0."""
    negatives: int = 0
    """Rows of label 0, answered or not."""
    sampled_out: int = 0
    """Rows of label 0 that the sampling did not keep."""
    retracted: int = 0
    """Rows that take a negative back."""
    duplicates: int = 0
    """Items shown and feedback that had come before."""
    orphans: int = 0
    """Feedback whose impression never came, or lay too far behind it."""
    late: int = 0
    """Items shown too late; feedback after its negative, by label, whatever was made of it."""
    ignored: int = 0
    """Feedback of another kind, too late, or beside the one that counts."""
    rejected: int = 0
    """Messages that could not be read, or were dated too far ahead."""


class Verdicts:
    """Decides labels by what is known, and collects the rows. One caller at a time."""

    def __init__(self) -> None:
        self.counters = JoinCounters()
        self.held: HeldBack | None = None
        """What an earlier life has stated."""
        self.rows: list[Joined] = []

    def decide(self, part: Part, plan: Plan, position: int, feedback: Feedback) -> bool:
        """Bring a feedback to its item; whether it changed what is known of any label."""
        since_shown_ms = feedback.event_time_ms - part.shown.event_time_ms
        has_changed = False
        for label in plan.by_kind.get(feedback.kind, ()):
            rule = plan.rules[label]
            if since_shown_ms >= plan.reach_ms[label]:
                continue
            if plan.is_fast:
                has_changed |= self._decide_fast(part, plan, position, label, feedback)
            elif part.closed >> label & 1:
                has_changed |= self._decide_late(part, plan, position, label, feedback)
            elif since_shown_ms >= rule.wait_ms:
                has_changed |= self._keep_late(part, plan, position, label, feedback)
            else:
                has_changed |= self._decide_in_time(part, plan, position, label, feedback)
        if not has_changed:
            self.counters.ignored += 1
        return has_changed

    def close(self, part: Part, plan: Plan, group: Group) -> None:
        """The wait of these labels has ended, for all items of the impression."""
        part.closed |= group.bits
        states, shown = part.states, part.shown
        for position in range(len(shown.item_ids)):
            start, waiting = position * plan.n_labels, 0
            for label in group.labels:
                state = states[start + label]
                if state == WAITING:
                    waiting |= 1 << label
                elif state == ANSWERED:
                    self._state_answer(part, plan, position, label, part.answers.pop(start + label))
            if waiting:
                self._state_negative(part, plan, position, group, waiting)
            if part.late:
                self._state_kept_late(part, plan, position, group)

    def state_fast(self, part: Part, plan: Plan, position: int) -> None:
        """Every label of a new item is 0, until it is acted on."""
        shown, rate = part.shown, plan.sampling.rate_of(part.shown, position)
        if plan.sampling.keeps(shown, position, rate):
            stated = statement((1 << plan.n_labels) - 1, NEGATIVE)
            self._make(Joined(shown, position, 0.0, stated, rate, is_fast=True))
        else:
            self.counters.sampled_out += 1

    def _decide_fast(self, part: Part, plan: Plan, position: int, label: int, feedback: Feedback) -> bool:
        slot, shown = position * plan.n_labels + label, part.shown
        value = plan.rules[label].label_of(feedback.value)
        if part.states[slot] != WAITING or value == 0.0:
            return False
        part.states[slot] = STATED
        delay_ms = feedback.event_time_ms - shown.event_time_ms
        rate = plan.sampling.rate_of(shown, position)
        stated = statement(1 << label, POSITIVE)
        self._make_answer(Joined(shown, position, value, stated, rate, delay_ms, is_fast=True))
        return True

    def _decide_in_time(self, part: Part, plan: Plan, position: int, label: int, feedback: Feedback) -> bool:
        slot = position * plan.n_labels + label
        state = part.states[slot]
        answer = (feedback.value, feedback.event_time_ms, feedback.event_id)
        if state == WAITING:
            if plan.is_deferred[label]:
                part.states[slot], part.answers[slot] = ANSWERED, answer
            else:
                self._state_answer(part, plan, position, label, answer)
            return True
        if state != ANSWERED:
            return False
        before = part.answers[slot]
        after = part.answers[slot] = _combined(plan.rules[label], before, answer)
        if after == answer:
            self.counters.ignored += 1  # the one that counted until now
        return after != before

    def _decide_late(self, part: Part, plan: Plan, position: int, label: int, feedback: Feedback) -> bool:
        is_negative = part.states[position * plan.n_labels + label] in (NEGATIVE_SENT, NEGATIVE_DROPPED)
        value = plan.rules[label].label_of(feedback.value)
        if not is_negative or value == 0.0:
            return False
        self._state_late(part, plan, position, label, (value, feedback.event_time_ms))
        return True

    def _keep_late(self, part: Part, plan: Plan, position: int, label: int, feedback: Feedback) -> bool:
        """It came before the end of a wait that it is dated after: the negative goes first."""
        slot = position * plan.n_labels + label
        if part.states[slot] == STATED or plan.rules[label].label_of(feedback.value) == 0.0:
            return False
        before = part.late.get(slot)
        answer = (feedback.value, feedback.event_time_ms, feedback.event_id)
        if before is not None:
            if _by_time(before) < _by_time(answer):
                return False
            self.counters.ignored += 1  # the one that counted until now
        part.late[slot] = answer
        return True

    def _state_answer(self, part: Part, plan: Plan, position: int, label: int, answer: Answer) -> None:
        """The label of in-time feedback is known."""
        shown, rule = part.shown, plan.rules[label]
        value = rule.label_of(answer[0])
        part.states[position * plan.n_labels + label] = STATED
        if self.held is not None and self._is_negative_out(part, plan, position, label):
            if value != 0.0:
                part.states[position * plan.n_labels + label] = NEGATIVE_SENT
                self._state_late(part, plan, position, label, (value, answer[1]))
            return
        delay_ms = answer[1] - shown.event_time_ms if rule.combine == "first" else rule.wait_ms
        rate = plan.sampling.rate_of(shown, position)
        if value != 0.0:
            stated = statement(1 << label, POSITIVE)
            self._make_answer(Joined(shown, position, value, stated, rate, delay_ms))
        elif plan.sampling.keeps(shown, position, rate):
            stated = statement(1 << label, NEGATIVE)
            self._make_answer(Joined(shown, position, 0.0, stated, rate, delay_ms))
        else:
            self.counters.sampled_out += 1

    def _state_negative(self, part: Part, plan: Plan, position: int, group: Group, waiting: int) -> None:
        """These labels of a group are 0: nothing was heard in time."""
        shown = part.shown
        rate = plan.sampling.rate_of(shown, position)
        is_kept = plan.sampling.keeps(shown, position, rate)
        state = NEGATIVE_SENT if is_kept else NEGATIVE_DROPPED
        for label in group.labels:
            if waiting >> label & 1:
                part.states[position * plan.n_labels + label] = state
        if self.held is not None:
            waiting = self._not_out(part, plan, position, group, waiting)
        if waiting and is_kept:
            self._make(Joined(shown, position, 0.0, statement(waiting, NEGATIVE), rate, group.wait_ms))
        elif waiting:
            self.counters.sampled_out += 1

    def _state_kept_late(self, part: Part, plan: Plan, position: int, group: Group) -> None:
        for label in group.labels:
            slot = position * plan.n_labels + label
            answer = part.late.pop(slot, None)
            if answer is None:
                continue
            if part.states[slot] == STATED:
                self.counters.ignored += 1
            else:
                value = plan.rules[label].label_of(answer[0])
                self._state_late(part, plan, position, label, (value, answer[1]))

    def _state_late(self, part: Part, plan: Plan, position: int, label: int, late: tuple[float, int]) -> None:
        """A label that was stated as 0, or was sampled out as such, is (value, decided at) after all."""
        self.counters.late += 1
        if plan.late_policy == "drop":
            return
        slot, shown = position * plan.n_labels + label, part.shown
        rate, delay_ms = plan.sampling.rate_of(shown, position), late[1] - shown.event_time_ms
        stated = statement(1 << label, POSITIVE)
        self._make_answer(Joined(shown, position, late[0], stated, rate, delay_ms, is_late=True))
        if part.states[slot] == NEGATIVE_SENT and plan.late_policy == "retract":
            stated = statement(1 << label, RETRACTION)
            self._make(Joined(shown, position, 0.0, stated, rate, delay_ms, is_late=True))
        part.states[slot] = STATED

    def _is_negative_out(self, part: Part, plan: Plan, position: int, label: int) -> bool:
        assert self.held is not None
        out = self.held.negatives(part.shown, position, plan.group_of[label].bits)
        return bool(out >> label & 1)

    def _not_out(self, part: Part, plan: Plan, position: int, group: Group, waiting: int) -> int:
        """Those of ``waiting`` that an earlier life has said nothing of; the others stand as it said."""
        assert self.held is not None
        negative = self.held.negatives(part.shown, position, group.bits)
        for label in group.labels:
            bit = 1 << label
            if not waiting & bit:
                continue
            if negative & bit:
                part.states[position * plan.n_labels + label] = NEGATIVE_SENT
                waiting ^= bit
            elif self.held.has_positive(part.shown, position, label):
                part.states[position * plan.n_labels + label] = STATED
                waiting ^= bit
        return waiting

    def _make_answer(self, row: Joined) -> None:
        self.counters.joined += self._make(row)

    def _make(self, row: Joined) -> bool:
        """Collect a row, unless an earlier life has made it."""
        if self.held is not None and self.held.take(row.shown, row.position, row.stated):
            return False
        kind = row.stated & KIND_MASK
        if kind == NEGATIVE:
            self.counters.negatives += 1
        elif kind == POSITIVE:
            self.counters.positives += 1
        else:
            self.counters.retracted += 1
        self.rows.append(row)
        return True


def _combined(rule: LabelRule, one: Answer, other: Answer) -> Answer:
    """What two in-time feedbacks make, in either order."""
    if rule.combine == "first":
        return min(one, other, key=_by_time)
    if rule.combine == "max":
        return max(one, other, key=_by_value)
    return (one[0] + other[0], *max(one, other, key=_by_time)[1:])


def _by_time(answer: Answer) -> tuple[int, int]:
    return answer[1:]


def _by_value(answer: Answer) -> tuple[float, int, int]:
    return answer
