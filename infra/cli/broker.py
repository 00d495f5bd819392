"""`headrace broker`: the embedded Kafka-protocol broker, in the foreground."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from infra.cli.options import on_termination


def broker(
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 9092,
) -> None:
    """Run the embedded Kafka-protocol broker; its log lives in memory and ends with it."""
    from infra.broker import EmbeddedBroker
    from streaming.kafka import create_topics
    from streaming.topics import ALL_TOPICS

    stopped = threading.Event()
    on_termination(stopped.set)
    with EmbeddedBroker(port=port) as running:
        create_topics(running.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        typer.echo(f"broker ready at {running.bootstrap}; Ctrl-C stops it")
        while not stopped.wait(1.0):
            running.check()
