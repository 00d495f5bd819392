"""`headrace train`: the online trainer, and models out of a data set's log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from infra.cli.options import (
    Bootstrap,
    DataDir,
    MetricsPort,
    RecipeName,
    StateDir,
    Verbose,
    collect_rarely,
    on_termination,
    refuse_options,
)

app = typer.Typer(invoke_without_command=True)


@app.callback()
def train(
    context: typer.Context,
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
    snapshot_at: Annotated[int, typer.Option(help="Also save when so many showings are learned.", min=0)] = 0,
    track: Annotated[bool, typer.Option(help="Record the run and its snapshots in MLflow.")] = False,
    metrics_port: MetricsPort = 0,
    verbose: Verbose = False,
) -> None:
    """Learn online from joined examples, publish what changed, save snapshots, until stopped.

    A stopped or killed trainer goes on from its newest snapshot and ends where it would have ended.
    """
    if context.invoked_subcommand is not None:
        refuse_options(context)
        return
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


@app.command()
def batch(
    train_until: Annotated[
        datetime,
        typer.Option(
            "--train-until",
            formats=["%Y-%m-%d", "%Y%m%d"],
            help="Last day to learn, in local time.",
        ),
    ],
    recipe: RecipeName = "kuairand_multidomain",
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the snapshot; else batch/ in the recipe's state folder.")
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="Also record the run in MLflow and register the model under NAME.")
    ] = None,
    state_dir: StateDir = None,
    verbose: Verbose = False,
) -> None:
    """Train a recipe on its data set's log up to a day: one pass in time order, into a snapshot.

    `headrace score` scores files with it, and `headrace train --from` goes on from it online.
    """
    from rich.progress import Progress

    from infra.telemetry import configure_logging
    from infra.wiring.batch import KEPT, batch_folder, examples_until, train_batch
    from infra.wiring.recipes import current_settings, load_dataset, load_recipe
    from infra.wiring.registration import register_snapshot

    configure_logging(verbose=verbose)
    settings, chosen = current_settings(state_dir=state_dir), load_recipe(recipe)
    with Progress(transient=True) as bar:
        reading = bar.add_task(f"reading the log of {chosen.name}", total=None)
        examples = examples_until(chosen, load_dataset(chosen, settings, data_dir), train_until.date())
        bar.remove_task(reading)
        learning = bar.add_task("learning", total=len(examples))
        folder = out or batch_folder(settings.state_dir, chosen.name)
        result = train_batch(
            chosen,
            examples,
            folder,
            keep=KEPT if out is None else None,
            progress=lambda n: bar.advance(learning, n),
        )
    shown = ", ".join(f"{name} {result.metrics[name]:.4f}" for name in ("auc", "log_loss", "calibration"))
    label = chosen.join.rules.label_names[0]
    typer.echo(f"{result.examples} examples; {label}, each before it was learned: {shown}")
    typer.echo(f"snapshot: {result.snapshot}")
    if register is not None:
        typer.echo(
            register_snapshot(
                register,
                result.snapshot,
                settings,
                parameters={"train_until": train_until.date()},
                history=[result.metrics],
            )
        )
