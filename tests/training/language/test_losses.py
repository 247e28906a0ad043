"""The losses: two streams are the sum over blocks of the plain loss; weights equal those by hand; rare tokens weigh more."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal_square
from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.masking import Masker, MaskingOptions, Row
from llada_uni.data.packing import pack
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.training.language.losses import (
    LARGEST_WEIGHT,
    chunked_cross_entropy,
    cross_entropy,
    frequencies,
    frequency_weights,
    masked_positions,
    weigh,
)
from tests.backbone.helpers import small_config
from tests.data.test_masking import BLOCK, EOS, MASK, story


def _plain_loss(model: Backbone, record: np.ndarray, row: Row, view: int) -> torch.Tensor:
    """Summed loss of one block by definition: the record up to the block, the block noised, block-causal attention."""
    here = row.views == view
    start = row.positions[here][0]
    ids = torch.tensor(np.concatenate([record[:start], row.ids[here]]), dtype=torch.int64)[None]
    logits = model(ids, attention_mask=block_causal_square(ids.shape[1], BLOCK))[0, start:]
    targets, weights = torch.tensor(row.targets[here]), torch.tensor(row.weights[here])
    return (F.cross_entropy(logits, targets, ignore_index=-1, reduction="none") * weights).sum()


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_two_streams_equal_the_sum_over_blocks_of_the_plain_loss(seed):
    model, rng = Backbone(small_config()).double().eval(), random.Random(seed)
    masker = Masker(MaskingOptions(block=BLOCK, complementary=seed % 2 == 1), MASK, EOS, 300)
    pairs = []
    for _ in range(6):
        ids, kinds = story(rng, pictures=rng.randrange(3))
        pairs += [(ids, row) for row in masker.rows(ids, kinds, "story", rng)]
    batch = pack([row for _, row in pairs], 300, pad_id=0)
    places = masked_positions(batch)
    logits = model(batch.ids, batch.positions, batch.mask(), logits_at=places)
    losses, _ = cross_entropy(logits, batch.targets.flatten()[places])
    total = (losses * weigh(batch, places, "none")[0]).sum()
    views = [(ids, row, view) for ids, row in pairs for view in sorted({*row.views.tolist()} - {0})]
    assert len(views) > len(pairs)
    assert total.item() == pytest.approx(sum(_plain_loss(model, *view).item() for view in views), abs=1e-5)


def _row(targets: list[int], weights: list[float], rates: list[float], learnable: float) -> Row:
    zeros, copies = np.zeros((2, len(targets)), np.int64)
    floats = (np.array(values, np.float32) for values in (weights, rates))
    return Row(zeros, zeros, zeros, zeros, copies, np.array(targets), *floats, learnable, "t")


def _weights(rows: list[Row], scheme: str) -> tuple[list[float], float]:
    batch = pack(rows, 16, 0)
    weights, divisor = weigh(batch, masked_positions(batch), scheme)
    return weights.tolist(), divisor.item()


def test_weights_by_hand():
    # A picture with 4 of 8 places masked at rate 1/2, and a word with 1 of 2 masked at 1/4 with one place of filling.
    rows = [
        _row([5, 5, 5, 5, -1, -1, -1, -1], [1, 1, 1, 1, 0, 0, 0, 0], [0.5] * 8, 8.0),
        _row([7, 3, -1], [1, 0.05, 0], [0.25] * 3, 2.05),
    ]
    weights, divisor = _weights(rows, "none")
    assert weights == pytest.approx([1, 1, 1, 1, 1, 0.05]) and divisor == pytest.approx(5.05)
    weights, divisor = _weights(rows, "linear")  # 1 / t each, over all places that could have been masked
    assert weights == pytest.approx([2, 2, 2, 2, 4, 0.2]) and divisor == pytest.approx(10.05)
    # b = 1 / sqrt(4) and 1 / sqrt(1.05)
    weights, divisor = _weights(rows, "inverse_root")
    assert weights == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.975900, 0.048795], abs=1e-5)
    assert divisor == pytest.approx(1.475900, abs=1e-5)


def test_re_weighting_by_hand():
    """sum_j b_j L_j / sum_j b_j with L = (8, 3) and 4 and 1 masked places: (8 / 2 + 3) / (1 / 2 + 1) = 14 / 3."""
    rows = [_row([1] * 4, [1] * 4, [1] * 4, 4.0), _row([1], [1], [1], 1.0)]
    weights, divisor = _weights(rows, "inverse_root")
    losses = [2.0, 2.0, 2.0, 2.0, 3.0]
    assert sum(w * loss for w, loss in zip(weights, losses, strict=True)) / divisor == pytest.approx(14 / 3)


def test_opposite_masks_are_two_samples():
    """In one row: a copy with 4 masked places and one with 1, so b = (1 / 2, 1)."""
    row = _row([1] * 4 + [-1] * 4 + [1], [1] * 9, [1] * 9, 5.0)
    row.copies[4:] = 1
    weights, divisor = _weights([row], "inverse_root")
    assert weights == [0.5] * 4 + [1.0] and divisor == 1.5


def test_the_linear_weight_makes_every_place_count_once_on_average():
    rng = random.Random(0)
    masker = Masker(MaskingOptions(block=BLOCK, rates=(0.2, 1.0), text_share=0.0), MASK, EOS, 400)
    ids, kinds = story(rng, pictures=3)
    weights, divisors = 0.0, 0.0
    for _ in range(800):
        batch = pack(masker.rows(ids, kinds, "story", rng), 400, 0)
        some, divisor = weigh(batch, masked_positions(batch), "linear")
        weights, divisors = weights + some.sum().item(), divisors + divisor.item()
    assert weights / divisors == pytest.approx(1.0, abs=0.05)


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="unknown weighting"):
        _weights([_row([1], [1], [1], 1.0)], "root")


def test_chunks_change_nothing():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(23, 8, generator=generator, requires_grad=True)
    head = torch.randn(8, 40, generator=generator, requires_grad=True)
    targets = torch.randint(0, 40, (23,), generator=generator)
    found = []
    for chunk in (1000, 5):
        losses, right = chunked_cross_entropy(hidden, targets, lambda states: states @ head, chunk)
        found.append((losses, right, *torch.autograd.grad(losses.sum(), (hidden, head))))
    for whole, parts in zip(*found, strict=True):
        assert torch.allclose(whole.float(), parts.float(), atol=1e-5)


def test_kinds_of_the_record_say_what_is_learned():
    ids, kinds = story(random.Random(1))
    for share, kind in ((0.0, CODE), (1.0, TEXT)):
        masker = Masker(MaskingOptions(block=BLOCK, text_share=share, everything=1.0), MASK, EOS, 400)
        (row,) = masker.rows(ids, kinds, "story", random.Random(0))
        assert ((row.targets >= 0) & (row.weights == 1)).sum() == (kinds == kind).sum()


# --- token weighting by frequency ---

FACTS = {"image_token_offset": 7, "codebook_size": 3, "text_tokenizer": "", "image_tokenizer": ""}


@pytest.fixture
def folder(tmp_path):
    """Learned: 5 six times, 7 twice, 9 once; 1 and 9 are also given, which counts for nothing."""
    ids = np.array([1, 9, 9, 5, 5, 5, 5, 5, 5, 7, 7, 9], dtype=np.int32)
    kinds = np.array([CONTEXT] * 3 + [TEXT] * 6 + [CODE] * 3, dtype=np.int8)
    path = tmp_path / shard_name(0)
    write_shard(path, [Record(ids, kinds, "t2i")])
    write_manifest(tmp_path, [TokenShard(path)], FACTS)
    return tmp_path


def test_frequencies_are_of_what_is_learned(folder):
    expected = torch.zeros(10, dtype=torch.float64)
    expected[5], expected[7], expected[9] = 6 / 9, 2 / 9, 1 / 9
    torch.testing.assert_close(frequencies({str(folder): 2.0}, 10), expected)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_are_powers_with_mean_one(folder, power):
    weights = frequency_weights({str(folder): 1.0}, 10, power)
    torch.testing.assert_close(weights[9] / weights[5], torch.tensor(6.0**power))
    torch.testing.assert_close((weights.double() * frequencies({str(folder): 1.0}, 10)).sum().item(), 1.0)
    assert weights[0] == 1, "a token that is never learned"


def test_no_weight_is_beyond_the_largest(tmp_path):
    ids = np.array([5] * 3000 + [6], dtype=np.int32)
    path = tmp_path / shard_name(0)
    write_shard(path, [Record(ids, np.full(len(ids), TEXT, dtype=np.int8), "text")])
    write_manifest(tmp_path, [TokenShard(path)], FACTS)
    assert frequency_weights({str(tmp_path): 1.0}, 10, 1.0)[6] == LARGEST_WEIGHT
