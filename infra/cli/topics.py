"""`headrace topics`: the topics of the loop on a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli.options import Bootstrap

app = typer.Typer(help="The loop's topics: make them, list them.", no_args_is_help=True)


@app.command()
def apply(
    partitions: Annotated[
        int, typer.Option(help="Of impressions, feedback and examples; never changed afterwards.", min=1)
    ] = 1,
    replication: Annotated[int, typer.Option(help="Brokers that keep each record.", min=1)] = 1,
    bootstrap: Bootstrap = None,
) -> None:
    """Make the topics that are missing, with their retention and limits; what exists stays as it is."""
    from rich.console import Console
    from rich.table import Table

    from infra.wiring.kafka import kafka_config
    from infra.wiring.recipes import current_settings
    from streaming.kafka import apply_topics
    from streaming.topics import topic_specs

    kafka = kafka_config(current_settings(kafka_bootstrap=bootstrap))
    outcomes = apply_topics(kafka, topic_specs(partitions), replication=replication)
    table = Table("topic", "partitions", "kept for", "largest record", "")
    for outcome in outcomes:
        spec = outcome.spec
        table.add_row(
            spec.name,
            str(spec.partitions),
            f"{spec.retention_ms / 3_600_000:g} h",
            f"{spec.max_record_bytes / (1 << 20):g} MiB",
            "made" if outcome.was_made else "was there",
        )
    Console().print(table)


@app.command("list")
def list_topics(bootstrap: Bootstrap = None) -> None:
    """Show the topics that the cluster has."""
    from rich.console import Console
    from rich.table import Table

    from infra.wiring.kafka import kafka_config
    from infra.wiring.recipes import current_settings
    from streaming.kafka import existing_topics

    table = Table("topic", "partitions", "replication")
    for topic in existing_topics(kafka_config(current_settings(kafka_bootstrap=bootstrap))):
        table.add_row(topic.name, str(topic.partitions), str(topic.replication))
    Console().print(table)
