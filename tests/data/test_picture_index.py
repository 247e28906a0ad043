"""The index of pictures: the same pictures, words and order as when all records are held, from numbers alone."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset import TarWriter

from llada_uni.data.picture_index import NEEDS, PictureIndex, Said, listen
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError
from tests.data.helpers import drawing, question

RECORDS = st.lists(
    st.tuples(st.sampled_from(["t2i", "caption", "understand", "edit"]), st.integers(0, 6), st.integers(0, 6)), min_size=1
)


def record(task: str, first: int, second: int) -> dict:
    name, other = f"{first}.png", f"{second}.png"
    if task == "t2i":
        return drawing(f"draw {second}", name)
    if task == "edit":
        shown = [{"type": "image", "image": name}, {"type": "text", "text": "change it"}]
        drawn = [{"type": "image", "image": other}]
        return {"task": "edit", "messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": drawn}]}
    return {**question(f"ask {second}", f"say {second}", name), "task": task}


def naive(source, need):
    """What the index stands for: everything held in a dict."""
    said: dict = {}
    for conversation in conversations(source, BadRecords("skip")):
        for picture, words in listen(conversation).items():
            about = said.setdefault(picture, Said())
            about.captions += words.captions
            about.questions += words.questions
    entries = sorted(said.items(), key=lambda entry: (zlib.crc32(entry[0].name.encode()), entry[0].name))
    return [(picture, words) for picture, words in entries if words.kinds() & NEEDS[need] == NEEDS[need]]


@settings(max_examples=40, deadline=None)
@given(records=RECORDS, need=st.sampled_from(list(NEEDS)), cut=st.integers(0, 30), bad=st.booleans())
def test_it_equals_a_table_of_all_records(tmp_path_factory, records, need, cut, bad):
    folder = tmp_path_factory.mktemp("records")
    lines = [json.dumps(record(*one)) for one in records] + ["{broken"] * bad
    for name, part in (("a.jsonl", lines[:cut]), ("b.jsonl", lines[cut:])):
        (folder / name).write_text("".join(f"{line}\n" for line in part))
    source, found = open_source(folder), BadRecords("skip")
    index = PictureIndex(source, need, found)
    assert [tuple(entry) for entry in index] == naive(source, need)
    assert len(found.found) == bad
    assert [tuple(entry) for entry in index.part(1, len(index))] == naive(source, need)[1:]


@pytest.mark.parametrize("several", [False, True])
def test_samples_of_tar_shards_are_found_again(tmp_path, several):
    with TarWriter(str(tmp_path / "shard.tar"), encoder=False) as tar:
        for number in range(7):
            one = [drawing(f"draw {number}", "0.png"), question(f"ask {number}", "yes", "0.png")]
            said = json.dumps(one if several else one[0]).encode()
            tar.write({"__key__": f"key{number}", "json": said, "0.png": b"png"})
    source = open_source(tmp_path)
    index = PictureIndex(source, None, BadRecords())
    assert len(index) == 7 and [tuple(entry) for entry in index] == naive(source, None)


def test_a_file_that_changes_meanwhile_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(drawing("one", "1.png")) + "\n")
    index = PictureIndex(open_source(tmp_path), None, BadRecords())
    (tmp_path / "a.jsonl").write_text(json.dumps(drawing("two", "2.png")) + "\n")
    with pytest.raises(UserError, match="has changed"):
        index[0]
