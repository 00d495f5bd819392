"""Two trainers never write one folder of snapshots."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.evaluation.progressive import ProgressiveMetrics
from training.checkpoints import CheckpointConfig, Checkpoints
from training.errors import FolderInUse
from training.folder_lock import FolderLock

HOLDER = """
import sys
from pathlib import Path
from training.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def checkpoints_in(folder: Path) -> Checkpoints:
    return Checkpoints(CheckpointConfig(folder=folder))


def test_a_second_writer_is_refused_until_the_first_one_closes(tmp_path: Path) -> None:
    first = checkpoints_in(tmp_path / "run")
    with pytest.raises(FolderInUse, match="run is in use by another trainer; end that one first"):
        checkpoints_in(tmp_path / "run")
    checkpoints_in(tmp_path / "other")
    first.close()
    checkpoints_in(tmp_path / "run")


def test_a_folder_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse):
            checkpoints_in(tmp_path)
        holder.kill()
    checkpoints_in(tmp_path)


def test_a_writer_that_let_go_is_refused_where_another_one_came(small: Any, tmp_path: Path) -> None:
    first = checkpoints_in(tmp_path)
    first.close()
    second = checkpoints_in(tmp_path)
    learner = small.learner()
    with pytest.raises(FolderInUse):
        first.save(small.manifest(), learner, ProgressiveMetrics(60_000))
    second.save(small.manifest(), learner, ProgressiveMetrics(60_000))


def test_a_lock_is_held_as_long_as_its_object_lives_and_taken_once(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.take()
    lock.take()
    other = FolderLock(tmp_path)
    with pytest.raises(FolderInUse):
        other.take()
    del lock
    other.take()
