"""Everything that feature_store refuses to do.

FeatureStoreError
├── DatasetUnavailable   the data is not on this machine and could not be fetched
└── DatasetLayoutError   files are there, but not in a layout that the loader knows
"""

from recsys.errors import RecsysError


class FeatureStoreError(RecsysError):
    """Root of every error that the feature store raises on purpose."""


class DatasetUnavailable(FeatureStoreError):
    """A data set is neither in the folder, nor in the cache, nor to be had from the registry."""


class DatasetLayoutError(FeatureStoreError):
    """A data set's files lack a column or contradict each other; nothing of it was loaded."""
