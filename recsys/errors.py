"""Everything that recsys refuses to do, as a small tree.

RecsysError
├── ConfigError      a setting that cannot be: refused when the configuration is built
├── ShapeError       an array of the wrong shape or dtype at a public edge
├── KeyRangeError    an id that does not fit the bits its feature gives it
├── GradientError    a gradient that is not finite: nothing was learned from its batch
└── SnapshotError    a snapshot that is missing, damaged or of another layout

Every message says what, got, wanted, do. Other packages root their own errors in RecsysError, so
that a command line can turn any of them into one line.
"""


class RecsysError(Exception):
    """Root of every error that Headrace raises on purpose."""


class ConfigError(RecsysError):
    """A setting is out of its range or contradicts another one."""


class ShapeError(RecsysError):
    """An array has the wrong shape, dtype or memory order."""


class KeyRangeError(RecsysError):
    """An id is negative or too large for the bits that its feature reserves for it."""


class GradientError(RecsysError):
    """A gradient is NaN or infinite; the table is as it was before the call."""


class SnapshotError(RecsysError):
    """A snapshot cannot be trusted; nothing of it was loaded."""
