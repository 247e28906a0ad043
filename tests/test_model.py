"""UniModel end to end on a tiny model with random weights: every task, seeds, missing parts, saving, bad
input.
"""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.generation.engine import Engine
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from llada_uni.results import EndEvent, ImageEvent, ImageResult, Progress, TextEvent, save_image
from llada_uni.text.prompts import Turn
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden):
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)


@pytest.fixture(scope="module")
def model(folder):
    return UniModel.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def picture():
    image = Image.new("RGB", (32, 32), (250, 240, 120))
    image.paste((20, 90, 200), (0, 0, 16, 16))
    image.paste((200, 30, 40), (16, 16, 32, 32))
    return image


def same(one: ImageResult, other: ImageResult) -> bool:
    return one.codes == other.codes and one.image.tobytes() == other.image.tobytes()


# --- the tasks ---


def test_text_to_image(model):
    seen: list[Progress] = []
    result = model.generate_image("a cat on green", seed=5, on_progress=seen.append)
    assert result.image.size == (32, 32) and result.image.mode == "RGB"
    assert (result.codes.height, result.codes.width) == (4, 4) and max(result.codes.codes) < 64
    assert result.prompt == "a cat on green" and result.seed == 5 and result.thinking is None
    work = result.evaluations
    assert 1 <= work.backbone <= 3 * 4 and work.branches == 2 * work.backbone and work.decoder == 2
    assert set(result.seconds) == {"codes", "decode", "total"}
    codes = [step for step in seen if step.stage == "codes"]
    assert [step.done for step in codes] == sorted(step.done for step in codes) and codes[-1].done == 16
    assert len(codes) == work.backbone and all(step.total == 16 for step in seen if step.stage == "codes")
    assert [step.done for step in seen if step.stage == "decode"][-1] == 2
    json.dumps(result.to_json())


def test_the_same_seed_gives_the_same_picture(model):
    first = model.generate_image("a cat", seed=5, temperature=1.0)
    assert same(first, model.generate_image("a cat", seed=5, temperature=1.0))
    assert first.codes != model.generate_image("a cat", seed=6, temperature=1.0).codes
    greedy = [model.generate_image("a cat", seed=seed) for seed in (1, 2)]
    assert greedy[0].codes == greedy[1].codes, "greedy codes do not depend on the seed"
    assert not same(*greedy), "but the noise of the decoder does"
    unseeded = model.generate_image("a cat", temperature=1.0)
    assert same(unseeded, model.generate_image("a cat", seed=unseeded.seed, temperature=1.0))


def test_size_steps_scale_and_decoders(model):
    wide = model.generate_image("a cat", height=16, width=48, image_steps=1, cfg_scale=1.0, seed=1, decoder="base")
    assert wide.image.size == (48, 16) and (wide.codes.height, wide.codes.width) == (2, 6)
    assert wide.evaluations.branches == wide.evaluations.backbone <= 3
    assert wide.evaluations.decoder == 2, "three points in time are two evaluations"
    assert model.generate_image("a cat", seed=1, decoder_steps=3).evaluations.decoder == 3
    bare = model.generate_image("a cat", seed=1, decoder="none")
    assert bare.pixels is None and bare.evaluations.decoder == 0
    with pytest.raises(UserError, match="codes only"):
        bare.save("nowhere.png")
    full = model.generate_image("a cat", seed=1)
    assert bare.codes == full.codes and same(full, model.decode_codes(bare.codes, seed=1))


def test_thinking_writes_first_and_draws_then(model):
    result = model.generate_image("two cats", seed=1, thinking=True)
    assert isinstance(result.thinking, str) and result.image.size == (32, 32)
    assert "think" in result.seconds
    assert result.evaluations.backbone > model.generate_image("two cats", seed=1).evaluations.backbone
    assert model.generate_image("two cats", height=16, width=16, seed=1, thinking=True).image.size == (16, 16)


class Says:
    """The real engine for pictures; given words where it is to write."""

    def __init__(self, engine: Engine, *answers: list[int]) -> None:
        self.engine, self.answers, self.prompts = engine, list(answers), []
        self.settings = []

    def generate(self, prompt, settings, **more):
        self.settings.append(settings)
        self.branches = more.get("branches")
        self.prompts.append(list(prompt))
        if settings.allowed is not None:
            return self.engine.generate(prompt, settings, **more)
        result = self.engine.generate(prompt, settings, **more)
        result.tokens = self.answers.pop(0)
        return result


