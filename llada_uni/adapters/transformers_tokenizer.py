"""The tokenizer alone, as transformers' programs want it: text to ids and back, and the prompt of a conversation in text.

`tokenizer.json` of a model directory -> a fast tokenizer of transformers. What a user typed never becomes a control token:
neither here nor in `apply_chat_template`, whose templates are those of `llada_uni.text.prompts` and no Jinja text.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from llada_uni.errors import UserError
from llada_uni.files.model_dir import TEXT
from llada_uni.tasks.messages import text_turns
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import END_OF_TEXT, MASK, TextTokenizer

HUB_ARGUMENTS = ("cache_dir", "local_files_only", "revision", "subfolder", "token")  # of from_pretrained: where files are
KEPT = ("padding_side", "truncation_side", "model_max_length", "split_special_tokens")  # what a caller may set
NO_IMAGES = 2**62  # where image codes would begin, for prompts without any


class LLaDA2UniTokenizer(PreTrainedTokenizerFast):
    """Text of one model directory. Pads at the left, as generation wants it."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012  # transformers' own type

    def __init__(self, *args: Any, **options: Any) -> None:
        """As transformers' own; the special tokens are ours where a directory names none."""
        options = {
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "mask_token": MASK,
            "padding_side": "left",
            "split_special_tokens": True,
            "clean_up_tokenization_spaces": False,
            **options,
        }
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._plain: TextTokenizer | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *_: Any, **options: Any
    ) -> LLaDA2UniTokenizer:
        """The tokenizer of a model directory, or of a model on the hub, exactly as its file says (transformers would build
        another from its vocabulary, without its way to split). options: how the hub is reached, and those of `KEPT`.
        """
        where = {name: options[name] for name in HUB_ARGUMENTS if name in options}
        path = cached_file(pretrained_model_name_or_path, TEXT.marker, **where)
        kept = {name: options[name] for name in KEPT if name in options}
        return cls(tokenizer_file=path, name_or_path=str(pretrained_model_name_or_path), **kept)

    @property
    def plain(self) -> TextTokenizer:
        """The same tokenizer as this package's own class."""
        if self._plain is None:
            self._plain = TextTokenizer(self.backend_tokenizer.to_str())
        return self._plain

    def apply_chat_template(  # type: ignore[override]  # our templates are no Jinja text
        self,
        conversation: Sequence[Any],
        tools: Any = None,
        documents: Any = None,
        chat_template: Any = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tokenize: bool = True,
        padding: bool | str = True,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_dict: bool = True,
        task: str = "understand",
        **others: Any,
    ) -> str | list[str] | list[int] | list[list[int]] | BatchEncoding:
        """The prompt of a conversation in text, or of a list of them; options as those of transformers.

        tokenize False: the prompt as text, to be looked at. task: whose system text it has. UserError for tools, documents and
        templates, which this model does not know, and for images, which need the processor.
        """
        for name, value in {"tools": tools, "documents": documents, "chat_template": chat_template, **others}.items():
            if value:
                raise UserError(f"apply_chat_template has no {name}: this model's templates are its own")
        several = bool(conversation) and not isinstance(conversation[0], Mapping)
        chats = conversation if several else [conversation]
        form = PromptFormat(self.plain, NO_IMAGES)
        rows = [
            form.conversation(task, text_turns(chat), add_generation_prompt, not continue_final_message) for chat in chats
        ]
        if not tokenize:
            shown = [self.plain.decode(row, control=True) for row in rows]
            return shown if several else shown[0]
        if not return_dict and return_tensors is None:
            return rows if several else rows[0]
        if not several and return_tensors is None:
            return BatchEncoding({"input_ids": rows[0], "attention_mask": [1] * len(rows[0])})
        padded = self.pad({"input_ids": rows}, padding=padding, max_length=max_length, return_tensors=return_tensors)
        return padded if return_dict else padded["input_ids"]

