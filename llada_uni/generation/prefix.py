"""Keys and values of prompts that were computed before: shared by every request that begins with the same tokens.

Under block-causal attention a block depends on itself and on what stands before it, so a block that lies fully inside
a prompt has the same keys and values in every sequence that begins with the same tokens and has its borders at the
same places. Entries form chains: one block, under the entry of all blocks before it. The least recently used ones
leave when the memory is full; the end of a chain leaves before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor

from llada_uni.generation.stream import Branch


@dataclass
class _Entry:
    number: int  # of this entry, never used again
    keys: Tensor  # [layers, 1, H, block, d]
    values: Tensor
    confidence: Tensor | None  # [block], where SPRINT asked for it

    @property
    def bytes(self) -> int:
        tensors = (self.keys, self.values, self.confidence)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)


class PrefixCache:
    """Blocks of prompts, at most `limit` bytes of them; 0 keeps none. `hits`: blocks that need not be computed again."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes, self.hits = limit, 0, 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()  # least recently used first
        self._numbers = 0

    def load(self, branch: Branch, block_length: int) -> Hashable | None:
        """Fill the cache of a new branch with the blocks that are known.

        Returns the key of the first block of its prompt that is not, None when there is none.
        """
        parent, used = 0, []
        missing = None
        for begin, end in self._blocks(branch, block_length):
            key = self._key(branch, block_length, parent, begin, end)
            entry = self._entries.get(key)
            if entry is None or (branch.confidence is not None and entry.confidence is None):
                missing = key
                break
            branch.cache.keys[:, :, :, begin:end] = entry.keys
            branch.cache.values[:, :, :, begin:end] = entry.values
            if branch.confidence is not None:
                branch.take_confidence(entry.confidence, end)
            branch.cache.advance(end - begin)
            parent = entry.number
            used.append(key)
        self.hits += len(used)
        self._touch(used)
        return missing

    def store(self, branch: Branch, block_length: int) -> None:
        """Keep the blocks of the prompt of a branch whose first forward is done."""
        parent, used = 0, []
        for begin, end in self._blocks(branch, block_length):
            key = self._key(branch, block_length, parent, begin, end)
            entry = self._entries.get(key)
            if entry is None:
                self._numbers += 1
                keys, values = (t[:, :, :, begin:end].clone() for t in (branch.cache.keys, branch.cache.values))
                entry = _Entry(self._numbers, keys, values, None)
                self._entries[key] = entry
                self.bytes += entry.bytes
            if branch.confidence is not None and entry.confidence is None:
                entry.confidence = branch.confidence[begin:end].clone()
                self.bytes += entry.confidence.numel() * entry.confidence.element_size()
            parent = entry.number
            used.append(key)
        self._touch(used)
        while self.bytes > self.limit:
            self.bytes -= self._entries.popitem(last=False)[1].bytes

    def _blocks(self, branch: Branch, block_length: int) -> Iterator[tuple[int, int]]:
        """(first place, place after the last) of every block, whole or cut by the beginning, inside the prompt."""
        begin, end = 0, block_length - branch.shift % block_length
        while end <= len(branch.prompt) and self.limit > 0:
            yield begin, end
            begin, end = end, end + block_length

    @staticmethod
    def _key(branch: Branch, block_length: int, parent: int, begin: int, end: int) -> Hashable:
        """A block under its parent. At the beginning its length says where the borders are; then it is block_length."""
        return (block_length, parent, branch.prompt[begin:end])

    def _touch(self, chain: list[Hashable]) -> None:
        for key in reversed(chain):
            self._entries.move_to_end(key)
