"""A file of prompts: checked as a whole before anything is drawn, drawn one by one, and gone on with where it stopped."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from llada_uni.cli import main
from llada_uni.cli.many import draw_all, read_prompts
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.results import ImageResult


class Drawer:
    """Draws a point; fails at the prompts named."""

    def __init__(self, *broken: str) -> None:
        self.broken, self.asked = broken, []

    def run(self, request, on_progress=None):
        if request.prompt in self.broken:
            raise UserError("the prompt is too long")
        self.asked.append(request)
        pixels = None if request.decoder == "none" else Image.new("RGB", (1, 1))
        return ImageResult(pixels, ImageCodes((1,), 1, 1), request.prompt, request.seed or 0, seconds={"total": 0.1})


def prompts(tmp_path, text, name="prompts.txt"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_lines_become_requests_with_seeds_and_names(tmp_path):
    wanted = read_prompts(prompts(tmp_path, "a cat\n\n  two dogs, one red/blue\n"), {"seed": 5, "cfg_scale": 3.0})
    assert [one.file for one in wanted] == ["0001-a-cat.png", "0002-two-dogs-one-red-blue.png"]
    assert [(one.request.prompt, one.request.seed, one.request.cfg_scale) for one in wanted] == [
        ("a cat", 5, 3.0),
        ("two dogs, one red/blue", 6, 3.0),
    ]


def test_json_lines_have_settings_of_their_own(tmp_path):
    text = '{"prompt": "a", "seed": 9, "height": 64}\n{"prompt": "b", "file": "b.jpg"}\n'
    wanted = read_prompts(prompts(tmp_path, text, "p.jsonl"), {"seed": 5})
    assert [(one.request.seed, one.request.height, one.file) for one in wanted] == [(9, 64, "0001-a.png"), (6, None, "b.jpg")]
    (codes,) = read_prompts(prompts(tmp_path, "a\n"), {"decoder": "none"})
    assert codes.file == "0001-a.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no prompts"),
        ("{", r"line 1 is no JSON \(.*\): a line of a .jsonl is such as"),
        ('"a"', "line 1 must hold an object"),
        ('{"prompt": "a"}\n{"seed": 1}', "line 2: Draw: prompt is missing"),
        ('{"prompt": "a", "color": 1}', "line 1: unknown setting 'color'"),
        ('{"prompt": "a", "file": "../a.png"}', "line 1: file must be a name without folders"),
        ('{"prompt": "a", "file": "a.png"}\n{"prompt": "b", "file": "a.png"}', "line 1: the file a.png is named"),
    ],
)
def test_mistakes_name_the_line(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as error:
        read_prompts(prompts(tmp_path, text, "p.jsonl"), {})
    assert "\n" not in str(error.value)


def test_what_is_there_is_passed_over_and_a_failure_keeps_what_was_drawn(tmp_path):
    wanted = read_prompts(prompts(tmp_path, "a\nb\nc\n"), {"seed": 1})
    out = tmp_path / "out"
    with pytest.raises(UserError, match="line 2: the prompt is too long"):
        list(draw_all(Drawer("b"), wanted, out))
    assert [path.name for path in out.iterdir()] == ["0001-a.png"]
    drawer = Drawer()
    done = list(draw_all(drawer, wanted, out))
    assert [one["skipped"] for one in done] == [True, False, False]
    assert [request.prompt for request in drawer.asked] == ["b", "c"]
    assert sorted(path.name for path in out.iterdir()) == ["0001-a.png", "0002-b.png", "0003-c.png"]
    assert json.dumps(done)


@pytest.mark.parametrize("arguments", [[], ["a cat", "--prompts-file", "p.txt"]])
def test_one_prompt_or_a_file_of_them(arguments, capsys):
    assert main(["generate", *arguments]) == 2
    assert "give a prompt, or a file of prompts with --prompts-file" in capsys.readouterr().err


def test_json_lines_in_a_text_file_are_no_prompts(tmp_path):
    (tmp_path / "a.txt").write_text('a cat\n{"prompt": "a dog", "seed": 3}\n')
    with pytest.raises(UserError, match=r"line 2 is JSON, but the name does not end with \.jsonl"):
        read_prompts(tmp_path / "a.txt", {})
