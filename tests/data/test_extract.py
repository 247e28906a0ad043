"""Extraction: pictures to codes as inference makes them, each once; over processes, after a kill, with bad records."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from llada_uni.data import encode
from llada_uni.data.encode import PictureEncoder, uses
from llada_uni.data.extract import Extraction, extract, parse_part, skipped_records
from llada_uni.data.kinds import CODE
from llada_uni.data.reader import TokenReader
from llada_uni.data.records import BadRecords
from llada_uni.data.shards import TokenShard
from llada_uni.data.sources import conversations, open_source
from llada_uni.data.tokens import default_offset
from llada_uni.errors import UserError
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.text.tokenizer import TextTokenizer
from tests.data.helpers import assistant, drawing, image, question, small_model, text, user, write_records


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    return small_model(tmp_path_factory.mktemp("model"), golden)


@pytest.fixture(scope="module")
def tokenizer(model):
    return ImageTokenizer.from_pretrained(model / "image_tokenizer")


def contents(folder):
    """Every shard's tensors and header, byte by byte."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def codes_in(record, offset):
    return [int(token) - offset for token, kind in zip(record.ids, record.kinds, strict=True) if kind == CODE]


def test_codes_are_those_of_inference_and_each_picture_is_encoded_once(tmp_path, tokenizer, monkeypatch):
    edit = {"task": "edit", "messages": [user(image("blue.png"), text("red")), assistant(image("red.png"))]}
    two = {"task": "caption", "messages": [user(image("red.png"), image("blue.png"), text("?")), assistant(text("x"))]}
    path = write_records(tmp_path, [drawing(), question(), question(name="blue.png"), edit, two, drawing("again", "copy.png")])
    shutil.copy(tmp_path / "red.png", tmp_path / "copy.png")
    Image.effect_noise((96, 64), 60).convert("RGB").save(tmp_path / "blue.png")
    read = list(conversations(open_source(path), BadRecords()))
    assert [[use for _, use in uses(c)] for c in read] == [
        ["drawn"], ["understand"], ["understand"], ["edit", "edit"], ["understand_many"] * 2, ["drawn"],
    ]  # fmt: skip
    encoder, passed = PictureEncoder(tokenizer, batch=2), []
    one_pass = tokenizer.encode_many
    monkeypatch.setattr(
        tokenizer, "encode_many", lambda pictures, *how: passed.append(len(pictures)) or one_pass(pictures, *how)
    )
    turns = [turns for _, turns in encoder.turns(read, BadRecords())]
    monkeypatch.undo()
    assert max(passed) <= 2 and sum(passed) == len(encoder.codes) == 7  # red: three uses and as one of two; blue: three
    red, noise = (Image.open(tmp_path / name) for name in ("red.png", "blue.png"))
    assert turns[2][0].parts[0] == tokenizer.encode(noise, "understand")
    assert turns[3][0].parts[0] == tokenizer.encode(noise, "edit")
    assert turns[0][1].parts[0] == turns[5][1].parts[0] == tokenizer.encode(red, "edit")
    assert turns[4][0].parts[1] == tokenizer.encode(noise, "understand", alone=False)


def test_pictures_to_be_drawn_are_scaled_even_where_edits_are_cropped(tokenizer):
    settings = encode.replace(tokenizer.settings, edit_scale=False, edit_max_cells=4)
    picture = Image.new("RGB", (256, 256), "white")
    picture.paste((0, 0, 0), (0, 0, 128, 256))
    drawn, cropped = (np.asarray(encode.shape(picture, use, settings)) for use in (encode.DRAWN, encode.EDIT))
    assert drawn.shape == cropped.shape == (64, 64, 3)
    assert drawn[:, :28].max() == 0 and drawn[:, 36:].min() == 255
    assert (cropped[:, :32].max(), cropped[:, 32:].min()) == (0, 255)
    assert encode.unscaled_side(tokenizer.settings) == 32


