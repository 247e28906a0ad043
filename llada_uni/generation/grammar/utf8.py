"""An automaton over characters -> one over the bytes of their UTF-8.

The characters of an automaton fall into kinds; one of them may be "all others". A character of several bytes is read byte by
byte through states of its own: as one of the named characters as long as it may become one, else as any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEAD = -1
SECOND = {0xE0: (0xA0, 0xC0), 0xED: (0x80, 0xA0), 0xF0: (0x90, 0xC0), 0xF4: (0x80, 0x90)}  # narrower ranges behind a first byte
Inside = tuple[int, bytes] | tuple[int, int, int, int]  # (state, what was read), or (target, bytes left, range of the next)


def over_bytes(
    rows: Sequence[Sequence[tuple[int, int]]], final: Sequence[int], kinds: Sequence[tuple[int, Sequence[str | None]]]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(next [S, 256] with DEAD for no way, final [S]); state 0 is the first.

    rows: of each state, (kind, the state behind it); kinds: (kind, its characters, None for all that are not named).
    """
    named = {letter: kind for kind, letters in kinds for letter in letters if letter is not None}
    others = next((kind for kind, letters in kinds if None in letters), None)
    wide = {letter.encode("utf-8", "surrogatepass"): kind for letter, kind in named.items() if ord(letter) > 0x7F}
    begun = {word[:size] for word in wide for size in range(1, len(word))}
    steps = [dict(row) for row in rows]
    narrow = [named.get(chr(byte), others) for byte in range(0x80)]

    keys: dict[Inside, int] = {}
    table = [np.full(256, DEAD, np.int32) for _ in rows]

    def number(key: Inside) -> int:
        if key not in keys:
            keys[key] = len(table)
            table.append(np.full(256, DEAD, np.int32))
            waiting.append(key)
        return keys[key]

    def read(state: int, before: bytes, row: NDArray[np.int32]) -> None:
        """Fill the row of a state behind the first bytes of a character."""
        rest = steps[state].get(others) if others is not None else None
        low, high = _range(before)
        for byte in range(low, high):
            word = before + bytes([byte])
            left = _length(word[0]) - len(word)
            if word in begun:
                row[byte] = number((state, word))
            elif left == 0 and word in wide:
                row[byte] = steps[state].get(wide[word], DEAD)
            elif rest is not None:
                row[byte] = rest if left == 0 else number((rest, left, *_range(word)))

    waiting: list[Inside] = []
    for state in range(len(rows)):
        table[state][:0x80] = [DEAD if kind is None else steps[state].get(kind, DEAD) for kind in narrow]
        read(state, b"", table[state])
    while waiting:
        key = waiting.pop()
        row = table[keys[key]]
        if len(key) == 2:
            read(key[0], key[1], row)
        else:
            target, left, low, high = key
            row[low:high] = target if left == 1 else number((target, left - 1, 0x80, 0xC0))
    return np.stack(table), np.isin(np.arange(len(table)), final)


def _length(first: int) -> int:
    """Bytes of a character, by its first one."""
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def _range(before: bytes) -> tuple[int, int]:
    """Bytes that may follow the first ones of a character: [low, high)."""
    if not before:
        return 0xC2, 0xF5
    return SECOND.get(before[0], (0x80, 0xC0)) if len(before) == 1 else (0x80, 0xC0)
