"""What training refuses to do.

TrainingError (a RecsysError)
├── FolderInUse        a folder of snapshots that another trainer writes
├── LayoutMismatch     examples or a snapshot made for another set of features
└── PromotionRefused   a model version that is absent or failed its gate
"""

from recsys.errors import RecsysError


class TrainingError(RecsysError):
    """Root of the training errors."""


class FolderInUse(TrainingError):
    """Another trainer writes this folder; two would publish under the same numbers."""


class LayoutMismatch(TrainingError):
    """Bytes were made for another feature schema or another table layout."""


class PromotionRefused(TrainingError):
    """A model version cannot take the alias that was asked for."""
