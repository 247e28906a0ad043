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
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.hub.listing import Access
from llada_uni.tasks.find import open_model
from llada_uni.tasks.messages import read_messages
from llada_uni.tasks.parts import Parts, choose_device, choose_dtype

FILES = ("tokenizer.json", "config.json", "generation_config.json")


class LLaDA2UniProcessor(ProcessorMixin):
    """Prompts of one model directory. The image tokenizer is read when the first picture comes."""

    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.chat_template = None

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

    def __call__(self, images: Any = None, text: str | Sequence[str] | None = None, **options: Any) -> BatchFeature:
        """A question, or several, each with its pictures -> {"input_ids", "attention_mask"}, int64 [B, T].

        text: plain words of the user, the template is put around them. images: a picture or a list of them for one
        question; for several questions one such entry each. A picture is a path, bytes, PIL or codes. options: those of
        `apply_chat_template`.
        """
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
        inputs = self.apply_chat_template(chats, tokenize=True, return_dict=True, **options)
        assert isinstance(inputs, BatchFeature), "asked for as such"
        return inputs

    def apply_chat_template(  # type: ignore[override]  # our templates are no Jinja text
        self,
        conversation: Sequence[Any],
        tokenize: bool = False,
        return_dict: bool = False,
        add_generation_prompt: bool = True,
        task: str = "understand",
        return_tensors: str = "pt",
    ) -> str | list[str] | torch.Tensor | BatchFeature:
        """The prompt of a conversation, or of a list of conversations, up to where the assistant speaks.

        conversation: {"role": "user" or "assistant", "content": words, or parts {"type": "text", "text": ...} and
        {"type": "image", "image": path, bytes, PIL or codes}}. The system text is the task's own ("understand",
        "generate", "edit", "interleave"). tokenize False: the prompt as text, to be looked at (codes left out). True:
        ids int64 [B, T], with return_dict as {"input_ids", "attention_mask"}. UserError for anything else.
        """
        if not add_generation_prompt or return_tensors != "pt":
            raise UserError("allowed: add_generation_prompt=True (prompts end where the answer begins) and return_tensors='pt'")
        several = bool(conversation) and not isinstance(conversation[0], Mapping)
        chats = conversation if several else [conversation]
        rows = [self.parts.format.prompt(task, read_messages(self.parts, [_message(one) for one in chat])) for chat in chats]
        if not tokenize:
            shown = [self.parts.text.decode(row, control=True) for row in rows]
            return shown if several else shown[0]
        inputs = self._padded(rows)
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

    def _padded(self, rows: list[list[int]]) -> BatchFeature:
        longest = max(map(len, rows))
        pad = self.parts.text.pad_id
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return BatchFeature({"input_ids": ids, "attention_mask": mask})


def _pictures(given: Any) -> list[Any]:
    """Parts of a message for what stands in `images` for one question. (Bare, a path would be read as words.)"""
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
