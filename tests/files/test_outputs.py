"""What cannot be written is told before the work, and asking leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.files.outputs import check_takes_files, check_writable

NO_PLACE = [  # of this machine's own: a file system that takes no files, a file in the place of a directory
    ("/proc/a.png", r"cannot write /proc/a\.png \("),
    ("/proc/sub/a.png", r"cannot write /proc/sub/a\.png \("),
    ("file/a.png", r"cannot write .*file/a\.png \(Not a directory\)"),
]


@pytest.mark.parametrize(("name", "words"), NO_PLACE)
def test_where_no_file_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=words):
        check_writable(name)
    with pytest.raises(UserError, match=words.replace("cannot write", "cannot (write|make)")), new_folder(name):
        pass


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory, a file name was expected"):
        check_writable(tmp_path)


def test_where_one_can_be(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "there" / "yet" / "ünï 猫.png")
    check_takes_files(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
