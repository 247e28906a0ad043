"""Shares of a dataset by name: which part an item belongs to depends on its key alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llada_uni.data.order import chance
from llada_uni.errors import UserError


def parse_splits(texts: Sequence[str]) -> dict[str, float]:
    """{"train": 0.96, "held": 0.04} of ["train=0.96", "held=0.04"]; {} of none. UserError unless the shares add up to 1."""
    splits: dict[str, float] = {}
    for text in texts:
        name, _, share = text.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not name.isidentifier() or not 0 < value <= 1 or name in splits:
            raise UserError(f"the split {text!r} is not understood; allowed: NAME=SHARE with a share up to 1, each name once")
        splits[name] = value
    if splits and abs(sum(splits.values()) - 1) > 1e-6:
        raise UserError(f"the shares of the splits add up to {sum(splits.values()):g}; allowed: 1 together")
    return splits


def split_of(key: str, splits: Mapping[str, float], seed: int = 0) -> str:
    """The split of the item with this key, "" without splits. The same key is always in the same one."""
    at, name = chance(f"split/{seed}/{key}"), ""
    for name, share in splits.items():
        if at < share:
            return name
        at -= share
    return name
