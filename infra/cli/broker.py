"""`headrace broker`: the embedded Kafka-protocol broker, in the foreground."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from infra.cli.options import on_termination


def broker(
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 9092,
    partitions: Annotated[
        int, typer.Option(help="Of impressions, feedback and examples.", min=1, max=1024)
    ] = 1,
) -> None:
    """Run the embedded Kafka-protocol broker; its log lives in memory and ends with it."""
    from infra.broker import EmbeddedBroker
    from streaming.kafka import KafkaConfig, apply_topics
    from streaming.topics import topic_specs

    stopped = threading.Event()
    on_termination(stopped.set)
    with EmbeddedBroker(port=port) as running:
        apply_topics(KafkaConfig(bootstrap=running.bootstrap), topic_specs(partitions))
        typer.echo(f"broker ready at {running.bootstrap}; Ctrl-C stops it")
        while not stopped.wait(1.0):
            running.check()
