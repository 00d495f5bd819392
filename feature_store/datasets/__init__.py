"""Public data sets, from their owners' layouts to one log of interactions, and made-up ones."""

from feature_store.datasets.examples import examples_of
from feature_store.datasets.fetch import fetch_registry_wheel
from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.kuairand_rows import read_kuairand_rows
from feature_store.datasets.log import Dataset, InteractionLog
from feature_store.datasets.movielens import load_movielens
from feature_store.datasets.requests import PlaybackConfig, play_requests
from feature_store.datasets.synthetic import SyntheticRows, syn, syn2

__all__ = [
    "Dataset",
    "InteractionLog",
    "PlaybackConfig",
    "SyntheticRows",
    "examples_of",
    "fetch_registry_wheel",
    "load_kuairand",
    "load_movielens",
    "play_requests",
    "read_kuairand_rows",
    "syn",
    "syn2",
]
