"""Rows that wait for room: every record of any length is trained, shares hold, sequences are full, and it resumes exactly."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.masking import Masker, MaskingOptions
from llada_uni.data.packing import fullest, to_batch
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.errors import UserError
from llada_uni.text.tokenizer import train_tokenizer
from llada_uni.training.language.mixture import Mixture
from llada_uni.training.language.waiting import STOCK, WaitingRows
from llada_uni.training.loop.prefetch import seeded
from tests.training.language.test_stage import build


def write_tokens(folder: Path, records: list[Record]) -> Path:
    folder.mkdir(parents=True)
    train_tokenizer(["a cat"], 400).save(folder / "tokenizer.json")
    write_shard(folder / shard_name(0), records)
    facts = {"image_token_offset": 400, "codebook_size": 16, "text_tokenizer": "", "image_tokenizer": ""}
    write_manifest(folder, [TokenShard(folder / shard_name(0))], facts)
    return folder


def a_record(context: int, text: int, codes: int, task: str = "story") -> Record:
    kinds = np.repeat(np.array([CONTEXT, TEXT, CODE, CONTEXT], np.int8), [context, text, codes, 1])
    ids = np.where(kinds == CODE, 405, 101).astype(np.int32)
    return Record(ids, kinds, task)


def drawn(folders: dict[Path, float], length: int, masking: MaskingOptions, micro_batches: int = 1) -> WaitingRows:
    data = Mixture({str(folder): share for folder, share in folders.items()}, None, length - masking.block, 0)
    data.share_out(micro_batches)
    masker = Masker(masking, 1, 2, length)
    return WaitingRows(data, lambda record, rng: masker.rows(record.ids, record.kinds, record.task, rng))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), max_size=8),
    room=st.integers(0, 60),
)
def test_the_fullest_choice_is_the_best_of_all(sizes, room):
    chosen = fullest(sizes, room)
    assert chosen == sorted(set(chosen))
    sums = (sum(size for bit, size in enumerate(sizes) if number >> bit & 1) for number in range(2 ** len(sizes)))
    assert sum(sizes[number] for number in chosen) == max(total for total in sums if total <= room)


MASKINGS = st.builds(
    MaskingOptions,
    block=st.integers(2, 40),
    objective=st.sampled_from(["two_stream", "one_block"]),
    rate_per=st.sampled_from(["block", "sample"]),
    rates=st.sampled_from([(0.0, 1.0), (0.3, 0.8), (1.0, 1.0)]),
    everything=st.sampled_from([0.0, 0.5]),
    onward=st.sampled_from([0.0, 0.4]),
    closing=st.sampled_from([0.0, 0.4]),
    complementary=st.booleans(),
    text_share=st.sampled_from([0.0, 0.5, 1.0]),
    moved=st.sampled_from([0.0, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), masking=MASKINGS, sequences=st.integers(1, 3))
def test_every_record_of_any_length_and_mask_setting_trains(tmp_path_factory, data, masking, sequences):
    """Records up to the longest that the reader accepts; no batch is empty, nothing fails, and no row is lost."""
    length = masking.block + data.draw(st.integers(4, 200))
    longest = length - masking.block
    records = []
    for _ in range(data.draw(st.integers(1, 6))):
        learned = data.draw(st.integers(1, longest - 1))
        text = data.draw(st.integers(0, learned))
        context = data.draw(st.integers(0, longest - 1 - learned))
        records.append(a_record(context, text, learned - text))
    waiting = drawn({write_tokens(tmp_path_factory.mktemp("t") / "tokens", records): 1.0}, length, masking)
    made, used = Counter(), Counter()
    to_rows = waiting.to_rows

    def counted(record, rng):
        rows = to_rows(record, rng)
        made.update(id(row) for row in rows)
        kept.extend(rows)
        return rows

    kept: list = []
    waiting.to_rows = counted
    for step in range(8):
        members = waiting.fill(0, sequences, length, random.Random(step))
        used.update(id(row) for rows in members for row in rows)
        batch = to_batch(members, length, 0)
        assert batch.ids.shape == (sequences, length)
        assert all((one >= 0).any() for one in batch.targets)
    left = [id(waiting.row) for waiting in waiting._stocks[0]]
    assert made == used + Counter(left)  # each row once: trained, or still waiting
    assert len(left) < STOCK + len(kept)


def test_the_records_of_the_repro_train(tmp_path):
    """136 tokens in sequences of 256: two rows, which never fit into one sequence, used to end the run for good."""
    folder = write_tokens(tmp_path / "tokens", [a_record(8, 0, 127) for _ in range(5)])
    stage = build(folder, samples=None, sequences=1, length=256, masking=MaskingOptions(rates=(0.3, 0.8)))
    stage.begin(1)
    for step in range(6):
        loss = stage.loss(stage.batch(step, 0, seeded(0, step, 0)))
        assert loss.weight > 0 and loss.total.item() > 0


def test_shares_hold_and_sequences_are_full(tmp_path):
    """Long records do not lose to short ones: one of each of two folders, although the long take four times the room."""
    rng = random.Random(0)
    long = write_tokens(tmp_path / "long", [a_record(10, 0, rng.randint(90, 150), "long") for _ in range(40)])
    short = write_tokens(tmp_path / "short", [a_record(3, 0, rng.randint(8, 40), "short") for _ in range(40)])
    waiting = drawn({long: 0.5, short: 0.5}, 512, MaskingOptions(objective="one_block"))
    counts, filled = Counter(), []
    for step in range(60):
        members = waiting.fill(0, 2, 512, random.Random(step))
        counts.update(row.task for rows in members for row in rows)
        filled += [sum(map(len, rows)) / 512 for rows in members]
    assert counts["long"] / counts.total() == pytest.approx(0.5, abs=0.01 + STOCK / counts.total() / 2)
    assert waiting.data.readers[str(long)].drawn(0) - waiting.data.readers[str(short)].drawn(0) in (-1, 0, 1)
    assert sum(filled) / len(filled) > 0.95


@pytest.mark.parametrize("objective", ["two_stream", "one_block"])
def test_what_waits_is_part_of_the_state(tmp_path, objective):
    """A resumed run gets the same rows, whoever works on which micro-batch, also with records that are half used."""
    rng = random.Random(1)
    folder = write_tokens(tmp_path / "tokens", [a_record(5, rng.randint(1, 30), rng.randint(0, 120)) for _ in range(30)])
    masking = MaskingOptions(block=16, objective=objective, complementary=True)
    first, second = (drawn({folder: 1.0}, 256, masking, micro_batches=2) for _ in range(2))
    for step in range(3):
        first.fill(1, 2, 256, random.Random(step))
    readers, state = json.loads(json.dumps([first.data.state(1), first.state(1)]))
    second.data.load_state(1, readers)
    second.load_state(1, state)
    for step in range(3, 6):
        mine, theirs = (one.fill(1, 2, 256, random.Random(step)) for one in (first, second))
        for a, b in zip(chain(*mine), chain(*theirs), strict=True):
            assert (a.ids == b.ids).all() and (a.targets == b.targets).all() and (a.rates == b.rates).all()


def test_records_in_which_nothing_is_learned_are_counted_and_left_out(tmp_path):
    blank = Record(np.full(5, 101, np.int32), np.zeros(5, np.int8), "story")
    waiting = drawn({write_tokens(tmp_path / "some", [blank, a_record(2, 3, 0), blank]): 1.0}, 64, MaskingOptions(block=8))
    with pytest.warns(UserWarning, match="nothing that is learned"):
        waiting.fill(0, 1, 64, random.Random(0))
    assert next(iter(waiting.data.readers.values())).dropped
    alone = drawn({write_tokens(tmp_path / "none", [blank]): 1.0}, 64, MaskingOptions(block=8))
    with pytest.warns(UserWarning), pytest.raises(UserError, match="no record of the task 'story' can be used"):
        alone.fill(0, 1, 64, random.Random(0))
