"""Token records from several folders, mixed by shares, with a position for every micro-batch.

Folders of token shards -> one reader each (data/reader.py) -> `draw(micro_batch, rng)` -> one record.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llada_uni.data.reader import Drawn, Part, TokenReader
from llada_uni.data.shards import Record, read_manifest
from llada_uni.errors import UserError


class Mixture:
    """Draws from folders by their shares; inside a folder by the weights of its tasks.

    folders: folder -> share. part: of their records. tasks: task -> weight, used in every folder for the tasks it has (None: by
    numbers of records).
    UserError when the folders do not fit together, or when no folder has one of the tasks.
    """

    def __init__(
        self,
        folders: Mapping[str, float],
        tasks: Mapping[str, float] | None,
        longest: int,
        seed: int,
        part: Part = Part(),  # noqa: B008  # never changed
    ) -> None:
        if not folders or any(share <= 0 for share in folders.values()):
            raise UserError(f"data is {dict(folders)}; allowed: at least one folder, each with a share above 0")
        has = {folder: read_manifest(Path(folder))["tasks"] for folder in folders}
        unknown = set(tasks or ()).difference(*has.values())
        if unknown:
            known = sorted(set().union(*has.values()))
            raise UserError(f"no folder has the task {', '.join(sorted(unknown))}; allowed: {', '.join(known)}")

        def weights(folder: str) -> dict[str, float] | None:
            return None if tasks is None else {task: weight for task, weight in tasks.items() if task in has[folder]}

        self.shares = list(folders.values())
        self.readers = {folder: TokenReader(folder, weights(folder), longest, seed, part=part) for folder in folders}
        first = next(iter(self.readers.values()))
        for name in ("image_token_offset", "codebook_size"):
            found = {getattr(reader, name) for reader in self.readers.values()}
            if len(found) > 1:
                raise UserError(f"the data folders have different {name}: {', '.join(map(str, sorted(found)))}")
        self.text, self.image_token_offset, self.codebook_size = first.text, first.image_token_offset, first.codebook_size

    def share_out(self, micro_batches: int) -> None:
        """Lets the records of each folder be shared out to so many micro-batches of a step (at first: one)."""
        for reader in self.readers.values():
            reader.micro_batches = micro_batches

    def draw(self, micro_batch: int, rng: random.Random) -> Record:
        """The next record of a micro-batch; `rng` chooses the folder."""
        reader = rng.choices(list(self.readers.values()), self.shares)[0]
        return reader.draw(micro_batch)

    def take_even(self, micro_batch: int) -> tuple[str, Drawn]:
        """The next record of a micro-batch with its folder: that which is furthest behind its share, so that shares hold
        exactly, whatever becomes of the records; `again` reads it again."""
        counts = {folder: reader.drawn(micro_batch) for folder, reader in self.readers.items()}
        ahead, total = sum(counts.values()) + 1, sum(self.shares)
        wanted = {folder: share / total * ahead for folder, share in zip(self.readers, self.shares, strict=True)}
        folder = max(self.readers, key=lambda name: wanted[name] - counts[name])
        return folder, self.readers[folder].take(micro_batch)

    def again(self, folder: str, micro_batch: int, task: str, turn: int) -> Record:
        """A record that `take_even` has given."""
        return self.readers[folder].again(micro_batch, task, turn)

    def state(self, micro_batch: int) -> dict[str, Any]:
        """Where a micro-batch stands in each folder."""
        return {folder: reader.state(micro_batch) for folder, reader in self.readers.items()}

    def load_state(self, micro_batch: int, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken; UserError when there are other folders now."""
        if set(state) != set(self.readers):
            raise UserError(f"the checkpoint was made with the data {', '.join(state)}; now it is {', '.join(self.readers)}")
        for folder, reader in self.readers.items():
            reader.load_state(micro_batch, state[folder])

    def share_again(self, states: Sequence[Mapping[str, Any]], micro_batches: int) -> dict[str, Any]:
        """A state for each of `micro_batches` micro-batches that goes on about where `states` were (TokenReader.share_again);
        folders that are new begin."""
        return {
            folder: reader.share_again([state[folder] for state in states if folder in state], micro_batches)
            for folder, reader in self.readers.items()
        }
