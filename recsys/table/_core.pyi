import enum

import numpy as np
from numpy.typing import NDArray

class Optimizer(enum.Enum):
    SGD = 0
    ADAGRAD = 1
    ROW_WISE_ADAGRAD = 2

class Slice:
    def __init__(
        self,
        *,
        dim: int,
        optimizer: Optimizer,
        learning_rate: float,
        initial_accumulator: float,
        low: float,
        width: float,
        seed: int,
    ) -> None: ...

class Table:
    def __init__(self, *, slices: list[Slice], missing_reads_initial: bool, threads: int) -> None: ...
    def lookup(self, keys: NDArray[np.uint64], weights: NDArray[np.float32]) -> None: ...
    def contains(self, keys: NDArray[np.uint64], mask: NDArray[np.bool_]) -> None: ...
    def learn(
        self, keys: NDArray[np.uint64], gradients: NDArray[np.float32], event_time_s: int
    ) -> int | None: ...
    def assign(self, keys: NDArray[np.uint64], weights: NDArray[np.float32]) -> None: ...
    def erase(self, keys: NDArray[np.uint64]) -> int: ...
    def export_rows(
        self,
        keys: NDArray[np.uint64],
        weights: NDArray[np.float32],
        state: NDArray[np.float32],
        seen: NDArray[np.uint32],
    ) -> int | None: ...
    def import_rows(
        self,
        keys: NDArray[np.uint64],
        weights: NDArray[np.float32],
        state: NDArray[np.float32],
        seen: NDArray[np.uint32],
    ) -> None: ...
    def keys(self) -> NDArray[np.uint64]: ...
    def drain_touched(self) -> NDArray[np.uint64]: ...
    def clear(self) -> None: ...
    def memory(self) -> tuple[int, int, int]: ...
    def __len__(self) -> int: ...
