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

SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class View:
    """What is drawn; filled in by the demo's main thread, four times a second."""

    events: int
    progress: Progress = field(init=False)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=40))
    aucs: deque[float] = field(default_factory=lambda: deque(maxlen=40))
    _learned: float = 0.0
    _at_s: float = 0.0

    def __post_init__(self) -> None:
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(48),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeElapsedColumn(),
        )
        self.progress.add_task("learned", total=self.events)

    def draw(
        self, now_s: float, metrics: dict[str, dict[str, float]], measured: Measurements
    ) -> RenderableType:
        """One frame from the newest metrics of the processes, by process name."""
        training, joining, serving = metrics["train"], metrics["join"], metrics["serve"]
        learned = training.get("training_examples_total", 0.0)
        if now_s - self._at_s >= 1.0:
            self.rates.append((learned - self._learned) / (now_s - self._at_s) if self._at_s else 0.0)
            self.aucs.append(training.get("training_progressive{metric=auc}", float("nan")))
            self._learned, self._at_s = learned, now_s
        self.progress.update(self.progress.task_ids[0], completed=min(learned, self.events))
        figures = Table.grid(padding=(0, 3))
        for _ in range(3):
            figures.add_column(min_width=22)
        rate = self.rates[-1] if self.rates else 0.0
        figures.add_row("[dim]events/s", f"[bold]{rate:,.0f}", spark(self.rates))
        auc = training.get("training_progressive{metric=auc}", float("nan"))
        figures.add_row("[dim]online AUC so far", f"[bold]{auc:.4f}", spark(self.aucs))
        calibration = training.get("training_progressive{metric=calibration}", float("nan"))
        figures.add_row("[dim]calibration", f"[bold]{calibration:.3f}", "")
        lag = joining.get("streaming_join_lag_records", 0.0)
        figures.add_row("[dim]consumer lag", f"[bold]{lag:,.0f} messages", "")
        rows, served = training.get("training_table_rows", 0.0), serving.get("serving_table_rows", 0.0)
        figures.add_row("[dim]rows trained / served", f"[bold]{rows:,.0f} / {served:,.0f}", "")
        figures.add_row("[dim]parameters served are", f"[bold]{measured.parameter_age_ms:.0f} ms old", "")
        figures.add_row("[dim]feedback to new score", f"[bold]{_percentiles(measured.staleness_ms)}", "")
        figures.add_row("[dim]Rank, 200 candidates", f"[bold]{_percentiles(measured.rank_ms)}", "")
        return Panel(
            Group(figures, "", self.progress), title="headrace demo", border_style="cyan", expand=False
        )


def spark(values: deque[float]) -> str:
    """A line of block characters, lowest to highest."""
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < 2 or max(finite) == min(finite):
        return ""
    low, high = min(finite), max(finite)
    steps = [round((value - low) / (high - low) * (len(SPARKS) - 1)) for value in finite]
    return "[cyan]" + "".join(SPARKS[step] for step in steps) + "[/]"


def _percentiles(values_ms: list[float]) -> str:
    if not values_ms:
        return "–"
    p50, p99 = np.percentile(values_ms, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
