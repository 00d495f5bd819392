"""`headrace replay`: play a data set, or a recorded log, into the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infra.cli.options import Bootstrap, DataDir, MetricsPort, RecipeName, Verbose, collect_rarely


def replay(
    file: Annotated[
        Path | None, typer.Argument(help="A recorded log; else the recipe's data set.", exists=True)
    ] = None,
    recipe: RecipeName = "movielens",
    bootstrap: Bootstrap = None,
    data_dir: DataDir = None,
    events: Annotated[
        int | None, typer.Option(help="Stop after so many rows of the data set.", min=1)
    ] = None,
    rate: Annotated[float, typer.Option(help="Rows per second at the most; 0: no limit.", min=0)] = 0.0,
    max_in_flight: Annotated[
        int, typer.Option(help="Wait while so many rows are sent but not learned; 0: no limit.", min=0)
    ] = 0,
    learned_by: Annotated[int, typer.Option(help="Metrics port of the trainer, for --max-in-flight.")] = 0,
    keep_times: Annotated[bool, typer.Option(help="Keep the log's own event times.")] = False,
    rounds: Annotated[int, typer.Option(help="Play it so many times, as new requests.", min=1)] = 1,
    prepare: Annotated[bool, typer.Option(help="Encode all messages before the first is sent.")] = False,
    metrics_port: MetricsPort = 0,
    verbose: Verbose = False,
) -> None:
    """Play a data set into the topics in time order, as a product would fill them.

    With a recorded log every message is sent as it was, to the topic and partition that it names.
    """
    from feature_store.datasets.requests import play_requests
    from infra.playing import PlayConfig, Player, encoded, repeated
    from infra.telemetry import configure_logging, offer, read_metrics, serve_metrics
    from infra.wiring.kafka import kafka_config
    from infra.wiring.recipes import current_settings, load_dataset, load_recipe, now_ms
    from streaming.kafka import KafkaSink
    from streaming.replay import read_log
    from streaming.replay import replay as send_again

    configure_logging(verbose=verbose)
    settings = current_settings(kafka_bootstrap=bootstrap)
    registry = serve_metrics(metrics_port)
    # A product's many senders are one here: let it gather.
    # An outage is waited out: what is not sent when the replay ends is lost.
    sink = KafkaSink(kafka_config(settings, linger_ms=20, timeout_s=120.0))
    if file is not None:
        sent = send_again(read_log(file), sink)
        sink.flush()
        typer.echo(f"{sent} messages sent from {file}")
        return
    chosen = load_recipe(recipe)
    dataset = load_dataset(chosen, settings, data_dir)
    config = PlayConfig(rows_per_s=rate, max_in_flight=max_in_flight, keep_times=keep_times)

    def learned() -> float:
        return read_metrics(learned_by).get("training_showings_total", 0.0)

    player = Player(config, sink, clock_ms=now_ms, learned=learned)
    offer(registry, "streaming_replay_rows_total", "Rows sent", lambda: player.rows)
    offer(registry, "streaming_replay_started_ms", "When the first was sent", lambda: player.started_ms)
    requests = encoded(play_requests(dataset, chosen.schema), events)
    ready = list(requests) if prepare or rounds > 1 else requests
    collect_rarely()
    player.play(ready if rounds == 1 else repeated(list(ready), rounds))
    typer.echo(f"{player.rows} rows sent")
