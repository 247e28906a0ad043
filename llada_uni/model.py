"""UniModel: one model that reads and draws. `run` does what a request says; the named calls build the requests.

Text, images (paths, bytes, PIL images or grids of codes) and a seed -> results with an image or text, the codes, the seed,
and how often each network ran. The work is in `llada_uni/tasks/`; the parts of a directory are read when first needed.

    model = UniModel.from_pretrained()
    result = model.generate_image("a cat and a dog", seed=1)
    result.image.save("cat.png")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import torch

from llada_uni.checkpoint.layout import Layout
from llada_uni.decoder.decode import TILE
from llada_uni.errors import UserError
from llada_uni.hub.listing import Access
from llada_uni.image.code_files import write_codes
from llada_uni.image.codes import ImageCodes
from llada_uni.image.tokenizer import Mode
from llada_uni.requests import Chat, Decode, Draw, Edit, Inpaint, Request, Story, Understand
from llada_uni.results import ChatResult, Event, ImageResult, OnProgress, TextResult
from llada_uni.tasks import answer, save
from llada_uni.tasks.checks import Picture, open_picture
from llada_uni.tasks.common import own_codes
from llada_uni.tasks.decode import decode_codes
from llada_uni.tasks.edit import edit_image
from llada_uni.tasks.find import open_model
from llada_uni.tasks.generate import generate_image
from llada_uni.tasks.inpaint import inpaint
from llada_uni.tasks.parts import Parts, choose_device, choose_dtype

TASKS: dict[type[Request], Any] = {
    Draw: generate_image,
    Edit: edit_image,
    Inpaint: inpaint,
    Understand: answer.understand,
    Chat: answer.chat,
    Story: answer.interleave,
    Decode: decode_codes,
}


class UniModel:
    """A model directory ready to work.

    `run` takes a request (`llada_uni/requests.py`); `generate_image` and the other named calls build one from their
    arguments: beside those in their signature they take every setting of the request by name. A setting that is None, or
    not given, is the directory's own (`generation_config.json`, else the released model's typical value). With the same
    `seed` comes the same result; None draws a seed, and the result names it. `on_progress` is called with a `Progress`
    after every step. All mistakes of a caller raise `UserError`, a ValueError with one line that says what is allowed.
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
        (files/shipped.py: MODEL). device: None takes a GPU where there is one. dtype: None is float32 on the CPU,
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
        layout: Layout = "released",
    ) -> Path:
        """Writes a model directory in one step: a reader sees the old one or the new one.

        dtype: None keeps that of the files. layout: "released" (one tensor an expert) or "stacked" (ours).
        """
        kind = None if dtype is None else choose_dtype(dtype, self.parts.device)
        return save.save_model(self.parts, folder, kind, layout)

    @property
    def folder(self) -> Path:
        return self.parts.folder

    @property
    def device(self) -> torch.device:
        return self.parts.device

    @property
    def dtype(self) -> torch.dtype:
        return self.parts.dtype

    def to(self, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None) -> UniModel:
        """Itself, computing there. The networks are read again when they are next needed; None leaves as it is (a dtype follows
        a device only where it is given).
        """
        chosen = self.device if device is None else choose_device(device)
        self.parts = self.parts.moved(device=chosen, dtype=self.dtype if dtype is None else choose_dtype(dtype, chosen))
        return self

    def __repr__(self) -> str:
        """The directory, where it computes, and which networks are in memory."""
        kind, loaded = str(self.dtype).removeprefix("torch."), ", ".join(self.parts.loaded) or "nothing yet"
        more = f", experts as {self.parts.quantization}" if self.parts.quantization else ""
        return f"UniModel({str(self.folder)!r}, {self.device}, {kind}{more}; in memory: {loaded})"

    # --- tasks ---

    @overload
    def run(self, request: Draw | Edit | Inpaint | Decode, on_progress: OnProgress | None = None) -> ImageResult: ...
    @overload
    def run(self, request: Understand, on_progress: OnProgress | None = None) -> TextResult: ...
    @overload
    def run(self, request: Chat, on_progress: OnProgress | None = None) -> ChatResult: ...
    @overload
    def run(self, request: Story, on_progress: OnProgress | None = None) -> Iterator[Event]: ...
    @overload
    def run(
        self, request: Request, on_progress: OnProgress | None = None
    ) -> ImageResult | TextResult | ChatResult | Iterator[Event]: ...

    def run(self, request: Request, on_progress: OnProgress | None = None) -> Any:
        """Does what a request says. A `Story` gives its events one by one; all else is checked and done here and now."""
        task = TASKS.get(type(request))
        if task is None:
            raise UserError(f"a request is one of {', '.join(kind.__name__ for kind in TASKS)}, not {type(request).__name__}")
        return task(self.parts, request, on_progress)

    def generate_image(
        self,
        prompt: str,
        height: int | None = None,
        width: int | None = None,
        *,
        on_progress: OnProgress | None = None,
        **settings: Any,
    ) -> ImageResult:
        """Draws what the prompt says. height, width: pixels; settings: those of `requests.Draw`, such as `thinking`."""
        return self.run(Draw(prompt=prompt, height=height, width=width, **settings), on_progress)

    def edit_image(
        self,
        images: Picture | list[Picture],
        instruction: str,
        height: int | None = None,
        width: int | None = None,
        *,
        on_progress: OnProgress | None = None,
        **settings: Any,
    ) -> ImageResult:
        """Changes an image as the instruction says; several images are references, in the order given.

        height, width: of the result in pixels; None takes the first image's. settings: those of `requests.Edit`.
        """
        return self.run(Edit(images=images, instruction=instruction, height=height, width=width, **settings), on_progress)

    def inpaint(
        self, image: Picture, mask: Any, prompt: str, *, on_progress: OnProgress | None = None, **settings: Any
    ) -> ImageResult:
        """Fills the white part of `mask` so that the whole image becomes what the prompt says.

        mask: an image of the same size; a code with any white pixel is drawn again, every other one is kept. settings:
        those of `requests.Inpaint`.
        """
        return self.run(Inpaint(image=image, mask=mask, prompt=prompt, **settings), on_progress)

    def understand(
        self,
        images: Picture | list[Picture],
        question: str,
        max_tokens: int | None = None,
        *,
        on_progress: OnProgress | None = None,
        **settings: Any,
    ) -> TextResult:
        """Answers a question about one or several images. settings: those of `requests.Understand`."""
        return self.run(Understand(images=images, question=question, max_tokens=max_tokens, **settings), on_progress)

    def chat(self, messages: list[dict[str, Any]], *, on_progress: OnProgress | None = None, **settings: Any) -> ChatResult:
        """The next answer in a conversation; with the modalities ("text", "image") it may hold images.

        messages: {"role": "user", "assistant" or "system", "content": text, image, or a list of these}, the last by the
        user. settings: those of `requests.Chat`.
        """
        return self.run(Chat(messages=messages, **settings), on_progress)

    def interleave(
        self,
        messages: str | list[dict[str, Any]],
        max_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        *,
        on_progress: OnProgress | None = None,
        **settings: Any,
    ) -> Iterator[Event]:
        """Text and images in turn (a story, a how-to), each yielded when it is finished.

        Yields `TextEvent` and `ImageEvent`, and one `EndEvent` last. messages: a text, or as for `chat`. max_frames: at most
        so many images. height, width: in pixels, of images whose size the model does not say. settings: those of
        `requests.Story`. Everything is checked here and now, not at the first event.
        """
        return self.run(Story(messages=messages, max_frames=max_frames, height=height, width=width, **settings), on_progress)

    # --- images and codes ---

    def encode_image(self, image: Picture, mode: Mode = "understand", fit: str = "auto") -> ImageCodes:
        """Codes of an image. mode: "understand" or "edit" (how it is scaled and cropped), or "raw" (not at all).

        fit: only for "edit", how a large image is brought to the grid (`image.geometry.editing_crop`). An image that is codes
        already, or a file of them, gives these.
        """
        picture = open_picture(image)
        if isinstance(picture, ImageCodes):
            return own_codes(self.parts, picture)
        tokenizer = self.parts.image_tokenizer
        if mode == "edit":
            return tokenizer.encode(tokenizer.shape(picture, mode, fit=fit), mode="raw")
        return tokenizer.encode(picture, mode=mode)

    def save_codes(self, codes: ImageCodes, path: str | os.PathLike[str]) -> Path:
        """Writes codes as JSON, or as the published file of a pre-tokenized image (.pt); both are taken wherever images are."""
        return write_codes(codes, path, self.parts.image_tokenizer.patch_size)

    def decode_codes(self, codes: ImageCodes, *, on_progress: OnProgress | None = None, **settings: Any) -> ImageResult:
        """The image of codes. settings: those of `requests.Decode`.

        UserError for codes out of range, and for a decoder the directory does not have.
        """
        return self.run(Decode(codes=codes, **settings), on_progress)
