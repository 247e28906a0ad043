"""The words beside pictures as ids: one text tokenizer for the text encoder (siglip.py) and the language model (probe_lm.py).

It is read from a file, or trained on the captions, questions and answers of the pictures themselves.
"""

from __future__ import annotations

import hashlib
import random
from functools import cached_property

from llada_uni.errors import UserError
from llada_uni.options import options
from llada_uni.text.tokenizer import TextTokenizer, train_tokenizer
from llada_uni.training.tokenizer.picture_batches import PictureBatches


@options
class TextOptions:
    """tokenizer: path of a tokenizer.json, or "" to train one of `vocab_size` ids on the texts of `pictures` pictures.

    vocab_size: rows of the embedding table; a given tokenizer may have fewer ids.
    """

    tokenizer: str = ""
    vocab_size: int = 640
    pictures: int = 3000


class PictureText:
    """Ids of texts; the tokenizer is read or trained when it is first needed."""

    def __init__(self, options: TextOptions, batches: PictureBatches) -> None:
        self.options, self._batches = options, batches

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The same for the same options on every process and after a resume. UserError when it has too many ids."""
        if self.options.tokenizer:
            tokenizer = TextTokenizer.from_file(self.options.tokenizer)
        else:
            tokenizer = train_tokenizer(self._corpus(), self.options.vocab_size)
        if len(tokenizer) > self.options.vocab_size:
            raise UserError(f"the tokenizer has {len(tokenizer)} ids, the option vocab_size is {self.options.vocab_size}")
        return tokenizer

    def _corpus(self) -> list[str]:
        pictures = self._batches.sample(random.Random(0), self.options.pictures)
        texts = [picture.caption for picture in pictures]
        # A leading space, as in the middle of a sentence: answers are read so (`answer`).
        return texts + [text for p in pictures for question, answer in p.questions for text in (question, f" {answer}")]

    def fingerprint(self) -> str:
        """A hash of what every id stands for."""
        meanings = (self.tokenizer.decode([i], control=True) for i in range(len(self.tokenizer)))
        return hashlib.sha256("\n".join(meanings).encode()).hexdigest()

    def text(self, text: str) -> list[int]:
        """Ids of a caption or a question."""
        return self.tokenizer.encode(text)

    def answer(self, text: str) -> list[int]:
        """Ids of an answer, with the end of text that closes it."""
        return [*self.tokenizer.encode(f" {text}"), self.tokenizer.eos_id]
