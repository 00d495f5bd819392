"""Encrypted connections and passwords, against a gateway before the embedded broker, which has neither."""

from __future__ import annotations

import datetime
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from broker_outages import library_cleaned_up
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from secure_gateway import SecureGateway

from infra.broker import EmbeddedBroker
from infra.child_process import free_port
from recsys.errors import ConfigError
from streaming.errors import SinkUnavailable, SourceUnavailable
from streaming.kafka import (
    KafkaConfig,
    KafkaSecurity,
    KafkaSink,
    KafkaSource,
    create_topics,
    reachable_topics,
)

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")

PASSWORD = "correct horse"


def write_certificate(folder):
    """A self-signed one for localhost, valid today; (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    certificate, key = write_certificate(tmp_path_factory.mktemp("certificates"))
    port = free_port()
    with (
        SecureGateway(port, certificate, key, "alice", PASSWORD) as gateway,
        EmbeddedBroker(port=port, advertised=gateway.bootstrap),
    ):
        create_topics(config_of(gateway), {"one": 1})
        yield gateway


@pytest.fixture(autouse=True)
def nothing_is_left_for_other_tests():
    with library_cleaned_up():
        yield


def config_of(gateway, **changes):
    security = {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-256",
        "username": "alice",
        "password": PASSWORD,
        "ca_file": gateway.certificate,
    }
    return KafkaConfig(
        bootstrap=gateway.bootstrap,
        security=KafkaSecurity(**security | changes),
        connect_timeout_s=2,
        timeout_s=5,
    )


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_records_pass_encrypted_once_the_password_is_proven(gateway, mechanism):
    config = config_of(gateway, mechanism=mechanism)
    before = gateway.let_in
    with closing(KafkaSink(config)) as sink, closing(KafkaSource(config, [("one", 0)])) as source:
        sink.publish("one", b"k", mechanism.encode())
        sink.flush()
        records = []
        while source.positions() != source.end_offsets():
            records += source.poll(max_records=10, timeout_s=0.5)
        assert records[-1].value == mechanism.encode()
    assert gateway.let_in >= before + 2


def test_a_wrong_password_is_one_line_that_says_so_and_not_what_it_was(gateway):
    wrong = config_of(gateway, password="hunter2")
    for open_client, error in (
        (KafkaSink, SinkUnavailable),
        (lambda c: KafkaSource(c, []), SourceUnavailable),
    ):
        with pytest.raises(error, match="wrong secret") as refused:
            open_client(wrong)
        assert "\n" not in str(refused.value)
        assert "hunter2" not in str(refused.value)


def test_an_unknown_user_is_refused(gateway):
    with pytest.raises(SourceUnavailable, match="wrong secret"):
        reachable_topics(config_of(gateway, username="mallory"), timeout_s=2)


def test_a_certificate_of_an_unknown_authority_is_refused(gateway):
    with pytest.raises(SourceUnavailable, match="certificate verify failed"):
        reachable_topics(config_of(gateway, ca_file=None), timeout_s=2)


def test_a_certificate_for_another_host_is_refused_unless_names_are_not_checked(gateway):
    config = replace(config_of(gateway), bootstrap=gateway.bootstrap.replace("localhost", "127.0.0.1"))
    with pytest.raises(SourceUnavailable, match=r"not valid for '127\.0\.0\.1'"):
        reachable_topics(config, timeout_s=2)
    lenient = replace(config.security, check_hostname=False)
    assert "one" in reachable_topics(replace(config, security=lenient), timeout_s=2)


@pytest.mark.parametrize(
    ("half", "says"),
    [
        ({"protocol": "SASL_SSL"}, "wants a mechanism"),
        ({"protocol": "SASL_SSL", "mechanism": "PLAIN"}, "wants a username"),
        ({"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "alice"}, "wants a password"),
        ({"username": "alice"}, "PLAINTEXT has no SASL"),
        ({"protocol": "SSL", "password": "x"}, "SSL has no SASL"),
        ({"protocol": "SASL_PLAINTEXT", "ca_file": Path("ca.pem")}, "SASL_PLAINTEXT has no SSL"),
        ({"protocol": "SSL", "cert_file": Path("c.pem")}, "wants its key"),
    ],
)
def test_half_given_security_is_refused_when_it_is_built(half, says):
    with pytest.raises(ConfigError, match=says):
        KafkaSecurity(**half)


def test_the_password_is_not_printed_with_its_config(gateway):
    assert PASSWORD not in repr(config_of(gateway))
