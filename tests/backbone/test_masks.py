"""The training mask in its three forms: the rule place by place, the dense mask, FlexAttention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llada_uni.backbone import Backbone
from llada_uni.backbone.attention import attend
from llada_uni.backbone.masks import Places, packed, packed_flex, two_stream
from tests.backbone.helpers import small_config

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def _random_places(generator: torch.Generator, rows: int, length: int) -> Places:
    """Samples of random lengths; in each, clean places of a few blocks and then copies of some blocks; padding behind."""
    out = Places(*(torch.zeros(rows, length, dtype=torch.int64) for _ in range(3)))

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for row in range(rows):
        at = sample = 0
        while length - at > 40:
            blocks = draw(1, 4)
            pieces = [(block, 0) for block in range(blocks)] + [(draw(0, blocks), view) for view in range(1, draw(2, 4))]
            for block, view in pieces:
                size = draw(1, 7)
                here = (row, slice(at, at + size))
                out.segments[here], out.blocks[here], out.views[here] = sample, block, view
                at += size
            sample += 1
        out.segments[row, at:] = -1
    return out


def test_the_dense_mask_by_definition():
    places = _random_places(torch.Generator().manual_seed(0), 2, 70)
    mask = packed(places)
    assert mask.shape == (2, 1, 70, 70)
    assert mask.any(-1).all()  # no place without anything to attend to
    segments, blocks, views = (part.tolist() for part in places)
    for row in range(2):
        for q in range(70):
            for k in range(70):
                together = segments[row][q] == segments[row][k]
                earlier = views[row][k] == 0 and blocks[row][k] < blocks[row][q]
                own = views[row][k] == views[row][q] and blocks[row][k] == blocks[row][q]
                assert mask[row, 0, q, k] == (together and (earlier or own))


def test_two_streams_are_a_special_case():
    positions = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2]).repeat(2)
    segments = torch.tensor([0] * 6 + [1] * 3).repeat(2)
    blocks = positions // 2
    views = torch.cat((blocks[:9] + 1, torch.zeros(9, dtype=torch.int64)))  # every block has one noised copy
    mask = packed(Places(segments[None], blocks[None], views[None]))
    assert torch.equal(mask[0, 0], two_stream(positions[:9], 2, segments[:9]))


def test_flex_attention_equals_the_dense_mask():
    generator = torch.Generator().manual_seed(1)
    places = _random_places(generator, 2, 200)  # not a multiple of its tiles
    queries = torch.randn(2, 4, 200, 16, generator=generator)
    keys, values = torch.randn(2, 2, 2, 200, 16, generator=generator)
    dense = attend(queries, keys, values, packed(places))
    flex = attend(queries, keys, values, packed_flex(places))
    assert (dense - flex).abs().max() < 1e-5
    by_hand = packed(places).float().log() + queries @ keys.repeat_interleave(2, 1).transpose(-1, -2) / 4
    assert (F.softmax(by_hand, -1) @ values.repeat_interleave(2, 1) - dense).abs().max() < 1e-5


@torch.no_grad()
def test_a_model_takes_either_mask_and_leaves_out_what_is_not_wanted():
    generator = torch.Generator().manual_seed(2)
    places = _random_places(generator, 2, 90)
    model = Backbone(small_config()).eval()
    ids = torch.randint(0, 40, (2, 90), generator=generator)
    every = model(ids, attention_mask=packed(places))
    some = torch.tensor([3, 80, 91, 179])
    for mask in (packed(places), packed_flex(places)):
        few = model(ids, attention_mask=mask, logits_at=some)
        assert (few - every.flatten(0, 1)[some]).abs().max() < 1e-5


def test_the_compiled_mask_is_built_once_per_shape(monkeypatch):
    from torch._dynamo.testing import CompileCounter

    counter, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=counter))
    generator = torch.Generator().manual_seed(5)
    torch._dynamo.reset()
    for _ in range(3):  # other samples, other lengths
        places = _random_places(generator, 2, 256)
        assert torch.equal(packed_flex(places, compiled=True).to_dense(), packed_flex(places).to_dense())
    assert counter.frame_count == 1
    for _ in range(2):
        packed_flex(_random_places(generator, 1, 384), compiled=True)
    assert counter.frame_count == 2
