"""Tables in the shapes of torchrec: its embedding bag collection, and its managed collision module.

Take the collection where the whole table may be ours; take the managed collisions where torchrec's own
weights must stay, and only the way from raw id to row is to be free of collisions.

Axes: N ids of a batch, Z slots of a managed collision module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchrec.modules.mc_modules import ManagedCollisionModule
from torchrec.sparse.jagged_tensor import JaggedTensor

from recsys.errors import ConfigError, SnapshotError
from recsys.table.bag_collection import CollectionRules, CollisionlessEmbeddingBagCollection
from recsys.table.jagged import as_keys
from recsys.table.key_slots import KeySlots, SlotRules
from recsys.table.ranks import Ranks
from recsys.table.table import Keys, RowNumbers

__all__ = [
    "CollectionRules",
    "CollisionlessEmbeddingBagCollection",
    "CollisionlessManagedCollisionModule",
    "OutputRange",
    "SlotRules",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRange:
    """Where a module's slots lie among those of all shards of one embedding table."""

    begin: int = 0
    """First slot."""
    segments: tuple[int, ...] = ()
    """Borders of all buckets, ascending; nothing means one bucket of this module's own slots."""


class CollisionlessManagedCollisionModule(ManagedCollisionModule):  # type: ignore[misc]
    """Raw int64 ids to slots [0, zch_size), one to one: no two ids share a row of torchrec's weights.

    As in torchrec's MCH module, the last slot is not given to any id: it is the row of ids without a slot,
    so zch_size - 1 ids can have one. In training a new id gets its slot in the batch where it first occurs;
    when all are taken, ids with a low score under ``rules.policy`` go, never one of the batch at hand.
    In eval mode, and for features named with the read-only suffix, nothing changes.

    ``evict`` gives the slots that went from one id to another: rows which still hold the former id's weights.
    torchrec's unsharded collections call it and do nothing with the answer, so pass ``on_recycled`` to reset
    those rows; it is called before the slots are looked up. Optimizer state of a row is the caller's too.

    ``event_time_s`` dates the batches; None counts them instead. Choose one of the two for good. With
    ``ranks`` each rank admits the ids of all, in order of rank: data-parallel weights need one meaning.
    The ids are extra state of the state dict, for a module of as many slots. One thread at a time.
    """

    event_time_s: int | None

    def __init__(
        self,
        zch_size: int,
        device: torch.device,
        rules: SlotRules | None = None,
        *,
        input_hash_size: int = (1 << 63) - 1,
        output_range: OutputRange | None = None,
        on_recycled: Callable[[Tensor], None] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if zch_size < 2:
            raise ConfigError(f"zch_size must be >= 2, one slot and one for all other ids, got {zch_size}")
        where = output_range or OutputRange()
        segments = where.segments or (where.begin, where.begin + zch_size)
        super().__init__(device=device, output_segments=list(segments))
        self.event_time_s = None
        self._zch_size, self._begin, self._segments = zch_size, where.begin, segments
        self._rules = rules or SlotRules()
        self._slots = KeySlots(zch_size - 1, self._rules)
        self._input_hash_size = input_hash_size
        self._on_recycled, self._ranks = on_recycled, ranks
        self._recycled: Tensor | None = None

    def forward(
        self, features: dict[str, JaggedTensor], mutate_miss_lengths: bool = True
    ) -> dict[str, JaggedTensor]:
        """``profile`` and ``remap`` in one go. Bags keep their lengths: a missing id is the last slot."""
        self._count_batch()
        return {
            name: self._remapped(feature, self._admitted(name, as_keys(feature.values())))
            for name, feature in features.items()
        }

    def preprocess(self, features: dict[str, JaggedTensor]) -> dict[str, JaggedTensor]:
        """The features: ids need no hashing."""
        return features

    def profile(self, features: dict[str, JaggedTensor]) -> dict[str, JaggedTensor]:
        """Give slots to the ids of a training batch; the features unchanged."""
        self._count_batch()
        for name, feature in features.items():
            self._admitted(name, as_keys(feature.values()))
        return features

    def remap(
        self,
        features: dict[str, JaggedTensor],
        mutate_miss_lengths: bool = True,
        write_weights: Tensor | None = None,
    ) -> dict[str, JaggedTensor]:
        """The slot of each id. Changes nothing; bags keep their lengths."""
        return {
            name: self._remapped(feature, self._slots.slots(as_keys(feature.values())))
            for name, feature in features.items()
        }

    def evict(self) -> Tensor | None:
        """Slots that changed owner since the last call, ascending; None if there are none."""
        recycled, self._recycled = self._recycled, None
        return recycled

    def output_size(self) -> int:
        """Slots, the last one included."""
        return self._zch_size

    def input_size(self) -> int:
        """Range of ids by which torchrec spreads them over shards; here ids may be any int64."""
        return self._input_hash_size

    def buckets(self) -> int:
        """Buckets of all shards."""
        return len(self._segments) - 1

    def open_slots(self) -> Tensor:
        """How many ids can still come before one must go, (1,)."""
        return torch.tensor([self._zch_size - 1 - len(self._slots)], device=self.device)

    def validate_state(self) -> None:
        """Raise SnapshotError unless the loaded borders are those of this module's slots."""
        borders = self._output_segments_tensor.tolist()
        wanted = (self._begin, self._begin + self._zch_size)
        if not set(wanted) <= set(borders):
            raise SnapshotError(f"slots {wanted} are no union of the loaded buckets; shard as when saved")

    def rebuild_with_output_id_range(
        self,
        output_id_range: tuple[int, int],
        output_segments: list[int],
        device: torch.device | None = None,
    ) -> CollisionlessManagedCollisionModule:
        """An empty module for one shard, which is one rank's: without ``on_recycled`` and ``ranks``."""
        begin, end = output_id_range
        return type(self)(
            end - begin,
            device or self.device,
            self._rules,
            input_hash_size=self._input_hash_size,
            output_range=OutputRange(begin=begin, segments=tuple(output_segments)),
        )

    def get_extra_state(self) -> dict[str, Tensor]:
        """Ids, their slots and histories."""
        return {name: torch.from_numpy(array) for name, array in self._slots.state().items()}

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from ``get_extra_state``; SnapshotError for a state of another size or admission rule."""
        self._slots.restore({name: tensor.cpu().numpy() for name, tensor in state.items()})
        self._recycled = None

    def _count_batch(self) -> None:
        if self.training:
            self._current_iter_tensor.add_(1)

    def _admitted(self, name: str, keys_N: Keys) -> RowNumbers:
        """The slot of each id, (N,), after letting new ones in where this is training."""
        if not self.training or name.lower().endswith(self.readable_suffix):
            return self._slots.slots(keys_N)
        event_time_s = int(self._current_iter_tensor) if self.event_time_s is None else self.event_time_s
        if self._ranks is None:
            slots_N = self._slots.admit(keys_N, event_time_s=event_time_s)
        else:
            keys, times = self._ranks.joined([keys_N, np.array([event_time_s])])
            self._slots.admit(keys, event_time_s=int(times.max()))
            slots_N = self._slots.slots(keys_N)
        self._tell_recycled()
        return slots_N

    def _tell_recycled(self) -> None:
        slots = self._slots.take_recycled()
        if not len(slots):
            return
        recycled = torch.from_numpy(slots + self._begin).to(self.device)
        self._recycled = (
            recycled if self._recycled is None else torch.unique(torch.cat([self._recycled, recycled]))
        )
        if self._on_recycled is not None:
            self._on_recycled(recycled)

    def _remapped(self, feature: JaggedTensor, slots_N: RowNumbers) -> JaggedTensor:
        slots_N[slots_N < 0] = self._zch_size - 1
        slots_N += self._begin
        return JaggedTensor(
            values=torch.from_numpy(slots_N).to(feature.values().device),
            lengths=feature.lengths_or_none(),
            offsets=feature.offsets_or_none(),
            weights=feature.weights_or_none(),
        )
