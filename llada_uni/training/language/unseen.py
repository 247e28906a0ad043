"""Tokens that a model has never learned to write, found in its weights: adapters alone teach it hardly any new word.

Rows of the head that were never a target are all pushed the same way, away from what the text was, so they lie along the one
direction of the rows that no text can name (those behind the text tokenizer's last id, before the image codes).
Source: the indicator for output embeddings in arXiv:2405.05417, section 3.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributed.tensor import DTensor

from llada_uni.backbone import Backbone
from llada_uni.data.shards import TokenShard, read_manifest
from llada_uni.text.tokenizer import TextTokenizer

_FEWEST = 4  # rows that no text can name; with fewer, nothing can be said
_ALONG = 0.98  # cosine; on the shipped model, those that were learned have at most 0.95, the others 0.999
_NAMED = 12


@torch.no_grad()
def unseen_tokens(head: torch.Tensor, text: TextTokenizer, offset: int, ids: Iterable[int]) -> list[int]:
    """Those of `ids` that are text and were never learned. head: [V, D]; offset: id of the first image code."""
    unnamed = head[len(text) : offset].float()
    if len(unnamed) < _FEWEST:
        return []
    direction = F.normalize(unnamed, dim=1).mean(0)
    if direction.norm() < _ALONG:  # the rows do not agree: the head was not trained
        return []
    words = sorted({number for number in ids if number < len(text)})
    along = F.cosine_similarity(head[words].float(), direction[None])
    return [number for number, share in zip(words, along.tolist(), strict=True) if share > _ALONG]


def learned_text(data: Collection[str]) -> set[int]:
    """Ids that the model is to write in the records of these folders, from the first shard of each."""
    found: set[int] = set()
    for folder in data:
        shard = TokenShard(Path(folder) / read_manifest(Path(folder))["shards"][0]["file"])
        found.update(np.unique(shard.learned_ids()).tolist())
    return found


def warn_of_unseen(backbone: Backbone, text: TextTokenizer, data: Collection[str], aloud: bool) -> None:
    """Names the tokens of the data that the model has never learned, if there are any. All processes call it (the weights may
    be sharded); one of them says it (`aloud`)."""
    head = backbone.lm_head.weight
    whole = head.full_tensor() if isinstance(head, DTensor) else head
    unseen = unseen_tokens(whole, text, backbone.config.image_token_offset, learned_text(data))
    if unseen and aloud:
        named = ", ".join(repr(text.decode([number])) for number in unseen[:_NAMED])
        more = f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
        warnings.warn(
            f"{len(unseen)} tokens of the data were never learned by the model: {named}{more}; adapters alone hardly teach "
            "them: set options.lora.embeddings and options.lora.head to true",
            stacklevel=2,
        )
