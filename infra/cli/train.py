"""`headrace train`: the online trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from infra.cli.options import (
    Bootstrap,
    MetricsPort,
    RecipeName,
    StateDir,
    Verbose,
    collect_rarely,
    on_termination,
)


def train(
    recipe: RecipeName = "movielens",
    bootstrap: Bootstrap = None,
    state_dir: StateDir = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Snapshot to begin with where there is none yet.")
    ] = None,
    keep: Annotated[int, typer.Option(help="Snapshots to keep.", min=1)] = 3,
    snapshot_period_s: Annotated[
        float, typer.Option(help="Seconds between two snapshots of what changed.", min=0.001)
    ] = 5.0,
    full_snapshot_period_s: Annotated[
        float, typer.Option(help="Seconds between two snapshots of everything.", min=0.001)
    ] = 300.0,
    snapshot_url: Annotated[
        str | None,
        typer.Option(help="fsspec URL to mirror snapshots to; else HEADRACE_SNAPSHOT_URL.", metavar="URL"),
    ] = None,
    lag_policy: Annotated[
        Literal["catch_up", "thin"],
        typer.Option(help="When behind: catch_up learns all, later; thin learns fewer negatives."),
    ] = "catch_up",
    snapshot_at: Annotated[
        int, typer.Option(help="Also save when this many examples are learned.", min=0)
    ] = 0,
    track: Annotated[bool, typer.Option(help="Record the run and its snapshots in MLflow.")] = False,
    metrics_port: MetricsPort = 0,
    verbose: Verbose = False,
) -> None:
    """Learn online from joined examples, publish what changed, save snapshots, until stopped.

    A stopped or killed trainer goes on from its newest snapshot and ends where it would have ended.
    """
    from infra.telemetry import configure_logging
    from infra.wiring.recipes import current_settings, load_recipe
    from infra.wiring.trainer import TrainerOptions, build_trainer
    from training.lag import LagConfig
    from training.snapshot_rhythm import SnapshotPeriods

    configure_logging(verbose=verbose)
    settings = current_settings(kafka_bootstrap=bootstrap, state_dir=state_dir, snapshot_url=snapshot_url)
    options = TrainerOptions(
        start_from=start_from,
        keep=keep,
        snapshots=SnapshotPeriods(
            period_ms=round(snapshot_period_s * 1000), full_period_ms=round(full_snapshot_period_s * 1000)
        ),
        lag=LagConfig(policy=lag_policy),
        snapshot_at=snapshot_at,
        track=track,
        metrics_port=metrics_port,
    )
    trainer = build_trainer(load_recipe(recipe), settings, options)
    on_termination(trainer.loop.stop)
    collect_rarely()
    trainer.run()
