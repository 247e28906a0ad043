"""Words and pictures to ids for transformers' users, and ids back to words: the processor beside the backbone.

Conversations (text and image parts) -> pictures become codes -> our prompt templates -> input_ids
[B, T], shorter rows padded at the left; ids of an answer -> words. The templates are those of `llada_uni.text.prompts`, not a
Jinja text: what a user typed never becomes a control token.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from llada_uni.adapters.transformers_tokenizer import LLaDA2UniTokenizer
from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER, TEXT
from llada_uni.hub.listing import Access
from llada_uni.image.arrays import images_of, is_array
from llada_uni.image.codes import ImageCodes
from llada_uni.requests import Decode
from llada_uni.tasks.decode import decode_codes
from llada_uni.tasks.find import open_model
from llada_uni.tasks.messages import read_messages
from llada_uni.tasks.parts import Parts, choose_device, choose_dtype

OPTIONS = ("task", "padding", "max_length", "return_tensors", "add_generation_prompt", "continue_final_message")
IGNORED = ("add_special_tokens", "load_audio_from_video", "timeout")  # of pipelines, without a meaning here
FILES = ("tokenizer.json", "config.json", "generation_config.json")


class LLaDA2UniProcessor(ProcessorMixin):
    """Prompts of one model directory. The image tokenizer is read when the first picture comes."""

    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.chat_template = None
        self.tokenizer = LLaDA2UniTokenizer(tokenizer_file=str(parts.folder / TEXT.marker))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # arguments that say nothing here are left to `_`
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        device: str | torch.device | None = "cpu",
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **_: Any,
    ) -> LLaDA2UniProcessor:
        """The processor of a model directory, or of a model on the hub. device, dtype: of the image tokenizer; dtype None:
        float32 on the CPU, bfloat16 elsewhere. revision, token, cache_dir, local_files_only: how the hub is reached.
        """
        chosen = choose_device(device)
        access = Access(revision, token, None if cache_dir is None else Path(cache_dir), local_files_only)
        folder, need = open_model(pretrained_model_name_or_path, access)
        return cls(Parts(folder, chosen, choose_dtype(dtype, chosen), need=need))

    def to_dict(self) -> dict[str, Any]:
        """What is shown of it."""
        return {"processor_class": type(self).__name__, "folder": str(self.parts.folder)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.parts.folder)!r})"

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], **_: Any
    ) -> list[str]:
        """Copies tokenizer.json and image_tokenizer/ beside a saved model; a config that is there already stays."""
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        source = self.parts.folder
        for name in FILES:
            if (source / name).is_file() and not (target / name).exists():
                shutil.copyfile(source / name, target / name)
        if (IMAGE_TOKENIZER.path(source)).is_dir() and not (IMAGE_TOKENIZER.path(target)).exists():
            shutil.copytree(IMAGE_TOKENIZER.path(source), IMAGE_TOKENIZER.path(target))
        return [str(path) for path in sorted(target.iterdir())]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        **options: Any,
    ) -> BatchFeature:
        """A question, or several, each with its pictures -> {"input_ids", "attention_mask"}, int64 [B, T].

        text: plain words of the user, the template is put around them. images: a picture or a list of them for one
        question; for several questions one such entry each. A picture is whatever `UniModel` takes: path, bytes, PIL, array,
        tensor, codes. options: those of `apply_chat_template`.
        """
        if videos is not None or audio is not None:
            raise UserError("this model reads text and images: no videos, no audio")
        if text is None:
            raise UserError("processor(text=..., images=...): the text is missing")
        questions = [text] if isinstance(text, str) else list(text)
        if isinstance(text, str) or images is None:
            images = [images] * len(questions)
        if len(images) != len(questions):
            raise UserError(f"{len(questions)} texts with {len(images)} entries of images; allowed: one entry for each text")
        chats = [
            [{"role": "user", "content": [*_pictures(own), question]}] for question, own in zip(questions, images, strict=True)
        ]
        inputs = self.apply_chat_template(chats, **{**options, "tokenize": True, "return_dict": True})
        assert isinstance(inputs, BatchFeature), "asked for as such"
        return inputs

    def apply_chat_template(  # type: ignore[override]  # our templates are no Jinja text
        self,
        conversation: Sequence[Any],
        tokenize: bool = False,
        return_dict: bool = False,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        task: str = "understand",
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        """The prompt of a conversation, or of a list of conversations, up to where the assistant speaks.

        conversation: {"role": "user", "assistant" or "system", "content": words, or parts {"type": "text", "text": ...} and
        {"type": "image", "image": whatever `UniModel` takes}}. The system text is the task's own ("understand", "generate",
        "edit", "interleave"). add_generation_prompt False: it ends with its last turn, with continue_final_message inside of
        it. tokenize False: the prompt as text, to be looked at (codes left out). True: ids int64 [B, T], with return_dict as
        {"input_ids", "attention_mask"}; return_tensors "pt", "np" or None (lists). padding: True or "longest", "max_length"
        (to max_length tokens), or False. processor_kwargs: more of these options. UserError for anything else.
        """
        if processor_kwargs:
            given = {"padding": padding, "max_length": max_length, "truncation": truncation, "return_tensors": return_tensors}
            return self.apply_chat_template(
                conversation, tokenize, return_dict, add_generation_prompt, continue_final_message, task,
                **{**given, **others, **processor_kwargs},
            )  # fmt: skip
        for name, value in others.items():
            if value is not None and value is not False and name not in IGNORED:
                raise UserError(f"the processor has no option {name}={value!r}; allowed: {', '.join(OPTIONS)}")
        if truncation:
            raise UserError("truncation is not possible: a prompt that is cut is another one (images are whole or not there)")
        several = bool(conversation) and not isinstance(conversation[0], Mapping)
        chats = conversation if several else [conversation]
        open_end = add_generation_prompt and not continue_final_message
        rows = [
            self.parts.format.conversation(
                task, read_messages(self.parts, [_message(one) for one in chat]), open_end, not continue_final_message
            )
            for chat in chats
        ]
        if not tokenize:
            shown = [self.parts.text.decode(row, control=True) for row in rows]
            return shown if several else shown[0]
        inputs = self._padded(rows, padding, max_length, return_tensors)
        return inputs if return_dict else inputs["input_ids"]

    def decode(self, token_ids: Any, skip_special_tokens: bool = True, **_: Any) -> str:
        """Words of ids [T] up to the end of text; image codes are left out, and control tokens unless asked for."""
        ids = [int(token) for token in token_ids]
        end = self.parts.text.eos_id
        ids = ids[: ids.index(end)] if end in ids else ids
        return self.parts.text.decode(ids, control=not skip_special_tokens)

    def batch_decode(self, token_ids: Any, skip_special_tokens: bool = True, **_: Any) -> list[str]:
        """`decode` of every row of ids [B, T]."""
        return [self.decode(row, skip_special_tokens) for row in token_ids]

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **_: Any
    ) -> list[str]:
        """Words of every row of ids [B, T], prompt and answer alike; image codes are left out."""
        rows = generated_outputs if getattr(generated_outputs, "ndim", 2) == 2 else [generated_outputs]
        return [self.parts.text.decode([int(token) for token in row], control=not skip_special_tokens) for row in rows]

    def post_process_multimodal_output(
        self, generated_outputs: Any, skip_special_tokens: bool = True, generation_mode: str | None = None, **options: Any
    ) -> list[str]:
        """The same; UserError for a mode other than text: images are drawn with guidance, by `UniModel` or the pipeline."""
        if generation_mode not in (None, "text"):
            raise UserError(f"generation_mode={generation_mode!r}; allowed: text (UniModel.generate_image draws images)")
        return self.post_process_image_text_to_text(generated_outputs, skip_special_tokens, **options)

    def post_process_images(self, generated_outputs: Any, **decoding: Any) -> list[list[Image.Image]]:
        """The images in every row of ids [B, T] that a model wrote, decoded. decoding: settings of `requests.Decode`."""
        found = []
        for row in generated_outputs:
            parts = self.parts.format.parse_answer([int(token) for token in row])
            codes = [part for part in parts if isinstance(part, ImageCodes)]
            found.append([decode_codes(self.parts, Decode(codes=one, **decoding), None).image for one in codes])
        return found

    def _padded(
        self, rows: list[list[int]], padding: bool | str, max_length: int | None, return_tensors: str | None
    ) -> BatchFeature:
        longest, pad = max(map(len, rows)), self.parts.text.pad_id
        if padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise UserError(f"padding={padding!r}; allowed: True, 'longest', 'max_length' or False")
        if padding == "max_length":
            if max_length is None or max_length < longest:
                raise UserError(f"padding 'max_length' needs a max_length of at least {longest}, not {max_length}")
            longest = max_length
        if return_tensors not in ("pt", "np", None):
            raise UserError(f"return_tensors={return_tensors!r}; allowed: 'pt', 'np' or None")
        if padding in (False, "do_not_pad"):
            if return_tensors is not None and len(set(map(len, rows))) > 1:
                raise UserError("the rows have different lengths: one tensor needs padding=True")
            longest = 0
        ids = [[pad] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return BatchFeature({"input_ids": ids, "attention_mask": mask}, tensor_type=return_tensors)


def _pictures(given: Any) -> list[Any]:
    """Parts of a message for what stands in `images` for one question. (Bare, a path would be read as words.)"""
    if is_array(given):
        given = images_of(given)
    given = [] if given is None else given if isinstance(given, list | tuple) else [given]
    return [{"type": "image", "image": picture} for picture in given]


def _message(message: Any) -> Any:
    """Image parts as transformers names them: the picture may also stand under "url" or "path", where a file is meant."""
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), list | tuple):
        return message
    return {**message, "content": [_part(part) for part in message["content"]]}


def _part(part: Any) -> Any:
    if not isinstance(part, Mapping) or part.get("type") != "image" or "image" in part:
        return part
    return {"type": "image", "image": part.get("path") or part.get("url")}
