"""`headrace dead-letter`: what no reader could read, and sending it again."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.options import Bootstrap

if TYPE_CHECKING:
    from infra.settings import Settings
    from streaming.dead_letters import DeadLetter

app = typer.Typer(help="Messages that could not be read: list them, send them again.", no_args_is_help=True)

Topic = Annotated[str | None, typer.Option(help="Only of this topic.", metavar="NAME")]
Reason = Annotated[str | None, typer.Option(help="Only where the reason holds this text.", metavar="TEXT")]


@app.command("list")
def list_letters(
    topic: Topic = None,
    reason: Reason = None,
    limit: Annotated[int, typer.Option(help="Show the newest so many; 0: all.", min=0)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Show the messages that wait, each once, oldest first."""
    from infra.wiring.recipes import current_settings

    letters = _waiting(current_settings(kafka_bootstrap=bootstrap), topic, reason)
    shown = letters[-limit:] if limit else letters
    if as_json:
        for letter in shown:
            typer.echo(json.dumps(_fields(letter)))
        return
    _print(shown)
    if len(shown) < len(letters):
        typer.echo(f"the newest {len(shown)} of {len(letters)}")


@app.command()
def replay(
    topic: Topic = None,
    reason: Reason = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Send waiting messages to their topics again, under their keys; a second replay finds them sent.

    Batches of examples and deltas stay: their readers would pass over them.
    """
    from contextlib import closing

    from infra.wiring.kafka import kafka_config
    from infra.wiring.recipes import current_settings, now_ms
    from streaming.dead_letters import send_again
    from streaming.kafka import KafkaSink

    settings = current_settings(kafka_bootstrap=bootstrap)
    waiting = _waiting(settings, topic, reason)
    letters = [letter for letter in waiting if letter.refusal is None]
    for refusal, count in Counter(letter.refusal for letter in waiting if letter.refusal).items():
        typer.echo(f"{count} left: {refusal}")
    if dry_run:
        _print(letters)
        typer.echo(f"{len(letters)} would be sent again")
        return
    if letters:
        with closing(KafkaSink(kafka_config(settings))) as sink:
            send_again(letters, sink, now_ms=now_ms())
    typer.echo(f"{len(letters)} sent again")


def _waiting(settings: Settings, topic: str | None, reason: str | None) -> list[DeadLetter]:
    from contextlib import closing

    from infra.wiring.kafka import kafka_config
    from streaming.dead_letters import read_dead_letters
    from streaming.kafka import KafkaSource, partition_count
    from streaming.topics import DEAD_LETTER

    kafka = kafka_config(settings)
    partitions = [(DEAD_LETTER, number) for number in range(partition_count(kafka, DEAD_LETTER))]
    with closing(KafkaSource(kafka, partitions)) as source:
        return [
            letter
            for letter in read_dead_letters(source)
            if topic in (None, letter.record.topic) and (reason or "") in letter.reason
        ]


def _fields(letter: DeadLetter) -> dict[str, object]:
    return {
        "rejected_at": datetime.fromtimestamp(letter.rejected_at_ms / 1000, UTC).isoformat(
            timespec="seconds"
        ),
        "topic": letter.record.topic,
        "partition": letter.record.partition,
        "offset": letter.record.offset,
        "reason": letter.reason,
        "bytes": len(letter.record.value),
    }


def _print(letters: list[DeadLetter]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("rejected at", "topic", "partition", "offset", "reason", "bytes")
    for letter in letters:
        table.add_row(*(str(value) for value in _fields(letter).values()))
    Console().print(table)
