"""Opening clients of the Kafka library, with an error that says why where none can be had.

The library tries again until its time is up, and its error then says only that. Why each attempt
failed is in its log, so the log is listened to while a client is opened.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka.codec import has_lz4, has_zstd
from kafka.errors import KafkaError, KafkaTimeoutError

from recsys.errors import ConfigError
from streaming.errors import StreamingError
from streaming.kafka.config import KafkaConfig

_LOG_OF_ATTEMPTS = logging.getLogger("kafka.net.manager")
_SWITCHING = threading.Lock()
_LISTENERS: dict[logging.Handler, tuple[int, bool]] = {}
"""Who listens now, and the log's (level, propagation) before the first of them; under ``_SWITCHING``."""
_CODECS = {"lz4": (has_lz4, "lz4"), "zstd": (has_zstd, "zstandard")}

Client = TypeVar("Client")


def client_options(config: KafkaConfig) -> dict[str, Any]:
    """What every client of a cluster is opened with."""
    security = config.security
    options: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap,
        "bootstrap_timeout_ms": int(config.connect_timeout_s * 1000),
        "client_id": config.client_id,
        "reconnect_backoff_max_ms": int(config.retry_pause_most_s * 1000),
        "security_protocol": security.protocol,
    }
    if "SSL" in security.protocol:
        files = {"cafile": security.ca_file, "certfile": security.cert_file, "keyfile": security.key_file}
        options |= {f"ssl_{name}": str(path) for name, path in files.items() if path is not None}
        options["ssl_check_hostname"] = security.check_hostname
    if "SASL" in security.protocol:
        options |= {
            "sasl_mechanism": security.mechanism,
            "sasl_plain_username": security.username,
            "sasl_plain_password": security.password,
        }
    return options


def compression_type(config: KafkaConfig) -> str | None:
    """The library's name of the codec. Raises ConfigError where the codec's package is not installed."""
    if config.compression == "none":
        return None
    is_there, package = _CODECS.get(config.compression, (lambda: True, ""))
    if not is_there():
        raise ConfigError(
            f"compression {config.compression!r} wants the package {package}, which is not installed; "
            "install it, or use gzip"
        )
    return str(config.compression)


def open_client(
    config: KafkaConfig, make: Callable[..., Client], refusal: type[StreamingError], **options: Any
) -> Client:
    """``make`` called with the cluster's options and these. Raises ``refusal`` where no broker lets it in."""
    with _reasons() as reasons:
        try:
            return make(**client_options(config) | options)
        except KafkaError as error:
            _end_half_made(error)
            # Attempts differ: the last may only have run out of time.
            why = Counter(reasons).most_common(1)[0][0] if reasons else str(error)
            raise refusal(f"no broker at {config.bootstrap} lets us in: {why}") from error


def _end_half_made(error: KafkaError) -> None:
    """End the I/O thread that a client whose making fails leaves behind; nothing else knows of it."""
    trace = error.__traceback__
    while trace is not None:
        loop = getattr(trace.tb_frame.f_locals.get("self"), "_net", None)
        if loop is not None:
            loop.stop(timeout_ms=1_000)
        trace = trace.tb_next


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """Why attempts to connect failed, meanwhile, in any thread."""
    reasons: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: _note(record, reasons)  # type: ignore[method-assign]
    with _SWITCHING:
        others = next(iter(_LISTENERS.values()), None)
        _LISTENERS[listener] = others or (_LOG_OF_ATTEMPTS.level, _LOG_OF_ATTEMPTS.propagate)
        _LOG_OF_ATTEMPTS.addHandler(listener)
        # A logger that is switched off makes no records at all.
        _LOG_OF_ATTEMPTS.setLevel(logging.WARNING)
        _LOG_OF_ATTEMPTS.propagate = False
    try:
        yield reasons
    finally:
        with _SWITCHING:
            level, propagates = _LISTENERS.pop(listener)
            _LOG_OF_ATTEMPTS.removeHandler(listener)
            if not _LISTENERS:
                _LOG_OF_ATTEMPTS.setLevel(level)
                _LOG_OF_ATTEMPTS.propagate = propagates


def _note(record: logging.LogRecord, reasons: list[str]) -> None:
    if isinstance(record.args, tuple):
        causes = [argument for argument in record.args if isinstance(argument, BaseException)]
        # A timeout is where the attempts end, not why they failed.
        reasons.extend(
            " ".join(str(cause).split()) or type(cause).__name__
            for cause in causes
            if not isinstance(cause, KafkaTimeoutError)
        )
