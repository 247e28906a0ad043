"""A folder of token shards with records that can be learned: three words name nine codes, and the other way round."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.shards import NO_TEXT, Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.text.tokenizer import TextTokenizer, train_tokenizer

CODEBOOK = 16


def make_token_folder(folder: Path, records: int = 60, seed: int = 0, words: range = range(100, 104)) -> Path:
    """Writes the folder: tasks t2i, understand and story. words: ids that records are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    text = train_tokenizer(["a cat and a dog"], 400)
    text.save(folder / "tokenizer.json")
    rng = random.Random(seed)
    made = [_record(rng, text, task, words) for _ in range(records) for task in ("t2i", "understand", "story")]
    path = folder / shard_name(0)
    write_shard(path, made)
    facts = {"image_token_offset": 400, "codebook_size": CODEBOOK, "text_tokenizer": "", "image_tokenizer": ""}
    write_manifest(folder, [TokenShard(path)], facts)
    return folder


def _record(rng: random.Random, text: TextTokenizer, task: str, choice: range) -> Record:
    words = [rng.choice(choice) for _ in range(3)]
    codes = [400 + (word + place) % CODEBOOK for word in words for place in range(3)]
    header, end = [text.image_start_id, text.boi_id], text.image_end_id
    if task == "t2i":
        parts = [(CONTEXT, [*words, *header]), (CODE, codes), (CONTEXT, [end])]
    elif task == "understand":
        parts = [(CONTEXT, [*header, *codes, end]), (TEXT, [*words, text.eos_id])]
    else:
        frame = [(TEXT, [*words, *header]), (CODE, codes), (CONTEXT, [end])]
        parts = [(CONTEXT, words), *frame, *frame, (TEXT, [*words, text.eos_id])]
    ids = np.concatenate([ids for _, ids in parts]).astype(np.int32)
    kinds = np.concatenate([[kind] * len(ids) for kind, ids in parts]).astype(np.int8)
    return Record(ids, kinds, task, (0, len(words)) if task == "t2i" else NO_TEXT)
