"""Imports as a whole: templates, measures, splits, both formats, going on after a stop, the command line."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from llada_uni.cli import main
from llada_uni.data.importers import run, writer
from llada_uni.data.importers.measures import COLORS, MEASURES
from llada_uni.data.importers.run import ImportOptions, import_data
from llada_uni.data.importers.splits import parse_splits, split_of
from llada_uni.data.importers.wordings import LANGUAGES, Wording, Wordings, with_derived
from llada_uni.data.records import BadRecords
from llada_uni.data.sources import conversations, open_source
from llada_uni.errors import UserError
from tests.data.importers.helpers import color_of, imported, picture, put, said


def classes(root, count=6):
    for number in range(count):
        put(root / ("cat", "dog")[number % 2] / f"{number:02d}.png", picture(("red", "blue")[number % 2]))
    return root


def test_measured_fields_are_those_of_the_image(tmp_path):
    wordings = Wordings({"t2i": (Wording("{brightness}, {color}, {top_color}, {bottom_color}, {center_color}"),)})
    image = Image.new("RGB", (40, 40), (30, 60, 200))
    image.paste((255, 255, 255), (0, 0, 40, 12))
    put(tmp_path / "in" / "x" / "1.png", b"")
    image.save(tmp_path / "in" / "x" / "1.png")
    _, records = imported("folder", tmp_path / "in", tmp_path / "out", wordings=wordings)
    assert said(records[0])[1] == "medium, blue, white, blue, blue"


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((5, 5, 5), "black"), ((128, 128, 128), "gray"), ((250, 250, 250), "white"), ((220, 20, 20), "red"),
        ((110, 70, 30), "brown"), ((240, 140, 20), "orange"), ((240, 230, 40), "yellow"), ((40, 160, 50), "green"),
        ((40, 70, 200), "blue"), ((130, 40, 200), "purple"), ((240, 90, 180), "pink"),
    ],
)  # fmt: skip
def test_colors_have_their_names(rgb, name):
    assert name in COLORS and MEASURES["color"](Image.new("RGB", (8, 8), rgb)) == name


def test_measures_stay_true_when_an_image_is_mirrored():
    rng = random.Random(0)
    for _ in range(20):
        image = Image.new("RGB", (4, 4))
        image.putdata([tuple(rng.randrange(256) for _ in range(3)) for _ in range(16)])
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert {name: measure(image) for name, measure in MEASURES.items()} == {
            name: measure(mirrored) for name, measure in MEASURES.items()
        }


def test_splits_depend_on_the_key_alone_and_have_their_shares(tmp_path):
    splits = parse_splits(["train=0.75", "held=0.25"])
    names = [split_of(f"k{n}", splits) for n in range(4000)]
    assert abs(names.count("held") / 4000 - 0.25) < 0.02
    root = classes(tmp_path / "in", 40)
    result = import_data("folder", str(root), tmp_path / "out", ImportOptions(splits=splits))
    assert sum(result.records.values()) == 120 and set(result.records) == {"train", "held"}
    for name in splits:
        found = {r.id.split("#")[0] for r in conversations(open_source(tmp_path / "out" / name), BadRecords())}
        assert found == {key for n in range(40) if split_of(key := f"{('cat', 'dog')[n % 2]}/{n:02d}", splits) == name}
    for wrong in (["train=0.5"], ["a=0.5", "a=0.5"], ["a=2"], ["a"], ["../a=1"]):
        with pytest.raises(UserError):
            parse_splits(wrong)


def test_both_formats_hold_the_same_records(tmp_path):
    root = classes(tmp_path / "in")
    _, lines = imported("folder", root, tmp_path / "one")
    _, tars = imported("folder", root, tmp_path / "two", form="webdataset")
    assert [said(r) for r in lines] == [said(r) for r in tars] and [r.id for r in lines] == [r.id for r in tars]
    assert [color_of(r) for r in lines] == [color_of(r) for r in tars]


@pytest.mark.parametrize("form", ["jsonl", "webdataset"])
def test_an_import_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, form):
    monkeypatch.setattr(writer, "SHARD", 4)
    root = classes(tmp_path / "in", 18)
    splits = {"a": 0.5, "b": 0.5}
    options = ImportOptions(splits=splits, form=form)
    import_data("folder", str(root), tmp_path / "whole", options)

    class Stopped(Exception):
        pass

    def stop(items):
        if items == 13:
            raise Stopped

    with pytest.raises(Stopped):
        import_data("folder", str(root), tmp_path / "cut", options, stop)
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").rglob("records-*")}
    assert kept
    import_data("folder", str(root), tmp_path / "cut", options)
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*.*") if p.is_file()}
    cut = {p.relative_to(tmp_path / "cut"): p.read_bytes() for p in (tmp_path / "cut").rglob("*.*") if p.is_file()}
    assert whole == cut
    again = import_data("folder", str(root), tmp_path / "cut", options)
    assert again.items == 18 and again.records == {"a": 0, "b": 0}


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    root = classes(tmp_path / "in")
    put(tmp_path / "full" / "x.txt", "mine")
    with pytest.raises(UserError, match="is not empty and holds no import"):
        import_data("folder", str(root), tmp_path / "full")
    import_data("folder", str(root), tmp_path / "out")
    with pytest.raises(UserError, match=r"holds an import with other settings \(seed\)"):
        import_data("folder", str(root), tmp_path / "out", ImportOptions(seed=1))


def test_a_damaged_image_is_found_where_it_is_measured_and_by_check_elsewhere(tmp_path):
    root = classes(tmp_path / "in")
    put(root / "cat" / "99.png", b"junk")
    wordings = Wordings({"t2i": (Wording("{color} {class}"),)})
    with pytest.raises(UserError, match=r"99\.png: the picture is no picture|99\.png: .*cannot be read|99\.png: the image"):
        import_data("folder", str(root), tmp_path / "a", ImportOptions(wordings=wordings))
    result = import_data("folder", str(root), tmp_path / "b", ImportOptions(wordings=wordings, on_bad="skip"))
    assert len(result.bad) == 1 and result.records == {"": 6}


def test_nothing_usable_is_an_error(tmp_path):
    root = classes(tmp_path / "in", 2)
    wordings = Wordings({"t2i": (Wording("{caption}"),)})
    with pytest.raises(UserError, match="no template fits: the item has a_class, class"):
        import_data("folder", str(root), tmp_path / "a", ImportOptions(wordings=wordings))
    with pytest.raises(UserError, match="gave no record that can be used"):
        import_data("folder", str(root), tmp_path / "b", ImportOptions(wordings=wordings, on_bad="skip"))
    with pytest.raises(UserError, match=f"unknown kind of dataset 'zip'; allowed: {', '.join(run.KINDS)}"):
        import_data("zip", str(root), tmp_path / "c")


def test_templates_of_a_file_and_how_many_each(tmp_path):
    path = put(
        tmp_path / "t.yaml",
        "t2i: ['draw {a_class}', 'paint {a_class}', 'show {a_class}']\n"
        "understand:\n  - {ask: 'what?', answer: '{class}'}\neach: {t2i: 2}\n",
    )
    _, records = imported("folder", classes(tmp_path / "in", 2), tmp_path / "out", wordings=Wordings.from_file(path))
    cat = [said(r) for r in records if r.id.startswith("cat")]
    assert len(cat) == 3 and len(set(cat)) == 3
    assert {one[1] for one in cat if one[0] == "t2i"} < {"draw a cat", "paint a cat", "show a cat"}
    for text, reason in (
        ("t2i: ['{x:>3}']", r"has the field \{x\}; allowed: a name alone"),
        ("t2i: ['{x']", "cannot be read"),
        ("t2i: []", "t2i must be a list"),
        ("draw: ['x']", "must hold templates under t2i, caption, understand, each; found draw"),
        ("caption: ['x']", r"a template of caption is \{ask: ..., answer: ...\}, not 'x'"),
        ("t2i: ['{class}']\neach: {t2i: -1}", "each: t2i: -1"),
    ):
        with pytest.raises(UserError, match=reason):
            Wordings.from_file(put(tmp_path / "bad.yaml", text)).fields  # noqa: B018


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_task(language):
    built_in = Wordings.built_in((language,))
    by_class = built_in.records(with_derived({"class": "cat"}), random.Random(0))
    by_caption = built_in.records(with_derived({"caption": ("a cat", "cats")}), random.Random(0))
    assert [task for task, *_ in by_class] == ["t2i", "caption", "understand"]
    assert [task for task, *_ in by_caption] == ["t2i", "caption"]
    with pytest.raises(UserError, match="no built-in templates in 'xx'; allowed: en"):
        Wordings.built_in(("xx",))


def test_the_command_line(tmp_path, capsys):
    root = classes(tmp_path / "in")
    out = tmp_path / "out"
    arguments = ["data", "import", "folder", str(root), str(out), "--t2i", "draw {a_class}", "--question", "what? => {class}"]
    assert main([*arguments, "--split", "train=0.5", "--split", "held=0.5", "--each", "t2i=1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["items"] == 6 and sum(report["records"].values()) == 12
    assert main(["data", "check", str(out / "train")]) == 0
    capsys.readouterr()
    for wrong in (["--question", "what?"], ["--each", "t2i=x"], ["--column", "x"], ["--languages", "xx"], ["--format", "zip"]):
        code = main(["data", "import", "folder", str(root), str(tmp_path / "no"), *wrong])
        assert code == 2 and capsys.readouterr().err.count("\n") == 1
