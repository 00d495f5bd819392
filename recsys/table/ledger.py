"""What a table must keep besides its rows so that a restored one goes on alike."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from recsys.errors import SnapshotError
from recsys.table.admission import COUNTERS as ADMISSION_COUNTERS
from recsys.table.admission import Occurrence
from recsys.table.spec import TableSpec
from recsys.table.table import Ledger, TableCounters

COUNTERS = tuple(field.name for field in fields(TableCounters))
"""What ``counters`` of a ledger holds, in order."""


def check_ledger(spec: TableSpec, ledger: Ledger) -> None:
    """Raise SnapshotError unless the ledger is of a table with this spec's admission rule."""
    rule = spec.admission
    cells = (rule.depth, rule.width) if isinstance(rule, Occurrence) else (0, 0)
    wanted = {
        "steps": (np.uint64, (1,)),
        "clock_s": (np.int64, (1,)),
        "counters": (np.uint64, (len(COUNTERS),)),
        "admission_cells": (np.uint16, cells),
        "admission_counters": (np.uint64, (len(ADMISSION_COUNTERS),)),
    }
    for name, (dtype, shape) in wanted.items():
        array = ledger.get(name)
        got = "nothing" if array is None else f"{array.dtype.name} {array.shape}"
        if array is None or array.dtype != dtype or array.shape != shape:
            raise SnapshotError(
                f"table {spec.name!r}, ledger {name}: got {got}, wanted {np.dtype(dtype).name} {shape}; "
                "restore into a table with the admission rule that was saved"
            )
