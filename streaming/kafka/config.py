"""One Kafka cluster: where it is, how it is entered, how much is sent and asked for at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from recsys.errors import ConfigError

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression = Literal["none", "gzip", "lz4", "zstd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """How a client proves who it is, and how it knows the broker. The password is in no ``repr``."""

    protocol: SecurityProtocol = "PLAINTEXT"
    """SSL encrypts, SASL_ asks for a name and a password."""
    mechanism: SaslMechanism = ""
    """How the password is proven; SASL_ only. PLAIN sends the password itself."""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    """PEM file of the authority that signed the broker's certificate; None: those of the system."""
    cert_file: Path | None = None
    """PEM file of the client's own certificate, where the broker asks for one."""
    key_file: Path | None = None
    """PEM file of the key to ``cert_file``."""
    check_hostname: bool = True
    """Refuse a broker whose certificate names another host."""

    def __post_init__(self) -> None:
        sasl = {"mechanism": self.mechanism, "username": self.username, "password": self.password}
        files = {"ca_file": self.ca_file, "cert_file": self.cert_file, "key_file": self.key_file}
        for what, given in (("SASL", sasl), ("SSL", files)):
            surplus = [name for name, value in given.items() if value]
            if surplus and what not in self.protocol:
                raise ConfigError(
                    f"{surplus[0]} is given, but the security protocol {self.protocol} has no {what}; "
                    f"name a protocol with {what}, or leave it out"
                )
        missing = [name for name, value in sasl.items() if not value]
        if "SASL" in self.protocol and missing:
            raise ConfigError(f"the security protocol {self.protocol} wants a {missing[0]}; give one")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("a client certificate wants its key, and a key its certificate; give both")


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """One cluster, and how much is sent and asked for at a time."""

    bootstrap: str
    """host:port of any broker."""
    security: KafkaSecurity = KafkaSecurity()
    client_id: str = "headrace"
    """What the broker's logs and quotas call this process."""
    compression: Compression = "none"
    """Of what is sent; lz4 and zstd want a package beside the client, here and at every reader."""
    idempotent: bool = True
    """A record that the sink sends again, because its answer got lost, is kept once."""
    timeout_s: float = 15.0
    """How long a request, a flush or a wait for room may take; > 0."""
    delivery_timeout_s: float = 120.0
    """How long the sink goes on trying to send a record; >= timeout_s. A shorter outage loses nothing."""
    connect_timeout_s: float = 5.0
    """How long the first broker may take to answer; > 0."""
    retry_pause_most_s: float = 1.0
    """Longest pause between two attempts to reach a broker that is away; > 0."""
    linger_ms: int = 10
    """How long the sink waits for more records before it sends."""
    batch_bytes: int = 256 * 1024
    """Records sent together, per partition."""
    max_record_bytes: int = 16 * 1024 * 1024
    """Largest record; the broker's own limit must be as high."""
    max_unacknowledged_bytes: int = 64 * 1024 * 1024
    """Beyond this a publish waits: the client itself has no bound."""
    fetch_bytes: int = 1024 * 1024
    """What one fetch asks of one partition."""
    fetch_least_bytes: int = 64 * 1024
    """A fetch is answered at once when so much is there: few large answers cost less than many small."""
    fetch_wait_ms: int = 40
    """How long the broker may hold a fetch that finds less; > 0. It bounds how late a record is seen;
    an idle source asks again each time it is over."""
    silence_s: float = 5.0
    """A source that hears nothing for so long makes sure that the log still reaches it; > 0."""

    def __post_init__(self) -> None:
        if ":" not in self.bootstrap:
            raise ConfigError(f"bootstrap must be host:port, got {self.bootstrap!r}")
        for name in ("timeout_s", "connect_timeout_s", "retry_pause_most_s", "fetch_wait_ms", "silence_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.delivery_timeout_s < self.timeout_s:
            raise ConfigError(
                f"delivery_timeout_s must be >= timeout_s {self.timeout_s}, got {self.delivery_timeout_s}"
            )
