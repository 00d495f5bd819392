"""Options that several verbs share, spelled once."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="Which features, model and label rule.", metavar="NAME")
]
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", help="Kafka host:port; else HEADRACE_KAFKA_BOOTSTRAP.", metavar="HOST:PORT"),
]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Snapshots and progress; else HEADRACE_STATE_DIR.")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder with the data set in its owners' layout.")
]
MetricsPort = Annotated[
    int, typer.Option("--metrics-port", help="Offer Prometheus metrics on this local port; 0: none.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every change of state to stderr.")]


def refuse_options(context: typer.Context) -> None:
    """Refuse options that stand before a verb of a verb: nobody would read them."""
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"it stands before {context.invoked_subcommand!r}; put it behind", param_hint=option.opts[0]
            )


def collect_rarely() -> None:
    """Tell Python's collector that this process makes many objects and hardly a cycle among them.

    Without it a full collection walks over every open window or encoded message again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def on_termination(stop: Callable[[], None]) -> None:
    """Call ``stop`` at SIGTERM or SIGINT, so that a process ends cleanly."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
