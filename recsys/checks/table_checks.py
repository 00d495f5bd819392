"""What every EmbeddingTable promises, as checks that take a factory of tables.

    @pytest.mark.parametrize("check", list(table_checks()), ids=lambda check: check.__name__)
    def test_my_table_keeps_its_promises(check):
        check(MyTable)

The name of a check is the promise; ``recsys.table.reference.ReferenceTable`` is the slow table that they
compare with where a promise is about bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from recsys.checks.table_changes import CHANGES
from recsys.checks.table_learning import LEARNING
from recsys.checks.table_programs import (
    check_any_program_keeps_the_reference_s_row_numbers,
    check_any_program_runs_as_on_the_reference,
)
from recsys.checks.table_reading import READING
from recsys.checks.table_refusals import NUMBERED_REFUSALS, REFUSALS
from recsys.checks.table_retention import RETENTION, ROOM
from recsys.checks.table_specimens import Check, MakeTable
from recsys.checks.table_storage import STORAGE
from recsys.checks.table_upkeep import NUMBERED, UPKEEP

__all__ = ["Check", "MakeTable", "table_checks"]


def table_checks(*, exact_rows: bool = True) -> Iterator[Check]:
    """Every check; without ``exact_rows``, none of those about which row a key has and what comes of that.

    The order of eviction, sweeping and scanning does, and where the memory is. Tables made of several
    ones divide their rows differently, and keep all other promises.
    """
    yield from (*READING, *LEARNING, *STORAGE, *RETENTION, *CHANGES, *UPKEEP, *REFUSALS)
    yield check_any_program_runs_as_on_the_reference
    if exact_rows:
        yield from (*ROOM, *NUMBERED, *NUMBERED_REFUSALS)
        yield check_any_program_keeps_the_reference_s_row_numbers
