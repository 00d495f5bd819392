"""A collisionless table by itself: look up, learn, snapshot, restore.

Run: python examples/learn_a_table.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.native import NativeTable
from recsys.table.snapshot import read_rows, write_rows

SPEC = TableSpec(
    name="items",
    slices=(
        SliceSpec(name="wide", dim=1, optimizer=Adagrad(learning_rate=0.05), initializer=Zeros()),
        SliceSpec(
            name="vector",
            dim=8,
            optimizer=Adagrad(learning_rate=0.05),
            initializer=Uniform(low=-0.01, high=0.01),
        ),
    ),
)


def main() -> None:
    table = NativeTable(SPEC)
    keys = np.array([7, 7, 2**64 - 1], dtype=np.uint64)
    print("before:", table.lookup(keys)[:, 0], "rows:", len(table))

    # The key 7 occurs twice: its gradients are summed and applied once.
    table.learn(keys, np.ones((3, SPEC.dim), np.float32), event_time_s=1_700_000_000)
    print("after: ", table.lookup(keys)[:, 0], "rows:", len(table))

    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows", table)
        restored = NativeTable(SPEC)
        read_rows(Path(folder) / "rows", restored)
    same = bool((restored.lookup(keys) == table.lookup(keys)).all())
    print("restored bit for bit:", same)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
