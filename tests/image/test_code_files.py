"""Files of codes: the published `.pt` and our JSON, read with weights only, and clear lines for what is none."""

from __future__ import annotations

import pickle

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.image.code_files import is_code_file, read_codes, write_codes
from llada_uni.image.codes import ImageCodes

CODES = ImageCodes(tuple(range(6)), 2, 3)


@pytest.mark.parametrize("name", ["codes.pt", "codes.json", "CODES.PT"])
def test_what_is_written_is_read(tmp_path, name):
    assert read_codes(write_codes(CODES, tmp_path / name, 16)) == CODES


def test_the_published_program_reads_what_is_written(tmp_path):
    data = torch.load(write_codes(CODES, tmp_path / "codes.pt", 16), weights_only=True)
    width, height = data["metadata"]["processed_size"]
    assert (height // 16, width // 16) == (2, 3)
    assert (data["semantic_token_ids"] + 157184).tolist() == [157184 + code for code in range(6)]


IDS = torch.arange(6)


@pytest.mark.parametrize(
    "data",
    [
        {"semantic_token_ids": IDS, "metadata": {"processed_size": (48, 32)}},
        {"semantic_token_ids": IDS, "metadata": {"processed_size": [24, 16]}},  # patches of 8 px
        {"semantic_token_ids": IDS.view(1, 2, 3), "metadata": {"grid_thw": torch.tensor([1, 2, 3])}},
        {"token_ids": IDS.tolist(), "grid_thw": [1, 2, 3]},
        {"token_ids": IDS.int(), "h": 2, "w": 3},
    ],
)
def test_every_form_in_use_is_read(tmp_path, data):
    torch.save(data, tmp_path / "x.pt")
    assert read_codes(tmp_path / "x.pt") == CODES


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (IDS, "must hold a dict"),
        ({"codes": IDS}, "neither semantic_token_ids nor token_ids"),
        ({"token_ids": IDS}, "does not say the grid"),
        ({"token_ids": IDS.float(), "h": 2, "w": 3}, "the codes must be whole numbers"),
        ({"token_ids": IDS, "h": 2, "w": 4}, "takes 8 image codes, 6 were given"),
        ({"token_ids": IDS, "grid_thw": [2, 2, 3]}, "2 frames"),
        ({"token_ids": IDS, "metadata": {"processed_size": (48, 40)}}, "do not fill an image of 48 x 40 px evenly"),
        ({"token_ids": IDS, "metadata": {"processed_size": (48,)}}, "2 whole numbers"),
    ],
)
def test_others_are_refused_in_one_line(tmp_path, data, words):
    torch.save(data, tmp_path / "x.pt")
    with pytest.raises(UserError, match=words) as error:
        read_codes(tmp_path / "x.pt")
    assert "\n" not in str(error.value)


class Runs:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_no_code_runs(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"semantic_token_ids": Runs()}))
    with pytest.raises(UserError, match="damaged or holds more than plain tensors"):
        read_codes(tmp_path / "x.pt")
    with pytest.raises(UserError, match="there is no file of codes"):
        read_codes(tmp_path / "y.pt")


def test_tokens_become_codes():
    tokens = ImageCodes(tuple(code + 100 for code in range(6)), 2, 3)
    assert tokens.without_offset(100, 16) == CODES and CODES.without_offset(100, 16) == CODES
    with pytest.raises(UserError, match="a mixture of codes and of tokens from 103 on"):
        tokens.without_offset(103, 16)


def test_codes_beyond_the_offset_of_a_small_vocabulary_are_codes():
    codes = ImageCodes((5, 700, 1023, 576), 2, 2)  # 1024 codes, the first of which is token 576
    assert codes.without_offset(576, 1024) == codes
    assert ImageCodes((581, 1276, 1599, 1152), 2, 2).without_offset(576, 1024) == codes
    with pytest.raises(UserError, match="a mixture"):
        ImageCodes((5, 1276), 1, 2).without_offset(576, 1024)


def test_which_paths_name_codes(tmp_path):
    assert is_code_file("a.pt") and is_code_file(tmp_path / "b.JSON")
    assert not is_code_file("a.png") and not is_code_file(b"a.pt") and not is_code_file(CODES)
