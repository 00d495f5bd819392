"""A broker, and `headrace` processes that end with their test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from infra.broker import EmbeddedBroker
from infra.demo.processes import Family
from streaming.kafka import create_topics
from streaming.topics import ALL_TOPICS

EVENTS, USERS, FILMS = 8_000, 300, 200


@pytest.fixture
def bootstrap() -> Iterator[str]:
    """host:port of an embedded broker with our topics."""
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        yield broker.bootstrap


@pytest.fixture
def family(bootstrap: str, tmp_path: Path) -> Iterator[Family]:
    """Starts verbs against that broker; whatever still runs is stopped at the end."""
    environment = {"HEADRACE_KAFKA_BOOTSTRAP": bootstrap, "OMP_NUM_THREADS": "1"}
    started = Family(tmp_path / "logs", environment)
    yield started
    started.stop_all()


def _until(what: str, is_done: Callable[[], bool], *, family: Family, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done():
        family.check()
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def until() -> Callable[..., None]:
    """``until(what, is_done, family=…)``: wait for a condition, and fail early when a process dies."""
    return _until


@pytest.fixture
def made_up_movielens(tmp_path: Path) -> Path:
    """ratings.dat, users.dat and movies.dat: people who like films of their own kind."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "ml"
    folder.mkdir()
    kinds = ["Comedy", "Drama", "Thriller"]
    user_kind, film_kind = rng.integers(0, 3, USERS), rng.integers(0, 3, FILMS)
    users, films = rng.integers(0, USERS, EVENTS), rng.integers(0, FILMS, EVENTS)
    likes = rng.random(EVENTS) < np.where(user_kind[users] == film_kind[films], 0.9, 0.2)
    seconds = 956_000_000 + np.sort(rng.integers(0, 1_000_000, EVENTS))
    (folder / "ratings.dat").write_text(
        "".join(
            f"{user + 1}::{film + 1}::{5 if like else 2}::{second}\n"
            for user, film, like, second in zip(users, films, likes, seconds, strict=True)
        )
    )
    (folder / "users.dat").write_text(
        "".join(
            f"{user + 1}::{'FM'[user % 2]}::{25}::{user % 20}::{10_000 + user}\n" for user in range(USERS)
        )
    )
    (folder / "movies.dat").write_text(
        "".join(
            f"{film + 1}::Film {film} (19{film % 90 + 10})::{kinds[film_kind[film]]}\n"
            for film in range(FILMS)
        )
    )
    return folder
