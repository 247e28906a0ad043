"""The command line: files and JSON come out, mistakes are one line and exit code 2, help answers without
torch.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from llada_uni.cli import main
from tests.data.helpers import drawing, question, write_records
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, tiny):
    """Every command runs in an empty directory, with the tiny model as the one that is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLADA_UNI_MODEL", str(tiny))
    return tmp_path


@pytest.fixture
def picture(here):
    image = Image.new("RGB", (32, 32), (90, 200, 90))
    image.paste((20, 30, 200), (0, 0, 16, 16))
    image.save(here / "in.png")
    return "in.png"


@pytest.fixture
def call(capsys):
    """Runs a command; (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_help_answers_without_torch():
    code = (
        "import sys; from llada_uni.cli import main; code = main(['generate', '--help']); "
        "heavy = {'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout and "--thinking" in done.stdout


COMMANDS = (
    "demo", "generate", "understand", "edit", "inpaint", "story", "chat", "encode", "decode", "verify",
    "convert", "info", "eval",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0 and f"llada-uni {command}" in out and "Example" in out
    assert command in call("--help")[1]


def test_generate(call, here):
    code, out, err = call("generate", "a cat on green", "-o", "cat.png", "--seed", "3")
    assert code == 0 and out == "" and "cat.png" in err and "seed 3" in err
    assert Image.open("cat.png").size == (32, 32)
    again = ("generate", "a cat on green", "-o", "again.jpg", "--seed", 3, "--thinking", "--json")
    code, out, _ = call(*again)
    data = json.loads(out)
    assert code == 0 and data["file"] == "again.jpg" and data["seed"] == 3 and isinstance(data["text"], str)
    assert data["size"] == {"width": 32, "height": 32} and data["evaluations"]["decoder"] == 2
    code, out, _ = call("generate", "a cat", "--width", 16, "--decoder", "none", "-o", "cat.json", "--json")
    assert code == 0 and json.loads(out)["size"] is None
    assert json.loads((here / "cat.json").read_text())["width"] == 2
    assert sorted(path.name for path in here.iterdir()) == ["again.jpg", "cat.json", "cat.png"]


def test_the_same_seed_gives_the_same_file(call, here):
    for name in ("one.png", "two.png"):
        assert call("generate", "a cat", "-o", name, "--seed", 4)[0] == 0
    assert (here / "one.png").read_bytes() == (here / "two.png").read_bytes()


def test_a_terminal_sees_the_steps(call, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = call("generate", "a cat", "--seed", 4, "--thinking", "--json")
    assert code == 0 and json.loads(out)["seed"] == 4
    for words in ("writing", "drawing codes", "decoding"):
        assert words in err


def test_edit_and_inpaint(call, here, picture):
    assert call("edit", picture, picture, "-i", "a dog", "-o", "dog.png", "--seed", 1)[0] == 0
    code, out, _ = call("edit", picture, "-i", "a dog", "--text-scale", "1", "--seed", "1", "--json")
    data = json.loads(out)
    assert code == 0 and data["images"] == [picture] and data["file"] == "edited.png"
    Image.new("L", (32, 32), 255).save("mask.png")
    code, out, _ = call("inpaint", picture, "mask.png", "a dog", "--seed", 1, "--json")
    assert code == 0 and json.loads(out)["mask"] == "mask.png" and Image.open("filled.png").size == (32, 32)


def test_understand(call, picture):
    code, out, _ = call("understand", picture, "-q", "what is there?", "--seed", 1)
    assert code == 0 and out.endswith("\n")
    code, out, _ = call("understand", picture, picture, "--question", "what?", "--seed", 1, "--json")
    data = json.loads(out)
    assert code == 0 and data["images"] == [picture, picture] and data["evaluations"]["backbone"] >= 1


def test_story(call, here):
    code, out, _ = call(
        "story", "a story about a cat", "-o", "tale", "--seed", "2", "--max-frames", "1", "--json"
    )
    data = json.loads(out)
    assert code == 0 and data["seed"] == 2 and data["reason"] in ("finished", "frames", "length", "context")
    assert json.loads((here / "tale" / "story.json").read_text()) == data
    assert [part["file"] for part in data["parts"] if part["type"] == "image"] == [
        f"tale/{path.name}" for path in sorted((here / "tale").glob("*.png"))
    ]


def test_chat(call, picture, monkeypatch):
    code, out, _ = call("chat", "--image", picture, "what is there?", "and where?", "--seed", 1, "--json")
    turns = json.loads(out)["turns"]
    assert code == 0 and [turn["user"] for turn in turns] == ["what is there?", "and where?"]
    typed = f"/image {picture}\nwhat is there?\n/image nowhere.png\nand now?\n/quit\nnever\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    code, out, err = call("chat", "--seed", "1")
    assert code == 0 and len(out.splitlines()) == 2 and "nowhere.png" in err
    assert call("chat", "--json")[0] == 2


def test_encode_and_decode(call, here, picture, monkeypatch):
    code, out, _ = call("encode", picture)
    codes = json.loads(out)
    assert code == 0 and len(codes["codes"]) == codes["height"] * codes["width"] == 16
    assert call("encode", picture, "--mode", "raw", "-o", "codes.json")[0] == 0
    assert call("decode", "codes.json", "-o", "again.png", "--seed", 1, "--decoder", "base")[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(codes)))
    code, out, _ = call("decode", "-", "--seed", 1, "--json")
    assert code == 0 and json.loads(out)["codes"] == codes and Image.open("decoded.png").size == (32, 32)


def test_convert_and_info(call, here, tiny):
    assert call("convert", tiny, "stacked", "--to", "stacked")[0] == 0
    assert call("convert", "stacked", "back", "--json")[0] == 0
    assert (here / "back" / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    code, out, _ = call("info", "stacked", "--json")
    data = json.loads(out)
    assert code == 0 and next(p for p in data["parts"] if p["name"] == "backbone")["layout"] == "stacked"
    assert data["memory"]["bfloat16"] == 2 * data["parameters"]
    shutil.rmtree("stacked/vae")
    code, out, _ = call("info", "stacked")
    assert code == 0 and "backbone" in out and "not here: vae" in out
    code, out, _ = call("info")
    assert code == 0 and "decoder-turbo" in out


def test_info_speed(call):
    """The products of the directory's backbone, in every form that this machine has."""
    code, out, _ = call("info", "--speed", "--json")
    rows = json.loads(out)["speed"]
    assert code == 0 and all({"loop", "transposed"} <= set(row["milliseconds"]) for row in rows)
    code, out, _ = call("info", "--speed")
    assert code == 0 and "queries, keys, values" in out and "native: " in out


