"""What the demo measured: the JSON document with exactly these keys, and the same on screen."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Percentiles(_Strict):
    """Milliseconds."""

    p50: float
    p99: float


class CountedPercentiles(Percentiles):
    """Milliseconds, over so many calls."""

    count: int


class DemoReport(_Strict):
    """Every figure of one run; each was measured in that run."""

    events: int
    """Rows of the interaction log that were replayed."""
    wall_s: float
    """From the start of the command to this report."""
    events_per_s: float
    """Replayed rows over the time from the first one sent to the last one learned."""
    stage_share: dict[str, float]
    """CPU time of each stage over that of all stages."""
    online_auc: float
    online_auc_second_half: float
    frozen_auc: float
    """Of the model as it stood after the first half, on the second half."""
    log_loss: float
    normalized_entropy: float
    calibration: float
    """Mean prediction over mean label in the second half."""
    staleness_ms: Percentiles
    """Feedback in the log to changed score, the joiner's wait window left out."""
    rank_ms: CountedPercentiles
    """Rank of 200 candidates, at the client, while training runs."""
    rows: int
    distinct_admitted_keys: int
    row_mismatches: int
    bytes_per_row: float
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n")


def on_screen(report: DemoReport, title: str) -> RenderableType:
    """The report as a panel for a terminal."""
    figures = Table.grid(padding=(0, 3))
    for _ in range(4):
        figures.add_column()
    for left, right in zip(_speed(report), _quality(report), strict=True):
        figures.add_row(f"[dim]{left[0]}", f"[bold]{left[1]}", f"[dim]{right[0]}", f"[bold]{right[1]}")
    shares = sorted(report.stage_share.items(), key=lambda stage: -stage[1])
    bar = Table.grid(padding=(0, 1))
    for stage, share in shares:
        bar.add_row(f"[dim]{stage}", f"[cyan]{'█' * round(share * 60)}[/] {share:.0%}")
    return Panel(
        Group(figures, "", "[dim]CPU time by stage", bar), title=title, border_style="cyan", expand=False
    )


def _speed(report: DemoReport) -> list[tuple[str, str]]:
    staleness, rank = report.staleness_ms, report.rank_ms
    return [
        ("events", f"{report.events:,} in {report.wall_s:.0f} s"),
        ("through the loop", f"{report.events_per_s:,.0f} events/s"),
        ("feedback to changed score", f"p50 {staleness.p50:.0f} ms  p99 {staleness.p99:.0f} ms"),
        ("rank 200 candidates", f"p50 {rank.p50:.1f} ms  p99 {rank.p99:.1f} ms  ({rank.count} calls)"),
        ("table", f"{report.rows:,} rows, {report.bytes_per_row:.0f} bytes each"),
    ]


def _quality(report: DemoReport) -> list[tuple[str, str]]:
    gain = report.online_auc_second_half - report.frozen_auc
    collisions = report.distinct_admitted_keys - report.rows
    return [
        ("AUC, whole pass", f"{report.online_auc:.4f}"),
        (
            "AUC, second half",
            f"{report.online_auc_second_half:.4f}  (frozen {report.frozen_auc:.4f}, {gain:+.4f})",
        ),
        ("log loss", f"{report.log_loss:.4f}  normalised entropy {report.normalized_entropy:.4f}"),
        ("calibration", f"{report.calibration:.3f}"),
        ("collisions", f"{collisions}, rows served differently {report.row_mismatches}"),
    ]
