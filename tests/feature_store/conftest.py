import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recsys_data():
    """Folder with the real data sets."""
    if not os.environ.get("RECSYS_DATA"):
        pytest.skip("RECSYS_DATA is not set")
    return Path(os.environ["RECSYS_DATA"])
