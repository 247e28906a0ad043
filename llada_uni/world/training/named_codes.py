"""Codes that begin as the words they stand for.

The codes of the world's patch tokenizer (patch_tokenizer.py) are answers, and the language has words for nearly all of them: a
thing's name, a digit, a color, a style, a place. What is known of a word then holds for its code from the first step; with
unrelated first values a hundred names took thousands of steps, and a thing named in a question was not found in the picture
(docs/log.md). Codes of one sort (things, places, ...) share a part, and so do all codes.

V vocabulary, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.world.concepts import COLORS, CONCEPTS, DIGITS, POSITIONS, STYLES
from llada_uni.world.training.patch_tokenizer import FIRST, MEANINGS

SORTS = ("place", "thing", "digit", "color", "style")
_SHARED = 0.5  # width of what all codes share, and all names of a sort, relative to what is a name's own
_VARIANT = 0.3  # of what another form of a word (plural, first in a sentence) has of its own


@dataclass(frozen=True)
class NamedCode:
    """A code and its words. sort: one of SORTS; number: its number among those of its sort; token: the code's id in the
    vocabulary; words: ids of the forms of its word, the usual one first (only those that are one token).
    """

    sort: str
    number: int
    token: int
    words: tuple[int, ...]


def named_codes(text: TextTokenizer, offset: int, codebook_size: int) -> list[NamedCode]:
    """Every code that has a word. offset: id of the first code. UserError for codes of another tokenizer."""
    if codebook_size != MEANINGS:
        raise UserError(f"the data has {codebook_size} codes; those of the patch tokenizer, which have names, are {MEANINGS}")
    found = []

    def add(sort: str, number: int, code: int, *forms: str) -> None:
        ids = [text.encode(form) for form in forms]
        words = tuple(dict.fromkeys(one[0] for one in ids if len(one) == 1))
        if words:
            found.append(NamedCode(sort, number, offset + code, words))

    first_place, first_thing, first_color, first_style = FIRST.tolist()
    for i, position in enumerate(POSITIONS):
        add("place", i, first_place + i, f" {position}", position)
    for i, (name, concept) in enumerate(CONCEPTS.items()):
        code = first_thing + 1 + i  # behind "nothing"
        if name in DIGITS:
            add("digit", DIGITS.index(name), code, f" {name}", name)
        else:
            add("thing", i, code, f" {name}", name, f" {concept.plural}", concept.plural)
    for i, color in enumerate(COLORS):
        add("color", i, first_color + i, f" {color}", color)
    for i, style in enumerate(STYLES):
        add("style", i, first_style + 1 + i, f" {style}", style)
    return found


@torch.no_grad()
def begin_as_words(model: Backbone, named: list[NamedCode], seed: int, width: float = 0.3, head: float = 0.04) -> None:
    """Draws the embeddings and the head again: normal values of `width` and `head`, and the same for code and word."""
    generator = torch.Generator().manual_seed(seed)
    embedding = model.model.word_embeddings.weight
    embedding.normal_(0.0, width, generator=generator)
    for table, size in ((embedding, width), (model.lm_head.weight, head)):

        def draw(size: float = size, table: Tensor = table) -> Tensor:
            return torch.randn(table.shape[1], generator=generator) * size

        every = draw()
        shared = {sort: draw() for sort in SORTS}
        for code in named:
            name = draw() + _SHARED * shared[code.sort]
            table[code.token] = name + _SHARED * every
            for i, word in enumerate(code.words):
                table[word] = name if i == 0 else name + _VARIANT * draw()
