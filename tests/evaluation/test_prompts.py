"""Prompt files are read, drawn once, and laid out as benchmarks read them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation.prompts import draw_prompts, grid, read_prompts


class Painter:
    """Draws a plain color that tells the seed."""

    def __init__(self) -> None:
        self.drawn = []

    def generate_image(self, prompt, seed, **settings):
        self.drawn.append((prompt, seed, settings))
        return Image.new("RGB", (8, 8), (seed, 0, 0))


def test_the_three_kinds_of_prompt_files(tmp_path):
    (tmp_path / "a.txt").write_text("a cat\n\n  a dog\n")
    assert [(p.name, p.text) for p in read_prompts(tmp_path / "a.txt")] == [("00000", "a cat"), ("00001", "a dog")]
    line = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
    (tmp_path / "b.jsonl").write_text(json.dumps(line) + "\n")
    (one,) = read_prompts(tmp_path / "b.jsonl")
    assert one.text == "a photo of a bench" and one.data == line
    (tmp_path / "dpg").mkdir()
    for name in ("10", "9"):
        (tmp_path / "dpg" / f"{name}.txt").write_text(f"prompt {name}\n")
    assert [(p.name, p.text) for p in read_prompts(tmp_path / "dpg")] == [("10", "prompt 10"), ("9", "prompt 9")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "\n", "holds no prompt"),
        ("a.jsonl", "{}", 'a.jsonl:1 has no text "prompt"'),
        ("a.jsonl", '{"prompt": "x"}\n[', "a.jsonl:2 is not JSON"),
        ("a.jsonl", "[]", "is no object"),
        ("a.csv", "x", "allowed: .txt, .jsonl, or a folder"),
    ],
)
def test_files_that_hold_no_prompts(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        read_prompts(tmp_path / name)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    (tmp_path / "a.txt").write_text("a cat\na dog\n")
    prompts, first, second = read_prompts(tmp_path / "a.txt"), Painter(), Painter()
    assert draw_prompts(first, prompts, tmp_path / "out", 3, seed=10, decoder="turbo")["drawn"] == 6
    assert first.drawn[4] == ("a dog", 14, {"decoder": "turbo"})
    (tmp_path / "out/00001/samples/00001.png").unlink()
    assert draw_prompts(second, prompts, tmp_path / "out", 3, seed=10) == {"prompts": 2, "drawn": 1, "there": 5}
    assert second.drawn == [("a dog", 14, {})]
    listed = [json.loads(line) for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    assert listed[1] == {
        "name": "00001", "prompt": "a dog", "files": [f"00001/samples/{n:05}.png" for n in range(3)], "seeds": [13, 14, 15],
    }  # fmt: skip


def test_layouts_of_benchmarks(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a cat", "tag": "single_object"}\n')
    prompts = read_prompts(tmp_path / "a.jsonl")
    draw_prompts(Painter(), prompts, tmp_path / "geneval", 4, layout="geneval")
    assert json.loads((tmp_path / "geneval/00000/metadata.jsonl").read_text())["tag"] == "single_object"
    assert [p.name for p in sorted((tmp_path / "geneval/00000/samples").iterdir())] == [f"{n:05}.png" for n in range(4)]
    draw_prompts(Painter(), prompts, tmp_path / "dpg", 4, layout="dpg")
    page = Image.open(tmp_path / "dpg" / "00000.png")
    assert page.size == (16, 16) and [page.getpixel(p)[0] for p in ((0, 0), (8, 0), (0, 8), (8, 8))] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="allowed: geneval, dpg"):
        draw_prompts(Painter(), prompts, tmp_path / "x", layout="hpd")


@pytest.mark.parametrize(("count", "size"), [(1, (8, 8)), (2, (16, 8)), (3, (16, 16)), (5, (24, 16))])
def test_grids_are_nearly_square(count, size):
    assert grid([Image.new("RGB", (8, 8))] * count).size == size
