"""Files, folders and tar shards of records: cut anywhere, they give the same conversations."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import groupby

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_uni.data.check import check_records
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


# ---
# Files as other programs leave them


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_what_macos_leaves_beside_the_files_is_passed_over(tmp_path):
    write_records(tmp_path, [drawing("one")], "a.jsonl")
    red = (tmp_path / "red.png").read_bytes()
    members = [("k.json", json.dumps(drawing("two", "0.png")).encode()), ("k.0.png", red)]
    clutter = [("._k.json", b"junk"), ("._k.0.png", b"junk"), (".DS_Store", b"junk"), ("__MACOSX/k.json", b"junk")]
    write_tar(tmp_path / "b.tar", [clutter[0], members[0], clutter[1], members[1], *clutter[2:]])
    for name in ("._a.jsonl", "._b.tar"):
        (tmp_path / name).write_bytes(b"junk")
    assert [c.messages[0].text() for c in all_of(open_source(tmp_path))] == ["one", "two"]


def test_a_byte_order_mark_is_read(tmp_path):
    line = json.dumps(drawing("one")).encode()
    write_records(tmp_path, [])
    (tmp_path / "records.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\n")
    assert len(all_of(open_source(tmp_path / "records.jsonl"))) == 2
    marked = b"\xef\xbb\xbf" + json.dumps(drawing("two", "0.png")).encode()
    write_tar(tmp_path / "k.tar", [("k.json", marked), ("k.0.png", (tmp_path / "red.png").read_bytes())])
    assert [c.messages[0].text() for c in all_of(open_source(tmp_path / "k.tar"))] == ["two"]


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_samples_that_share_a_key_are_never_lost_without_a_word(tmp_path_factory, keys):
    """Every run of one key is either a good record, or a bad one that names the key."""
    folder = tmp_path_factory.mktemp("keys")
    write_records(folder, [])
    members = []
    for key in keys:
        members += [
            (f"{key}.json", json.dumps(drawing(key, "0.png")).encode()),
            (f"{key}.0.png", (folder / "red.png").read_bytes()),
        ]
    bad = BadRecords("skip")
    good = [c.messages[0].text() for c in all_of(open_source(write_tar(folder / "s.tar", members)), bad)]
    runs = [(key, len(list(group))) for key, group in groupby(keys)]
    assert good == [key for key, count in runs if count == 1]
    assert len(bad.found) == len([key for key, count in runs if count > 1])
    for line, (key, count) in zip(bad.found, [run for run in runs if run[1] > 1], strict=True):
        assert f"[{key}]" in line and f"the member {key}.json stands here {count} times" in line
    # What stands apart is found by `check`: its id, the key, has been taken.
    report = check_records(open_source(folder / "s.tar"))
    assert report.records == len(set(good))
    assert sum("has been taken" in line for line in report.bad) == len(good) - len(set(good))


@pytest.mark.parametrize("name", ["../red.png", "/etc/passwd", "a/../../red.png"])
def test_images_stay_inside_the_folder(tmp_path, name):
    write_records(tmp_path / "in", [drawing("x", name)])
    bad = BadRecords("skip")
    assert not all_of(open_source(tmp_path / "in"), bad)
    assert "is outside the folder of the records" in bad.found[0]
