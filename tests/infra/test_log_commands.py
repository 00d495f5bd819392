"""`headrace topics` and `headrace dead-letter` against a real broker."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

from infra.broker import EmbeddedBroker
from infra.cli.app import app
from streaming.events import encode_dead_letter
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource
from streaming.source import Record
from streaming.topics import DEAD_LETTER, EXAMPLES, FEEDBACK, IMPRESSIONS


@pytest.fixture(scope="module")
def bootstrap():
    with EmbeddedBroker() as broker:
        headrace("topics", "apply", "--partitions", "2", "--bootstrap", broker.bootstrap)
        with closing(KafkaSink(KafkaConfig(bootstrap=broker.bootstrap))) as sink:
            for topic, offset, reason in [
                (IMPRESSIONS, 7, "no Impression in 3 bytes"),
                (FEEDBACK, 8, "no Feedback in 3 bytes"),
                (FEEDBACK, 8, "no Feedback in 3 bytes"),
            ]:
                letter = encode_dead_letter(
                    Record(topic, 1, offset, b"key", b"abc"), reason, rejected_at_ms=offset
                )
                sink.publish(DEAD_LETTER, b"", letter)
            sink.flush()
        yield broker.bootstrap


def headrace(*words):
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def listed(bootstrap, *words):
    lines = headrace("dead-letter", "list", "--json", "--bootstrap", bootstrap, *words).splitlines()
    return [json.loads(line) for line in lines]


def test_topics_are_listed_after_they_are_applied(bootstrap):
    assert "was there" in headrace("topics", "apply", "--partitions", "2", "--bootstrap", bootstrap)
    assert FEEDBACK in headrace("topics", "list", "--bootstrap", bootstrap)


def test_letters_are_listed_once_and_replayed_once_by_reason(bootstrap):
    assert [(one["topic"], one["offset"], one["bytes"]) for one in listed(bootstrap)] == [
        (IMPRESSIONS, 7, 3),
        (FEEDBACK, 8, 3),
    ]
    assert [one["offset"] for one in listed(bootstrap, "--limit", "1")] == [8]
    assert [one["offset"] for one in listed(bootstrap, "--topic", IMPRESSIONS)] == [7]
    replay = ["dead-letter", "replay", "--reason", "Feedback", "--bootstrap", bootstrap]
    assert "1 would be sent again" in headrace(*replay, "--dry-run")
    assert "1 sent again" in headrace(*replay)
    assert "0 sent again" in headrace(*replay)
    assert [one["offset"] for one in listed(bootstrap)] == [7]
    with closing(KafkaSource(KafkaConfig(bootstrap=bootstrap), [(FEEDBACK, 1)])) as source:
        (sent,) = source.poll(max_records=10, timeout_s=5)
    assert (sent.key, sent.value) == (b"key", b"abc")


def test_a_batch_of_examples_is_left_with_the_reason_and_the_others_are_sent():
    with EmbeddedBroker() as broker:
        headrace("topics", "apply", "--bootstrap", broker.bootstrap)
        with closing(KafkaSink(KafkaConfig(bootstrap=broker.bootstrap))) as sink:
            for topic in (EXAMPLES, FEEDBACK):
                letter = encode_dead_letter(Record(topic, 0, 3, b"", b"abc"), "why", rejected_at_ms=1)
                sink.publish(DEAD_LETTER, b"", letter)
            sink.flush()
        said = headrace("dead-letter", "replay", "--bootstrap", broker.bootstrap)
        assert f"1 left: messages of {EXAMPLES} are not sent again: their readers" in said
        assert said.endswith("1 sent again\n")
        assert [one["topic"] for one in listed(broker.bootstrap)] == [EXAMPLES]