@pytest.fixture
def says(model, monkeypatch):
    def speak(*answers):
        engine = Says(Engine(model.parts.backbone), *answers)
        monkeypatch.setitem(model.parts.__dict__, "engine", engine)
        return engine

    return speak


def test_a_thought_may_choose_the_size_and_is_part_of_the_prompt(model, says):
    form = model.parts.format
    thought = form.text.encode("a dog")
    engine = says(thought + form.image_header(2, 2))
    result = model.generate_image("a cat", seed=1, thinking=True)
    assert result.thinking == "a dog" and result.image.size == (16, 16)
    assert engine.prompts[1] == engine.prompts[0] + thought + form.image_header(2, 2)
    empty = form.unconditional("generate", [Turn("user", "a cat")])
    assert engine.branches == {"uncond": empty + form.image_header(2, 2)}
    says(thought + form.image_header(2, 2))
    assert model.generate_image("a cat", 32, 32, seed=1, thinking=True).image.size == (32, 32)
    says([*thought, form.text.eos_id])  # no header: we add it
    assert model.generate_image("a cat", seed=1, thinking=True).image.size == (32, 32)
    says(thought + form.image_header(64, 64))  # does not fit
    assert model.generate_image("a cat", seed=1, thinking=True).image.size == (32, 32)
    says([form.text.size_id(2), form.text.boi_id])
    broken = model.generate_image("a cat", seed=1, thinking=True)
    assert broken.thinking == "" and broken.image.size == (32, 32)


def test_understanding(model, picture, says):
    result = model.understand(picture, "what is at the top left?", seed=1)
    assert isinstance(result.text, str) and result.evaluations.backbone >= 1
    form = model.parts.format
    engine = says([*form.text.encode("nothing is there."), form.text.eos_id])
    result = model.understand([picture, picture], "what is there?", seed=1)
    assert result.text == "nothing is there." and result.finished
    assert engine.prompts[0].count(form.text.image_start_id) == 2
    says(form.text.encode("nothing"))
    assert not model.understand(picture, "what?", seed=1).finished


def test_editing(model, picture):
    result = model.edit_image(picture, "a dog", seed=2)
    assert result.image.size == (32, 32) and set(result.seconds) == {"encode", "codes", "decode", "total"}
    assert result.evaluations.branches == 2 * result.evaluations.backbone
    assert same(result, model.edit_image(picture, "a dog", seed=2))
    scaled = model.edit_image(picture, "a dog", text_scale=3.0, image_scale=1.5, rescale=0.7, seed=2)
    assert scaled.evaluations.branches == 3 * scaled.evaluations.backbone
    free = model.edit_image(picture, "a dog", text_scale=1.0, image_scale=0.0, seed=2)
    assert free.evaluations.branches == free.evaluations.backbone
    several = model.edit_image([picture, picture, model.encode_image(picture)], "a dog", 16, 48, seed=2)
    assert several.image.size == (48, 16)


def test_inpainting_keeps_the_codes_outside_the_mask(model, picture):
    codes = model.encode_image(picture, "edit")
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 16, 8))  # two cells of the first row
    result = model.inpaint(picture, mask, "a dog on green", seed=3)
    assert result.codes.codes[2:] == codes.codes[2:]
    assert result.evaluations.backbone <= 4
    dot = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    dot.putpixel((31, 31), (255, 255, 255, 255))
    result = model.inpaint(picture, dot, "a dog", seed=3)
    assert result.codes.codes[:15] == codes.codes[:15]
    whole = Image.new("1", (32, 32), 1)
    assert model.inpaint(picture, whole, "a cat", seed=3).codes == model.generate_image("a cat", seed=3).codes


def test_inpainting_takes_codes_and_lays_their_grid_over_the_mask(model, picture, tmp_path):
    codes = model.encode_image(picture, "edit")
    file = model.save_codes(codes, tmp_path / "codes.pt")
    mask = Image.new("L", (200, 100), 0)
    mask.paste(255, (0, 0, 100, 25))  # two cells of the first row, again
    result = model.inpaint(file, mask, "a dog on green", seed=3)
    assert result.codes.codes[2:] == codes.codes[2:]
    assert model.edit_image(file, "a dog", seed=2).codes == model.edit_image(picture, "a dog", seed=2).codes
    assert model.encode_image(file) == codes
    assert model.understand(file, "what?", seed=1).text == model.understand(codes, "what?", seed=1).text
    assert model.decode_codes(file, seed=1).image.tobytes() == model.decode_codes(codes, seed=1).image.tobytes()


