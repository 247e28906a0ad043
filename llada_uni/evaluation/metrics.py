"""Scores of one text answer against the texts that would be right: exact match and F1 of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

_PUNCTUATION = re.compile(r"[^\w\s]")


def normal(text: str) -> str:
    """Without case, punctuation and repeated spaces. Letters of all languages are kept."""
    return " ".join(_PUNCTUATION.sub(" ", text.casefold()).split())


def exact(answer: str, right: Sequence[str]) -> float:
    """1 when the answer is one of the right texts, apart from case, punctuation and spaces; else 0."""
    return float(normal(answer) in {normal(text) for text in right})


def f1(answer: str, right: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, counted with repetition; the best over the right texts.

    As in SQuAD (arXiv:1606.05250), without its removal of articles, which knows English only.
    """
    return max((_f1(normal(answer).split(), normal(text).split()) for text in right), default=0.0)


def _f1(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    both = sum((Counter(said) & Counter(wanted)).values())
    return 2 * both / (len(said) + len(wanted))


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"exact": exact, "f1": f1}
"""By name; each takes an answer and all right texts, and gives 0 to 1."""
