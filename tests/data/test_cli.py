"""The commands about data, as they are typed: tables, lists of bad records, exit codes, one line for a mistake."""

from __future__ import annotations

import json

import pytest

from llada_uni.cli import main
from llada_uni.data.tokens import default_offset
from llada_uni.text.tokenizer import TextTokenizer
from tests.data.helpers import drawing, question, small_model, write_records


@pytest.fixture
def call(capsys):
    """Runs `llada-uni data ...`; (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main(["data", *(str(argument) for argument in arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_check_shows_a_table_and_lists_what_is_bad(call, tmp_path):
    path = write_records(tmp_path, [drawing(), question(), question(name="blue.png")])
    code, out, _ = call("check", path)
    assert code == 0
    assert "understand" in out and "t2i" in out and "picture sizes: 64 x 64 (1), 96 x 64 (1)" in out
    write_records(tmp_path, [drawing(), "{", question(name="gone.png")])
    code, out, _ = call("check", path)
    assert code == 1
    assert "records.jsonl:2: is not JSON (Expecting property name enclosed in double quotes, column 1)" in out
    assert "records.jsonl:3: there is no picture" in out
    assert out.endswith("2 records cannot be used\n")
    assert call("check", path, "--limit", 1)[0] == 0
    code, out, _ = call("check", tmp_path, "--json")
    assert code == 1 and len(json.loads(out)["bad"]) == 2


def test_check_of_nothing_is_no_success(call, tmp_path):
    code, out, _ = call("check", write_records(tmp_path, []))
    assert code == 1 and out.endswith("there are no records\n")
    code, _, err = call("check", tmp_path / "gone")
    assert code == 2 and err.startswith("llada-uni: there are no records at") and err.count("\n") == 1


def test_world_tokenizer_extract_in_a_row(call, tmp_path, golden):
    code, _, err = call(
        "world", tmp_path / "w", "--count", 40, "--side", 32, "--shares", "t2i=1", "--shares", "understand/what-is-where=1"
    )
    assert code == 0 and "40 records (train), pictures of 32 px" in err
    code, out, _ = call("check", tmp_path / "w", "--json")
    assert code == 0 and set(json.loads(out)["tasks"]) == {"t2i", "understand"}
    (tmp_path / "words.txt").write_text("zeppelin\n")
    words = ("--keep-words", tmp_path / "words.txt", "--keep-words", "world")
    code, _, err = call("tokenizer", tmp_path / "w", tmp_path / "t.json", "--vocab-size", 1312, *words)
    assert code == 0 and "t.json  " in err
    text = TextTokenizer.from_file(tmp_path / "t.json")
    assert len(text) <= 1312
    for word in ("cat", " strawberries", "zeppelin", " top left"):
        assert len(text.encode(word)) == 1
    assert call("check", tmp_path / "w", "--tokenizer", tmp_path / "t.json")[1].count("text tokens") == 1
    model = small_model(tmp_path / "model", golden)
    arguments = ("extract", tmp_path / "w", tmp_path / "tokens", "--model", model, "--tokenizer", tmp_path / "t.json")
    code, out, _ = call(*arguments, "--json")
    assert code == 0
    assert {name: json.loads(out)[name] for name in ("records", "made", "image_token_offset")} == {
        "records": 40, "made": 40, "image_token_offset": default_offset(text),
    }  # fmt: skip
    code, _, err = call(*arguments)
    assert code == 0 and "40 records in 1 shards; 0 made now" in err
    code, _, err = call(*arguments, "--seed", 3)
    assert code == 2 and "another setting of seed" in err


def test_extract_lists_what_it_skips(call, tmp_path, golden):
    model = small_model(tmp_path / "model", golden)
    path = write_records(tmp_path / "in", [drawing(), "{"])
    code, _, err = call("extract", path, tmp_path / "out", "-m", model)
    assert code == 2 and "records.jsonl:2: is not JSON" in err
    code, out, err = call("extract", path, tmp_path / "out", "-m", model, "--on-bad", "skip")
    assert code == 0 and "records.jsonl:2: is not JSON" in out and "1 record skipped" in out
    code, _, err = call("extract", "world:20:0", tmp_path / "p", "-m", model, "--shard", "1/2", "--shard-records", 10)
    assert code == 0 and "part 1/2 is done; other parts are not yet" in err
