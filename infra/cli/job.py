"""`headrace job`: examples to files, and models out of files."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import Bootstrap, RecipeName, StateDir, Verbose

if TYPE_CHECKING:
    from recsys.ranking.learner import RankingLearner

app = typer.Typer(help="Batch work: archive joined examples, train a model on them.", no_args_is_help=True)


@app.command()
def archive(
    out: Annotated[Path, typer.Option(help="Folder of parquet parts; an archive there is continued.")],
    bootstrap: Bootstrap = None,
    verbose: Verbose = False,
) -> None:
    """Copy the examples topic, up to its present end, to parquet."""
    from infra.telemetry import configure_logging
    from infra.wiring.kafka import kafka_config
    from infra.wiring.recipes import current_settings
    from streaming.kafka import KafkaSource
    from streaming.topics import EXAMPLES
    from training.archive import ExampleArchive, archive_to_end

    configure_logging(verbose=verbose)
    kafka = kafka_config(current_settings(kafka_bootstrap=bootstrap))
    archived = ExampleArchive(out)
    with closing(KafkaSource(kafka, [(EXAMPLES, 0)])) as source:
        added = archive_to_end(source, archived)
    typer.echo(f"{added} examples added, {archived.coverage.rows} in {out}")


@app.command()
def train(
    examples: Annotated[Path, typer.Option(help="Folder that `headrace job archive` filled.")],
    out: Annotated[Path, typer.Option(help="Folder for the snapshot.")],
    recipe: RecipeName = "movielens",
    register: Annotated[
        str | None, typer.Option(help="Also record the run in MLflow and register the model under NAME.")
    ] = None,
    state_dir: StateDir = None,
    verbose: Verbose = False,
) -> None:
    """Train the recipe's ranker on archived examples, under Ray, into a snapshot.

    `headrace train --from SNAPSHOT` goes on from it online.
    """
    import uuid

    from rich.console import Console
    from rich.table import Table

    from infra.telemetry import configure_logging
    from infra.wiring.recipes import current_settings, load_recipe
    from infra.wiring.registration import register_snapshot
    from training.jobs.train_ranker import TrainJob, train_ranker

    configure_logging(verbose=verbose)
    settings, chosen = current_settings(state_dir=state_dir), load_recipe(recipe)
    job = TrainJob(
        recipe=chosen.name,
        model=f"{chosen.name}-{uuid.uuid4().hex[:8]}",
        examples=examples,
        out=out,
        schema_fingerprint=chosen.schema.fingerprint,
        label_names=chosen.join.rules.label_names[: chosen.tower.n_tasks],
        micro_batch=chosen.micro_batch,
    )
    console = Console()
    with console.status(f"training {chosen.name} on {examples} under Ray"):
        result = train_ranker(job, untrained)
    table = Table("metric, each example before it was learned", "value", title=chosen.title)
    for name, value in result.metrics.items():
        table.add_row(name, f"{value:,.0f}" if name == "examples" else f"{value:.4f}")
    console.print(table)
    typer.echo(f"snapshot: {result.snapshot}")
    if register is not None:
        typer.echo(
            register_snapshot(
                register,
                result.snapshot,
                settings,
                parameters={"archive": examples},
                history=result.history,
            )
        )


def untrained(recipe: str) -> RankingLearner:
    """A learner of a recipe's name; a batch job's worker calls it."""
    from infra.wiring.recipes import load_recipe
    from infra.wiring.trainer import build_learner

    return build_learner(load_recipe(recipe))