def test_inpainting_takes_masks_of_larger_pictures(model, picture):
    large = picture.resize((96, 64))
    mask = Image.new("L", (96, 64), 0)
    mask.putpixel((47, 30), 255)  # the crop is the middle 64 x 64, scaled by a half: cell (1, 1)
    codes = model.encode_image(large, "edit").codes
    result = model.inpaint(large, mask, "a dog", seed=3).codes.codes
    assert [i for i in range(16) if i != 5] == [i for i in range(16) if i != 5 and codes[i] == result[i]]
    edge = Image.new("L", (96, 64), 0)
    edge.paste(255, (0, 0, 16, 64))  # cropped away
    with pytest.raises(UserError, match="white nowhere"):
        model.inpaint(large, edge, "a dog", seed=3)


def test_interleaved_answers(model, says):
    form = model.parts.format
    text, header = form.text, form.image_header(2, 2)
    engine = says(text.encode("a cat") + header, text.encode("a dog") + header, [text.eos_id])
    events = list(model.interleave("tell a story", max_frames=3, seed=4))
    assert [type(event) for event in events] == [TextEvent, ImageEvent, TextEvent, ImageEvent, EndEvent]
    assert [event.image.size for event in events if isinstance(event, ImageEvent)] == [(16, 16)] * 2
    assert events[-1].reason == "finished" and events[-1].seed == 4 and events[-1].evaluations.decoder == 4
    guided = [how.guidance.branches for how in engine.settings if how.allowed is not None]
    assert guided == [("uncond",), ("no_text", "no_image")], "by default the scales are the released ones"
    says([*text.encode("a cat"), text.image_start_id, text.boi_id])
    events = list(model.interleave("tell a story", max_frames=1, seed=4, decoder="none"))
    assert events[1].pixels is None and events[1].repaired and events[2].reason == "frames"


def test_random_interleaved_answers_end(model):
    events = list(model.interleave("tell a story about a cat", seed=4))
    assert isinstance(events[-1], EndEvent)
    assert [type(e) for e in events] == [
        type(e) for e in model.interleave("tell a story about a cat", seed=4)
    ]


def test_chat(model, picture, says):
    form = model.parts.format
    text = form.text
    engine = says(
        [*text.encode("a cat"), text.eos_id], text.encode("here") + form.image_header(2, 2), [text.eos_id]
    )
    first = {"role": "user", "content": [picture, "what is there?"]}
    reply = model.chat([first], seed=1)
    assert reply.text == "a cat" and reply.images == []
    again = model.chat(
        [first, {"role": "assistant", "content": list(reply.parts)}, {"role": "user", "content": "a dog"}],
        seed=1,
    )
    assert again.text == "here" and [image.size for image in again.images] == [(16, 16)]
    assert text.eos_id not in engine.prompts[1]
    json.dumps(again.to_json())
    item = {"type": "image", "image": picture}
    says([text.eos_id])
    assert (
        model.chat([{"role": "user", "content": [item, {"type": "text", "text": "what?"}]}], seed=1).text
        == ""
    )


def test_codes_and_pictures(model, picture):
    codes = model.encode_image(picture)
    assert (codes.height, codes.width) == (4, 4)
    raw = model.encode_image(picture.resize((16, 24)), mode="raw")
    assert (raw.height, raw.width) == (3, 2)
    decoded = model.decode_codes(raw, seed=1)
    assert decoded.image.size == (16, 24)
    assert same(decoded, model.decode_codes(raw, seed=1)) and not same(
        decoded, model.decode_codes(raw, seed=2)
    )


# --- directories ---


