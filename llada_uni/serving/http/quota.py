"""How much each key may have a day: requests, tokens and images. A day begins at midnight, UTC; a new server counts from 0.

A request of a key that has used up its share is refused with 429 (`insufficient_quota`) before it is read. Tokens and images
count when an answer is whole, so the answers under way at that moment may exceed the share.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from llada_uni.errors import UserError
from llada_uni.results import Usage

DAY = 86_400  # seconds
EVERY_KEY = ""  # of quotas by key: that of the keys without one of their own


@dataclass(frozen=True)
class Quota:
    """A day's share of one key; None: as much as it likes."""

    requests: int | None = None
    tokens: int | None = None
    images: int | None = None


KINDS = tuple(field.name for field in fields(Quota))


def read_quotas(given: Iterable[str]) -> dict[str, Quota]:
    """ "requests=1000,images=50" for every key, "2:tokens=9000" for the second one, as the gate names it -> quotas by key.

    UserError for anything else.
    """
    quotas: dict[str, Quota] = {}
    for words in given:
        found = re.fullmatch(r"(?:([1-9][0-9]{0,5}):)?(.+)", words.replace(" ", ""))
        shares = re.findall(r"([a-z]+)=([0-9]{1,15})(?:,|$)", found[2]) if found else []
        if (
            not found
            or ",".join(f"{kind}={most}" for kind, most in shares) != found[2]
            or not {kind for kind, _ in shares} <= set(KINDS)
        ):
            raise UserError(f"--quota is {words!r}; it must be like requests=1000,tokens=200000,images=50 or 2:images=10")
        key = f"key {found[1]}" if found[1] else EVERY_KEY
        if key in quotas or len({kind for kind, _ in shares}) < len(shares):
            raise UserError(f"--quota {words!r} says something that was said before")
        quotas[key] = Quota(**{kind: int(most) for kind, most in shares})
    return quotas


class Quotas:
    """What keys have used today. of: quotas by key; now: seconds since 1970. Not for several threads: the event loop asks."""

    def __init__(self, of: Mapping[str, Quota], now: Callable[[], float] = time.time) -> None:
        self._of, self._now = dict(of), now
        self._day, self._used = 0, dict[str, dict[str, int]]()

    def refusal(self, owner: str) -> tuple[str, int] | None:
        """Counts a request of a key; or (what it has used up, seconds until it may ask again)."""
        quota = self._of.get(owner, self._of.get(EVERY_KEY))
        if quota is None:
            return None
        used = self._used_by(owner)
        for kind in KINDS:
            most = getattr(quota, kind)
            if most is not None and used[kind] >= most:
                return f"{most} {kind} a day", DAY - int(self._now()) % DAY
        used["requests"] += 1
        return None

    def charge(self, owner: str, usage: Usage) -> None:
        """Counts what an answer took."""
        if self._of:
            used = self._used_by(owner)
            used["tokens"] += usage.total_tokens
            used["images"] += usage.images

    def _used_by(self, owner: str) -> dict[str, int]:
        day = int(self._now()) // DAY
        if day != self._day:
            self._day, self._used = day, {}
        return self._used.setdefault(owner, dict.fromkeys(KINDS, 0))
