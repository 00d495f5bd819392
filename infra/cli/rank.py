"""`headrace rank`: a client that asks a running server."""

from __future__ import annotations

from typing import Annotated

import typer


def rank(
    user: Annotated[int, typer.Option(help="User id.", min=0)],
    items: Annotated[str, typer.Option(help="Candidate item ids, separated by commas.")],
    domain: Annotated[str, typer.Option(help="Domain; empty: the server's first.")] = "",
    top_k: Annotated[int, typer.Option(help="How many to return; 0: all.", min=0)] = 0,
    shadow: Annotated[bool, typer.Option(help="Log no impression: nothing is shown to anybody.")] = True,
    address: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:50051",
    deadline_ms: Annotated[int, typer.Option(help="Give up after this time.", min=1)] = 1000,
) -> None:
    """Ask a running server to rank candidates for a user and print the answer as a table."""
    import grpc
    from rich.console import Console
    from rich.table import Table

    from serving.errors import ServingError
    from serving.proto import recommender_pb2 as wire
    from serving.proto import recommender_pb2_grpc

    try:
        item_ids = [int(item) for item in items.split(",") if item.strip()]
        request = wire.RankRequest(user_id=user, domain=domain, item_ids=item_ids, top_k=top_k, shadow=shadow)
    except ValueError as error:
        raise typer.BadParameter(
            f"want ids from 0 to 2**64 - 1, separated by commas, got {items!r}"
        ) from error
    with grpc.insecure_channel(address) as channel:
        try:
            answer = recommender_pb2_grpc.RecommenderStub(channel).Rank(request, timeout=deadline_ms / 1000)
        except grpc.RpcError as error:
            raise ServingError(f"{address}: {error.code().name}: {error.details()}") from error
    table = Table("item", "score", "propensity")
    for item, score, propensity in zip(answer.item_ids, answer.scores, answer.propensities, strict=True):
        table.add_row(str(item), f"{score:.4f}", f"{propensity:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"request {answer.request_id}  model {answer.model_version}  policy {answer.policy}  "
        f"parameters {answer.parameter_age_ms} ms old"
    )
