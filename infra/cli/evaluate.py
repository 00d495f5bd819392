"""`headrace evaluate`: models judged against each other, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import DataDir, StateDir, Verbose

if TYPE_CHECKING:
    from rich.console import Console

    from infra.multidomain.compare import CompareConfig, Compared
    from infra.multidomain.data import DataSource
    from infra.multidomain.report import Report
    from infra.settings import Settings

QUICK_SEEDS, QUICK_EPOCHS, QUICK_ROWS = 2, 2, 20_000

app = typer.Typer(help="Judge models against each other.", no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Judge models against each other."""


@app.command()
def multidomain(
    data: Annotated[
        list[str] | None,
        typer.Option(help="syn2 (the default), syn2_wide, syn, kuairand or movielens; may be repeated."),
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Names with commas between; else all that fit the data.", metavar="A,B")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many; else 5.", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="At the most; else 12.", min=1)] = None,
    rows: Annotated[int | None, typer.Option(help="Of each data set, about; else all.", min=100)] = None,
    sweeps: Annotated[bool, typer.Option("--sweeps", help="Sweep AdaptDHM's settings on syn2.")] = False,
    jobs: Annotated[int, typer.Option(help="Trials at a time, each in a process.", min=1)] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="2 seeds, 2 epochs, 20,000 rows: to see that it runs.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the report and of finished trials.")] = Path(
        "build/multidomain"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run all trials again: the code has changed.")
    ] = False,
    track: Annotated[bool, typer.Option("--track", help="Record the report in an MLflow run.")] = False,
    data_dir: DataDir = None,
    state_dir: StateDir = None,
    verbose: Verbose = False,
) -> None:
    """Compare AdaptDHM with other multi-domain models: report.json and report.html in the folder.

    A trial that is in the folder with the same settings is not run again, so a run that was ended goes on.
    """
    from rich.console import Console

    from infra.multidomain.compare import CompareConfig
    from infra.multidomain.data import DataSource
    from infra.multidomain.report import report_of, write_report
    from infra.multidomain.trial import TrialConfig
    from infra.telemetry import configure_logging
    from infra.wiring.recipes import current_settings

    configure_logging(verbose=verbose)
    settings = current_settings(state_dir=state_dir)
    limit = rows or (QUICK_ROWS if quick else None)
    names = list(dict.fromkeys(data or ["syn2"]))
    sources = [DataSource(name=name, settings=settings, folder=data_dir, rows=limit) for name in names]
    config = CompareConfig(
        models=tuple(name.strip() for name in models.split(",")) if models else None,
        seeds=seeds or (QUICK_SEEDS if quick else 5),
        training=TrialConfig(epochs=epochs or (QUICK_EPOCHS if quick else 12)),
        has_sweeps=sweeps,
        jobs=jobs,
    )
    report = report_of(config, _compared(sources, config, out / "trials", is_fresh=fresh))
    paths = write_report(report, out)
    _show(report, Console())
    for path in paths:
        typer.echo(f"written: {path}")
    if track:
        typer.echo(f"MLflow run: {_track(report, paths, names, settings)}")


def _compared(
    sources: list[DataSource], config: CompareConfig, folder: Path, *, is_fresh: bool
) -> list[Compared]:
    """Run what is missing, with a bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from infra.multidomain.compare import compare

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("counting what models cost", total=None)

        def announce(done: int, of: int, what: str) -> None:
            progress.update(bar, completed=done, total=of, description=what)

        return compare(sources, config, folder, announce, is_fresh=is_fresh)


def _show(report: Report, console: Console) -> None:
    from rich.table import Table

    from infra.multidomain.report import SHORT

    for summary in report.summaries:
        table = Table(
            title=f"{summary.title}; seeds: {summary.seeds}",
            caption="FLOPs: of a row, over those of the single net",
        )
        table.add_column("model", no_wrap=True)
        for name in ("AUC", "mean of domains", "log loss", "parameters", "FLOPs", "step, ms"):
            table.add_column(name, justify="right")
        for model in summary.compared:
            metrics = [model.metrics.get(name) for name in ("auc", "mean_domain_auc", "log_loss")]
            table.add_row(
                model.name,
                *("–" if value is None else f"{value.mean:.4f}" for value in metrics),
                f"{model.cost.n_parameters:,}",
                f"x {model.cost.relative_flops:.2f}",
                f"{model.step_ms:.2f}",
            )
        console.print(table)
    if report.figures:
        table = Table("criterion", "wanted", "measured", "")
        for one in report.figures:
            verdict = "[green]holds" if one.holds else "[red]does not hold"
            verdict += f"[/], but {one.note}" if one.note else ""
            table.add_row(one.name, one.bar, f"{one.value:.4f}", verdict)
        console.print(table)
        if not report.is_full:
            console.print(SHORT)


def _track(report: Report, paths: list[Path], names: list[str], settings: Settings) -> str:
    """Record parameters, metrics and the report's files; the run's id."""
    from dataclasses import asdict

    from infra.multidomain.report import metrics_of
    from infra.wiring.recipes import build_registry

    config = report.config
    parameters = {"data": ",".join(names), "seeds": config.seeds, **asdict(config.training)}
    with build_registry(settings).start_run("evaluate multidomain", parameters) as run:
        run.log_metrics(metrics_of(report), step=0)
        run.log_files(paths, "report")
    return run.run_id
