"""`headrace join`: impressions and feedback become examples."""

from __future__ import annotations

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
    metrics_port: MetricsPort = 0,
    verbose: Verbose = False,
) -> None:
    """Join impressions with later feedback into examples, until stopped."""
    from infra.telemetry import configure_logging
    from infra.wiring.joiner import build_joiner
    from infra.wiring.recipes import current_settings, load_recipe

    configure_logging(verbose=verbose)
    settings = current_settings(kafka_bootstrap=bootstrap, state_dir=state_dir)
    worker = build_joiner(load_recipe(recipe), settings, metrics_port=metrics_port)
    on_termination(worker.stop)
    collect_rarely()
    worker.run()
