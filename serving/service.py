"""The gRPC servicer: decode, call the pipeline, encode. Errors become status codes here and nowhere else."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np

from recsys.errors import ConfigError, KeyRangeError
from serving.errors import InvalidRequest, NotReady
from serving.impressions import ImpressionLog
from serving.pipeline import FeatureSource, RankLimits, RankQuery, best_first, checked
from serving.proto import recommender_pb2 as wire
from serving.proto import recommender_pb2_grpc
from serving.replica import Replica

GREEDY = "greedy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What a server takes on."""

    limits: RankLimits
    deadline_ms: int = 500
    """Longest that a request may take, where its caller allows no less; > 0."""
    max_in_flight: int = 64
    """Requests beyond are refused at once rather than queued; > 0."""
    threads: int = 2
    """Scoring threads; > 0."""

    def __post_init__(self) -> None:
        if min(self.deadline_ms, self.max_in_flight, self.threads) < 1:
            raise ConfigError("deadline_ms, max_in_flight and threads must be > 0")


class RankObserver(Protocol):
    """Who counts answers."""

    def answered(self, code: str, seconds: float) -> None:
        """One request has ended with a gRPC status code's name."""


class RecommenderService(recommender_pb2_grpc.RecommenderServicer):
    """Answers Rank. Runs on one asyncio loop; scoring happens in threads beside it."""

    def __init__(
        self,
        config: ServiceConfig,
        replica: Replica,
        features: FeatureSource,
        impressions: ImpressionLog,
        *,
        observer: RankObserver,
        clock_ms: Callable[[], int],
    ) -> None:
        self._config, self._replica, self._features = config, replica, features
        self._impressions, self._observer, self._clock_ms = impressions, observer, clock_ms
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="score")
        self._in_flight = 0

    async def Rank(
        self,
        request: wire.RankRequest,
        context: grpc.aio.ServicerContext[wire.RankRequest, wire.RankResponse],
    ) -> wire.RankResponse:
        started = time.perf_counter()
        code = grpc.StatusCode.UNKNOWN
        self._in_flight += 1
        try:
            answer = await self._answer(request, context)
            code = grpc.StatusCode.OK
            return answer
        except InvalidRequest as error:
            code, message = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except KeyRangeError as error:
            code = grpc.StatusCode.INVALID_ARGUMENT
            message = f"an id or number of this request is out of range for the model: {error}"
        except NotReady as error:
            code, message = grpc.StatusCode.UNAVAILABLE, str(error)
        except TimeoutError:
            code, message = (
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "the deadline passed before the answer was ready; send fewer items or retry with backoff",
            )
        except _Overloaded as error:
            code, message = grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            self._in_flight -= 1
            self._observer.answered(code.name, time.perf_counter() - started)
        await context.abort(code, message)
        raise AssertionError("abort always raises")

    async def _answer(
        self,
        request: wire.RankRequest,
        context: grpc.aio.ServicerContext[wire.RankRequest, wire.RankResponse],
    ) -> wire.RankResponse:
        if self._in_flight > self._config.max_in_flight:
            raise _Overloaded(f"{self._config.max_in_flight} requests are in flight; retry with backoff")
        remaining_s = context.time_remaining()
        limit_s = self._config.deadline_ms / 1000
        timeout_s = limit_s if remaining_s is None else min(limit_s, remaining_s)
        given_up = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            # A request that is still queued is cancelled with its wait; one that is being scored is not.
            return await asyncio.wait_for(
                loop.run_in_executor(self._pool, self._rank, request, given_up), timeout_s
            )
        finally:
            given_up.set()

    def _rank(self, request: wire.RankRequest, given_up: threading.Event) -> wire.RankResponse:
        query = checked(_query(request, self._clock_ms()), self._config.limits)
        parameters = self._replica.parameters
        keys = self._features.keys(query)
        score_N = parameters.scorer.score(keys)
        shown_K = best_first(score_N, query.top_k)
        request_id = request.request_id or str(uuid.uuid4())
        version = parameters.manifest.version
        # What nobody receives is not shown: as an impression it would be learned as a refusal.
        if not (request.shadow or given_up.is_set()):
            self._impressions.record(
                query,
                keys,
                shown_K,
                score_N[shown_K],
                request_id=request_id,
                policy=GREEDY,
                model_version=version,
            )
        return wire.RankResponse(
            request_id=request_id,
            item_ids=query.item_ids_N[shown_K].tolist(),
            scores=score_N[shown_K].tolist(),
            propensities=[1.0] * len(shown_K),
            policy=GREEDY,
            model_version=version,
            parameters_as_of_ms=parameters.as_of_ms,
            parameter_age_ms=parameters.age_ms(self._clock_ms()) or 0,
        )


class _Overloaded(Exception):
    """Too many requests at once."""


def _query(request: wire.RankRequest, now_ms: int) -> RankQuery:
    return RankQuery(
        user_id=request.user_id,
        domain=request.domain,
        item_ids_N=np.array(request.item_ids, np.uint64),
        context=dict(request.context),
        request_time_ms=request.request_time_ms or now_ms,
        top_k=request.top_k,
    )