@pytest.mark.parametrize(
    ("missing", "works", "fails"),
    [
        (("decoder-turbo",), ("understand", "base"), ("turbo",)),
        (("decoder", "decoder-turbo", "vae"), ("understand", "codes"), ("turbo", "base")),
        (("image_tokenizer",), ("codes", "story"), ("understand", "turbo")),
        (("model.safetensors", "config.json"), ("decode", "encode"), ("understand", "codes")),
        (("tokenizer.json",), ("decode", "encode"), ("understand", "codes")),
        (("vae",), ("codes",), ("turbo",)),
    ],
)
def test_a_directory_without_a_part_serves_the_other_tasks(folder, tmp_path, picture, missing, works, fails):
    here = tmp_path / "model"
    shutil.copytree(folder, here)
    for name in missing:
        shutil.rmtree(here / name) if (here / name).is_dir() else (here / name).unlink()
    calls = {
        "understand": lambda m: m.understand(picture, "what?", seed=1),
        "turbo": lambda m: m.generate_image("a cat", seed=1, image_steps=1, decoder="turbo"),
        "base": lambda m: m.generate_image("a cat", seed=1, image_steps=1, decoder="base"),
        "codes": lambda m: m.generate_image("a cat", 32, 32, seed=1, image_steps=1, decoder="none"),
        "story": lambda m: list(m.interleave("a cat", 1, 32, 32, seed=1, decoder="none")),
        "decode": lambda m: m.decode_codes(ImageCodes((1, 2), 1, 2), seed=1),
        "encode": lambda m: m.encode_image(picture),
    }
    for name in works:
        calls[name](UniModel.from_pretrained(here, device="cpu"))
    for name in fails:
        with pytest.raises(UserError) as error:
            calls[name](UniModel.from_pretrained(here, device="cpu"))
        assert "\n" not in str(error.value)


def test_finding_models(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LLADA_UNI_MODEL", str(folder))
    assert UniModel.from_pretrained(device="cpu").folder == folder
    for wrong in (tmp_path / "nothing", "no-such-model"):
        with pytest.raises(UserError, match="no model directory"):
            UniModel.from_pretrained(wrong)
    with pytest.raises(UserError, match="holds no model"):
        UniModel.from_pretrained(tmp_path)
    for device in ("tpu9", "cuda:99", "meta"):
        with pytest.raises(UserError, match="cannot be used"):
            UniModel.from_pretrained(folder, device=device)
    for dtype in ("float8", torch.int8):
        with pytest.raises(UserError, match="dtype"):
            UniModel.from_pretrained(folder, device="cpu", dtype=dtype)
    half = UniModel.from_pretrained(folder, device="cpu", dtype="bfloat16")
    assert half.parts.backbone.lm_head.weight.dtype == torch.bfloat16
    assert half.generate_image("a cat", seed=1).image.size == (32, 32)


def test_saving_and_loading_again(folder, model, tmp_path):
    before = model.generate_image("a cat", seed=1)
    for layout in ("released", "stacked"):
        written = model.save_pretrained(tmp_path / layout, layout=layout)
        assert same(before, UniModel.from_pretrained(written, device="cpu").generate_image("a cat", seed=1))
    lazy = UniModel.from_pretrained(folder, device="cpu")
    lazy.save_pretrained(tmp_path / "copy")
    assert lazy.parts.loaded == ()
    assert same(
        before, UniModel.from_pretrained(tmp_path / "copy", device="cpu").generate_image("a cat", seed=1)
    )
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "released", "stacked"]


