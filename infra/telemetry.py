"""Logs as events with fields, and metrics for Prometheus.

Every process offers its metrics over HTTP; ``process_cpu_seconds_total`` among them says what a
stage of the loop costs.
"""

from __future__ import annotations

import logging
import sys
import urllib.request
from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.parser import text_string_to_metric_families

from recsys.errors import ConfigError

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """``time level event key=value …`` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        tail = "".join(f" {name}={value!r}" for name, value in fields.items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower()} {record.getMessage()}{tail}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(*, verbose: bool) -> None:
    """Events to stderr; our own from INFO up when verbose, else from WARNING up."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(EventFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[to_stderr], force=True)
    # What fails there reaches us as an error of our own; what torch says of its tracer is no news.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    for package in ("recsys", "streaming", "feature_store", "training", "serving", "infra"):
        logging.getLogger(package).setLevel(logging.INFO if verbose else logging.WARNING)


def serve_metrics(port: int) -> CollectorRegistry:
    """A registry behind ``http://127.0.0.1:port/metrics``; no server where the port is 0.

    Raises ConfigError for a port that cannot be had.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    if port:
        try:
            start_http_server(port, addr="127.0.0.1", registry=registry)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"no metrics on port {port}: {error}; choose another --metrics-port") from error
    return registry


def read_metrics(port: int, timeout_s: float = 1.0) -> dict[str, float]:
    """Current samples of another process by name{labels}; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout_s) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def offer(registry: CollectorRegistry, name: str, meaning: str, read: Callable[[], float]) -> None:
    """A gauge that is read when somebody asks."""
    Gauge(name, meaning, registry=registry).set_function(read)