def test_shards_hold_what_the_manifest_says(tmp_path, model):
    job = Extraction("world:90:1", str(tmp_path), str(model), shard_records=40)
    calls = []
    manifest = extract(job, on_shard=lambda *numbers: calls.append(numbers))
    offset = default_offset(TextTokenizer.from_file(model / "tokenizer.json"))
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert sum(call[2] for call in calls) == manifest["records"] >= 90  # of a dialogue every answer is one
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["skipped"], manifest["image_token_offset"]) == (0, offset)
    reader = TokenReader(tmp_path)
    drawn = [reader.draw(0) for _ in range(900)]  # every task, as good as surely
    assert {record.task for record in drawn} == set(manifest["tasks"])
    assert all(0 <= code < manifest["codebook_size"] for record in drawn for code in codes_in(record, offset))
    assert (tmp_path / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    before = contents(tmp_path)
    calls.clear()
    assert extract(job, on_shard=lambda *numbers: calls.append(numbers)) == manifest
    assert calls == [] and contents(tmp_path) == before
    with pytest.raises(UserError, match="begun with another setting of unconditional, seed: use an empty folder"):
        extract(encode.replace(job, unconditional=0.5, seed=2))


def test_some_records_without_words(tmp_path, model):
    extract(Extraction("world:300:1", str(tmp_path), str(model), unconditional=0.25))
    reader = TokenReader(tmp_path)
    without = reader.text.encode("<uncondition>")
    shares = {}
    shard = TokenShard(tmp_path / "tokens-00000.safetensors")
    for task, count in shard.tasks.items():
        ids = [shard.record(task, number).ids.tolist() for number in range(count)]
        marked = sum(any(i[k : k + len(without)] == without for k in range(len(i))) for i in ids)
        shares[task] = marked / count
    assert 0.1 < shares["t2i"] < 0.4 and 0.1 < shares["edit"] < 0.4
    assert all(share == 0 for task, share in shares.items() if task not in ("t2i", "edit"))


def test_bad_records_stop_or_are_listed_at_the_end(tmp_path, model):
    path = write_records(tmp_path / "in", [drawing(), question(name="gone.png"), "{", question()])
    with pytest.raises(UserError, match=r"records.jsonl:2: there is no picture .*gone.png|records.jsonl:3: is not JSON"):
        extract(Extraction(str(path), str(tmp_path / "stop"), str(model)))
    assert not list((tmp_path / "stop").glob("*.safetensors"))
    manifest = extract(Extraction(str(path), str(tmp_path / "skip"), str(model), on_bad="skip", shard_records=3))
    assert (manifest["records"], manifest["skipped"]) == (2, 2)
    lines = list(skipped_records(tmp_path / "skip"))
    assert sorted(line.split(": ")[0].rpartition(":")[2] for line in lines) == ["2", "3"]


def test_parts_and_workers_make_the_same_shards(tmp_path, model):
    def job(name):
        return Extraction("world:120:1", str(tmp_path / name), str(model), shard_records=30)

    whole = extract(job("whole"))
    assert extract(job("parts"), part=(1, 2)) is None
    assert len(contents(tmp_path / "parts")) == 2 and not (tmp_path / "parts" / "manifest.json").exists()
    assert extract(job("parts"), part=(0, 2)) == whole
    assert extract(job("workers"), workers=2) == whole
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts") == contents(tmp_path / "workers")


def test_a_damaged_shard_is_made_again(tmp_path, model):
    job = Extraction("world:60:1", str(tmp_path), str(model), shard_records=30)
    extract(job)
    before = contents(tmp_path)
    (tmp_path / "tokens-00001.safetensors").write_bytes(before["tokens-00001.safetensors"][:-40])
    extract(job)
    assert contents(tmp_path) == before


RUN = """
import sys
from llada_uni.data.extract import Extraction, extract
if __name__ == "__main__":
    extract(Extraction("world:20000:1", sys.argv[1], sys.argv[2], shard_records=30), workers=int(sys.argv[3]))
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_where_it_was(tmp_path, model, workers):
    """SIGKILL in the middle: finished shards stay as they are and are not done again, the rest is made as if nothing was."""
    (tmp_path / "run.py").write_text(RUN)
    out = tmp_path / "out"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(out), str(model), str(workers)], env=environment)
    try:
        deadline = time.monotonic() + 300
        while len(list(out.glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = settled(out)
    assert 2 <= len(done) < 667
    assert not (out / "manifest.json").exists()
    # All of so large a job would take long: its first shards, beside those of a run that nobody disturbed.
    fresh = tmp_path / "fresh"
    for number in range(3):
        for folder in (out, fresh):
            assert extract(Extraction("world:20000:1", str(folder), str(model), shard_records=30), part=(number, 667)) is None
    again = contents(out)
    assert {name: again[name] for name in done} == done
    assert len(contents(fresh)) == 3 and contents(fresh).items() <= again.items()


def settled(folder):
    """The shards, once workers whose parent was killed have finished the one they were at."""
    names = None
    while names != (now := sorted(folder.glob("tokens-*"))):
        names = now
        time.sleep(1.0)
    return contents(folder)


@pytest.mark.slow
def test_a_mistake_met_by_a_worker_ends_the_run(tmp_path, model):
    path = write_records(tmp_path / "in", [drawing() for _ in range(8)] + ["{"])
    with pytest.raises(UserError, match=r"records.jsonl:9: is not JSON"):
        extract(Extraction(str(path), str(tmp_path / "a"), str(model), shard_records=3), workers=2)


def test_a_worker_that_dies_ends_the_run(tmp_path, model, monkeypatch):
    monkeypatch.setattr("llada_uni.data.extract._work", int)  # fails at once with so many arguments
    with pytest.raises(UserError, match=r"a worker ended early \(exit code 1\)"):
        extract(Extraction("world:60:1", str(tmp_path), str(model), shard_records=30), workers=2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unconditional": 1.5}, "allowed: 0 to 1"),
        ({"batch": 0}, "batch is 0"),
        ({"shard_records": 0}, "shard_records is 0"),
        ({"on_bad": "cry"}, "allowed: stop, skip"),
        ({"model": "nowhere"}, "there is no image_tokenizer in nowhere"),
        ({"tokenizer": "nowhere.json"}, "no tokenizer at nowhere.json"),
    ],
)
def test_wrong_settings(tmp_path, model, change, reason):
    with pytest.raises(UserError, match=reason):
        extract(Extraction(**({"records": "world:5:1", "out": str(tmp_path), "model": str(model)} | change)))


def test_parts_are_read(tmp_path, model):
    assert parse_part("2/5") == (2, 5)
    for part in ("5/5", "1", "a/b", "-1/3", "0/0"):
        with pytest.raises(UserError, match="allowed: i/n"):
            parse_part(part)
    with pytest.raises(UserError, match="workers is 0"):
        extract(Extraction("world:5:1", str(tmp_path), str(model)), workers=0)


def test_batched_codes_do_not_depend_on_the_batch(tokenizer):
    pictures = [Image.effect_noise((32, 32), 80).convert("RGB") for _ in range(5)] + [Image.new("RGB", (64, 32), "green")]
    with torch.no_grad():
        alone = [tokenizer.encode(picture, "raw") for picture in pictures]
    assert tokenizer.encode_many(pictures, "raw") == alone
