"""What serving refuses to do.

ServingError (a RecsysError)
├── InvalidRequest     the caller's mistake; becomes INVALID_ARGUMENT
├── NotReady           no parameters are loaded yet; becomes UNAVAILABLE
└── SpecMismatch       a snapshot or delta of another table layout or feature schema
"""

from recsys.errors import RecsysError


class ServingError(RecsysError):
    """Root of the serving errors."""


class InvalidRequest(ServingError):
    """A request that cannot be answered as it is; the message is for its author."""


class NotReady(ServingError):
    """The server has no parameters yet."""


class SpecMismatch(ServingError):
    """Parameters were made for another recipe."""
