"""Tables with paths to images."""

from __future__ import annotations

import pytest

from llada_uni.data.importers.items import ReadOptions
from llada_uni.data.importers.wordings import Wording, Wordings
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, put, said


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "pics" / "red.png", picture("red"))
    put(tmp_path / "pics" / "blue.png", picture("blue"))
    return tmp_path


def test_columns_are_fields(folder):
    text = '\ufefffile,class,caption,note\r\npics/red.png,apple,"a red, round apple",x\r\npics/blue.png,sky,,y\r\n'
    path = put(folder / "list.csv", text)
    wordings = Wordings(
        {"t2i": (Wording("{caption}"), Wording("{a_class} ({note})")), "understand": (Wording("it?", "{class}"),)}
    )
    _, records = imported("csv", path, folder / "out", wordings=wordings)
    assert [said(r) for r in records if r.task == "understand"] == [
        ("understand", "it?", "apple"),
        ("understand", "it?", "sky"),
    ]
    drawn = [said(r)[1] for r in records if r.task == "t2i"]
    assert drawn[0] in ("a red, round apple", "an apple (x)") and drawn[1] == "a sky (y)"  # the second has no caption
    assert [color_of(r) for r in records if r.task == "t2i"] == [(255, 0, 0), (0, 0, 255)]


def test_names_delimiter_and_folder_can_be_given(folder):
    path = put(folder / "texts" / "list.tsv", "where\twhat is shown\nred.png\tan apple\n")
    read = ReadOptions(columns={"image": "where", "caption": "what is shown"}, images=str(folder / "pics"))
    _, records = imported("csv", path, folder / "out", read=read)
    assert said(records[0]) == ("t2i", "an apple", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,class\npics/red.png,a\npics/gone.png,b\n", r"list\.csv:3: there is no image .*gone\.png"),
        ("file,class\npics/red.png\n", r"list\.csv:2: has another number of columns than the 2"),
        ("file,class\npics/red.png,a,b\n", r"list\.csv:2: has another number of columns than the 2"),
        ("file,class\n/etc/passwd,a\n", r"list\.csv:2: the path '/etc/passwd' leads out of"),
        ("file,class\n,a\n", r"list\.csv:2: the path '' leads out of"),
        ('file,class\n"pics/red.png,a\n', r"list\.csv: the row after line 1 is not csv"),
        ("a,b\n1,2\n", r"which column has the paths\? Say --column image=NAME; columns: a, b"),
        ("", r"list\.csv is empty"),
    ],
)
def test_faults_are_named_by_line(folder, text, reason):
    with pytest.raises(UserError, match=reason):
        imported("csv", put(folder / "list.csv", text), folder / "out")


def test_a_column_that_is_not_there_is_named(folder):
    path = put(folder / "list.csv", "file,class\npics/red.png,a\n")
    with pytest.raises(UserError, match=r"there is no column 'kind'; allowed: file, class"):
        imported("csv", path, folder / "out", read=ReadOptions(columns={"class": "kind"}))
