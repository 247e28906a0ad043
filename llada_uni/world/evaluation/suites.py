"""The suites of the small world: seeded samples, asked through the model's public calls, judged by the world's checker.

Samples -> questions (asking.py) -> scores by the checker (scoring.py); evaluation/run.py runs them. The
counterparts in the report of LLaDA2.0-Uni: geneval (GenEval), understand, wise (WISE, without and with thinking), text (numbers
in the image), edit (ImgEdit, several references, refilling), intergen (stories, reasoning with images), dialogue, robust (the
same requests in other words), decoder (codes to pixels).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import cycle
from math import lcm
from typing import Any

from llada_uni.evaluation.suite import LIMIT, Calls, Judged, Plan, Question, with_changes
from llada_uni.world.checker import Checker
from llada_uni.world.drawing import GENEVAL
from llada_uni.world.edits import EDIT_KINDS
from llada_uni.world.evaluation.asking import ASK, Context, ask_decoder, ask_drawing, words_of
from llada_uni.world.questions import UNDERSTAND_KINDS
from llada_uni.world.render import PIXELS
from llada_uni.world.rewording import mistyped
from llada_uni.world.samples import Sample
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene
from llada_uni.world.tasks import KINDS, sample_task

DEFAULT_SETTINGS: Calls = {
    "generate": {"decoder": "turbo"},
    "think": {"decoder": "turbo"},
    "understand": {},
    "edit": {"decoder": "turbo"},
    "inpaint": {"decoder": "turbo"},
    "interleave": {"max_frames": 6, "decoder": "turbo"},
    "chat": {"decoder": "turbo"},
    "size": {"pixels": PIXELS},
}
"""Keyword arguments of the model's calls; what is not named is the model directory's own default. Both are
written into the report."""

Kind = tuple[str, str]


def _by_turns(*tasks: str) -> Iterator[Kind]:
    """A kind of each task in turn, until all their kinds have come equally often."""
    kinds = [tuple(KINDS[task]) for task in tasks]
    for i in range(lcm(*(len(names) for names in kinds))):
        yield from ((task, names[i % len(names)]) for task, names in zip(tasks, kinds, strict=True))


SUITES: dict[str, tuple[Kind, ...]] = {
    "geneval": tuple(("t2i", kind) for kind in GENEVAL),
    "understand": tuple(("understand", kind) for kind in UNDERSTAND_KINDS),
    "wise": tuple(("think", kind) for kind in KINDS["think"]),
    "text": (("t2i", "number"),),
    "edit": (*(("edit", kind) for kind in EDIT_KINDS), ("inpaint", "refill")),
    "intergen": tuple(_by_turns("story", "reasoning")),
    "dialogue": tuple(("dialogue", kind) for kind in KINDS["dialogue"]),
    "robust": tuple(
        kind
        for pair in zip([("t2i", k) for k in GENEVAL], [("understand", k) for k in UNDERSTAND_KINDS], strict=False)
        for kind in pair
    ),
    "decoder": (),
}
"""Every suite with its (task, kind) pairs, asked by turns. The decoder's pictures are no samples of a task."""
MEANINGS = {
    "geneval": "drawn as asked and nothing else; mean of the six classes",
    "understand": "answers right; mean of the kinds",
    "wise": "drawn as reasoned out, with thinking",
    "text": "numbers drawn as asked",
    "edit": "edits right, everything else kept; mean of the kinds",
    "intergen": "mean of stories (frames right) and reasoning (final answers right)",
    "dialogue": "answers right, of whole dialogues",
    "robust": "right in other words",
    "decoder": "objects read back, turbo at 8 steps",
}
"""What the overall score of a suite means."""
HEADS = {"wise": "with", "robust": "reworded", "decoder": "turbo8"}
"""The part of a suite that its overall score is taken from; elsewhere it is the mean of the parts."""
DECODERS = {"base50": ("base", 50), "turbo8": ("turbo", 8), "turbo4": ("turbo", 4)}
_PART_OF = {"story": "stories", "reasoning": "reasoning"}
_MISTYPED = 1 / 3  # of the reworded requests hold a typing mistake too


@dataclass(frozen=True)
class Case:
    """One question of a suite: its part of the suite ("" where there are none), its class, and who asks it."""

    part: str
    key: str
    sample: Sample
    seed: int
    ask: Callable[[Context, Sample, int], Judged]


