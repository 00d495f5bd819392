"""A comparison as tables of a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from infra.multidomain.criteria import Figure
from infra.multidomain.page import Cell, Row, paragraph, table
from infra.multidomain.summary import METRICS, OURS, PAIRED, DataSummary, ModelSummary
from recsys.evaluation.intervals import Interval

NOTHING = Cell("–")
SHOWN = {
    "auc": "AUC",
    "mean_domain_auc": "mean of domains",
    "worst_domain_auc": "worst domain",
    "gauc": "GAUC",
    "log_loss": "log loss",
    "calibration": "calibration",
}


def criteria_table(figures: Sequence[Figure]) -> str:
    """What was to be shown, and whether it was."""
    rows: list[Row] = [
        (
            figure.name,
            [
                Cell(figure.bar),
                Cell(f"{figure.value:.4f}"),
                Cell(f"{figure.low:.4f} to {figure.high:.4f}" if _has_interval(figure) else "–"),
                Cell("holds", kind="good") if figure.holds else Cell("does not hold", kind="bad"),
                Cell("", figure.note, "text"),
            ],
        )
        for figure in figures
    ]
    columns = ("criterion", "wanted", "measured", "95 % interval", "", "")
    return table("criteria", "Criteria", columns, rows)


def data_tables(summary: DataSummary) -> Iterator[str]:
    """All tables of one data set."""
    yield _models(summary)
    yield _costs(summary)
    if summary.model(OURS) is not None:
        yield _leads(summary)
    yield _domains(summary)
    if any(model.clusters for model in summary.compared):
        yield _clusters(summary)
        yield paragraph(
            "A model whose largest cluster has more than nine tenths of the rows under some seed is marked "
            "as collapsed: it is a model of one cluster, and its AUC is to be read as that."
        )
    if any(model.is_swept for model in summary.models):
        yield _sweeps(summary)


def _models(summary: DataSummary) -> str:
    metrics = [
        metric for metric in METRICS if metric in SHOWN and any(metric in m.metrics for m in summary.models)
    ]
    best = {metric: _best(summary, metric) for metric in metrics}
    rows: list[Row] = [
        (
            _title(model),
            [
                *(_of(model.metrics.get(metric), is_best=best[metric] == model.name) for metric in metrics),
                _epochs(model, summary.seeds),
            ],
        )
        for model in summary.compared
    ]
    columns = ("model", *(SHOWN[metric] for metric in metrics), "epochs")
    caption = f"Test metrics, mean of {summary.seeds} seeds and its 95 % interval"
    return table(f"{summary.name}-models", caption, columns, rows)


def _costs(summary: DataSummary) -> str:
    rows: list[Row] = [
        (
            _title(model),
            [
                Cell(f"{model.cost.n_parameters:,}"),
                Cell(f"{model.cost.flops_per_row:,.0f}"),
                Cell(f"{model.cost.relative_flops:.2f}", kind="mark" if model.cost.budgets > 1 else ""),
                Cell(f"{model.cost.budgets}", kind="mark" if model.cost.budgets > 1 else ""),
                Cell(f"{model.cost.scale:.2f}"),
                Cell(f"{model.step_ms:.2f}"),
            ],
        )
        for model in summary.compared
    ]
    columns = (
        "model",
        "parameters",
        "FLOPs a row",
        "over the single net's",
        "budgets",
        "width scale",
        "step, ms",
    )
    form = "at equal cost" if summary.at_equal_cost else "at equal widths"
    caption = (
        f"Cost of the dense part, {form}; marked where a row costs more than one of the single net. "
        "A step is one of learning on one thread; trials that run side by side slow each other down"
    )
    return table(f"{summary.name}-costs", caption, columns, rows)


def _leads(summary: DataSummary) -> str:
    rows: list[Row] = [
        (_title(model), [_lead(model.ours_less_this[metric]) for metric in PAIRED])
        for model in summary.compared
        if model.ours_less_this
    ]
    columns = ("model", *(SHOWN[metric] for metric in PAIRED))
    caption = f"{OURS} less each other model, seed by seed; in colour where the interval leaves out zero"
    return table(f"{summary.name}-leads", caption, columns, rows)


def _domains(summary: DataSummary) -> str:
    rows: list[Row] = [
        (_title(model), [_of(model.domain_auc.get(domain), has_interval=False) for domain in summary.domains])
        for model in summary.compared
    ]
    return table(f"{summary.name}-domains", "AUC within each domain", ("model", *summary.domains), rows)


def _clusters(summary: DataSummary) -> str:
    rows: list[Row] = []
    for model in summary.compared:
        found = model.clusters
        if found is None:
            continue
        is_collapsed = found.is_collapsed and not model.is_control
        cells = [
            Cell(f"{found.smallest_share:.1%}"),
            Cell(f"{found.largest_share:.1%}"),
            NOTHING if found.least_purity is None else Cell(f"{found.least_purity:.4f}"),
            Cell(f"{model.first.clusters['max_cosine']:.3f}"),
            Cell("collapsed", kind="bad") if is_collapsed else Cell(""),
        ]
        rows.append((_title(model), cells))
    columns = ("model", "smallest cluster", "largest cluster", "purity", "largest cosine, first seed", "")
    return table(f"{summary.name}-clusters", "Clusters of test rows, the worst of all seeds", columns, rows)


def _sweeps(summary: DataSummary) -> str:
    rows: list[Row] = []
    for setting, models in summary.sweeps.items():
        for value, model in models.items():
            purity = model.clusters.least_purity if model.clusters else None
            lead = model.ours_less_this.get("auc")
            cells = [
                Cell(value),
                _of(model.metrics.get("auc")),
                NOTHING if lead is None else _lead(lead),
                NOTHING if purity is None else Cell(f"{purity:.4f}"),
            ]
            rows.append((setting, cells))
    columns = ("setting", "value", "AUC", f"{OURS} less this", "purity")
    return table(f"{summary.name}-sweeps", f"Settings of {OURS}, one at a time", columns, rows)


def _best(summary: DataSummary, metric: str) -> str:
    """The model that one would use with the best value of a metric."""
    models = [model for model in summary.compared if metric in model.metrics and not model.is_control]

    def short_of_best(model: ModelSummary) -> float:
        mean = _mean(model, metric, math.inf)
        return {"log_loss": mean, "calibration": abs(mean - 1.0)}.get(metric, -mean)

    return min(models, key=short_of_best).name if models else ""


def _mean(model: ModelSummary, metric: str, without: float) -> float:
    value = model.metrics.get(metric)
    return without if value is None else value.mean


def _title(model: ModelSummary) -> str:
    return f"{model.name} (control)" if model.is_control else model.name


def _of(value: Interval | None, *, is_best: bool = False, has_interval: bool = True) -> Cell:
    if value is None:
        return NOTHING
    is_known = has_interval and math.isfinite(value.low)
    small = f"{value.low:.4f} to {value.high:.4f}" if is_known else ""
    return Cell(f"{value.mean:.4f}", small, "best" if is_best else "")


def _epochs(model: ModelSummary, seeds: int) -> Cell:
    if not model.unfinished:
        return Cell(f"{model.epochs:.1f}")
    return Cell(f"{model.epochs:.1f}", f"still rising: {model.unfinished} of {seeds}", "mark")


def _lead(value: Interval) -> Cell:
    if not math.isfinite(value.low):
        return Cell(f"{value.mean:+.4f}")
    kind = "good" if value.low > 0 else "bad" if value.high < 0 else ""
    return Cell(f"{value.mean:+.4f}", f"{value.low:+.4f} to {value.high:+.4f}", kind)


def _has_interval(figure: Figure) -> bool:
    return figure.low is not None and figure.high is not None
