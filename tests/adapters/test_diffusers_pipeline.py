"""The diffusers pipeline: the pictures of the task calls, in diffusers' manners."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback
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


def test_usual_keywords_of_loading_saving_and_moving(folder, tmp_path):
    usual = {"use_safetensors": True, "low_cpu_mem_usage": True, "variant": None, "safety_checker": None}
    pipe = LLaDA2UniPipeline.from_pretrained(folder, dtype=torch.bfloat16, device_map="cpu", local_files_only=True, **usual)
    assert pipe.dtype == torch.bfloat16
    assert LLaDA2UniPipeline.from_pretrained(folder, torch_dtype="auto", device_map={"": "cpu"}).dtype == torch.float32
    pipe.save_pretrained(tmp_path / "saved", safe_serialization=True, max_shard_size="5GB", variant=None, push_to_hub=False)
    again = LLaDA2UniPipeline.from_pretrained(tmp_path / "saved", resume_download=True)
    assert again.to("cpu", torch.float16, non_blocking=True).dtype == torch.float16
    assert pipe.to(device="cpu", dtype=torch.float32, silence_dtype_warnings=True).dtype == torch.float32
    for call, words in (
        (lambda: LLaDA2UniPipeline.from_pretrained(folder, variant="fp16"), "variant='fp16' is not possible here"),
        (lambda: LLaDA2UniPipeline.from_pretrained(folder, use_safetensors=False), "allowed: None, True"),
        (lambda: pipe.save_pretrained(tmp_path / "x", safe_serialization=False), "safe_serialization=False"),
        (lambda: pipe.save_pretrained(tmp_path / "x", format="bin"), "no format"),
        (lambda: pipe.to("cpu", memory_format=torch.channels_last), "no memory_format"),
    ):
        with pytest.raises(UserError, match=words):
            call()


def test_offloading_is_ours(folder):
    pipe = LLaDA2UniPipeline.from_pretrained(folder)
    for enable in (pipe.enable_model_cpu_offload, pipe.enable_sequential_cpu_offload):
        enable(device="cpu")
        assert pipe.model.parts.offload and pipe.device == torch.device("cpu")
    pipe.enable_vae_tiling(64)
    assert pipe.model.parts.tile == 64 and pipe.model.parts.offload
    pipe.enable_vae_slicing()
    pipe.enable_attention_slicing()


def test_masks_without_channels(pipe, model, picture):
    white = np.zeros((32, 32), np.float32)
    white[:16, :16] = 1
    mask = Image.fromarray((white * 255).astype(np.uint8))
    want = None
    for given in (mask, white, torch.from_numpy(white), white > 0, (white * 255).astype(np.uint8), white[None], [white]):
        out = pipe("a cat", image=picture, mask_image=given, generator=made(1), output_type="latent")
        want = out.codes if want is None else want
        assert out.codes == want


@pytest.mark.parametrize("given", [np.asarray(Image.new("RGB", (32, 32), (20, 90, 200))), "negative"])
def test_ranges_of_arrays_are_looked_at(pipe, given):
    if isinstance(given, str):
        with pytest.raises(UserError, match="from -1 to 1"):
            pipe("make it red", image=torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32))
        return
    image = Image.fromarray(given)
    one, other = (pipe("make it red", image=form, generator=made(1), output_type="latent").codes for form in (given, image))
    assert one == other, "a uint8 array is not read as one from 0 to 1"


def test_callbacks_of_diffusers(pipe):
    class Watch(PipelineCallback):
        tensor_inputs = ["codes"]  # noqa: RUF012
        seen = 0

        def callback_fn(self, given, step, timestep, tensors):
            assert tensors["codes"].dim() == 2 and given.num_timesteps == step + 1
            type(self).seen += 1
            return tensors

    pipe("a cat", generator=made(1), callback_on_step_end=Watch(), output_type="latent")
    assert Watch.seen > 0
    before = Watch.seen
    both = MultiPipelineCallbacks([Watch(), Watch()])
    pipe("a cat", generator=made(1), callback_on_step_end=both, output_type="latent")
    assert Watch.seen == 3 * before
    with pytest.raises(UserError, match="unknown prompt_embeds; allowed: codes"):
        pipe("a cat", callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None])
def test_counts_below_one_are_refused(pipe, count):
    with pytest.raises(UserError, match=r"num_images_per_prompt is .*; allowed: a whole number from 1 on"):
        pipe("a cat", num_images_per_prompt=count)
    with pytest.raises(UserError, match="list of prompts is empty"):
        pipe([])
    with pytest.raises(UserError, match="image_steps"):
        pipe("a cat", num_inference_steps=0)
