"""What the demo measured: the JSON document with exactly these keys, and the same on screen."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import RenderableType
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
    """The report as a panel for a terminal of 80 columns."""
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim", no_wrap=True)
    figures.add_column(style="bold", no_wrap=True)
    for name, figure in _lines(report):
        figures.add_row(name, figure)
    figures.add_row("", "")
    figures.add_row("CPU time by stage", "")
    for stage, share in sorted(report.stage_share.items(), key=lambda stage: -stage[1]):
        figures.add_row(f"  {stage}", f"[cyan]{'█' * round(share * 40)}[/] [not bold]{share:.0%}[/]")
    return Panel(figures, title=title, border_style="cyan", expand=False)


def _lines(report: DemoReport) -> list[tuple[str, str]]:
    """What a reader wants to know, one line each."""
    staleness, rank = report.staleness_ms, report.rank_ms
    gain = report.online_auc_second_half - report.frozen_auc
    served = "all rows served as learned" if not report.row_mismatches else "ROWS DIFFER"
    return [
        ("events", f"{report.events:,}, the loop learned {report.events_per_s:,.0f} a second"),
        ("whole command", f"{report.wall_s:.0f} s"),
        ("feedback to new score", f"p50 {staleness.p50:.0f} ms, p99 {staleness.p99:.0f} ms"),
        ("rank 200 candidates", f"p50 {rank.p50:.1f} ms, p99 {rank.p99:.1f} ms ({rank.count} calls)"),
        ("AUC, predicted first", f"{report.online_auc:.4f}, second half {report.online_auc_second_half:.4f}"),
        ("frozen at half time", f"{report.frozen_auc:.4f}: learning on is worth {gain:+.4f}"),
        ("log loss", f"{report.log_loss:.4f}, normalised entropy {report.normalized_entropy:.4f}"),
        ("calibration", f"{report.calibration:.3f}"),
        ("table", f"{report.rows:,} rows of {report.bytes_per_row:.0f} bytes"),
        ("keys without a row of their own", f"{report.distinct_admitted_keys - report.rows}"),
        ("rows served differently", f"{report.row_mismatches} ({served})"),
    ]
