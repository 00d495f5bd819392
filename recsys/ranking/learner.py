"""The learner: one pass of predict, then learn, over batches in time order.

The loss is the sum of the log losses of a batch. A table row takes one optimizer step along its
summed gradient, so a rare key learns as fast from its one example in a large batch as in a small
one; with means it would hardly move. The dense weights take an Adam step along the mean, whose size
does not depend on the batch.

Where negatives were sampled, stated too early or taken back, the loss allows for it and the
probability stays that of the whole stream: ``sampling_correction`` says how.

Axes: B examples of a batch, L labels, F features, T keys in all, W = F * (L + K) columns of a pooled row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.errors import GradientError, ShapeError, SnapshotError
from recsys.features import RaggedKeys
from recsys.ranking.adam import AdamConfig, FlatAdam
from recsys.ranking.history_attention import HistoryTower
from recsys.ranking.sampling_correction import tasks_loss
from recsys.ranking.statements import Statements
from recsys.ranking.tower import (
    WEIGHT,
    Tower,
    TowerConfig,
    check_like,
    check_table,
    export_weights,
    import_weights,
    log_odds,
)
from recsys.table.modules import PooledEmbeddings, Pooling, SequenceEmbeddings
from recsys.table.table import EmbeddingTable

Floats = NDArray[np.float32]
Stated = Statements | Sequence[Statements | None] | None

# Names within a dense state; they are part of every snapshot.
_FIRST, _SECOND, _STEPS = "adam.first.", "adam.second.", "adam.steps"


class RankingLearner:
    """A table and a tower that learn together. One thread at a time; the table may have other readers.

    ``pooling`` names the features in the schema's order and says how each one's bag is pooled.
    The same state and the same batches give the same bits, with the same number of torch threads.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        tower: TowerConfig,
        pooling: Mapping[str, Pooling],
        adam: AdamConfig | None = None,
    ) -> None:
        check_table(tower, table.spec, len(pooling))
        self._features = list(pooling)
        self._is_mean_F = np.array([how == "mean" for how in pooling.values()])
        self._config, self._tower = tower, tower.build()
        pooled, has_history = PooledEmbeddings(table, pooling), isinstance(self._tower, HistoryTower)
        self._embeddings = SequenceEmbeddings(table) if has_history else pooled
        self._adam = FlatAdam(self._tower, adam or AdamConfig())

    @property
    def n_tasks(self) -> int:
        """L, the labels that it learns."""
        return self._config.n_tasks

    @property
    def tower(self) -> Tower:
        """The dense part, for those who only look."""
        return self._tower

    @property
    def table(self) -> EmbeddingTable:
        """The rows that this learner trains."""
        table: EmbeddingTable = self._embeddings.table
        return table

    def predict(self, batch: RaggedKeys) -> Floats:
        """Probability of the first label for each row, (B,). Changes nothing."""
        return self.predict_tasks(batch)[:, 0]

    def predict_tasks(self, batch: RaggedKeys) -> Floats:
        """Probability of each label for each row, (B, L). Changes nothing."""
        if not len(batch):
            return np.empty((0, self._config.n_tasks), np.float32)
        if self._tower.trains_as_it_serves:
            with torch.no_grad():
                return _probabilities(self._logits(batch))
        self._tower.eval()
        try:
            with torch.no_grad():
                return _probabilities(self._logits(batch))
        finally:
            self._tower.train()

    def learn(self, batch: RaggedKeys, labels: Floats, *, event_time_s: int, stated: Stated = None) -> float:
        """Take one step along the batch's gradient; return its mean log loss before that step.

        Labels are in [0, 1], (B,), or (B, L) with NaN where a row says nothing of one; ``event_time_s``
        is the newest event's time, seconds since 1970; ``stated`` says how the rows came to be, for each
        label if there are more, None that all are plain. The loss is the sum over labels. An empty batch
        changes nothing and gives NaN. Raises ShapeError for labels or statements that do not fit the
        batch and GradientError when the loss or a gradient is not finite; the state is then as it was.
        """
        return self._step(batch, labels, event_time_s, stated)[1]

    def step(self, batch: RaggedKeys, labels: Floats, *, event_time_s: int, stated: Stated = None) -> Floats:
        """``predict`` and then ``learn``; what was predicted of the first label, (B,).

        One forward pass does both where training gives what evaluation does. The prediction is what is
        served, of the whole stream, however the rows came to be stated.
        """
        if self._tower.trains_as_it_serves:
            return self._step(batch, labels, event_time_s, stated)[0][:, 0]
        predicted_B = self.predict(batch)
        self._step(batch, labels, event_time_s, stated)
        return predicted_B

    def _step(
        self, batch: RaggedKeys, labels: Floats, event_time_s: int, stated: Stated
    ) -> tuple[Floats, float]:
        n_tasks = self._config.n_tasks
        wanted = (len(batch),) if n_tasks == 1 else (len(batch), n_tasks)
        if labels.dtype != np.float32 or labels.shape != wanted:
            raise ShapeError(f"want float32 labels of shape {wanted}, got {labels.dtype} {labels.shape}")
        stated_L = (stated,) * n_tasks if stated is None or isinstance(stated, Statements) else tuple(stated)
        if len(stated_L) != n_tasks:
            raise ShapeError(f"want statements of {n_tasks} labels, got {len(stated_L)}")
        for one in stated_L:
            if one is not None and len(one) != len(batch):
                raise ShapeError(f"want statements of {len(batch)} rows, got {len(one)}")
        if not len(batch):
            return np.empty((0, n_tasks), np.float32), float("nan")
        logit_BL = self._logits(batch)
        loss = tasks_loss(logit_BL, torch.tensor(labels).view(wanted[0], n_tasks), stated_L)
        total = float(loss.detach())
        if not np.isfinite(total):
            raise GradientError(
                f"log loss of {len(batch)} examples is {total}, want a finite one; check labels and rows"
            )
        self._embeddings.event_time_s = event_time_s
        self._adam.zero_grad()
        # Rows learn within backward, on the sum; a refusal there leaves the dense weights alone too.
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step(len(batch))
        self._tower.adapt()
        return _probabilities(logit_BL.detach()), total / len(batch)

    def _logits(self, batch: RaggedKeys) -> Tensor:
        if batch.lengths_NF.shape[1:] != (len(self._features),):
            raise ShapeError(
                f"want keys of {len(self._features)} features per row, got lengths {batch.lengths_NF.shape}"
            )
        tower = self._tower
        if isinstance(tower, HistoryTower):
            pooled_BW = tower.pool(self._rows_of(batch), batch.lengths_NF, self._is_mean_F)
        else:
            pooled_BW = self._pooled_of(batch)
        return log_odds(tower, self._config, pooled_BW, batch)

    def _pooled_of(self, batch: RaggedKeys) -> Tensor:
        """Each feature's rows pooled, (B, W)."""
        keys_T, lengths_L = batch.feature_major()
        jagged = KeyedJaggedTensor(
            keys=self._features,
            values=torch.tensor(keys_T.view(np.int64)),
            lengths=torch.from_numpy(lengths_L),
            stride=len(batch),
        )
        pooled_BW: Tensor = self._embeddings(jagged).values()
        return pooled_BW

    def _rows_of(self, batch: RaggedKeys) -> Tensor:
        """The row of each occurrence, in the order of the batch's keys, (T, L + K).

        One look-up and one step for all features: a key that occurs in several takes a single step.
        """
        jagged = KeyedJaggedTensor(
            keys=["all"],
            values=torch.tensor(batch.keys_T.view(np.int64)),
            lengths=torch.from_numpy(batch.lengths_NF.sum(axis=1, dtype=np.int32)),
            stride=len(batch),
        )
        rows_TD: Tensor = self._embeddings(jagged)["all"].values()
        return rows_TD

    def dense_weights(self) -> dict[str, Floats]:
        """A copy of the tower's weights: what a scorer loads."""
        return export_weights(self._tower)

    def dense_state(self) -> dict[str, Floats]:
        """A copy of all that is learned outside the table, for a snapshot: the tower and Adam's moments."""
        weights = export_weights(self._tower, for_learning=True)
        state = {WEIGHT + name: value for name, value in weights.items()}
        for name, first, second in self._adam.moments():
            state[_FIRST + name], state[_SECOND + name] = first.copy(), second.copy()
        state[_STEPS] = np.array([self._adam.steps], np.float32)
        return state

    def load_dense_state(self, state: Mapping[str, Floats]) -> None:
        """Go on from what ``dense_state`` gave.

        Raises SnapshotError for missing or unknown names and ShapeError for another shape or dtype; the
        learner is then as it was.
        """
        parameters = dict(self._tower.named_parameters())
        weights = self._tower.state_dict()
        wanted = {WEIGHT + name for name in weights} | {_STEPS}
        wanted |= {prefix + name for prefix in (_FIRST, _SECOND) for name in parameters}
        if wanted != state.keys():
            raise SnapshotError(
                f"dense state: got {sorted(state)}, wanted {sorted(wanted)}; use the recipe it was saved with"
            )
        for name, parameter in parameters.items():
            for prefix in (_FIRST, _SECOND):
                check_like(prefix + name, state[prefix + name], parameter.shape)
        check_like(_STEPS, state[_STEPS], (1,))
        import_weights(self._tower, {name: state[WEIGHT + name] for name in weights}, for_learning=True)
        for name, first, second in self._adam.moments():
            first[...], second[...] = state[_FIRST + name], state[_SECOND + name]
        self._adam.steps = int(state[_STEPS][0])


def _probabilities(logit_BL: Tensor) -> Floats:
    p_BL: Floats = torch.sigmoid(logit_BL).numpy()
    return p_BL
