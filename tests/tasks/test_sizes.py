"""Sizes that a model was not trained for, in every task: drawn at a trained one and scaled, refused, or drawn as asked."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.model import UniModel
from llada_uni.requests import Chat, Draw, Edit, Inpaint, Story
from llada_uni.results import ImageEvent
from llada_uni.tasks.defaults import Defaults
from llada_uni.tasks.sizes import nearest, sized
from tests.tiny_model import make_tiny_model

SQUARE = Image.new("RGB", (32, 32), (20, 90, 200))
WIDE = SQUARE.resize((64, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden):
    """A tiny model that says it was trained for 32 x 32 px."""
    folder = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sizes": ["32x32"]}))
    path = folder / "image_tokenizer" / "preprocessor_config.json"  # images of other shapes than a square are read too
    path.write_text(json.dumps({**json.loads(path.read_text()), "size_factor": 8, "edit_max_cells": 16}))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return UniModel.from_pretrained(folder, device="cpu")


def corners(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1] // 2))
    return mask


def test_drawing_scales_what_is_drawn_at_the_trained_size(model):
    own = model.generate_image("a cat", seed=5)
    assert own.notices == () and own.image.size == (32, 32)
    other = model.generate_image("a cat", 50, 100, seed=5)  # no multiple of a code's side, and that does not matter
    assert other.codes == own.codes and other.image.size == (100, 50)
    assert other.image.tobytes() == own.image.resize((100, 50), Image.Resampling.LANCZOS).tobytes()
    assert other.notices == ("this model was trained for 32x32 px: drawn at 32 x 32 and scaled to 100 x 50",)
    assert model.generate_image("a cat", 50, 100, seed=5, resolution_multiplier=4).image.size == (200, 100)
    only_width = model.generate_image("a cat", width=64, seed=5)
    assert only_width.image.size == (64, 32) and only_width.codes == own.codes


def test_drawing_as_asked_and_not_at_all(model):
    drawn = model.generate_image("a cat", 16, 48, seed=5, other_size="draw")
    assert (drawn.codes.height, drawn.codes.width, drawn.notices) == (2, 6, ()) and drawn.image.size == (48, 16)
    with pytest.raises(UserError, match=r"not trained for 48 x 16 px; allowed: 32x32, or other_size 'scale'"):
        model.generate_image("a cat", 16, 48, other_size="refuse")
    assert model.generate_image("a cat", 32, 32, seed=5, other_size="refuse").notices == ()
    with pytest.raises(UserError, match="multiple of 8 pixels"):
        model.generate_image("a cat", 20, 48, other_size="draw")
    with pytest.raises(UserError, match="too large; allowed: 64 megapixels"):
        model.generate_image("a cat", 16384, 16384)
    with pytest.raises(UserError, match="other_size"):
        model.generate_image("a cat", other_size="stretch")


def test_edits(model):
    square = model.edit_image(SQUARE, "a dog", seed=2)
    assert square.notices == () and square.image.size == (32, 32)
    asked = model.edit_image(SQUARE, "a dog", 64, 64, seed=2)
    assert asked.codes == square.codes and asked.image.size == (64, 64) and len(asked.notices) == 1
    wide = model.edit_image(WIDE, "a dog", seed=2)
    assert wide.codes == square.codes, "one color: squeezed it is the same image"
    width, height = wide.image.size
    assert width > height and "squeezed" in wide.notices[0]
    drawn = model.edit_image(WIDE, "a dog", seed=2, other_size="draw")
    assert drawn.image.size == wide.image.size and drawn.codes.width > drawn.codes.height
    with pytest.raises(UserError, match="not trained for"):
        model.edit_image(WIDE, "a dog", other_size="refuse")


def test_inpainting_squeezes_image_and_mask_alike(model):
    wide = model.inpaint(WIDE, corners(WIDE.size), "a dog", seed=3)
    square = model.inpaint(SQUARE, corners(SQUARE.size), "a dog", seed=3)
    assert wide.codes == square.codes and "squeezed" in wide.notices[0]
    assert wide.image.size == model.inpaint(WIDE, corners(WIDE.size), "a dog", seed=3, other_size="draw").image.size
    with pytest.raises(UserError, match="not trained for"):
        model.inpaint(WIDE, corners(WIDE.size), "a dog", other_size="refuse")


def frames(events) -> list[ImageEvent]:
    return [event for event in events if isinstance(event, ImageEvent)]


def test_stories_and_conversations(model, monkeypatch):
    form = model.parts.format
    header = form.image_header(2, 2)  # a size that the model may not choose
    script = [form.text.encode("see"), [*form.text.encode("see"), *header]]

    def says(request):
        from llada_uni.tasks import answer

        phases_of = answer.phases_of

        def scripted(*given):
            phases = phases_of(*given)
            write = phases.write

            def once(ids, *args, **kwargs):
                from llada_uni.generation.phases import Written

                return Written(tuple(script[0]), "image", (2, 2)) if kwargs.get("images", True) else write(ids, *args, **kwargs)

            phases.write = once
            return phases

        monkeypatch.setattr(answer, "phases_of", scripted)
        found = model.run(request)
        return frames(found if isinstance(request, Story) else found.parts)

    for kind in (Story, Chat):
        asked = says(kind(messages=[{"role": "user", "content": "a story"}], max_frames=1, seed=1, height=64, width=96))
        (frame,) = asked
        assert frame.image.size == (96, 64) and (frame.codes.height, frame.codes.width) == (4, 4)
        assert "not trained for a frame of 2 x 2" in frame.repaired and "scaled to 96 x 64" in frame.notices[0]
    with pytest.raises(UserError, match="not trained for"):
        model.interleave("a story", height=64, other_size="refuse")


def test_the_setting_may_be_the_directorys_own(folder, tmp_path):
    path = folder / "generation_config.json"
    own = Defaults.from_json({**json.loads(path.read_text()), "other_size": "refuse"})
    assert own.other_size == "refuse"
    for kind in (Draw, Edit, Inpaint, Story, Chat):
        assert own.of(kind)["other_size"] == "refuse"


def test_a_published_directory_may_say_its_sizes():
    assert Defaults.from_json({"sizes": ["1024x1024"]}).as_published
    assert not Defaults.from_json({"block_length": 32}).as_published


@pytest.mark.parametrize("sizes", ["32", ["32"], ["0x32"], [32, 32], ["32 x 32"], {"a": 1}])
def test_sizes_are_checked(sizes):
    with pytest.raises(UserError, match='sizes must be a list of "WIDTHxHEIGHT"'):
        Defaults.from_json({"sizes": sizes})


def test_the_nearest_size_is_that_of_the_nearest_shape(model, monkeypatch):
    monkeypatch.setitem(model.parts.__dict__, "defaults", Defaults.from_json({"sizes": ["32x32", "64x64", "64x32", "32x64"]}))
    parts = model.parts
    for size, found in {
        (100, 100): (64, 64), (40, 40): (32, 32), (64, 64): (64, 64), (50, 100): (32, 64), (100, 50): (64, 32),
        (30, 33): (32, 32),
    }.items():  # fmt: skip
        assert nearest(parts, size) == found
    assert sized(parts, 32, 64, "scale").pixels is None
    monkeypatch.setitem(model.parts.__dict__, "defaults", Defaults.from_json({}))
    assert nearest(parts, (7, 9)) == (7, 9), "a directory that names none draws every size"
