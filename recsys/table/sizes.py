"""How many bytes a row takes, and so how many rows a capacity allows; both tables reckon alike."""

from __future__ import annotations

from recsys.errors import ConfigError
from recsys.table.spec import TableSpec

METADATA_BYTES = 24
"""Of a row's key, last seen, count and marks."""
# What the native index takes: buckets of five keys in 64 bytes, at its highest load, and 64 of them at least.
_INDEX_BYTES_PER_KEY = 64 / 5 / 0.95
_LEAST_INDEX_BYTES = 64 * 64
_INDEX_ROUNDING = 128


def max_rows(spec: TableSpec) -> int:
    """Rows that the spec's capacity allows. Bytes count rows with their metadata, and a full index."""
    if spec.capacity is None:
        return (1 << 31) - 2
    if spec.capacity.max_rows is not None:
        return spec.capacity.max_rows
    max_bytes, row_bytes = spec.capacity.max_bytes or 0, whole_row_bytes(spec)
    with_index = (max_bytes - _INDEX_ROUNDING) / (row_bytes + _INDEX_BYTES_PER_KEY)
    rows = int(min(with_index, (max_bytes - _LEAST_INDEX_BYTES) / row_bytes))
    if rows < 1:
        raise ConfigError(
            f"table {spec.name!r}: max_bytes {max_bytes} does not hold one row of {row_bytes} bytes beside "
            f"an index of {_LEAST_INDEX_BYTES}; allow more"
        )
    return rows


def whole_row_bytes(spec: TableSpec) -> int:
    """Bytes of a row's weights, state and metadata; the latter two begin at a multiple of 8."""
    return spec.weight_bytes + (METADATA_BYTES + 4 * spec.state_dim + 7) // 8 * 8
