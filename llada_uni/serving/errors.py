"""What a service may answer besides a result: each exception is one kind of refusal or failure, with its HTTP status.

The message is one line that can be shown to whoever asked. Mistakes in a request are
`llada_uni.errors.UserError` (400), here as everywhere.
"""

from __future__ import annotations


class ServingError(Exception):
    """A request that got no result. status: of the HTTP answer; retry_after: seconds after which to try again, or None."""

    status = 500

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(ServingError):
    """As many requests wait as may wait."""

    status = 429


class Draining(ServingError):
    """The service takes nothing new: it stops, has stopped, or could not load its model."""

    status = 503


class NoSpace(ServingError):
    """The disk for temporary files is full."""

    status = 507


class TimedOut(ServingError):
    """The request took longer than `Limits.timeout`."""

    status = 504


class Cancelled(ServingError):
    """Whoever asked has gone away; nobody reads this as an answer."""

    status = 499


class Failed(ServingError):
    """Something broke that is not the asker's fault. The message says no more; the log has the details."""

    status = 500
