"""`headrace join`: impressions and feedback become examples."""

from __future__ import annotations

from typing import Annotated

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


def join(
    recipe: RecipeName = "movielens",
    bootstrap: Bootstrap = None,
    state_dir: StateDir = None,
    group: Annotated[
        str | None,
        typer.Option(help="Share the partitions with the joiners of this consumer group; else take all."),
    ] = None,
    instance_id: Annotated[
        str | None,
        typer.Option(help="Name of this member: restarted under it, it gets its partitions back at once."),
    ] = None,
    metrics_port: MetricsPort = 0,
    verbose: Verbose = False,
) -> None:
    """Join impressions with later feedback into examples, until stopped.

    The joiners of a group must reach one state folder: a partition's open windows move with it.
    """
    from infra.telemetry import configure_logging
    from infra.wiring.joiner import build_joiner
    from infra.wiring.recipes import current_settings, load_recipe

    configure_logging(verbose=verbose)
    settings = current_settings(kafka_bootstrap=bootstrap, state_dir=state_dir)
    worker = build_joiner(
        load_recipe(recipe), settings, group=group, instance_id=instance_id, metrics_port=metrics_port
    )
    on_termination(worker.stop)
    collect_rarely()
    worker.run()
