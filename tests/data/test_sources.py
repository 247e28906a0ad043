"""Files, folders and tar shards of records: cut anywhere, they give the same conversations."""

from __future__ import annotations

import io
import tarfile

import pytest
import webdataset

from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError
from tests.data.helpers import drawing, question, write_records


def all_of(source, bad=None):
    return list(conversations(source, bad or BadRecords()))


def test_a_folder_is_its_files_in_order_cut_into_chunks(tmp_path):
    write_records(tmp_path, [drawing(str(n)) for n in range(7)], "a.jsonl")
    write_records(tmp_path, [question(str(n)) for n in range(3)], "b.jsonl")
    source = open_source(tmp_path)
    whole = all_of(source)
    assert [c.messages[0].text() for c in whole] == [*"0123456", *"012"]
    for size in (1, 2, 3, 100):
        chunks = source.chunks(size)
        assert len(chunks) == -(-7 // size) + -(-3 // size)
        read = [list(source.read(chunk, BadRecords())) for chunk in reversed(chunks)]
        assert [c for part in reversed(read) for c in part] == whole


def test_tar_shards_are_those_of_webdataset(tmp_path):
    path = write_records(tmp_path, [])
    red = (tmp_path / "red.png").read_bytes()
    with webdataset.TarWriter(str(tmp_path / "theirs.tar")) as out:
        for number in range(5):
            out.write({"__key__": f"part/k{number}", "json": drawing(str(number), "0.png"), "0.png": red})
    source = open_source(tmp_path / "theirs.tar")
    whole = all_of(source)
    assert [c.messages[0].text() for c in whole] == [*"01234"]
    assert whole[3].where.endswith("theirs.tar[part/k3]")
    assert next(whole[3].pictures()).open().getpixel((0, 0)) == (255, 0, 0)
    assert [c for chunk in source.chunks(2) for c in source.read(chunk, BadRecords())] == whole
    assert path.name not in source.name


def test_bad_samples_of_a_tar_are_named_by_their_key(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name, data in (("a.json", b"{"), ("b.0.png", b"x"), ("c.json", str(drawing()).replace("'", '"').encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    bad = BadRecords("skip")
    assert all_of(open_source(tmp_path / "bad.tar"), bad) == []
    for line, reason in zip(
        bad.found, ("[a]: is not JSON", "[b]: there is no .json", "[c]: there is no picture red.png in this"), strict=True
    ):
        assert reason in line
    (tmp_path / "torn.tar").write_bytes((tmp_path / "bad.tar").read_bytes()[:600])
    with pytest.raises(UserError, match=r"torn.tar is no tar file or is damaged"):
        all_of(open_source(tmp_path / "torn.tar"))


def test_what_is_no_source_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    for name in (tmp_path, tmp_path / "gone.jsonl"):
        with pytest.raises(UserError, match="there are no records at"):
            open_source(name)
    with pytest.raises(UserError, match=r"notes.txt is no record file; allowed: .jsonl, .tar"):
        open_source(tmp_path / "notes.txt")
