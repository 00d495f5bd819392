"""`headrace score`: a file of rows to a file of scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import DataDir, StateDir, Verbose


def score(
    file: Annotated[
        Path, typer.Option("--input", help="Parquet or csv in the owner's columns; labels may be absent.")
    ],
    output: Annotated[
        Path, typer.Option("--output", help="Parquet, or csv where it ends so: ids, and a column per label.")
    ],
    model: Annotated[
        Path | None, typer.Option("--model", help="Snapshot; else the one that was trained last.")
    ] = None,
    data_dir: DataDir = None,
    state_dir: StateDir = None,
    verbose: Verbose = False,
) -> None:
    """Score each row of a file with a model of `headrace train batch`: one probability per label.

    Rows keep the file's order. Users, items and domains that the model has never seen are scored too.
    """
    from rich.console import Console

    from infra.telemetry import configure_logging
    from infra.wiring.batch import newest_batch_model, score_file
    from infra.wiring.recipes import current_settings, load_dataset, load_recipe, readable_recipes
    from recsys.snapshots import read_manifest

    configure_logging(verbose=verbose)
    settings = current_settings(state_dir=state_dir)
    path = model or newest_batch_model(settings.state_dir, readable_recipes())
    recipe = load_recipe(read_manifest(path).recipe)
    with Console(stderr=True).status(f"scoring {file} with {path.name} of {recipe.name}"):
        dataset = load_dataset(recipe, settings, data_dir)
        scores = score_file(recipe, dataset, path, file)
        scores.write(output)
    typer.echo(f"{len(scores.score_NL)} rows, {', '.join(scores.labels)}: {output}")
