"""Words as they become settled, and strings that end them.

What flows through: ids whose text no later step changes -> `SettledText.take` -> the characters that are certain to
stand in the answer. Held back are bytes of an unfinished character, spaces that may turn out to be the end (answers are
stripped), and what may be the beginning of a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence

from llada_uni.text.tokenizer import TextTokenizer

UNFINISHED = "\ufffd"  # what a tokenizer makes of bytes that are no character (yet)


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """(the text before the stop string that is complete first, stripped; whether there was one)."""
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    if not ends:
        return text.strip(), False
    return text[: min(ends)[1]].strip(), True


class SettledText:
    """One stretch of words under way. `stopped`: a stop string is complete."""

    def __init__(self, tokenizer: TextTokenizer, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops, self.stopped = tokenizer, stops, False
        self._taken = 0  # ids that are in `_raw`
        self._raw = ""  # their characters
        self._sent = 0  # characters given out so far

    def take(self, ids: Sequence[int]) -> str:
        """The new certain characters, now that `ids` (all from the beginning) are settled."""
        fresh = self.tokenizer.decode(ids[self._taken :])
        if fresh.endswith(UNFINISHED):
            return ""
        self._raw, self._taken = self._raw + fresh, len(ids)
        text, self.stopped = cut(self._raw, self.stops)
        if not self.stopped:
            text = self._raw[: len(self._raw) - self._doubtful()].strip()
        return self._send(text)

    def end(self, text: str) -> str:
        """What is missing of the finished text."""
        return self._send(text)

    def _send(self, text: str) -> str:
        new, self._sent = text[self._sent :], max(self._sent, len(text))
        return new

    def _doubtful(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        return max(
            (size for stop in self.stops for size in range(1, len(stop)) if self._raw.endswith(stop[:size])),
            default=0,
        )
