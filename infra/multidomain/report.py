"""The report of a comparison: report.json for programs, report.html for people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.multidomain.compare import CompareConfig, Compared
from infra.multidomain.criteria import Figure, figures_of
from infra.multidomain.page import figure, page, paragraph, section
from infra.multidomain.plots import plots_of
from infra.multidomain.summary import DataSummary, ModelSummary, summary_of
from infra.multidomain.tables import criteria_table, data_tables
from infra.multidomain.trial import TrialConfig
from infra.multidomain.trial_files import without_nan

TITLE = "Multi-domain models compared"
SHORT = "This run was cut short in seeds, rows or epochs: the criteria are not to be judged by it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a comparison showed. Immutable: any number of readers."""

    config: CompareConfig
    summaries: tuple[DataSummary, ...]
    figures: tuple[Figure, ...]

    @property
    def is_full(self) -> bool:
        """Whether it was run as the criteria ask: five seeds, twelve epochs, all rows, at the least."""
        plain = TrialConfig()
        has_seeds = self.config.seeds >= CompareConfig(training=plain).seeds
        has_epochs = self.config.training.epochs >= plain.epochs
        return has_seeds and has_epochs and all(summary.one_row_of == 1 for summary in self.summaries)


def report_of(config: CompareConfig, compared: Sequence[Compared]) -> Report:
    """Summaries and criteria of all data sets."""
    summaries = tuple(map(summary_of, compared))
    figures = tuple(one for summary in summaries for one in figures_of(summary))
    return Report(config=config, summaries=summaries, figures=figures)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.json and report.html; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"report.json": json_of(report), "report.html": html_of(report)}
    for name, text in texts.items():
        unfinished = folder / f"{name}.part"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(folder / name)
    return [folder / name for name in texts]


def json_of(report: Report) -> str:
    """The report as JSON; null stands for what is not defined."""
    document = {
        "evaluation": "multidomain",
        "commit": _commit(),
        "machine": _machine(),
        "seeds": list(range(report.config.seeds)),
        "training": asdict(report.config.training),
        "is_full": report.is_full,
        "figures": [asdict(one) for one in report.figures],
        "data": [_data(summary) for summary in report.summaries],
    }
    return json.dumps(without_nan(document), indent=1, allow_nan=False) + "\n"


def html_of(report: Report) -> str:
    """The report as one page that needs nothing else."""
    training, config = report.config.training, report.config
    lead = (
        f"{config.seeds} seeds, the same for all models; Adam at {training.learning_rate:g}, steps of "
        f"{training.batch:,} rows, at most {training.epochs} epochs, ended by {training.patience} without a "
        f"better validation AUC; test rows are scored at the best epoch. Written on {_machine()}, at "
        f"commit {_commit()}; trials that were kept may be older."
    )
    names = [summary.name for summary in report.summaries]
    sections = [section("judged", "What was to be shown", [_judged(report)])]
    sections += [section(one.name, one.title, _section(one)) for one in report.summaries]
    return page(TITLE, lead, ["judged", *names], sections)


def metrics_of(report: Report) -> dict[str, float]:
    """Means by ``data/model/metric``, and criteria as 1 where they hold and 0 where not."""
    found = {
        f"{summary.name}/{model.name}/{metric}": value.mean
        for summary in report.summaries
        for model in summary.models
        for metric, value in model.metrics.items()
    }
    held = sum(one.holds for one in report.figures)
    return found | {"criteria_held": float(held), "criteria": float(len(report.figures))}


def _judged(report: Report) -> str:
    if not report.figures:
        return paragraph("The models of this run leave no criterion to be judged.")
    table = criteria_table(report.figures)
    return table if report.is_full else f"{table}\n{paragraph(SHORT)}"


def _section(summary: DataSummary) -> Iterator[str]:
    parts = ", ".join(f"{rows:,} to {part}" for part, rows in summary.rows.items())
    yield paragraph(f"Rows: {parts}. {len(summary.domains)} domains in the test part.")
    yield from data_tables(summary)
    for title, svg in plots_of(summary).items():
        yield figure(title, svg)


def _data(summary: DataSummary) -> dict[str, Any]:
    return {
        "name": summary.name,
        "title": summary.title,
        "at_equal_cost": summary.at_equal_cost,
        "rows": summary.rows,
        "domains": summary.domains,
        "seeds": summary.seeds,
        "models": {model.name: _model(model) for model in summary.models},
        "sweeps": {
            setting: {value: model.name for value, model in models.items()}
            for setting, models in summary.sweeps.items()
        },
    }


def _model(model: ModelSummary) -> dict[str, Any]:
    clusters = model.clusters
    return {
        "is_control": model.is_control,
        "cost": asdict(model.cost),
        "step_ms": model.step_ms,
        "epochs": model.epochs,
        "unfinished": model.unfinished,
        "metrics": {name: asdict(value) for name, value in model.metrics.items()},
        "domain_auc": {name: asdict(value) for name, value in model.domain_auc.items()},
        "adapt_dhm_less_this": {name: asdict(value) for name, value in model.ours_less_this.items()},
        "clusters": None if clusters is None else asdict(clusters) | {"is_collapsed": clusters.is_collapsed},
        "first_seed": {
            "usage": model.first.usage,
            "shares": model.first.shares,
            "domain_shares": model.first.domain_shares,
            "last_move": model.first.clusters,
        },
    }


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str:
    """Of this code, where it is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return git.stdout.strip() or "unknown"
