"""A grpc.aio server with the recommender, health and reflection."""

from __future__ import annotations

import asyncio
import gc

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.errors import ServingError
from serving.proto import recommender_pb2, recommender_pb2_grpc
from serving.replica import Replica
from serving.service import RecommenderService

SERVICE = recommender_pb2.DESCRIPTOR.services_by_name["Recommender"].full_name


async def serve(
    service: RecommenderService, replica: Replica, *, address: str, stopping: asyncio.Event
) -> None:
    """Serve until ``stopping`` is set. Health says SERVING only once parameters are loaded.

    Raises ServingError when the address cannot be bound.
    """
    # Two servers on one port would silently share its requests.
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    recommender_pb2_grpc.add_RecommenderServicer_to_server(service, server)
    health_service = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ServingError(f"cannot listen on {address}: {error}; choose another --address") from error
    for name in ("", SERVICE):
        await health_service.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    await server.start()
    watcher = asyncio.create_task(_announce(health_service, replica))
    await stopping.wait()
    watcher.cancel()
    await health_service.enter_graceful_shutdown()
    await server.stop(grace=1.0)


async def _announce(health_service: health.aio.HealthServicer, replica: Replica) -> None:
    """Say SERVING as soon as the first snapshot is loaded."""
    while not replica.ready.is_set():
        await asyncio.sleep(0.05)
    # Long-lived objects leave the collector's sight, so that no request waits for a full collection.
    gc.freeze()
    for name in ("", SERVICE):
        await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
