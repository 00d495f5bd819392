"""Collisionless embedding tables: what one is (spec), what it promises (table), and what is built on it.

``NativeTable`` lives in ``recsys.table.native`` and needs the compiled core; ``ReferenceTable`` in
``recsys.table.reference`` needs numpy only.
"""

from recsys.table.spec import (
    SGD,
    Adagrad,
    Constant,
    RowWiseAdagrad,
    SliceSpec,
    TableSpec,
    Uniform,
    Zeros,
)
from recsys.table.table import EmbeddingTable, TableMemory, TableRows

__all__ = [
    "SGD",
    "Adagrad",
    "Constant",
    "EmbeddingTable",
    "RowWiseAdagrad",
    "SliceSpec",
    "TableMemory",
    "TableRows",
    "TableSpec",
    "Uniform",
    "Zeros",
]
