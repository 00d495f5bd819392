"""What the joiner goes by: labels and their windows, how rows leave, what is kept and for how long.

All times are event times, except where the wall clock is named.

    shown - skew      shown                 shown + wait            shown + attribution
        |--------------|-------- in time --------|--------- late ---------|---- too late
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from recsys.errors import ConfigError
from streaming.sampling import NegativeSampling
from streaming.statements import MAX_LABELS

LatePolicy = Literal["retract", "emit_positive", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Which feedback makes one label, and until when."""

    kind: str
    """Of the feedback; several labels may be of one kind."""
    name: str = ""
    """Of the label; the kind where it is empty."""
    wait_ms: int
    """An item without feedback so long after it was shown is a negative; > 0."""
    attribution_ms: int | None = None
    """Feedback still counts, late, so long after the showing; >= wait_ms. None: wait_ms."""
    at_least: float | None = 1.0
    """The label is 1 where the value reaches this, else 0. None: the value itself is the label."""
    combine: Literal["first", "max", "sum"] = "first"
    """What several in-time values make. The first decides also when it says no; the largest and the sum
    are known when the wait ends. Of late ones, the first that does not say no decides."""

    def __post_init__(self) -> None:
        if not self.kind:
            raise ConfigError("a label's kind must not be empty: that is a heartbeat's")
        if self.wait_ms < 1:
            raise ConfigError(f"wait_ms of label {self.label_name!r} must be > 0, got {self.wait_ms}")
        if self.reach_ms < self.wait_ms:
            raise ConfigError(
                f"attribution_ms of label {self.label_name!r} must be >= wait_ms, "
                f"got {self.attribution_ms} < {self.wait_ms}"
            )

    @property
    def label_name(self) -> str:
        """What the label is called in an example."""
        return self.name or self.kind

    @property
    def reach_ms(self) -> int:
        """Feedback dated so long after the showing, or longer, no longer counts."""
        return self.wait_ms if self.attribution_ms is None else self.attribution_ms

    def label_of(self, value: float) -> float:
        """The label that a value, or several of them combined, stands for."""
        return value if self.at_least is None else float(value >= self.at_least)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRules:
    """Labels of one domain, and how its examples leave."""

    labels: tuple[LabelRule, ...]
    """The first is the one that a single-task ranker learns."""
    emit: Literal["at_once", "in_order"] = "at_once"
    """"at_once": a row leaves the moment it is known. "in_order": it leaves when its wait ends, by (time,
    request, position), so that nobody learns from the future of what follows; late rows leave when they
    are known."""
    mode: Literal["wait", "fast_emit"] = "wait"
    """"fast_emit": each item leaves at once as a negative, and again as a positive if it is acted on
    before attribution ends; nothing waits, but the loss must allow for it."""
    late_policy: LatePolicy = "retract"
    """A late positive leaves with a row of label 0 and weight -1 if its negative had left ("retract"),
    alone ("emit_positive"), or not at all ("drop")."""
    sampling: NegativeSampling = field(default_factory=NegativeSampling)
    """Which negatives leave."""

    def __post_init__(self) -> None:
        names = self.label_names
        if not 1 <= len(names) <= MAX_LABELS or len(set(names)) < len(names):
            raise ConfigError(f"want 1 to {MAX_LABELS} labels of different names, got {names}")
        if self.mode == "fast_emit":
            if self.emit != "at_once":
                raise ConfigError('mode "fast_emit" cannot leave in order; use emit="at_once" with it')
            for rule in self.labels:
                if rule.combine != "first" or rule.at_least is None:
                    raise ConfigError(
                        f'label {rule.label_name!r} cannot be stated at once: mode "fast_emit" wants '
                        'combine="first" and at_least, for a row that has left is not taken back'
                    )

    @property
    def label_names(self) -> tuple[str, ...]:
        """In the order of ``labels``."""
        return tuple(rule.label_name for rule in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinConfig:
    """The rules of every domain, and what is kept for how long."""

    rules: JoinRules
    """Of every domain that has none of its own."""
    by_domain: Mapping[str, JoinRules] = field(default_factory=dict)
    """Rules of single domains, with labels of the same names in the same order."""
    allowed_disorder_ms: int = 0
    """How far behind its partition's newest event another one may come; >= 0."""
    skew_ms: int = 0
    """How far ahead of its impression a feedback's time may lie (two machines' clocks); >= 0. Feedback
    whose impression has not come waits until no impression can come that it would belong to."""
    remember_ms: int = 0
    """How long after its last window a request is still known, so that a copy with a later time is seen
    for what it is; >= 0."""
    idle_after_ms: int = 10_000
    """A partition silent for so long, by the wall clock, no longer holds the watermark; > 0."""
    max_ahead_ms: int = 3_600_000
    """An event dated further ahead of the wall clock is rejected, so that one wrong clock cannot drag
    event time along; >= 0."""
    cache_horizon_ms: int = 600_000
    """A request shown longer ago than this lies on disk only; > 0."""
    cache_max_bytes: int = 256 << 20
    """Memory for the requests of one pair of partitions; what finds no room lies on disk only; > 0."""

    def __post_init__(self) -> None:
        for name in ("allowed_disorder_ms", "skew_ms", "remember_ms", "max_ahead_ms"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("idle_after_ms", "cache_horizon_ms", "cache_max_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        for domain, rules in self.by_domain.items():
            if rules.label_names != self.label_names:
                raise ConfigError(
                    f"domain {domain!r} has labels {rules.label_names}, want {self.label_names}: "
                    "all examples of one output have the same"
                )

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels of every example."""
        return self.rules.label_names

    @property
    def longest_window_ms(self) -> int:
        """How long after its showing something may still be stated about an item, at most."""
        reach_ms = [rule.reach_ms for rules in self._all_rules() for rule in rules.labels]
        return max(reach_ms) + self.remember_ms

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of feedback that any label is made of."""
        return frozenset(rule.kind for rules in self._all_rules() for rule in rules.labels)

    def _all_rules(self) -> list[JoinRules]:
        return [self.rules, *self.by_domain.values()]
