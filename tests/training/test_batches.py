"""Noising and packing: which places are masked, what may attend to what, and that opposite masks cover everything."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from llada_uni.backbone.model import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.training import batches
from llada_uni.training.batches import CODE, CONTEXT, TEXT, Masker, Row, pack

MASK, EOS, BLOCK = 250, 1, 8


@pytest.fixture(autouse=True)
def _borders_stay(monkeypatch, request):
    if "moved" not in request.node.name:
        monkeypatch.setattr(batches, "_MOVED_SHARE", 0.0)


def _record(context: int, text: int, code: int) -> tuple[np.ndarray, np.ndarray]:
    kinds = [CONTEXT] * context + [TEXT] * text + [CODE] * code + [CONTEXT] * bool(code)
    return np.arange(10, 10 + len(kinds)).astype(np.int16), np.array(kinds, np.int8)


def test_drawing_masks_codes_only_and_ends_with_the_image():
    ids, kinds = _record(context=5, text=0, code=8)
    masker = Masker(BLOCK, MASK, EOS)
    for seed in range(200):
        for row in masker.rows(ids, kinds, random.Random(seed)):
            masked = np.flatnonzero(row.ids == MASK)
            assert len(row.ids) in (8, 13)  # end of the first block, or end of the image
            block = len(row.ids) - 1 - (len(row.ids) - 1) % BLOCK
            assert set(masked) <= set(range(max(5, block), len(row.ids)))
            assert (row.targets[masked] == ids[masked]).all() and (np.delete(row.targets, masked) == -1).all()


def test_opposite_masks_cover_every_open_place_once():
    ids, kinds = _record(context=3, text=4, code=0)
    masker = Masker(BLOCK, MASK, EOS)
    pairs = 0
    for seed in range(100):
        rows = masker.rows(ids, kinds, random.Random(seed))
        learnt = np.sort(np.concatenate([np.flatnonzero(r.targets >= 0) for r in rows]))
        assert learnt.tolist() == [3, 4, 5, 6, 7]  # four words and one end of text that fills the block
        pairs += len(rows) == 2
    assert pairs > 40


def test_writing_fills_the_block_with_end_of_text_that_counts_little():
    ids, kinds = _record(context=2, text=3, code=0)
    row = next(
        r
        for seed in range(100)
        for r in Masker(BLOCK, MASK, EOS).rows(ids, kinds, random.Random(seed))
        if (r.targets >= 0).sum() == 6
    )
    assert row.targets[5:].tolist() == [EOS] * 3
    assert np.allclose(row.weights[5:] / row.weights[0], 0.05)


def test_a_row_counts_by_the_root_of_its_masked_places():
    ids, kinds = _record(context=0, text=0, code=8)
    for seed in range(50):
        for row in Masker(BLOCK, MASK, EOS).rows(ids, kinds, random.Random(seed)):
            masked = row.targets >= 0
            assert row.weights[masked].sum() == pytest.approx(masked.sum() ** 0.5, rel=1e-5)


def test_what_follows_a_whole_image_in_the_block_is_masked_and_not_learnt():
    # 2 given, 2 words, 2 codes, end mark, 1 word: all in one block
    kinds = np.array([0, 0, TEXT, TEXT, CODE, CODE, CONTEXT, TEXT], np.int8)
    ids = np.arange(10, 18).astype(np.int16)
    seen = 0
    for seed in range(300):
        for row in Masker(BLOCK, MASK, EOS).rows(ids, kinds, random.Random(seed)):
            if len(row.ids) == BLOCK and (row.targets[2:4] >= 0).any():
                assert (row.ids[6:] == MASK).all() and (row.targets[6:] == -1).all()
                seen += 1
    assert seen > 20


def _row(length: int, start: int) -> Row:
    ids = np.arange(start, start + length, dtype=np.int64)
    return Row(ids, np.where(ids % 2 == 0, ids, -1), np.ones(length, np.float32))


def test_packing_keeps_attention_inside_a_sample_and_block_causal():
    batch = pack([_row(12, 100), _row(5, 200), _row(9, 300)], length=24, block=BLOCK, pad_id=0)
    assert batch.ids.shape == (2, 24)
    for s in range(2):
        ids, positions, may = batch.ids[s], batch.positions[s], batch.attention[s, 0]
        for q in range(24):
            for k in range(24):
                same = ids[q] // 100 == ids[k] // 100
                if ids[q] and ids[k]:
                    assert bool(may[q, k]) == bool(same and positions[q] // BLOCK >= positions[k] // BLOCK)
                elif bool(ids[q]) != bool(ids[k]):
                    assert not may[q, k]
        assert may.any(-1).all()  # no place without anything to attend to
    assert sorted(batch.ids[batch.ids > 0].tolist()) == [*range(100, 112), *range(200, 205), *range(300, 309)]


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="30 places"):
        pack([_row(30, 0)], length=24, block=BLOCK, pad_id=0)


def test_packed_rows_give_the_same_logits_as_each_row_alone(golden):
    config = BackboneConfig.from_json(golden / "backbone" / "config.json")
    model = Backbone(config).eval()
    rows = [_row(12, 20), _row(5, 60), _row(17, 90)]
    batch = pack(rows, length=24, block=BLOCK, pad_id=0)
    with torch.no_grad():
        packed = model(batch.ids, position_ids=batch.positions, attention_mask=batch.attention)
        for row in rows:
            one = pack([row], len(row.ids), BLOCK, 0)
            alone = model(one.ids, position_ids=one.positions, attention_mask=one.attention)[0]
            s, start = (batch.ids == int(row.ids[0])).nonzero()[0].tolist()
            assert torch.allclose(packed[s, start : start + len(row.ids)], alone, atol=1e-5)


def test_moved_borders_end_rows_elsewhere_and_move_attention(monkeypatch):
    monkeypatch.setattr(batches, "_MOVED_SHARE", 1.0)
    ids, kinds = _record(context=5, text=0, code=12)
    ends = set()
    for seed in range(200):
        for row in Masker(BLOCK, MASK, EOS).rows(ids, kinds, random.Random(seed)):
            last = len(row.ids) - 1
            assert last == 16 or (last + 1 + row.shift) % BLOCK == 0
            block = (np.arange(len(row.ids)) + row.shift) // BLOCK
            assert (block[row.targets >= 0] == block[last]).all()
            may = pack([row], len(row.ids), BLOCK, 0).attention[0, 0].numpy()
            assert (may == (block[:, None] >= block[None, :])).all()
            ends.add(last)
    assert len(ends) > 4
