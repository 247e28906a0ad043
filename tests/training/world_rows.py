"""Token rows of the world without a trained tokenizer: the codes of a scene are its answers (patch_tokenizer.py)."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llada_uni.config import BackboneConfig
from llada_uni.data.kinds import CONTEXT, TEXT
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.text.tokenizer import TextTokenizer, train_tokenizer
from llada_uni.world.data.vocabulary import world_words
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene
from llada_uni.world.training.patch_tokenizer import FIRST, MEANINGS, answers_of, question_of_patch

OFFSET = 1344


@cache
def world_text() -> TextTokenizer:
    """A text tokenizer that has every name of the world as one token."""
    return train_tokenizer(["where is the cat ?"] * 2, 1312, world_words())


def codes_of(scene: Scene) -> list[int]:
    """The 36 ids of a picture."""
    return (OFFSET + torch.from_numpy(answers_of(scene)).flatten() + FIRST[question_of_patch()]).tolist()


def question_rows(count: int, seed: int = 0) -> tuple[list[Tensor], list[int], list[int]]:
    """Rows "PICTURE where is the THING ?" and masks; where the word is, and where the code that it names is."""
    text, rng = world_text(), random.Random(seed)
    rows, words, codes = [], [], []
    while len(rows) < count:
        scene = sample_scene(rng)
        thing = rng.choice(scene.names())
        asked = text.encode(f" {thing}")
        if thing.isdigit() or scene.names().count(thing) > 1 or len(asked) > 1:
            continue
        picture = codes_of(scene)
        ids = [*picture, *text.encode("where is the"), *asked, *text.encode(" ?"), *[text.mask_id] * 8]
        rows.append(torch.tensor(ids))
        words.append(ids.index(asked[0]))
        cell = next(cell for cell, other in scene.things() if other.concept == thing)
        codes.append(12 * (cell // 3) + 2 * (cell % 3) + 1)
    return rows, words, codes


def backbone_config(text: TextTokenizer) -> BackboneConfig:
    """A small network over the world's vocabulary, with a group of heads to spare."""
    sizes = {
        "hidden_size": 160,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "partial_rotary_factor": 0.5,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "moe_intermediate_size": 32,
        "rope_theta": 10000,
        "initializer_range": 0.03,
        "max_position_embeddings": 128,
    }
    own = {"vocab_size": OFFSET + MEANINGS, "image_token_offset": OFFSET, "pad_token_id": text.pad_id}
    return BackboneConfig.from_json({**sizes, **own})


def world_folder(folder: Path, count: int) -> Path:
    """A folder of token shards whose records are such questions and the answer "here"."""
    folder.mkdir(parents=True)
    text, records = world_text(), []
    text.save(folder / "tokenizer.json")
    for row, _, _ in zip(*question_rows(count), strict=True):
        asked = [i for i in row.tolist() if i != text.mask_id]
        answer = [*text.encode(" here"), text.eos_id]
        kinds = [CONTEXT] * len(asked) + [TEXT] * len(answer)
        records.append(Record(np.array(asked + answer, np.int32), np.array(kinds, np.int8), "understand"))
    write_shard(folder / shard_name(0), records)
    facts = {"image_token_offset": OFFSET, "codebook_size": MEANINGS, "text_tokenizer": "", "image_tokenizer": ""}
    write_manifest(folder, [TokenShard(folder / shard_name(0))], facts)
    return folder
