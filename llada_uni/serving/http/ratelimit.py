"""How many requests a minute each caller may make: a token bucket for each.

What flows through: the name of a caller -> None, or the seconds to wait. A bucket holds one minute's requests and
fills evenly, so a caller may use a minute's worth at once and then goes on at the rate.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CALLERS = 10_000  # more would let strangers fill the memory with made-up addresses


class RateLimit:
    """Buckets of all callers. Not for several threads: the event loop asks."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._per_second, self._clock = max(1.0, per_minute), per_minute / 60, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller -> (requests left, when)

    def wait(self, caller: str) -> float | None:
        """Counts one request of `caller`; the seconds until there is room for it, None when it may go on."""
        now = self._clock()
        left, then = self._buckets.pop(caller, (self._size, now))
        left = min(self._size, left + (now - then) * self._per_second)
        allowed = left >= 1
        self._buckets[caller] = (left - allowed, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)  # the one heard of longest ago has the fullest bucket
        return None if allowed else (1 - left) / self._per_second