def draw_samples(suite: str, limit: int, seed: int, split: str, wordings: str = "train") -> list[Sample]:
    """The `limit` samples that a suite asks: the same for the same arguments, whatever the model; in other wordings, the same
    things are asked. None for the decoder. UserError for an unknown split."""
    numbered = zip(range(limit), cycle(SUITES[suite]), strict=False)
    return [sample_task(_rng(suite, split, seed, i), task, split, wordings, kind) for i, (task, kind) in numbered]


def decoder_scene(split: str, seed: int, i: int) -> Scene:
    """What picture i of the suite `decoder` shows."""
    return sample_scene(_rng("decoder", split, seed, i), split, numbers=0.1)


def _rng(suite: str, split: str, seed: int, i: int) -> random.Random:
    """What sample i of a suite is drawn with."""
    return random.Random(f"{suite}/{split}/{seed}/{i}")


def cases(suite: str, limit: int, seed: int, split: str) -> Iterator[Case]:
    """What a suite asks, one after another."""
    reworded = iter(_reworded(suite, limit, seed, split)) if suite == "robust" else None
    for i, sample in enumerate(draw_samples(suite, limit, seed, split)):
        key, ask = ("inpainting" if sample.task == "inpaint" else sample.kind), ASK[sample.task]
        if suite == "wise":
            yield Case("without", key, sample, seed + i, ask_drawing)
            yield Case("with", key, sample, seed + i, ask)
        elif reworded is not None:
            yield Case("plain", f"{sample.task}: {key}", sample, seed + i, ask)
            yield Case("reworded", f"{sample.task}: {key}", next(reworded), seed + i, ask)
        else:
            yield Case(_PART_OF.get(sample.task, "") if suite == "intergen" else "", key, sample, seed + i, ask)


def _reworded(suite: str, limit: int, seed: int, split: str) -> Iterator[Sample]:
    """The samples of a suite in held-out wordings (another order of clauses among them), some mistyped."""
    rng = random.Random(f"{suite}/{split}/{seed}/mistyped")
    for sample in draw_samples(suite, limit, seed, split, "heldout"):
        if rng.random() < _MISTYPED:
            sample.turns[-1].parts[-1] = mistyped(rng, words_of(sample))
        yield sample


@lru_cache(maxsize=2)
def _checker(pixels: int) -> Checker:
    return Checker(size=pixels)


@dataclass(frozen=True)
class WorldSuite:
    """One of SUITES, as evaluation/run.py asks it."""

    name: str
    splits: tuple[str, ...] = ("heldout", "seen")

    @property
    def meaning(self) -> str:
        return MEANINGS[self.name]

    @property
    def head(self) -> str | None:
        return HEADS.get(self.name)

    def total(self, plan: Plan) -> int:
        return (plan.limit or LIMIT) * {"wise": 2, "robust": 2, "decoder": len(DECODERS)}.get(self.name, 1)

    def calls(self, plan: Plan) -> Calls:
        return with_changes(DEFAULT_SETTINGS, plan.calls)

    def facts(self, judged: Sequence[Judged]) -> dict[str, Any]:
        return {}

    def questions(self, plan: Plan) -> Iterator[Question]:
        limit, settings = plan.limit or LIMIT, self.calls(plan)
        checker = _checker(settings["size"]["pixels"])
        if self.name == "decoder":
            for i in range(limit):
                scene = decoder_scene(plan.split, plan.seed, i)
                for part, (decoder, steps) in DECODERS.items():
                    ask = partial(_ask_decoder, checker, settings, scene, plan.seed + i, decoder, steps)
                    yield Question(part, part, "", ask)
            return
        for case in cases(self.name, limit, plan.seed, plan.split):
            yield Question(case.part, case.key, words_of(case.sample), partial(_ask, checker, settings, case))


def _ask(checker: Checker, settings: Calls, case: Case, model: Any) -> Judged:
    return case.ask(Context(model, checker, settings), case.sample, case.seed)


def _ask_decoder(checker: Checker, settings: Calls, scene: Scene, seed: int, decoder: str, steps: int, model: Any) -> Judged:
    return ask_decoder(Context(model, checker, settings), scene, seed, decoder, steps)
