"""`headrace promote`: move a registry alias to a model version."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli.options import StateDir


def promote(
    name: Annotated[str, typer.Argument(help="Registered model.")],
    version: Annotated[int | None, typer.Argument(help="Version; else the newest.", min=1)] = None,
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "champion",
    gate: Annotated[
        bool,
        typer.Option(help="First judge its log loss, calibration and number of examples."),
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Move an alias (champion) to a version; servers that follow the alias swap to it."""
    from infra.wiring.recipes import build_registry, current_settings
    from training.promotion.gate import GateConfig

    registry = build_registry(current_settings(state_dir=state_dir))
    moved = registry.promote(name, version, alias, GateConfig() if gate else None)
    before = f"version {moved.previous}" if moved.previous is not None else "nothing"
    typer.echo(f"{name}@{alias} now names version {moved.version} (before: {before}): {moved.snapshot}")