def test_verify(call, golden, here):
    shutil.copytree(golden / "image_tokenizer", here / "golden" / "image_tokenizer")
    shutil.copy(golden / "resize.json", here / "golden")
    code, out, _ = call("verify", "golden")
    assert code == 0 and "checks passed" in out and "FAIL" not in out
    tokens = json.loads((here / "golden" / "image_tokenizer" / "tokens.json").read_text())
    tokens[0]["token_ids"][0] += 1
    (here / "golden" / "image_tokenizer" / "tokens.json").write_text(json.dumps(tokens))
    code, out, _ = call("verify", "golden", "--json")
    data = json.loads(out)
    assert code == 1 and data["ok"] is False
    assert any(not check["ok"] for check in data["checks"]) and any(check["ok"] for check in data["checks"])


MISTAKES = {
    "no command": ([], "Usage"),
    "unknown command": (["paint"], "paint"),
    "no prompt": (["generate"], "prompt"),
    "unknown option": (["generate", "a cat", "--stepz", "3"], "--stepz"),
    "no number": (["generate", "a cat", "--image-steps", "many"], "--image-steps"),
    "empty prompt": (["generate", " "], "empty"),
    "steps": (["generate", "a cat", "--image-steps", "0"], "image_steps must be a whole number from 1 to 4096"),
    "steps without a name": (["generate", "a cat", "--steps", "3"], "--image-steps"),
    "the help of the command": (["edit", "in.png"], "(see llada-uni edit --help)"),
    "size": (["generate", "a cat", "--width", "31"], "multiple of 8"),
    "no model": (["generate", "a cat", "--model", "nowhere"], "nowhere"),
    "device": (["generate", "a cat", "--device", "abacus"], "abacus"),
    "file type": (["generate", "a cat", "-o", "cat.doc"], ".png"),
    "codes file type": (["generate", "a cat", "-o", "cat.png", "--decoder", "none"], ".json"),
    "no directory": (["generate", "a cat", "-o", "in.png/cat.png"], "in.png"),
    "no picture": (["understand", "nowhere.png", "-q", "what?"], "nowhere.png"),
    "no question": (["understand", "in.png"], "question"),
    "text for a picture": (["edit", "notes.txt", "-i", "a dog"], "notes.txt"),
    "codes that are no JSON": (["decode", "notes.txt"], "JSON"),
    "codes without a field": (["decode", "empty.json"], "height"),
    "codes out of range": (["decode", "large.json"], "out of range"),
    "missing codes": (["decode", "nowhere.json"], "nowhere.json"),
    "nothing to verify": (["verify", "."], "recorded numbers"),
    "verify a missing directory": (["verify", "nowhere"], "nowhere"),
    "info of a missing directory": (["info", "nowhere"], "nowhere"),
    "convert a missing directory": (["convert", "nowhere", "there"], "nowhere"),
    "convert to a file that is there": (["convert", ".", "in.png"], ""),
    "convert to an unknown layout": (["convert", "MODEL", "there", "--to", "flat"], "released"),
    "story of nothing": (["story", ""], "empty"),
    "unknown suite": (["eval", "--suite", "juggling"], "juggling"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(call, here, picture, tiny, name):
    (here / "notes.txt").write_text("no picture")
    (here / "empty.json").write_text("{}")
    (here / "large.json").write_text('{"height": 1, "width": 1, "codes": [64]}')
    arguments, words = MISTAKES[name]
    before = sorted(path.name for path in here.iterdir())
    code, out, err = call(*[tiny if argument == "MODEL" else argument for argument in arguments])
    assert code == 2, err
    if arguments:
        assert out == "" and len(err.strip().splitlines()) == 1 and err.startswith("llada-uni: ")
    assert words in err + out
    assert sorted(path.name for path in here.iterdir()) == before, "a mistake leaves no files"


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def _drop_field(path):
    config = json.loads(path.read_text())
    del config["hidden_size"]
    path.write_text(json.dumps(config))


DAMAGE = {
    "truncated weights": ("model.safetensors", _cut, "truncated"),
    "a field that is missing": ("config.json", _drop_field, "hidden_size"),
    "a tokenizer that is none": ("tokenizer.json", lambda path: path.write_text("{}"), "tokenizer"),
    "a config that is no JSON": ("config.json", lambda path: path.write_text("{"), "JSON"),
    "truncated decoder": ("decoder-turbo/model.safetensors", _cut, "truncated"),
    "weights of another model": (
        "model.safetensors",
        lambda path: shutil.copy(path.parent / "vae" / "diffusion_pytorch_model.safetensors", path),
        "tensor",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model_is_one_line_that_names_the_file(call, tiny, here, name):
    file, damage, words = DAMAGE[name]
    shutil.copytree(tiny, here / "model")
    damage(here / "model" / file)
    code, out, err = call("generate", "a cat", "-m", "model")
    assert code == 2 and out == "" and len(err.strip().splitlines()) == 1
    assert words in err and not (here / "picture.png").exists()


def test_eval_calls_the_suites(call, here, monkeypatch):
    asked = {}

    def run_suites(model, suites, limit, seed, split, json_path, html_dir, progress, settings, answers_path):
        asked.update(
            suites=suites, limit=limit, seed=seed, split=split, json_path=json_path, html_dir=html_dir
        )
        progress("geneval", 1, 2)
        return {"suites": {}, "settings": {"split": split, "seed": seed, "limit": limit}}

    monkeypatch.setattr("llada_uni.evaluation.run.run_suites", run_suites)
    monkeypatch.setattr("llada_uni.evaluation.report.format_table", lambda report: "a table")
    code, out, _ = call("eval", "--suite", "geneval,edit", "--limit", "2", "--seed", "5", "--json", "-")
    assert code == 0 and json.loads(out)["settings"]["seed"] == 5
    assert asked == {
        "suites": ["geneval", "edit"], "limit": 2, "seed": 5, "split": "heldout", "json_path": None,
        "html_dir": None,
    }  # fmt: skip
    assert call("eval", "--split", "seen", "--json", "report.json", "--html", "page")[0] == 0
    assert asked["suites"] == ["all"] and asked["limit"] == 200 and str(asked["json_path"]) == "report.json"
    failed = {"suites": {"geneval": {"failed": "no decoder"}}, "settings": {}}
    monkeypatch.setattr("llada_uni.evaluation.run.run_suites", lambda *a, **k: failed)
    assert call("eval", "--suite", "geneval")[0] == 1


def test_eval_scores_records_and_draws_prompts(call, here):
    path = write_records(here / "data", [question(), question("where is it?", "left"), drawing()])
    code, out, _ = call("eval", "--records", path, "--json", "-", "--answers", "answers.jsonl", "--metric", "f1")
    report = json.loads(out)["suites"]["records"]
    assert code == 0 and report["n"] == 2 and report["left_out"] == {"t2i": 1}
    assert len((here / "answers.jsonl").read_text().splitlines()) == 2
    code, out, _ = call("eval", "--records", path, "--by", "answer", "--limit", 1)
    assert code == 0 and out.startswith("records") and "f1 " in out
    (here / "prompts.txt").write_text("a cat\n\na dog\n")
    for drawn in (4, 0):  # the second time everything is there
        code, out, _ = call("eval", "--prompts", "prompts.txt", "--out", "drawn", "--samples", 2, "--json", "-")
        assert code == 0 and json.loads(out) == {"prompts": 2, "drawn": drawn, "there": 4 - drawn}
    assert Image.open("drawn/00001/samples/00001.png").size == (32, 32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "poems"], "unknown suites poems; known: photos, geneval"),
        (["--suite", "edit", "--records", "x"], "give one of them"),
        (["--prompts", "prompts.txt"], "--prompts and --out belong together"),
        (["--records", "nowhere"], "there are no records at nowhere"),
        (["--prompts", "nowhere.txt", "--out", "out"], "cannot read the prompts of nowhere.txt"),
    ],
)
def test_mistakes_of_eval(call, here, arguments, words):
    code, out, err = call("eval", *arguments)
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert list(here.iterdir()) == []
