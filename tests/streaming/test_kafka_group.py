"""Members of a consumer group, against a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from infra.broker import EmbeddedBroker
from recsys.errors import ConfigError
from streaming.errors import SourceUnavailable
from streaming.kafka import GroupConfig, GroupSource, KafkaConfig, KafkaSink, create_topics

# The embedded broker waits half a session for members to come: short sessions make short tests.
QUICK = GroupConfig(session_timeout_s=2, heartbeat_s=0.2, rebalance_timeout_s=10)
TOPICS = {"left": 4, "right": 4}
RECORDS_EACH = 10

MEMBER = """
import sys
from streaming.kafka import GroupConfig, GroupSource, KafkaConfig
class Anywhere:
    def gained(self, partitions):
        print("gained", flush=True)
        return {}
    def lost(self, partitions):
        pass
quick = GroupConfig(session_timeout_s=2, heartbeat_s=0.2, rebalance_timeout_s=10)
config = KafkaConfig(bootstrap=sys.argv[1])
source = GroupSource(config, sys.argv[2], ["left", "right"], Anywhere(), membership=quick)
while True:
    source.poll(max_records=10, timeout_s=0.1)
"""


class Owner:
    """Holds what it was given, and notes who told it."""

    def __init__(self, starts=None):
        self.starts, self.owned, self.tellers = starts or {}, set(), set()

    def gained(self, partitions):
        assert not self.owned
        self.owned = set(partitions)
        self.tellers.add(threading.current_thread())
        return {partition: self.starts[partition] for partition in partitions if partition in self.starts}

    def lost(self, partitions):
        assert set(partitions) == self.owned
        self.owned = set()
        self.tellers.add(threading.current_thread())


@pytest.fixture(scope="module")
def config():
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, TOPICS | {"uneven": 3})
        config = KafkaConfig(bootstrap=broker.bootstrap)
        with closing(KafkaSink(config)) as sink:
            for topic, count in TOPICS.items():
                for number in range(count):
                    for n in range(RECORDS_EACH):
                        sink.publish(topic, b"", b"%d" % n, partition=number)
            sink.flush()
        yield config


def member(config, group, owner, **options):
    return closing(GroupSource(config, group, list(TOPICS), owner, membership=QUICK, **options))


def poll_until(sources, is_done, deadline_s=20):
    """Poll each in turn; what they read, in order. One thread plays all members."""
    records, deadline = [], time.monotonic() + deadline_s
    while not is_done():
        assert time.monotonic() < deadline, "the group did not come to rest"
        for source in sources:
            records += source.poll(max_records=100, timeout_s=0.02)
    return records


ALL = {(topic, number) for topic, count in TOPICS.items() for number in range(count)}


def numbers_of(owner, topic):
    return {number for name, number in owner.owned if name == topic}


def test_members_share_all_partitions_and_like_numbers_go_to_one_member(config):
    first, second = Owner(), Owner()
    with member(config, "share", first) as one, member(config, "share", second) as two:
        poll_until([one, two], lambda: first.owned and second.owned)
        assert first.owned | second.owned == ALL
        assert not first.owned & second.owned
        for owner in (first, second):
            assert numbers_of(owner, "left") == numbers_of(owner, "right")
        assert set(one.positions()) == first.owned
    assert not first.owned
    assert not second.owned
    assert first.tellers == second.tellers == {threading.current_thread()}


def test_a_member_that_leaves_hands_over_and_reading_goes_on_where_the_owner_says(config):
    stays, leaves = Owner(starts=dict.fromkeys(ALL, 7)), Owner()
    with member(config, "leave", stays) as one:
        with member(config, "leave", leaves) as two:
            poll_until([one, two], lambda: stays.owned and leaves.owned)
        poll_until([one], lambda: not stays.owned)
        records = poll_until([one], lambda: stays.owned == ALL and one.positions() == one.end_offsets())
        assert {(record.offset, record.value) for record in records} == {(n, b"%d" % n) for n in (7, 8, 9)}
        assert len(records) == 3 * len(ALL)


def test_a_killed_member_is_replaced_after_its_session_and_no_partition_starts_anywhere_but_at_its_oldest(
    config,
):
    survivor = Owner()
    command = [sys.executable, "-W", "ignore", "-c", MEMBER, config.bootstrap, "kill"]
    with (
        member(config, "kill", survivor) as source,
        subprocess.Popen(command, stdout=subprocess.PIPE) as child,
    ):
        poll_until([source], lambda: 0 < len(survivor.owned) < len(ALL))
        os.kill(child.pid, signal.SIGKILL)
        poll_until([source], lambda: survivor.owned != ALL)
        poll_until([source], lambda: survivor.owned == ALL and source.positions() == source.end_offsets())
        source.seek({("left", 2): 4})
        assert [r.offset for r in poll_until([source], lambda: source.positions()["left", 2] == 10)] == [
            *range(4, 10)
        ]


def test_a_member_that_did_not_poll_for_too_long_cannot_commit_and_starts_over(config):
    owner = Owner()
    impatient = GroupConfig(session_timeout_s=1, heartbeat_s=0.2, rebalance_timeout_s=1)
    with closing(GroupSource(config, "commit", list(TOPICS), owner, membership=impatient)) as source:
        poll_until([source], lambda: owner.owned == ALL and source.positions() == source.end_offsets())
        source.commit({("left", 0): 3})
        deadline = time.monotonic() + 15
        refusal = ""
        while not refusal and time.monotonic() < deadline:
            try:
                source.commit({("left", 0): 5})
            except SourceUnavailable as error:
                refusal = str(error)
        assert "not taken" in refusal
        assert owner.owned == ALL
        poll_until([source], lambda: not owner.owned)
        poll_until([source], lambda: owner.owned == ALL)


def test_what_an_owner_raises_comes_out_of_the_poll_and_holds_nobody_up(config):
    class Refusing(Owner):
        def gained(self, partitions):
            super().gained(partitions)
            raise ConfigError("no room for these")

    with (
        member(config, "raise", Refusing()) as source,
        pytest.raises(ConfigError, match="no room"),
    ):
        poll_until([source], lambda: False)


def test_topics_of_unequal_partition_counts_are_refused(config):
    with pytest.raises(ConfigError, match="equally many partitions"):
        GroupSource(config, "uneven", ["left", "uneven"], Owner(), membership=QUICK)
    with pytest.raises(SourceUnavailable, match="no topic 'absent'"):
        GroupSource(config, "absent", ["left", "absent"], Owner(), membership=QUICK)


def test_a_partition_of_another_member_cannot_be_sought(config):
    with member(config, "seek", Owner()) as source, pytest.raises(ConfigError, match="is not owned"):
        source.seek({("left", 0): 0})


def test_a_partition_of_another_member_cannot_be_committed(config):
    with member(config, "steal", Owner()) as source, pytest.raises(SourceUnavailable, match="not owned"):
        source.commit({("left", 0): 1})


def test_a_session_must_hold_three_heartbeats():
    with pytest.raises(ConfigError, match="heartbeat_s"):
        GroupConfig(session_timeout_s=6, heartbeat_s=3)
