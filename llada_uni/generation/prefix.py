"""Keys and values of prompts that were computed before: shared by every request that begins with the same tokens.

Under block-causal attention a block depends on itself and on what stands before it, so a block that lies fully inside
a prompt has the same keys and values in every sequence that begins with the same tokens and has the same borders of
blocks. Entries form chains: one block, under the entry of all blocks before it. The least recently used ones
leave when the memory is full; the end of a chain leaves before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from llada_uni.generation.settings import Settings, Task
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

    def missing(self, task: Task, settings: Settings) -> set[Hashable]:
        """For every branch of a task the key of the first whole block of its prompt that is not known, if there is one."""
        prompts = [(prompt, task.shift(i)) for i, prompt in enumerate(task.prompts)]
        return {self._follow(*prompt, settings, settings.prunes is not None)[1] for prompt in prompts} - {None}

    def load(self, branch: Branch, settings: Settings) -> None:
        """Fill the cache of a new branch with the blocks that are known."""
        used, _ = self._follow(branch.prompt, branch.shift, settings, branch.confidence is not None)
        for key in used:
            entry = self._entries[key]
            begin = branch.cache.length
            end = begin + entry.keys.shape[3]
            branch.cache.keys[:, :, :, begin:end] = entry.keys
            branch.cache.values[:, :, :, begin:end] = entry.values
            if branch.confidence is not None:
                assert entry.confidence is not None  # `_follow` stops at those without
                branch.take_confidence(entry.confidence, end)
            branch.cache.advance(end - begin)
        self.hits += len(used)
        self._touch(used)

    def store(self, branch: Branch, settings: Settings) -> None:
        """Keep the blocks of the prompt of a branch whose first forward is done."""
        block_length = settings.block_length
        parent, used = _root(settings), []
        for begin, end in self._blocks(branch.prompt, branch.shift, block_length):
            key = _key(block_length, parent, branch.prompt[begin:end])
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

    def _follow(
        self, prompt: Sequence[int], shift: int, settings: Settings, measured: bool
    ) -> tuple[list[Hashable], Hashable | None]:
        """The keys of the known blocks a prompt begins with, and the key of the next one, None behind the last.

        measured: only blocks whose confidence is known too count as known.
        """
        block_length, parent = settings.block_length, _root(settings)
        known: list[Hashable] = []
        for begin, end in self._blocks(prompt, shift, block_length):
            key = _key(block_length, parent, prompt[begin:end])
            entry = self._entries.get(key)
            if entry is None or (measured and entry.confidence is None):
                return known, key
            parent = entry.number
            known.append(key)
        return known, None

    def _blocks(self, prompt: Sequence[int], shift: int, block_length: int) -> Iterator[tuple[int, int]]:
        """(first position, the one after the last) of every block, whole or cut by the beginning, inside a prompt."""
        begin, end = 0, block_length - shift % block_length
        while end <= len(prompt) and self.limit > 0:
            yield begin, end
            begin, end = end, end + block_length

    def _touch(self, chain: list[Hashable]) -> None:
        for key in reversed(chain):
            self._entries.move_to_end(key)


def _root(settings: Settings) -> int:
    """What the first block of a chain stands under, in place of an entry: what else its keys and values depend on."""
    return -(settings.block_experts or 0)


def _key(block_length: int, parent: int, tokens: Sequence[int]) -> Hashable:
    """A block under its parent. At the beginning its length says where the borders are; then it is block_length."""
    return (block_length, parent, tokens)
