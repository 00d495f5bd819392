"""Both tables keep every promise of recsys.checks."""

import pytest

from recsys.checks.table_checks import Check, MakeTable, table_checks
from recsys.table.native import NativeTable
from recsys.table.reference import ReferenceTable


@pytest.mark.parametrize("make_table", [NativeTable, ReferenceTable])
@pytest.mark.parametrize("check", list(table_checks()), ids=lambda check: check.__name__)
def test_table_keeps_its_promises(make_table: MakeTable, check: Check) -> None:
    check(make_table)
