"""Packing: rows side by side compute what each computes alone, and nothing of a row is lost."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.data.masking import Masker, MaskingOptions, Row
from llada_uni.data.packing import pack
from tests.backbone.helpers import small_config
from tests.data.test_masking import BLOCK, EOS, MASK, story


def _row(length: int, start: int = 0) -> Row:
    zeros = np.zeros(length, np.int64)
    ones = np.ones(length, np.float32)
    places = np.arange(length)
    return Row(places + start, places, zeros, zeros, zeros, zeros - 1, ones, ones, 1.0, f"t{start}")


def _rows(count: int, seed: int) -> list[Row]:
    rng = random.Random(seed)
    masker = Masker(MaskingOptions(block=BLOCK), MASK, EOS, 400)
    return [row for _ in range(count) for row in masker.rows(*story(rng), "story", rng)]


def test_every_row_is_in_the_batch_once():
    rows = _rows(12, 0)
    batch = pack(rows, 256, pad_id=37)
    assert max(map(len, rows)) <= batch.ids.shape[1] <= 256 and len(batch.tasks) == len(batch.learnable) == len(rows)
    found = []
    for number in range(len(rows)):
        here = batch.segments == number
        assert len({s for s, _ in here.nonzero().tolist()}) == 1
        found.append(tuple(batch.ids[here].tolist()))
    assert sorted(found) == sorted(tuple(row.ids.tolist()) for row in rows)
    empty = batch.segments == -1
    assert (batch.ids[empty] == 37).all() and (batch.targets[empty] == -1).all() and (batch.weights[empty] == 0).all()
    assert batch.mask().any(-1).all()
    assert empty.float().mean() < 0.15  # filled evenly, and no longer than the fullest sequence


def test_packed_rows_give_the_same_logits_as_each_row_alone():
    model = Backbone(small_config()).eval()
    rows = _rows(5, 1)
    batch = pack(rows, 300, pad_id=0)
    with torch.no_grad():
        packed = model(batch.ids, batch.positions, batch.mask())
        for row in rows:
            one = pack([row], len(row), 0)
            alone = model(one.ids, one.positions, one.mask())[0]
            here = next(batch.segments == n for n in range(5) if batch.ids[batch.segments == n].tolist() == row.ids.tolist())
            assert torch.allclose(packed[here], alone, atol=1e-5)


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="30 places"):
        pack([_row(30)], 24, 0)
