"""One loaded model on its way along its delta log: what a delta does to it, or why it does nothing.

After a delta is applied, each of its rows equals the training row as sealed and as its codec says it,
bit for bit, and an expired key is gone. A gap is never guessed over.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recsys.ranking.scorer import RankingScorer
from recsys.ranking.tower import weights_in
from recsys.snapshots import Manifest, read_dense, read_manifest, read_table
from recsys.table.table import EmbeddingTable
from serving.errors import SpecMismatch
from streaming.deltas import DenseDelta, TableDelta
from streaming.row_codecs import CodecName, RowCodec

MakeScorer = Callable[[], tuple[EmbeddingTable, RankingScorer]]

SHARD = 0
"""The one shard of a model that a replica holds."""
_ROWS_AT_ONCE = 65_536


class ApplyOutcome(enum.Enum):
    """What became of one delta."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    STALE = "stale"
    FOREIGN = "foreign"
    SNAPSHOT_NEEDED = "snapshot_needed"


@dataclass(slots=True)
class Parameters:
    """One loaded model and how far it has followed its log. One applying thread, any number of readers;
    a reader sees whole rows and one consistent set of dense weights."""

    scorer: RankingScorer
    table: EmbeddingTable
    manifest: Manifest
    codec: RowCodec
    table_sequence: int
    dense_sequence: int
    as_of_ms: int
    """Event time of the newest example that the rows have learned."""
    dense_as_of_ms: int
    """The same of the dense weights, which may travel less often."""
    sealed_at_ms: int = 0

    @property
    def position(self) -> tuple[int, int]:
        """Later parameters of one model compare greater."""
        return (self.manifest.incarnation, self.table_sequence)

    @property
    def skew_ms(self) -> int:
        """Event time by which the dense weights are ahead of the rows; below 0 where they are behind."""
        return self.dense_as_of_ms - self.as_of_ms

    def age_ms(self, now_ms: int) -> int | None:
        """Since the newest applied delta was sealed; before the first, since the newest example learned.

        None for a model that has learned nothing.
        """
        since_ms = self.sealed_at_ms or self.as_of_ms
        return max(0, now_ms - since_ms) if since_ms else None


def load_parameters(
    path: Path, make_scorer: MakeScorer, schema_fingerprint: int, codec: CodecName
) -> Parameters:
    """A snapshot's parameters, its rows as deltas under this codec would have brought them.

    Raises SpecMismatch for another feature schema, SnapshotError for another layout or damage.
    """
    manifest = read_manifest(path)
    if manifest.schema_fingerprint != schema_fingerprint:
        raise SpecMismatch(
            f"snapshot {path.name} has feature schema {manifest.schema_fingerprint:016x}, "
            f"this server wants {schema_fingerprint:016x}; serve it with recipe {manifest.recipe!r}"
        )
    table, scorer = make_scorer()
    dense = read_dense(path, manifest)
    read_table(path, table)
    scorer.load_dense(weights_in(dense))
    rows_as = RowCodec.of(codec, table.spec)
    as_served(table, rows_as)
    return Parameters(
        scorer=scorer,
        table=table,
        manifest=manifest,
        codec=rows_as,
        table_sequence=manifest.table_sequence,
        dense_sequence=manifest.dense_sequence,
        as_of_ms=manifest.as_of_ms,
        dense_as_of_ms=manifest.as_of_ms,
    )


def as_served(table: EmbeddingTable, codec: RowCodec) -> None:
    """Turn all training rows of a table that nobody reads yet into what the codec makes of them."""
    cursor, is_first = 0, True
    while codec.name != "fp32" and (cursor or is_first):
        is_first = False
        rows, cursor = table.scan(cursor, _ROWS_AT_ONCE)
        table.assign(rows.keys_N, codec.as_served(rows.weights_ND))


