"""The diffusers pipeline: the pictures of the task calls, in diffusers' manners."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from llada_uni.adapters.diffusers_pipeline import LLaDA2UniPipeline, LLaDA2UniPipelineOutput
from llada_uni.adapters.seeds import seeds_of
from llada_uni.errors import UserError
from llada_uni.model import UniModel


@pytest.fixture(scope="module")
def pipe(folder):
    pipe = LLaDA2UniPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def made(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()


def test_text_to_image_is_the_task_call_with_the_generator_s_seed(pipe, model):
    out = pipe("a cat", generator=made(3), temperature=1.0)
    assert isinstance(out, LLaDA2UniPipelineOutput) and isinstance(pipe, DiffusionPipeline)
    assert out.seeds == seeds_of(made(3), 1)
    want = model.generate_image("a cat", seed=out.seeds[0], temperature=1.0)
    assert same(out.images[0], want.image) and out.codes == [want.codes]
    assert pipe.components == {"model": pipe.model}


def test_prompts_times_pictures_in_order_with_seeds_of_their_own(pipe, model):
    out = pipe(["a cat", "a dog"], num_images_per_prompt=2, generator=made(3), height=16, width=32)
    assert out.seeds == seeds_of(made(3), 4) and [image.size for image in out.images] == [(32, 16)] * 4
    want = model.generate_image("a dog", height=16, width=32, seed=out.seeds[2]).image
    assert same(out.images[2], want)
    again = pipe(["a cat", "a dog"], generator=[made(1), made(2)], height=16, width=32)
    assert again.seeds == [*seeds_of(made(1), 1), *seeds_of(made(2), 1)]
    with pytest.raises(UserError, match="2 generators"):
        pipe("a cat", generator=[made(1), made(2)])


@pytest.mark.parametrize("kind", ["pil", "array", "tensor", "codes"])
def test_editing_takes_pictures_in_every_form(pipe, model, picture, kind):
    array = np.asarray(picture, np.float32) / 255
    given = {
        "pil": picture,
        "array": array,
        "tensor": torch.from_numpy(array).permute(2, 0, 1),
        "codes": model.encode_image(picture, "edit"),
    }[kind]
    out = pipe("make it red", image=given, generator=made(1), guidance_scale=2.0, image_guidance_scale=1.5)
    want = model.edit_image(picture, "make it red", seed=out.seeds[0], text_scale=2.0, image_scale=1.5)
    assert same(out.images[0], want.image) and out.codes == [want.codes]


def test_several_references_and_inpainting(pipe, model, picture):
    out = pipe("put them together", image=[picture, picture.rotate(90)], generator=made(1))
    want = model.edit_image([picture, picture.rotate(90)], "put them together", seed=out.seeds[0])
    assert out.codes == [want.codes]
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 16))
    as_tensor = torch.from_numpy(np.asarray(mask, np.float32) / 255)[None]
    for given in (mask, as_tensor):
        out = pipe("a cat", image=picture, mask_image=given, generator=made(1), guidance_scale=1.0)
        want = model.inpaint(picture, mask, "a cat", cfg_scale=1.0, seed=out.seeds[0])
        assert same(out.images[0], want.image)
    for wrong in ({}, {"image": [picture, picture]}, {"image": picture, "height": 32}):
        with pytest.raises(UserError, match="inpainting takes one picture"):
            pipe("a cat", mask_image=mask, **wrong)


def test_output_types(pipe, model):
    def ask(kind, **more):
        return pipe(["a cat", "a dog"], generator=made(3), output_type=kind, **more)

    pil = ask("pil").images
    array, tensor, codes = (ask(kind).images for kind in ("np", "pt", "latent"))
    assert array.shape == (2, 32, 32, 3) and tensor.shape == (2, 3, 32, 32) and 0 <= array.min() <= array.max() <= 1
    assert np.array_equal(np.rint(array[1] * 255), np.asarray(pil[1]))
    assert torch.equal(tensor, torch.from_numpy(array).permute(0, 3, 1, 2))
    assert codes.shape == (2, 4, 4) and codes.dtype == torch.int64
    assert codes[1].flatten().tolist() == list(model.generate_image("a dog", seed=1).codes.codes), "greedy: no seed in it"
    (only,) = ask("pil", return_dict=False)
    assert same(only[0], pil[0])
    with pytest.raises(UserError, match="pil, np, pt, latent"):
        ask("jpeg")


def test_callback_sees_every_step_with_the_codes_so_far(pipe, model):
    seen = []

    def listen(given, step, timestep, tensors):
        assert given is pipe
        seen.append((step, timestep, tensors["codes"]))

    out = pipe("a cat", generator=made(1), callback_on_step_end=listen, callback_on_step_end_tensor_inputs=["codes"])
    work = model.generate_image("a cat", seed=out.seeds[0]).evaluations
    assert [step for step, _, _ in seen] == list(range(work.backbone + work.decoder))
    drawing = [(timestep, codes) for _, timestep, codes in seen[: work.backbone]]
    assert [t for t, _ in drawing] == sorted((t for t, _ in drawing), reverse=True) and drawing[-1][0] == 0
    assert drawing[0][1].eq(-1).any() and drawing[0][1].shape == (4, 4)
    assert drawing[-1][1].flatten().tolist() == list(out.codes[0].codes)
    with pytest.raises(UserError, match="allowed: codes"):
        pipe("a cat", callback_on_step_end_tensor_inputs=["latents"])


def test_an_interrupted_call_gives_what_was_finished(pipe):
    finished = 0

    def stop_in_the_second(given, step, timestep, tensors):
        nonlocal finished
        finished += step == 0
        given._interrupt = finished == 2

    out = pipe("a cat", num_images_per_prompt=3, generator=made(1), callback_on_step_end=stop_in_the_second)
    assert len(out.images) == 1 and pipe.interrupt
    assert len(pipe("a cat", generator=made(1)).images) == 1 and not pipe.interrupt
    out = pipe("a cat", output_type="pt", callback_on_step_end=lambda given, *_: setattr(given, "_interrupt", True))
    assert len(out.images) == 0


def test_the_bar_ends_at_its_total(pipe, monkeypatch):
    bars = []
    plain = pipe.progress_bar
    monkeypatch.setattr(type(pipe), "progress_bar", lambda self, **how: bars.append(plain(**how)) or bars[-1])
    pipe.set_progress_bar_config(disable=False, leave=False)
    pipe(["a cat", "a dog"], generator=made(1))
    pipe("a cat", output_type="latent", generator=made(1))
    pipe.set_progress_bar_config(disable=True)
    assert [(bar.n, bar.total) for bar in bars] == [(200, 200), (100, 100)]


def test_save_load_and_move(pipe, model, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    again = LLaDA2UniPipeline.from_pretrained(tmp_path / "saved", torch_dtype=torch.bfloat16, offload=True)
    again.set_progress_bar_config(disable=True)
    assert (again.device, again.dtype) == (torch.device("cpu"), torch.bfloat16)
    kept = again.model
    assert again.to("cpu") is again and again.model is kept, "nothing to do"
    assert again.to(torch.float32).dtype == torch.float32 and again.model is not kept and again.model.parts.offload
    want = UniModel.from_pretrained(tmp_path / "saved", "cpu").generate_image("a cat", seed=seeds_of(made(1), 1)[0])
    assert same(again("a cat", generator=made(1)).images[0], want.image)
    with pytest.raises(UserError, match="cannot be used"):
        again.to("nowhere")
    with pytest.raises(UserError, match="no model directory"):
        LLaDA2UniPipeline.from_pretrained(tmp_path / "missing")


def test_mistakes_are_said_in_a_line(pipe):
    for wrong, words in (
        ({"prompt": ""}, "empty"),
        ({"prompt": "x", "height": 17}, "multiple"),
        ({"prompt": "x", "cats": 3}, "cats"),
    ):
        with pytest.raises(UserError, match=words):
            pipe(**wrong)


def test_every_setting_of_the_request_is_a_keyword_and_no_other(pipe, model, picture):
    own = {"rule": "left", "block_length": 4, "rescale": 0.5}
    out = pipe("a cat", generator=made(3), num_inference_steps=2, output_type="latent", **own)
    own["image_steps"] = 2
    assert out.codes == [model.generate_image("a cat", seed=out.seeds[0], decoder="none", **own).codes]
    for arguments, line in (
        ({"tempreature": 1.0}, "unknown setting 'tempreature'; did you mean temperature"),
        ({"steps": 3}, "steps is no setting any more: use image_steps"),
        ({"negative_prompt": "a dog"}, "unknown setting 'negative_prompt'"),
        ({"image": picture, "cfg_scale": 1.0}, "unknown setting 'cfg_scale'"),
        ({"num_inference_steps": 0}, "image_steps must be a whole number from 1"),
    ):
        with pytest.raises(UserError, match=line):
            pipe("a cat", **arguments)
