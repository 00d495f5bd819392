"""What the ranks of a process group hold, joined in order of rank, so that each can do all of it alike.

A table is no parameter: DistributedDataParallel neither copies nor averages it. Tables that start with
equal bits stay so when every rank learns from the joined batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

Array = NDArray[Any]


class Ranks:
    """The ranks of one torch process group of a CPU backend such as gloo. One call at a time.

    Every rank must make the same calls in the same order, so give each user of a group a group of its
    own (``torch.distributed.new_group``): calls during backward would cross those of DDP.
    """

    def __init__(self, group: distributed.ProcessGroup) -> None:
        self._group = group
        self.size = distributed.get_world_size(group)

    def joined(self, arrays: Sequence[Array]) -> list[Array]:
        """Each array with those of all ranks, along the first axis; other axes and dtypes must agree."""
        arrays = [np.ascontiguousarray(array) for array in arrays]
        header = torch.tensor([len(array) for array in arrays], dtype=torch.int64)
        lengths_of_rank = [lengths.tolist() for lengths in self._gathered(header)]
        n_bytes = [
            sum(length * _item_bytes(array) for length, array in zip(lengths, arrays, strict=True))
            for lengths in lengths_of_rank
        ]
        sent = np.zeros(max(n_bytes), dtype=np.uint8)
        mine = np.concatenate([array.reshape(-1).view(np.uint8) for array in arrays])
        sent[: len(mine)] = mine
        parts = [
            _unpacked(bytes_of_rank.numpy(), lengths, arrays)
            for bytes_of_rank, lengths in zip(
                self._gathered(torch.from_numpy(sent)), lengths_of_rank, strict=True
            )
        ]
        return [np.concatenate(of_all_ranks) for of_all_ranks in zip(*parts, strict=True)]

    def _gathered(self, sent: torch.Tensor) -> list[torch.Tensor]:
        received = [torch.empty_like(sent) for _ in range(self.size)]
        distributed.all_gather(received, sent, group=self._group)
        return received


def _item_bytes(array: Array) -> int:
    return array.itemsize * int(np.prod(array.shape[1:]))


def _unpacked(packed: Array, lengths: Sequence[int], like: Sequence[Array]) -> list[Array]:
    arrays, begin = [], 0
    for length, array in zip(lengths, like, strict=True):
        end = begin + length * _item_bytes(array)
        # Copied, since a view may begin where no such item may.
        arrays.append(packed[begin:end].copy().view(array.dtype).reshape(length, *array.shape[1:]))
        begin = end
    return arrays
