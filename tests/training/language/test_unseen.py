"""Tokens that the shipped model never learned are named before LoRA is trained on them without embeddings."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.checkpoint.load import load_backbone
from llada_uni.data.kinds import CONTEXT, TEXT
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.files import shipped
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.training.language.unseen import unseen_tokens, warn_of_unseen

MODEL = shipped.shipped("models") / shipped.MODEL


@pytest.fixture(scope="module")
def model() -> Backbone:
    return load_backbone(MODEL)


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return TextTokenizer.from_file(MODEL / "tokenizer.json")


def test_the_shipped_model_knows_its_words_and_not_a_new_one(model, text):
    head, offset = model.lm_head.weight, model.config.image_token_offset
    known = text.encode("cat the dragon")
    new = text.encode("zorp")
    assert set(unseen_tokens(head, text, offset, [*known, *new, offset + 3])) == set(new)
    untrained = torch.randn(head.shape, generator=torch.Generator().manual_seed(0))
    assert unseen_tokens(untrained, text, offset, new) == []  # of a head that was never trained nothing can be said


def test_the_warning_names_what_is_to_be_written(model, text, tmp_path):
    for name, words in (("new", "zorp"), ("known", "cat")):
        asked, said = text.encode("qux"), text.encode(words)
        kinds = np.repeat(np.array([CONTEXT, TEXT], np.int8), [len(asked), len(said)])
        (tmp_path / name).mkdir()
        write_shard(tmp_path / name / shard_name(0), [Record(np.array(asked + said, np.int32), kinds, "text")])
        facts = {"image_token_offset": 1, "codebook_size": 1, "text_tokenizer": "", "image_tokenizer": ""}
        write_manifest(tmp_path / name, [TokenShard(tmp_path / name / shard_name(0))], facts)
    with pytest.warns(UserWarning, match=r"3 tokens of the data .*'p', 'z', 'or'.*lora\.embeddings"):
        warn_of_unseen(model, text, [str(tmp_path / "new"), str(tmp_path / "known")], aloud=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unseen(model, text, [str(tmp_path / "known")], aloud=True)
        warn_of_unseen(model, text, [str(tmp_path / "new")], aloud=False)
