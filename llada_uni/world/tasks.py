"""The one door to training and test samples: `sample_task(rng, task, split, wordings)`.

A sample is drawn from a kind of its task (see KINDS), in three steps: a scene of the split, words for it from
the wanted set of wordings, what a checker may ask of the answer. The same rng state gives the same sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from llada_uni.errors import UserError
from llada_uni.world import dialogue, drawing, edits, questions, reasoning, stories, thinking
from llada_uni.world.samples import Sample, Turn

KINDS: dict[str, dict[str, float]] = {
    "t2i": drawing.T2I_KINDS,
    "think": thinking.THINK_KINDS,
    "understand": questions.UNDERSTAND_KINDS,
    "edit": edits.EDIT_KINDS,
    "inpaint": drawing.INPAINT_KINDS,
    "story": stories.STORY_KINDS,
    "reasoning": reasoning.REASONING_KINDS,
    "dialogue": dialogue.DIALOGUE_KINDS,
}
"""Kinds of every task and how often each is drawn."""

TASKS: tuple[str, ...] = tuple(KINDS)

_MAKERS: dict[str, Callable[[random.Random, str, str, str], Sample]] = {
    "t2i": drawing.sample_t2i,
    "think": thinking.sample_think,
    "understand": questions.sample_understand,
    "edit": edits.sample_edit,
    "inpaint": drawing.sample_inpaint,
    "story": stories.sample_story,
    "reasoning": reasoning.sample_reasoning,
    "dialogue": dialogue.sample_dialogue,
}


def sample_task(
    rng: random.Random, task: str, split: str = "train", wordings: str = "train", kind: str | None = None
) -> Sample:
    """Draws one sample.

    task: one of TASKS; split: "train" or "seen" (no scene holds a held-out combination) or "heldout" (the
    wanted scene does, and where a prompt describes it, so does the prompt); wordings: "train" or "heldout";
    kind: one of KINDS[task], or None for a draw by their weights. UserError for any other name.
    """
    if task not in KINDS:
        raise UserError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    if split not in ("train", "seen", "heldout"):
        raise UserError(f"unknown split {split!r}; known: train, seen, heldout")
    kinds = KINDS[task]
    if kind is None:
        kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
    elif kind not in kinds:
        raise UserError(f"unknown kind {kind!r} of {task}; known: {', '.join(kinds)}")
    return _MAKERS[task](rng, kind, split, wordings)


def texts(sample: Sample) -> list[str]:
    """Every text of a sample, for building a vocabulary."""
    parts = [p for turn in sample.turns for p in turn.parts] + list(sample.answer)
    return [p for p in parts if isinstance(p, str)]


def corpus(samples: int, seed: int = 0) -> Iterator[str]:
    """Texts of `samples` training samples of every task in turn, and nothing held out."""
    rng = random.Random(seed)
    for i in range(samples):
        yield from texts(sample_task(rng, TASKS[i % len(TASKS)]))


__all__ = ["KINDS", "TASKS", "Sample", "Turn", "corpus", "sample_task", "texts"]
