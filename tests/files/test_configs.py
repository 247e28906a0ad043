"""Texts of a model directory or a data set: with a byte order mark, by a name with ~, and what is no text."""

from __future__ import annotations

import pytest

from llada_uni.data.sources import FileSource, open_source
from llada_uni.errors import UserError
from llada_uni.files.configs import read_json, read_text


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(tmp_path / "config.json") == '{"a": 1}' and read_json(tmp_path / "config.json") == {"a": 1}


def test_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "data.jsonl").write_text("")
    assert read_text("~/config.json") == "{}"
    source = open_source("~/data.jsonl")
    assert isinstance(source, FileSource) and source.files == [tmp_path / "data.jsonl"]
    with pytest.raises(UserError, match="there is no file"):
        read_text("~/none.json")