def apply(delta: TableDelta | DenseDelta, now: Parameters) -> tuple[ApplyOutcome, str]:
    """Fold one delta in; or change nothing, and say why not.

    Raises SpecMismatch for a table, shard or layout that these parameters do not have, and
    SnapshotError or ShapeError for weights or rows of another shape.
    """
    outcome, reason = _verdict(delta, now)
    if outcome is not ApplyOutcome.APPLIED:
        return outcome, reason
    if isinstance(delta, DenseDelta):
        now.scorer.load_dense(delta.tensors)
        now.dense_sequence = delta.sequence
        now.dense_as_of_ms = max(now.dense_as_of_ms, delta.as_of_ms)
    else:
        # A delta of expired keys alone has no rows, and so no width that a table could check.
        if len(delta.updated_keys):
            now.table.assign(delta.updated_keys, now.codec.unpack(delta.rows))
        now.table.erase(delta.expired_keys)
        now.table_sequence = delta.sequence
        # The age moves only after the last row of a seal is in place.
        now.as_of_ms = max(now.as_of_ms, delta.as_of_ms)
    now.sealed_at_ms = max(now.sealed_at_ms, delta.sealed_at_ms)
    return ApplyOutcome.APPLIED, ""


def _verdict(delta: TableDelta | DenseDelta, now: Parameters) -> tuple[ApplyOutcome, str]:
    if delta.model != now.manifest.model:
        return ApplyOutcome.FOREIGN, f"got a delta of model {delta.model!r}, wanted {now.manifest.model!r}"
    if isinstance(delta, TableDelta):
        _check_layout(delta, now)
        what, last = f"table {delta.table!r} shard {delta.shard}", now.table_sequence
    else:
        what, last = "dense parameters", now.dense_sequence
    start = now.manifest.incarnation
    if delta.incarnation < start:
        return ApplyOutcome.STALE, f"{what}: got incarnation {delta.incarnation}, wanted {start}"
    if delta.incarnation > start:
        return _needed(what, f"incarnation {delta.incarnation}", f"{start}")
    if delta.sequence <= last:
        return ApplyOutcome.DUPLICATE, f"{what}: got delta {delta.sequence}, have {last}"
    # Dense parameters travel whole, so one that is missing in between is harmless.
    return _gap(delta, what, now) if isinstance(delta, TableDelta) else (ApplyOutcome.APPLIED, "")


def _gap(delta: TableDelta, what: str, now: Parameters) -> tuple[ApplyOutcome, str]:
    last, got = now.table_sequence, f"delta {delta.sequence}"
    if delta.base_sequence > last:
        return _needed(what, f"{got} after {delta.base_sequence}", f"one after {last}")
    if delta.dense_sequence > now.dense_sequence:
        wanted = f"one beside {now.dense_sequence}"
        return _needed(what, f"{got} beside dense parameters {delta.dense_sequence}", wanted)
    if delta.codec != now.codec.name:
        return _needed(what, f"{got} in {delta.codec}", now.codec.name)
    return ApplyOutcome.APPLIED, ""


def _needed(what: str, got: str, wanted: str) -> tuple[ApplyOutcome, str]:
    return ApplyOutcome.SNAPSHOT_NEEDED, f"{what}: got {got}, wanted {wanted}; request a snapshot"


def _check_layout(delta: TableDelta, now: Parameters) -> None:
    spec = now.table.spec
    if (delta.table, delta.shard) != (spec.name, SHARD):
        raise SpecMismatch(
            f"table {delta.table!r} shard {delta.shard}: got delta {delta.sequence} of it, wanted table "
            f"{spec.name!r} shard {SHARD}; use one recipe, then request a snapshot"
        )
    if delta.spec_fingerprint != spec.fingerprint:
        raise SpecMismatch(
            f"table {delta.table!r} shard {delta.shard}: delta {delta.sequence} has layout "
            f"{delta.spec_fingerprint:016x}, want {spec.fingerprint:016x}; use one recipe, then request a "
            "snapshot"
        )
