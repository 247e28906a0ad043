"""UniModel: one model that reads and draws, with a call for each task.

What flows through: words, pictures (paths, bytes, PIL images or grids of codes) and a seed -> results with a
picture or words, the codes, the seed, and how often each network ran. The work is in `llada_uni/tasks/`; the
parts of a directory are read when a call first needs them.

    model = UniModel.from_pretrained()
    result = model.generate_image("a cat and a dog", seed=1)
    result.image.save("cat.png")
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from llada_uni.decoder.decode import TILE
from llada_uni.hub.listing import Access
from llada_uni.image.codes import ImageCodes
from llada_uni.image.preprocess import open_image
from llada_uni.results import ChatResult, Evaluations, Event, ImageResult, OnProgress, TextResult
from llada_uni.tasks import answer, save
from llada_uni.tasks import edit as edit_task
from llada_uni.tasks import generate as generate_task
from llada_uni.tasks import inpaint as inpaint_task
from llada_uni.tasks.checks import Picture, check_seed
from llada_uni.tasks.common import Clock, check_decoder, paint
from llada_uni.tasks.find import open_model
from llada_uni.tasks.messages import read_messages
from llada_uni.tasks.parts import Parts, choose_device, choose_dtype


class UniModel:
    """A model directory ready to work.

    Every task takes `seed` (None draws one; the result names it: the same seed gives the same result),
    `on_progress` (called with a `Progress` after every step), and settings whose None means the directory's
    own default (`generation_config.json`, else the released model's typical values). Tasks that draw take
    `decoder`: "turbo" (8 steps), "base" (50 steps, guided) or "none" (codes only), and `decoder_steps`.
    `sampling`: threshold, temperature, top_k, top_p, rule, confidence, sprint, block_length
    (generation/settings.py). `stop`: strings that end words and are no part of them. All mistakes of a caller
    raise `UserError`, a ValueError with one line that says what is allowed.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        quantization: str | None = None,
        offload: bool = False,
        tile: int = TILE,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> UniModel:
        """Opens a model directory, or a model on the hub; nothing large is read or fetched yet.

        name_or_dir: a directory of the released layout; a name "org/name" on the hub, whose parts are fetched when they are
        first needed (a directory of that name comes first); None for what LLADA_UNI_MODEL names, else the shipped one
        ("world"). device: None takes a GPU where there is one. dtype: None is float32 on the CPU,
        bfloat16 elsewhere.

        For less memory: quantization: the form of the experts in memory, "int8", "int4" or "float8" (None: as they are
        stored; checkpoint/load.py). offload: the decoder's transformer and VAE are in memory by turns. tile:
        pictures with longer sides, in pixels, go through the VAE in tiles of this size (decoder/decode.py).

        For the hub: revision: branch, tag or commit; token: None is HF_TOKEN, else that of `hf auth login`; cache_dir: None is
        the client's (HF_HOME); local_files_only: what is not in the cache is not fetched (as HF_HUB_OFFLINE=1).
        """
        access = Access(revision, token, None if cache_dir is None else Path(cache_dir), local_files_only)
        chosen = choose_device(device)
        folder, need = open_model(name_or_dir, access)
        return cls(Parts(folder, chosen, choose_dtype(dtype, chosen), quantization, offload, tile, need))

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        dtype: str | torch.dtype | None = None,
        layout: str = "released",
    ) -> Path:
        """Writes a model directory in one step: a reader sees the old one or the new one.

        dtype: None keeps that of the files. layout: "released" (one tensor an expert) or "stacked" (ours).
        """
        kind = None if dtype is None else choose_dtype(dtype, self.parts.device)
        return save.save_model(self.parts, folder, kind, layout)

    @property
    def folder(self) -> Path:
        return self.parts.folder

    # --- drawing ---

    def generate_image(
        self,
        prompt: str,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        cfg_scale: float | None = None,
        seed: int | None = None,
        thinking: bool = False,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        on_progress: OnProgress | None = None,
        **sampling: Any,
    ) -> ImageResult:
        """Draws what the prompt says.

        height, width: pixels, multiples of the side of one code (released: 32). steps: unmasking steps a
        block.
        cfg_scale: guidance, 1 is none. thinking: the model first writes down its thoughts
        (`result.thinking`), and may then choose the size itself if none was given. sampling: see the class.
        """
        return generate_task.generate_image(
            self.parts, prompt, height, width, steps, cfg_scale, seed, thinking, decoder, decoder_steps,
            on_progress, **sampling,
        )  # fmt: skip

    def edit_image(
        self,
        images: Picture | list[Picture],
        instruction: str,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        text_scale: float | None = None,
        image_scale: float | None = None,
        rescale: float | None = None,
        seed: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        on_progress: OnProgress | None = None,
        **sampling: Any,
    ) -> ImageResult:
        """Changes a picture as the instruction says; several pictures are references, in the order given.

        height, width: of the result; None takes the first picture's. text_scale, image_scale, rescale: the
        two scales of editing guidance (text scale 1 and image scale 0 are none). sampling: see the class.
        """
        return edit_task.edit_image(
            self.parts, images, instruction, height, width, steps, text_scale, image_scale, rescale, seed,
            decoder, decoder_steps, on_progress, **sampling,
        )  # fmt: skip

    def inpaint(
        self,
        image: Picture,
        mask: Any,
        prompt: str,
        steps: int | None = None,
        cfg_scale: float | None = None,
        seed: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        on_progress: OnProgress | None = None,
        **sampling: Any,
    ) -> ImageResult:
        """Fills the white part of `mask` so that the whole picture becomes what the prompt says.

        mask: a picture of the same size; a code cell with any white pixel is drawn anew, every other code is
        kept.
        """
        return inpaint_task.inpaint(
            self.parts, image, mask, prompt, steps, cfg_scale, seed, decoder, decoder_steps, on_progress,
            **sampling,
        )  # fmt: skip

    # --- words ---

    def understand(
        self,
        images: Picture | list[Picture],
        question: str,
        max_tokens: int | None = None,
        steps: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        on_progress: OnProgress | None = None,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> TextResult:
        """Answers a question about one or several pictures. stop, sampling: see the class."""
        settings = {"max_tokens": max_tokens, "steps": steps, "temperature": temperature, **sampling}
        return answer.understand(self.parts, images, question, settings, stop, seed, on_progress)

    def chat(
        self,
        messages: list[dict[str, Any]],
        seed: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        on_progress: OnProgress | None = None,
        max_tokens: int | None = None,
        steps: int | None = None,
        stop: Sequence[str] = (),
        modalities: Sequence[str] = answer.MODALITIES,
        **sampling: Any,
    ) -> ChatResult:
        """The next answer in a conversation; with the modalities ("text", "image") it may hold pictures.

        messages: {"role": "user", "assistant" or "system", "content": text, picture, or a list of these}, the
        last by the user. max_tokens, steps: of words. stop, sampling: see the class.
        """
        settings = {"max_tokens": max_tokens, "steps": steps, **sampling}
        return answer.chat(self.parts, messages, settings, stop, modalities, seed, decoder, decoder_steps, on_progress)

    def interleave(
        self,
        prompt_or_messages: str | list[dict[str, Any]],
        max_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        text_scale: float | None = None,
        image_scale: float | None = None,
        rescale: float | None = None,
        seed: int | None = None,
        decoder: str | None = None,
        decoder_steps: int | None = None,
        on_progress: OnProgress | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[Event]:
        """Words and pictures in turn (a story, a how-to), each yielded when it is finished.

        Yields `TextEvent` and `ImageEvent`, and one `EndEvent` last. max_frames: at most so many pictures.
        height, width: of frames whose size the model does not say. steps: of pictures. Scales: guidance of the
        frames after the first. max_tokens: of each stretch of words. stop, sampling: see the class; sampling
        holds for words and pictures. The arguments are checked here and now, not at the first event.
        """
        scales = {"text_scale": text_scale, "image_scale": image_scale, "rescale": rescale}
        settings = {"max_tokens": max_tokens, **sampling}
        turns = read_messages(self.parts, prompt_or_messages)
        return answer.interleave(
            self.parts, turns, "interleave", max_frames, height, width, steps, scales, settings, stop, seed,
            decoder, decoder_steps, on_progress,
        )  # fmt: skip

    # --- pictures and codes ---

    def encode_image(self, image: Picture, mode: str = "understand") -> ImageCodes:
        """Codes of a picture. mode: "understand" or "edit" (how it is scaled and cropped), or "raw" (not at
        all).
        """
        return self.parts.image_tokenizer.encode(open_image(image), mode=mode)

    def decode_codes(
        self,
        codes: ImageCodes,
        decoder: str | None = None,
        steps: int | None = None,
        seed: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> ImageResult:
        """The picture of codes. UserError for codes out of range, and for a decoder the directory does not
        have.
        """
        seed = check_seed(seed)
        check_decoder(self.parts, decoder)
        clock = Clock()
        image, evaluations = paint(self.parts, codes, decoder, steps, seed, on_progress)
        clock.lap("decode")
        return ImageResult(image, codes, "", seed, None, Evaluations(decoder=evaluations), clock.total())
