"""Heads that begin as look-ups: they look where they should, write where nothing reads, can be held and fitted again."""

from __future__ import annotations

import pytest
import torch

from llada_uni.backbone import Backbone, attention
from llada_uni.backbone.masks import block_causal_square
from llada_uni.errors import UserError
from llada_uni.world.training.lookups import Held, LookUpOptions, fit_lookups
from llada_uni.world.training.named_codes import begin_as_words, named_codes
from llada_uni.world.training.patch_tokenizer import MEANINGS
from tests.training.world_rows import OFFSET, backbone_config, question_rows, world_text

NEW = LookUpOptions(fit="new", hold=True)
ROWS = 500


@pytest.fixture(scope="module")
def named():
    return named_codes(world_text(), OFFSET, MEANINGS)


@pytest.fixture
def model(named) -> Backbone:
    model = Backbone(backbone_config(world_text()))
    begin_as_words(model, named, seed=1)
    return model


def looked_at(model: Backbone, monkeypatch) -> dict[int, list[tuple[int, int]]]:
    """For fresh questions and each layer: where in the picture the first look-up head looks from the word, and its code."""
    seen: list[torch.Tensor] = []

    def watched(queries, keys, values, mask):
        shared = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
        scores = (queries @ shared.transpose(2, 3)).masked_fill(~mask, -torch.inf)[0]
        seen.append(scores[3, :, :36].argmax(-1))  # heads 3 to 5 are the last group; places 0 to 35 the picture
        return plain(queries, keys, values, mask)

    plain = attention.attend
    monkeypatch.setattr(attention, "attend", watched)
    found: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    for row, word, code in zip(*question_rows(40, seed=99), strict=True):
        seen.clear()
        with torch.inference_mode():
            model(row[None], attention_mask=block_causal_square(len(row), 32))
        for layer, at in enumerate(seen):
            found[layer].append((int(at[word]), code))
    monkeypatch.undo()
    return found


def share_found(pairs: list[tuple[int, int]]) -> float:
    return sum(at == code for at, code in pairs) / len(pairs)


def test_a_word_looks_at_the_code_of_its_name(model, named, monkeypatch):
    before = looked_at(model, monkeypatch)
    margins = fit_lookups(model, question_rows(ROWS)[0], named, world_text().mask_id, NEW)
    after = looked_at(model, monkeypatch)
    assert set(margins) == {1, 2} and min(margins.values()) > 0.5
    for layer in (1, 2):
        assert share_found(before[layer]) < 0.3
        assert share_found(after[layer]) > 0.8


@pytest.mark.slow
def test_features_that_are_not_used_can_learn(model, named):
    options = LookUpOptions(fit="new", names=(1,), answers=2)
    fit_lookups(model, question_rows(ROWS)[0], named, world_text().mask_id, options)
    row = question_rows(1, seed=5)[0][0][None]
    model(row, attention_mask=block_causal_square(row.shape[1], 32)).square().mean().backward()
    for layer in (1, 2):
        weight = model.model.layers[layer].attention.dense.weight
        head = slice(3 * 32, 4 * 32)  # the first of the last group; its features behind the nine places write nothing yet
        assert weight[:, head][:, 9:].abs().max() == 0
        assert weight.grad[:, head][:, 9:].abs().max(0).values.min() > 0


@pytest.mark.slow
def test_a_mask_reads_the_place_at_the_word(model, named):
    """Fitted, nothing trained: of the nine words for places the right one is the likeliest."""
    rows = question_rows(ROWS)[0]
    fit_lookups(model, rows, named, world_text().mask_id, LookUpOptions(fit="new", names=(1,), answers=2, answer=2.0))
    words = [code.words[0] for code in sorted((c for c in named if c.sort == "place"), key=lambda c: c.number)]
    right, asked = 0, question_rows(60, seed=99)
    for row, _, code in zip(*asked, strict=True):
        with torch.inference_mode():
            logits = model(row[None], attention_mask=block_causal_square(len(row), 32))[0, -8]
        right += words[int(logits[words].argmax())] == words[int(row[code - 1]) - OFFSET]
    assert right / 60 > 0.9


@pytest.mark.slow
def test_held_heads_stay_and_the_rest_moves(model, named):
    fit_lookups(model, question_rows(ROWS)[0], named, world_text().mask_id, NEW)
    held, before = Held(model, NEW), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    held.restore()
    d, heads = 32, 6
    for layer in (0, 1, 2):
        name = f"model.layers.{layer}.attention."
        fused, was = model.state_dict()[name + "query_key_value.weight"], before[name + "query_key_value.weight"]
        own = 3 if layer == 0 else 1  # how many of the group's three heads look up
        assert torch.equal(fused[3 * d : (3 + own) * d], was[3 * d : (3 + own) * d])
        assert torch.equal(fused[(heads + 1) * d : (heads + 2) * d], was[(heads + 1) * d : (heads + 2) * d])
        assert torch.equal(fused[-d:], was[-d:])
        assert not torch.equal(fused[: 3 * d], was[: 3 * d]) and not torch.equal(fused[-2 * d : -d], was[-2 * d : -d])
        if layer:
            assert not torch.equal(fused[5 * d : 6 * d], was[5 * d : 6 * d])


@pytest.mark.slow
def test_fitting_again_finds_what_has_moved_and_leaves_what_is_written(model, named, monkeypatch):
    rows, mask_id = question_rows(ROWS)[0], world_text().mask_id
    fit_lookups(model, rows, named, mask_id, NEW)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # words and codes turned each their own way: alike no more, and what the heads read is elsewhere
        for part in (model.model.word_embeddings.weight[:OFFSET], model.model.word_embeddings.weight[OFFSET:]):
            part.copy_(part @ torch.linalg.qr(torch.randn(160, 160, generator=generator))[0])
    lost = looked_at(model, monkeypatch)
    written = model.model.layers[1].attention.dense.weight.clone()
    fit_lookups(model, rows, named, mask_id, LookUpOptions(fit="again"))
    found = looked_at(model, monkeypatch)
    assert torch.equal(model.model.layers[1].attention.dense.weight, written)
    for layer in (1, 2):
        assert share_found(lost[layer]) < 0.3 < 0.8 < share_found(found[layer])


def test_what_cannot_be_fitted_is_said(model, named):
    with pytest.raises(UserError, match="name layer 5"):
        fit_lookups(model, question_rows(3)[0], named, 1, LookUpOptions(fit="new", names=(1, 5)))
    words = [row[40:] for row in question_rows(3)[0]]
    with pytest.raises(UserError, match="no names"):
        fit_lookups(model, words, named, world_text().mask_id, NEW)
    with pytest.raises(UserError, match="allowed: no, new, again"):
        LookUpOptions(fit="old")
    with pytest.raises(UserError, match="twice: 1, 1, 2"):
        LookUpOptions(neighbors=1)
