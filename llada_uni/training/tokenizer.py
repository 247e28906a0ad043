"""Former name of patch_tokenizer.py, for scripts that still import it; nothing of its own, to be deleted."""

from __future__ import annotations

from llada_uni.training import patch_tokenizer
from llada_uni.training.patch_tokenizer import SIDE, PatchTokenizerOptions

__all__ = ["SIDE", "TokenizerObjective"]


class TokenizerObjective(patch_tokenizer.PatchTokenizerObjective):
    """With the former constructor."""

    def __init__(self) -> None:
        super().__init__(PatchTokenizerOptions())
