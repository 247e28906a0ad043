"""Weights by rareness equal their definition, have mean 1, and reach the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llada_uni.data.kinds import CODE, CONTEXT, TEXT
from llada_uni.data.shards import Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.training.language.token_weights import LARGEST, frequencies, frequency_weights

FACTS = {"image_token_offset": 7, "codebook_size": 3, "text_tokenizer": "", "image_tokenizer": ""}


@pytest.fixture
def folder(tmp_path):
    """Learnt: 5 six times, 7 twice, 9 once; 1 and 9 are also given, which counts for nothing."""
    ids = np.array([1, 9, 9, 5, 5, 5, 5, 5, 5, 7, 7, 9], dtype=np.int32)
    kinds = np.array([CONTEXT] * 3 + [TEXT] * 6 + [CODE] * 3, dtype=np.int8)
    path = tmp_path / shard_name(0)
    write_shard(path, [Record(ids, kinds, "t2i")])
    write_manifest(tmp_path, [TokenShard(path)], FACTS)
    return tmp_path


def test_frequencies_are_of_what_is_learnt(folder):
    expected = torch.zeros(10, dtype=torch.float64)
    expected[5], expected[7], expected[9] = 6 / 9, 2 / 9, 1 / 9
    torch.testing.assert_close(frequencies({str(folder): 2.0}, 10), expected)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_weights_are_powers_with_mean_one(folder, power):
    weights = frequency_weights({str(folder): 1.0}, 10, power)
    torch.testing.assert_close(weights[9] / weights[5], torch.tensor(6.0**power))
    torch.testing.assert_close((weights.double() * frequencies({str(folder): 1.0}, 10)).sum().item(), 1.0)
    assert weights[0] == 1, "a token that is never learnt"


def test_no_weight_is_beyond_the_largest(tmp_path):
    ids = np.array([5] * 3000 + [6], dtype=np.int32)
    path = tmp_path / shard_name(0)
    write_shard(path, [Record(ids, np.full(len(ids), TEXT, dtype=np.int8), "text")])
    write_manifest(tmp_path, [TokenShard(path)], FACTS)
    assert frequency_weights({str(tmp_path): 1.0}, 10, 1.0)[6] == LARGEST
