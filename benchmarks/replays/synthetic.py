"""A made-up world whose probabilities are known: Zipf users and items, births, deaths and drifting tastes.

The label of a row is 1 with probability σ(b + a_user + a_item + s · u·v / √d). Each user and each item holds
a place whose popularity follows Zipf's law; when it dies, a new one with a new id takes the place, so that
the world looks alike at all times. Tastes walk at random, from one epoch to the next, around a fixed spread.

Axes: N events, P places of users or items, E epochs, D latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.features import RaggedKeys
from recsys.keys import pack
from replays.stream import Doubles, Ids, Stream

USER, ITEM = 1, 2
BITS = 52
DAY_S = 86_400
BEGIN_S = 1_700_000_000
EPOCHS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How people and items are, and how they change."""

    n_events: int = 400_000
    """N."""
    n_users: int = 2_000
    """Users alive at a time."""
    n_items: int = 500
    """Items alive at a time."""
    days: float = 7.0
    """From the first event to the last."""
    skew: float = 1.0
    """Exponent of Zipf's law; 0 is uniform."""
    log_odds: float = -1.8
    """b: of an average user and item."""
    spread: float = 0.5
    """Standard deviation of a_user and a_item."""
    strength: float = 1.0
    """s: of the match of tastes."""
    latent_dim: int = 8
    """D."""
    drift: float = 0.0
    """Share of a taste's variance that is new from one of the 64 epochs to the next; in [0, 1]."""
    user_days: float | None = None
    """How long a user stays; None for ever."""
    item_days: float | None = None
    """How long an item lives; None for ever."""


def make_stream(world: World, seed: int) -> Stream:
    """One draw of everything: ids, tastes, events and labels. Rows have a user's key and an item's."""
    random = np.random.default_rng([seed, 11])
    # Times are even and not drawn: an interval then holds the same number of events wherever it lies.
    days_N = np.linspace(0.0, world.days, world.n_events, endpoint=False)
    epoch_N = (days_N / world.days * EPOCHS).astype(np.int64)
    user_place_N = _places(random, world.n_users, world)
    item_place_N = _places(random, world.n_items, world)
    user_N = _holders(random, user_place_N, days_N, world.n_users, world.user_days)
    item_N = _holders(random, item_place_N, days_N, world.n_items, world.item_days)
    user_taste, user_level = _tastes(random, world, int(user_N.max()) + 1)
    item_taste, item_level = _tastes(random, world, int(item_N.max()) + 1)
    match_N = np.einsum("nd,nd->n", user_taste[epoch_N, user_N], item_taste[epoch_N, item_N])
    log_odds_N = world.log_odds + user_level[epoch_N, user_N] + item_level[epoch_N, item_N]
    log_odds_N = log_odds_N + world.strength * match_N / np.sqrt(world.latent_dim)
    probability_N = 1.0 / (1.0 + np.exp(-log_odds_N))
    keys_N2 = np.stack([pack(USER, [user_N], [BITS]), pack(ITEM, [item_N], [BITS])], axis=1)
    return Stream(
        keys=RaggedKeys(keys_N2.ravel(), np.ones((world.n_events, 2), np.uint8)),
        label_N=(random.random(world.n_events) < probability_N).astype(np.float32),
        time_s_N=(BEGIN_S + days_N * DAY_S).astype(np.int64),
        user_N=user_N,
        item_N=item_N,
        probability_N=probability_N,
    )


def _places(random: np.random.Generator, n_places: int, world: World) -> Ids:
    """Place of each event by Zipf's law, (N,); 0 is the most popular."""
    share_P = np.arange(1, n_places + 1) ** -world.skew
    return random.choice(n_places, world.n_events, p=share_P / share_P.sum())


def _holders(
    random: np.random.Generator, place_N: Ids, days_N: Doubles, n_places: int, life_days: float | None
) -> Ids:
    """Who holds the place of each event, (N,): ids below ``n_places`` are there first."""
    if life_days is None:
        return place_N
    phase_P = random.random(n_places)
    generation_N = (days_N / life_days + phase_P[place_N]).astype(np.int64)
    return place_N + n_places * generation_N


def _tastes(random: np.random.Generator, world: World, n_ids: int) -> tuple[Doubles, Doubles]:
    """(taste (E, ids, D), level (E, ids)) of each id: walks that keep their variance."""
    walk = np.empty((EPOCHS, n_ids, world.latent_dim + 1), np.float32)
    walk[0] = random.standard_normal(walk.shape[1:], np.float32)
    for epoch in range(1, EPOCHS):
        walk[epoch] = walk[epoch - 1]
        if world.drift:
            step = random.standard_normal(walk.shape[1:], np.float32)
            walk[epoch] = np.sqrt(1 - world.drift) * walk[epoch - 1] + np.sqrt(world.drift) * step
    return walk[:, :, 1:], world.spread * walk[:, :, 0]
