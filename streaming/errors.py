"""What streaming refuses to do.

StreamingError (a RecsysError)
├── WireError           bytes that are no message of this wire
│   ├── DamagedDelta    a delta whose checksum or layout is wrong; nothing of it was used
│   └── EventRejected   an event that cannot have happened when it says
├── SourceUnavailable   the log cannot be read now
│   └── OffsetLost      the log no longer holds the offset that was asked for
├── SinkUnavailable     what was published may not have arrived
├── StateUnavailable    the joiner's state cannot be read or written; its last commit stands
└── DamagedLog          a recorded log that is not what was written
"""

from recsys.errors import RecsysError


class StreamingError(RecsysError):
    """Root of the streaming errors."""


class WireError(StreamingError):
    """Bytes cannot be read as the message they should be; the reader goes on without them."""


class DamagedDelta(WireError):
    """A delta's checksum or layout is wrong; nothing of it was used."""


class EventRejected(WireError):
    """An event is dated too far ahead of its arrival; nothing of it was used."""


class SourceUnavailable(StreamingError):
    """The log cannot be read now; positions are as they were."""


class OffsetLost(SourceUnavailable):
    """The log does not hold the offset asked for; trying again will not help."""


class SinkUnavailable(StreamingError):
    """Something published since the last flush may not have arrived."""


class StateUnavailable(StreamingError):
    """The joiner's state cannot be read or written; open it again and go on from its last commit."""


class DamagedLog(StreamingError):
    """A recorded log is cut or changed before its end."""