def test_saving_over_a_model_replaces_it_whole(model, tmp_path, monkeypatch):
    target = model.save_pretrained(tmp_path / "model")
    (target / "old.txt").write_text("old")
    model.save_pretrained(target, dtype="float16")
    assert not (target / "old.txt").exists() and (target / "config.json").is_file()
    was = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    monkeypatch.setattr(
        "llada_uni.tasks.save.save_backbone", lambda *a, **k: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        model.save_pretrained(target)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == was
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left over"
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        model.save_pretrained(tmp_path / "letters")
    with pytest.raises(UserError, match="is a file"):
        model.save_pretrained(tmp_path / "letters" / "dear.txt")


# --- bad input ---

CAT = Image.new("RGB", (32, 32))
BAD = {
    "empty prompt": (lambda m: m.generate_image("  "), "prompt is empty"),
    "prompt of another type": (lambda m: m.generate_image(None), "string"),
    "half a surrogate": (lambda m: m.generate_image("\ud800"), "Unicode"),
    "height": (lambda m: m.generate_image("a cat", height=33), "multiple of 8"),
    "zero width": (lambda m: m.generate_image("a cat", width=0), "width must be a whole number from 1"),
    "over the size tokens": (lambda m: m.generate_image("a cat", 8 * 65, 8), "64"),
    "over the context": (lambda m: m.generate_image("a cat", 8 * 30, 8 * 30), "context"),
    "long prompt": (lambda m: m.generate_image("a cat " * 300), "context"),
    "long thinking prompt": (lambda m: m.generate_image("a cat " * 300, thinking=True), "context"),
    "long question": (lambda m: m.understand(CAT, "a cat " * 300), "context"),
    "long story": (lambda m: m.interleave("a cat " * 300), "context"),
    "long instruction": (lambda m: m.edit_image(CAT, "a cat " * 300), "context"),
    "steps": (lambda m: m.generate_image("a cat", image_steps=0), "steps"),
    "steps of another type": (lambda m: m.generate_image("a cat", image_steps=1.5), "steps"),
    "decoder steps": (lambda m: m.generate_image("a cat", decoder_steps=0), "steps"),
    "scale": (lambda m: m.generate_image("a cat", cfg_scale=-1), "cfg_scale"),
    "scale that is no number": (lambda m: m.generate_image("a cat", cfg_scale=float("nan")), "cfg_scale"),
    "text scale": (lambda m: m.edit_image(CAT, "a cat", text_scale="much"), "text_scale"),
    "rescale": (lambda m: m.edit_image(CAT, "a cat", rescale=1.5), "rescale"),
    "temperature": (lambda m: m.generate_image("a cat", temperature=-1), "temperature"),
    "top_p": (lambda m: m.generate_image("a cat", top_p=0.0), "top_p"),
    "unknown setting": (lambda m: m.generate_image("a cat", stepz=1), "stepz"),
    "seed": (lambda m: m.generate_image("a cat", seed=-1), "seed"),
    "decoder": (lambda m: m.generate_image("a cat", decoder="fast"), "turbo"),
    "no picture": (lambda m: m.understand([], "what?"), "at least one picture"),
    "an empty name of a file": (lambda m: m.understand("", "what?"), "name of the picture is empty"),
    "a model that is a number": (lambda m: UniModel.from_pretrained(5), "a model is a directory, or a name as a string, not 5"),
    "a model without a name": (lambda m: UniModel.from_pretrained(""), "not ''"),
    "quantization": (lambda m: UniModel.from_pretrained(m.folder, quantization="x"), "unknown quantization 'x'; allowed"),
    "a null character": (lambda m: save_image(CAT, "a\0.png"), "without null characters"),
    "a number for a file": (lambda m: save_image(CAT, 5), "a file's name is a string or a path"),
    "missing file": (lambda m: m.understand("nowhere.png", "what?"), "no picture"),
    "empty question": (lambda m: m.understand(CAT, ""), "question is empty"),
    "empty instruction": (lambda m: m.edit_image(CAT, ""), "instruction is empty"),
    "mask of another size": (lambda m: m.inpaint(CAT, Image.new("L", (16, 16), 255), "a cat"), "equal"),
    "black mask": (lambda m: m.inpaint(CAT, Image.new("L", (32, 32)), "a cat"), "white nowhere"),
    "codes out of range": (lambda m: m.decode_codes(ImageCodes((64,), 1, 1)), "0 to 63"),
    "codes out of range in a prompt": (lambda m: m.understand(ImageCodes((64,), 1, 1), "what?"), "0 to 63"),
    "max_tokens": (lambda m: m.understand(CAT, "what?", max_tokens=0), "max_tokens"),
    "max_frames": (lambda m: m.interleave("a cat", max_frames=0), "max_frames"),
    "no messages": (lambda m: m.chat([]), "messages"),
    "a message without role": (lambda m: m.chat([{"content": "hi"}]), "role"),
    "a system message": (lambda m: m.chat([{"role": "system", "content": "hi"}]), "role"),
    "a message without words": (lambda m: m.chat([{"role": "user", "content": CAT}]), "words"),
    "an item of unknown kind": (
        lambda m: m.chat([{"role": "user", "content": [{"type": "sound"}]}]),
        "item",
    ),
    "assistant last": (
        lambda m: m.chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
        "user's turn",
    ),
    "unknown mode": (lambda m: m.encode_image(CAT, mode="fast"), "mode"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(model, name):
    call, words = BAD[name]
    with pytest.raises(UserError, match=words) as error:
        call(model)
    assert "\n" not in str(error.value)
