"""TLS and SCRAM (RFC 5802) in front of a broker that has neither, written from the specifications alone.

A connection may ask for API versions; then it must prove the password; after that all bytes pass.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading
from contextlib import suppress

from broker_outages import pipe

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
SASL_AUTHENTICATION_FAILED = 58
DIGESTS = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
ITERATIONS = 4096


class ScramServer:
    """One exchange with one client that should know ``password``."""

    def __init__(self, digest, username, password):
        self.digest, self.username = digest, username
        self.salt = os.urandom(16)
        self.salted = hashlib.pbkdf2_hmac(digest, password.encode(), self.salt, ITERATIONS)

    def mac(self, key, text):
        return hmac.new(key, text, self.digest).digest()

    def first(self, message):
        self.client_first_bare = message.split(",", 2)[2]
        fields = dict(part.split("=", 1) for part in self.client_first_bare.split(","))
        self.is_known = fields["n"] == self.username
        nonce = fields["r"] + base64.b64encode(os.urandom(12)).decode()
        self.server_first = f"r={nonce},s={base64.b64encode(self.salt).decode()},i={ITERATIONS}"
        return self.server_first

    def final(self, message):
        without_proof, _, proof = message.rpartition(",p=")
        text = ",".join([self.client_first_bare, self.server_first, without_proof]).encode()
        client_key = self.mac(self.salted, b"Client Key")
        signature = self.mac(hashlib.new(self.digest, client_key).digest(), text)
        expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        if not self.is_known or not hmac.compare_digest(expected, base64.b64decode(proof)):
            return None
        server_signature = self.mac(self.mac(self.salted, b"Server Key"), text)
        return "v=" + base64.b64encode(server_signature).decode()


class SecureGateway:
    """Listens on a port of its own; ends with its context."""

    def __init__(self, broker_port, certificate, key, username, password):
        self.broker_port, self.username, self.password = broker_port, username, password
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.certificate = certificate
        self.bootstrap = f"localhost:{self.listener.getsockname()[1]}"
        self.let_in = 0

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        with suppress(OSError):
            while True:
                plain, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(plain,), daemon=True).start()

    def serve(self, plain):
        with (
            suppress(OSError, EOFError),
            self.context.wrap_socket(plain, server_side=True) as client,
            socket.create_connection(("127.0.0.1", self.broker_port)) as broker,
        ):
            if self.admit(client, broker):
                self.let_in += 1
                threading.Thread(target=pipe, args=(broker, client), daemon=True).start()
                pipe(client, broker)

    def admit(self, client, broker):
        scram, step = None, 0
        while True:
            request = read_frame(client)
            api, version, correlation, n_client = struct.unpack(">hhih", request[:10])
            body = request[10 + n_client :]
            if api == API_VERSIONS:
                write_frame(broker, request)
                write_frame(client, read_frame(broker))
            elif api == SASL_HANDSHAKE:
                (length,) = struct.unpack(">h", body[:2])
                mechanism = body[2 : 2 + length].decode()
                scram = ScramServer(DIGESTS[mechanism], self.username, self.password)
                answer = struct.pack(">ihih", correlation, 0, 1, length) + mechanism.encode()
                write_frame(client, answer)
            elif api == SASL_AUTHENTICATE and scram is not None:
                token, step = compact_bytes(body[1:]).decode(), step + 1
                answer = scram.first(token) if step == 1 else scram.final(token)
                write_frame(client, authenticated(correlation, version, answer))
                if answer is None:
                    client.recv(1)  # a broker, too, lets the client read the refusal before it closes
                    return False
                if step == 2:
                    return True
            else:
                return False


def authenticated(correlation, version, answer):
    """SaslAuthenticate response, version 2: error code, message, bytes, session lifetime, tags."""
    assert version == 2
    head = struct.pack(">ib", correlation, 0)
    if answer is None:
        return head + struct.pack(">h", SASL_AUTHENTICATION_FAILED) + b"\x0dwrong secret" + b"\x01" + bytes(9)
    token = answer.encode()
    return head + struct.pack(">h", 0) + b"\x00" + compact(len(token) + 1) + token + bytes(9)


def compact(number):
    """An unsigned varint."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def compact_bytes(body):
    length = shift = index = 0
    while True:
        byte = body[index]
        length |= (byte & 0x7F) << shift
        index, shift = index + 1, shift + 7
        if byte < 0x80:
            return body[index : index + length - 1]


def read_exactly(connection, count):
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def read_frame(connection):
    return read_exactly(connection, struct.unpack(">i", read_exactly(connection, 4))[0])


def write_frame(connection, frame):
    connection.sendall(struct.pack(">i", len(frame)) + frame)
