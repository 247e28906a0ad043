"""Codes of the world's patch tokenizer and their words: the numbers are the tokenizer's own, and both begin alike."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.world.concepts import CONCEPTS, POSITIONS
from llada_uni.world.sampling import sample_scene
from llada_uni.world.training.named_codes import begin_as_words, named_codes
from llada_uni.world.training.patch_tokenizer import MEANINGS
from tests.training.world_rows import OFFSET, backbone_config, codes_of, world_text


def test_every_code_of_a_picture_is_named_by_what_is_there():
    text, scene = world_text(), sample_scene(random.Random(3))
    word_of = {code.token: text.decode([code.words[0]]).strip() for code in named_codes(text, OFFSET, MEANINGS)}
    words = [word_of.get(code) for code in codes_of(scene)]
    for cell, position in enumerate(POSITIONS):
        row, column = divmod(cell, 3)
        top = 12 * row + 2 * column
        thing = scene.cells[cell]
        drawn = (thing.concept, thing.style) if thing else (None, None)
        assert (words[top], words[top + 6]) == (position, scene.background)
        assert (words[top + 1], words[top + 7]) == drawn


def test_a_code_and_its_word_begin_alike_and_other_names_do_not():
    text = world_text()
    named = named_codes(text, OFFSET, MEANINGS)
    assert {code.sort for code in named} == {"place", "thing", "digit", "color", "style"}
    assert len([code for code in named if code.sort in ("thing", "digit")]) == len(CONCEPTS)
    model = Backbone(backbone_config(text))
    hidden = model.model.layers[0].attention.dense.weight.clone()
    begin_as_words(model, named, seed=1)
    assert torch.equal(model.model.layers[0].attention.dense.weight, hidden)
    for table in (model.model.word_embeddings.weight, model.lm_head.weight):
        things = [code for code in named if code.sort == "thing"]
        codes = F.normalize(table[[code.token for code in things]], dim=1)
        words = F.normalize(table[[code.words[0] for code in things]], dim=1)
        cosines = codes @ words.T
        assert cosines.diagonal().min() > 0.6
        assert (cosines.argmax(1) == torch.arange(len(things))).all()


def test_codes_of_another_tokenizer_have_no_names():
    with pytest.raises(UserError, match="16 codes"):
        named_codes(world_text(), OFFSET, 16)
