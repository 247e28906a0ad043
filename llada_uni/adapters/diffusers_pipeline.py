"""The model as a diffusers pipeline: draw, edit and inpaint with the calls that diffusers' users know.

Prompts (+ pictures, + mask) and generators -> the task calls of `UniModel`, picture after picture ->
PIL pictures, arrays, tensors, or codes. A model directory has no model_index.json, because its backbone lies at the top
and serves other programs; so `from_pretrained` and `save_pretrained` are ours, and progress bar, `components` and class
are diffusers'.

    pipe = LLaDA2UniPipeline.from_pretrained("models/world").to("cpu")
    prompt = "a cat at the top left and a dog at the bottom right on green"
    pipe(prompt, generator=torch.Generator().manual_seed(0)).images[0].save("cat.png")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils import logging

from llada_uni.adapters.seeds import seeds_of
from llada_uni.decoder.decode import TILE
from llada_uni.errors import UserError
from llada_uni.generation.params import CODES_ONLY
from llada_uni.image.arrays import images_of, is_array
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from llada_uni.requests import Draw, Edit, Inpaint
from llada_uni.results import ImageResult, OnProgress, Progress
from llada_uni.tasks.parts import choose_device, choose_dtype

NAMES = {"num_inference_steps": "image_steps", "image_guidance_scale": "image_scale"}  # diffusers' -> ours
ANY = ("*",)
# Options of diffusers without an effect here, and the values that may be given. None always may.
READING: Mapping[str, tuple[Any, ...]] = {
    "use_safetensors": (True,), "low_cpu_mem_usage": (True, False), "variant": (), "safety_checker": (), "custom_pipeline": (),
    "requires_safety_checker": (False,), "trust_remote_code": (False,), "force_download": (False,), "proxies": (),
    "resume_download": ANY, "output_loading_info": (False,), "use_onnx": (False,), "max_memory": ANY, "offload_folder": ANY,
    "offload_state_dict": ANY, "disable_mmap": ANY, "add_watermarker": (False,),
}  # fmt: skip
WRITING: Mapping[str, tuple[Any, ...]] = {
    "safe_serialization": (True,), "variant": (), "max_shard_size": ANY, "push_to_hub": (False,)
}
MOVING: Mapping[str, tuple[Any, ...]] = {"silence_dtype_warnings": ANY, "non_blocking": ANY, "copy": (False,)}
SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # of device_map: wherever there is room
OUTPUTS = ("pil", "np", "pt", "latent")
log = logging.get_logger(__name__)
StepCallback = Callable[["LLaDA2UniPipeline", int, float, dict[str, torch.Tensor]], Any]


@dataclass
class LLaDA2UniPipelineOutput(ImagePipelineOutput):
    """images: by `output_type`, list of PIL; [N, H, W, 3] or [N, 3, H, W] in 0..1; codes int64 [N, rows, columns].
    codes: the grid of each picture; seeds: of each, for `UniModel` and the command line.
    """

    codes: list[ImageCodes]
    seeds: list[int]


class LLaDA2UniPipeline(DiffusionPipeline):
    """Text to image; with `image` editing; with `image` and `mask_image` inpainting."""

    model: UniModel
    _callback_tensor_inputs = ("codes",)

    def __init__(self, model: UniModel) -> None:
        super().__init__()
        self.register_modules(model=model)  # type: ignore[no-untyped-call]
        self._asked_dtype: str | torch.dtype | None = None
        self._interrupt = False
        self.num_timesteps = 0  # steps of the image under way so far, which callbacks of diffusers ask for

    # --- loading, saving, moving ---

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        torch_dtype: str | torch.dtype | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        **options: Any,
    ) -> LLaDA2UniPipeline:
        """A model directory (None: the shipped one), or a model on the hub, on the CPU; `to` moves it. Weights are read when
        first needed.

        torch_dtype, or dtype; None or "auto": float32 on the CPU, bfloat16 elsewhere. device_map: a device, {"": a device}, or
        "auto" and its kind, which take a GPU where there is one. options: quantization, offload, tile and the hub's of
        `UniModel.from_pretrained`; those of diffusers that say how files are read have no effect, others are refused.
        """
        _check_neutral("from_pretrained", options, READING)
        asked = None if (torch_dtype or dtype) == "auto" else torch_dtype or dtype
        place = device_map.get("", "cpu") if isinstance(device_map, Mapping) else device_map or "cpu"
        device = None if place in SPREAD else place
        pipe = cls(UniModel.from_pretrained(pretrained_model_name_or_path, device, asked, **options))
        pipe._asked_dtype = asked
        return pipe

    def save_pretrained(  # type: ignore[override]  # a model directory has one form
        self, save_directory: str | os.PathLike[str], **options: Any
    ) -> None:
        """Writes a model directory (`UniModel.save_pretrained`), always as safetensors. options: diffusers', of which only the
        values that ask for this are possible.
        """
        _check_neutral("save_pretrained", options, WRITING)
        if options:
            raise UserError(f"save_pretrained has no {next(iter(options))}: a model directory has one form")
        self.model.save_pretrained(save_directory)

    def to(self, *args: Any, device: Any = None, dtype: torch.dtype | None = None, **options: Any) -> LLaDA2UniPipeline:
        """Itself, computing there: `to("cuda")`, `to(torch.float16)`, `to("cuda", torch.float16)`, `to(device=, dtype=)`. The
        networks are read again from the directory when they are next needed.
        """
        for given in args:
            if isinstance(given, torch.dtype):
                dtype = given
            elif given is not None:
                device = given
        _check_neutral("to", options, MOVING)
        if options:
            raise UserError(f"to has no {next(iter(options))}; allowed: a device and a dtype")
        was, asked = self.model.parts, dtype or self._asked_dtype
        chosen = choose_device(was.device if device is None else device)
        self._reopen(device=chosen, dtype=choose_dtype(asked, chosen))
        self._asked_dtype = asked
        return self

    def _reopen(self, **changes: Any) -> None:
        """The same directory with other parts, where something changes."""
        moved = self.model.parts.moved(**changes)
        if moved is not self.model.parts:
            self.model = UniModel(moved)

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """Parts are in memory by turns, as with `offload=True` (docs/speed.md); device: None takes a GPU where there is one."""
        place = device if device is not None else f"cuda:{gpu_id}" if gpu_id is not None else None
        chosen = choose_device(place)
        self._reopen(device=chosen, dtype=choose_dtype(self._asked_dtype, chosen), offload=True)

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: Any = None) -> None:
        """The same as `enable_model_cpu_offload`: no part is taken apart further. `quantization` saves more."""
        self.enable_model_cpu_offload(gpu_id, device)

    def enable_vae_tiling(self, tile: int = TILE) -> None:
        """Images with longer sides than `tile` pixels go through the VAE in tiles; this is always so, with tiles of 1024."""
        self._reopen(tile=tile)

    def enable_vae_slicing(self) -> None:
        """Always so: images are decoded one by one."""

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Not needed: attention never holds its scores."""

    @property
    def device(self) -> torch.device:
        return self.model.parts.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.parts.dtype

    # --- drawing ---

    @property
    def interrupt(self) -> bool:
        """Set `pipe._interrupt = True` in a callback to end the call: it gives the pictures that were finished."""
        return self._interrupt

    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Any = None,
        mask_image: Any = None,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = (),
        **settings: Any,
    ) -> LLaDA2UniPipelineOutput | tuple[Any]:
        """`num_images_per_prompt` pictures of each prompt, in order; each is what the task call of `UniModel` draws.

        image: whatever `UniModel` takes (image/reader.py), or a list of these; an array of four axes is several. Several are
        references of one edit, for every prompt. mask_image: white is drawn again. height, width: pixels; None: the
        directory's own, or the first picture's. settings: those of the request (`requests.Draw`, `Edit`, `Inpaint`);
        diffusers' names for some of them: num_inference_steps for image_steps, guidance_scale for that toward the text,
        image_guidance_scale for image_scale.
        generator: one, or one for each picture (adapters/seeds.py says how they become seeds). output_type "latent": codes.
        callback_on_step_end(pipe, step, timestep, tensors) after every unmasking step and decoder evaluation; step counts
        within a picture, timestep goes from 1 to 0 while it is unmasked and again while it is decoded; tensors may hold
        "codes" int64 [rows, columns], -1 where none is proposed yet. What it returns is not used. UserError for an
        unknown keyword, and for anything that is not possible.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        _check_count("num_images_per_prompt", num_images_per_prompt)
        if not prompts:
            raise UserError("the list of prompts is empty; allowed: a text, or at least one")
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        if output_type not in OUTPUTS:
            raise UserError(f"unknown output_type {output_type!r}; allowed: {', '.join(OUTPUTS)}")
        if unknown := set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise UserError(f"callback_on_step_end_tensor_inputs: unknown {', '.join(sorted(unknown))}; allowed: codes")
        if output_type == "latent":
            settings["decoder"] = CODES_ONLY
        request = self._request(image, mask_image, height=height, width=width, **settings)
        seeds = seeds_of(generator, len(prompts) * num_images_per_prompt)
        jobs = [one for one in prompts for _ in range(num_images_per_prompt)]
        self._interrupt, self.num_timesteps = False, 0
        results: list[ImageResult] = []
        with self.progress_bar(total=100 * len(jobs)) as bar:
            for text, seed in zip(jobs, seeds, strict=True):
                listen = self._listener(bar, len(results), callback_on_step_end, callback_on_step_end_tensor_inputs)
                try:
                    results.append(self.model.run(request(text, seed), listen))
                except _InterruptedError:
                    break
                bar.update(100 * len(results) - bar.n)
        for notice in dict.fromkeys(notice for one in results for notice in one.notices):
            log.warning(notice)
        images = _as(output_type, results)
        if not return_dict:
            return (images,)
        return LLaDA2UniPipelineOutput(images, [one.codes for one in results], [one.seed for one in results])

    def _request(self, image: Any, mask_image: Any, **given: Any) -> Callable[[str, int], Draw | Edit | Inpaint]:
        """(text, seed) -> the request that the arguments make."""
        pictures, masks = _pictures(image), _pictures(mask_image)
        settings = {NAMES.get(name, name): value for name, value in given.items() if value is not None}
        guidance = settings.pop("guidance_scale", None)
        if masks:
            if (len(pictures), len(masks)) != (1, 1) or settings.keys() & {"height", "width"}:
                raise UserError("inpainting takes one picture and one mask; the result has the picture's size")
            settings |= {"image": pictures[0], "mask": masks[0], "cfg_scale": guidance}
            return lambda text, seed: Inpaint(prompt=text, seed=seed, **settings)
        if pictures:
            settings |= {"images": pictures, "text_scale": guidance}
            return lambda text, seed: Edit(instruction=text, seed=seed, **settings)
        settings |= {"cfg_scale": guidance}
        return lambda text, seed: Draw(prompt=text, seed=seed, **settings)

    def _listener(self, bar: Any, number: int, callback: StepCallback | None, wanted: Sequence[str]) -> OnProgress:
        """Moves the bar (half of a picture's hundred is its codes, half its decoding) and calls the callback."""
        codes = torch.empty(0, 0, dtype=torch.int64)
        step = 0

        def listen(progress: Progress) -> None:
            nonlocal codes, step
            left = 1 - progress.done / progress.total
            self.num_timesteps = max(self.num_timesteps, step + 1)
            bar.update(100 * number + (50 if progress.stage == "codes" else 100) - round(50 * left) - bar.n)
            if progress.grid is not None:
                codes = torch.tensor(progress.codes).view(progress.grid)
            if callback is not None:
                callback(self, step, left, {name: codes.clone() for name in wanted})
            step += 1
            if self._interrupt:
                raise _InterruptedError

        return listen


def _check_count(name: str, count: Any) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UserError(f"{name} is {count!r}; allowed: a whole number from 1 on")


def _check_neutral(where: str, options: dict[str, Any], neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Takes those of diffusers' options out that change nothing here. UserError for a value that would."""
    for name in [name for name in options if name in neutral]:
        value = options.pop(name)
        if value is not None and neutral[name] != ANY and value not in neutral[name]:
            allowed = ", ".join(map(repr, (None, *neutral[name])))
            raise UserError(f"{where}: {name}={value!r} is not possible here; allowed: {allowed}")


class _InterruptedError(Exception):
    """The callback asked to end the call."""


def _pictures(given: Any) -> list[Any]:
    """Pictures as `UniModel` takes them, from what diffusers' pipelines take."""
    if given is None:
        return []
    if is_array(given):
        return list(images_of(given))
    if isinstance(given, list | tuple):
        return [picture for one in given for picture in _pictures(one)]
    return [given]


def _as(output_type: str, results: list[ImageResult]) -> Any:
    """The pictures in the form asked for; see `LLaDA2UniPipelineOutput`."""
    if output_type == "latent":
        grids = [torch.tensor(one.codes.rows()) for one in results]
        return torch.stack(grids) if grids else torch.empty(0, 0, 0, dtype=torch.int64)
    images = [one.image for one in results]
    if output_type == "pil" or not images:
        return images
    array = VaeImageProcessor.pil_to_numpy(images)
    return array if output_type == "np" else VaeImageProcessor.numpy_to_pt(array)
