"""`headrace demo`: the whole loop on this machine, measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import DataDir

REPORT = Path("build/demo/report.json")


def demo(
    data: Annotated[str, typer.Option(help="Recipe: movielens (default) or kuairand.")] = "movielens",
    data_dir: DataDir = None,
    events: Annotated[
        int | None,
        typer.Option(help="Rows of the log to replay; else 300,000 of MovieLens, all of KuaiRand.", min=1),
    ] = None,
    report: Annotated[
        Path, typer.Option(help="Where the figures go, as JSON; logs and snapshots into NAME-run beside it.")
    ] = REPORT,
) -> None:
    """Replay a real log through broker, joiner, trainer, sync and server, and report what was measured."""
    began_s = time.perf_counter()
    from rich.console import Console

    from infra.demo.report import on_screen
    from infra.demo.run import Demo, DemoConfig
    from infra.telemetry import configure_logging
    from infra.wiring.recipes import current_settings, load_dataset, load_recipe

    configure_logging(verbose=False)
    console = Console()
    recipe = load_recipe(data)
    with console.status(f"reading {recipe.title}"):
        dataset = load_dataset(recipe, current_settings(), data_dir)
    n_events = min(events or recipe.demo_events or len(dataset.log), len(dataset.log))
    console.print(f"[bold]{recipe.title}[/]: {n_events:,} rows in time order")
    # A folder of the run's own: it is emptied, and beside a report may lie anything.
    folder = report.with_name(f"{report.stem}-run").absolute()
    config = DemoConfig(folder=folder, data_dir=data_dir, events=n_events)
    report.unlink(missing_ok=True)
    measured = Demo(recipe, dataset, config, console, began_s).run()
    measured.write(report)
    console.print()
    console.print(on_screen(measured, recipe.title))
    console.print(f"figures: {report}    logs: {config.folder / 'logs'}")
