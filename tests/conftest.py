"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Two cores are shared with brokers and servers under test; torch's own threads would fight them.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recsys_data() -> Path:
    """Folder of the real data sets; a test that needs it is skipped, with the reason, where it is absent."""
    folder = os.environ.get("RECSYS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set RECSYS_DATA to the folder that holds the parquet files")
    return Path(folder)
