"""A shuffled order of any number of records that needs no table: position -> record, a permutation chosen by a key."""

from __future__ import annotations

from hashlib import blake2b

_ROUNDS = 6


def shuffled(position: int, size: int, key: str) -> int:
    """Where `position` (0..size-1) lies in the order of `key`: another number of 0..size-1, each exactly once.

    A Feistel network over the next even number of bits; results out of range are sent through again (cycle walking), which
    keeps it a permutation. Nothing is stored, so billions of records cost nothing.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mixed(f"{key}/{number}/{right}") & mask)
        position = left << half | right
        if position < size:
            return position


def _mixed(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def chance(key: str) -> float:
    """A number of 0..1 that looks random and depends on `key` alone."""
    return _mixed(key) / 2**64
