"""The demo on screen: what the loop does while it does it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.demo.client import Measurements

Samples = dict[str, dict[str, float]]
"""Metrics by process name and by their own name."""
SPARKS_SHOWN = 16

SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class View:
    """What is drawn; filled in by the demo's main thread, four times a second."""

    events: int
    progress: Progress = field(init=False)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=SPARKS_SHOWN))
    aucs: deque[float] = field(default_factory=lambda: deque(maxlen=SPARKS_SHOWN))
    _learned: float = 0.0
    _at_s: float = 0.0

    def __post_init__(self) -> None:
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(40),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeElapsedColumn(),
        )
        self.progress.add_task("learned", total=self.events)

    def draw(
        self, now_s: float, metrics: dict[str, dict[str, float]], measured: Measurements
    ) -> RenderableType:
        """One frame from the newest metrics of the processes, by process name."""
        training = metrics["train"]
        learned = training.get("training_showings_total", 0.0)
        if now_s - self._at_s >= 1.0:
            self.rates.append((learned - self._learned) / (now_s - self._at_s) if self._at_s else 0.0)
            self.aucs.append(training.get("training_progressive{metric=auc}", float("nan")))
            self._learned, self._at_s = learned, now_s
        # Rows that the log holds twice are sent twice and learned once.
        repeated = metrics["join"].get("streaming_join_events_total{outcome=duplicates}", 0.0)
        total = max(self.events - repeated, learned)
        self.progress.update(self.progress.task_ids[0], completed=learned, total=total)
        figures = Table.grid(padding=(0, 2))
        figures.add_column(style="dim", no_wrap=True)
        figures.add_column(style="bold", no_wrap=True, min_width=30)
        figures.add_column(style="cyan", no_wrap=True, width=SPARKS_SHOWN)
        for line in self._lines(metrics, measured):
            figures.add_row(*line)
        return Panel(
            Group(figures, "", self.progress), title="headrace demo", border_style="cyan", expand=False
        )

    def _lines(self, metrics: Samples, measured: Measurements) -> list[tuple[str, str, str]]:
        training, unknown = metrics["train"], float("nan")
        rate = self.rates[-1] if self.rates else 0.0
        auc = training.get("training_progressive{metric=auc}", unknown)
        calibration = training.get("training_progressive{metric=calibration}", unknown)
        lag = metrics["join"].get("streaming_join_lag_records", 0.0)
        rows = training.get("training_table_rows", 0.0)
        served = metrics["serve"].get("serving_table_rows", 0.0)
        return [
            ("events/s", f"{rate:,.0f}", spark(self.rates)),
            ("online AUC so far", f"{auc:.4f}", spark(self.aucs)),
            ("calibration", f"{calibration:.3f}", ""),
            ("consumer lag", f"{lag:,.0f} messages", ""),
            ("rows trained / served", f"{rows:,.0f} / {served:,.0f}", ""),
            ("parameters served are", f"{measured.parameter_age_ms:.0f} ms old", ""),
            ("feedback to new score", _percentiles(measured.staleness_ms), ""),
            ("Rank, 200 candidates", _percentiles(measured.rank_ms), ""),
        ]


def spark(values: deque[float]) -> str:
    """A line of block characters, lowest to highest."""
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < 2 or max(finite) == min(finite):
        return ""
    low, high = min(finite), max(finite)
    steps = [round((value - low) / (high - low) * (len(SPARKS) - 1)) for value in finite]
    return "".join(SPARKS[step] for step in steps)


def _percentiles(values_ms: list[float]) -> str:
    if not values_ms:
        return "–"
    p50, p99 = np.percentile(values_ms, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
