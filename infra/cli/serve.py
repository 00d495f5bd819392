"""`headrace serve`: rankings over gRPC from a replica that follows the trainer."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import Bootstrap, DataDir, MetricsPort, RecipeName, StateDir, Verbose


def serve(
    recipe: RecipeName = "movielens",
    address: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1:50051",
    model: Annotated[
        str | None, typer.Option(help="Registry alias to follow, as NAME@ALIAS; else the newest snapshot.")
    ] = None,
    bootstrap: Bootstrap = None,
    state_dir: StateDir = None,
    data_dir: DataDir = None,
    export_rows: Annotated[
        Path | None, typer.Option(help="On a clean stop write the replica's rows here, for audits.")
    ] = None,
    metrics_port: MetricsPort = 0,
    verbose: Verbose = False,
) -> None:
    """Serve Rank, health and reflection; parameters follow the delta log while requests are answered."""
    from infra.telemetry import configure_logging
    from infra.wiring.recipes import current_settings, load_recipe
    from infra.wiring.server import ServerOptions, build_server
    from recsys.table.snapshot import write_rows
    from serving.server import serve as serve_until

    configure_logging(verbose=verbose)
    settings = current_settings(kafka_bootstrap=bootstrap, state_dir=state_dir)
    options = ServerOptions(model=model, data_dir=data_dir, metrics_port=metrics_port)
    server = build_server(load_recipe(recipe), settings, options)

    async def run() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        server.follower.start()
        await serve_until(server.service, server.replica, address=address, stopping=stopping)

    try:
        asyncio.run(run())
    finally:
        server.close()
    if export_rows is not None and server.replica.ready.is_set():
        write_rows(export_rows, server.replica.parameters.table)
