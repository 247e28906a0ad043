"""Dialogues of two to four turns: questions about a picture, changes of it, and pictures drawn on request.

Kinds: questions (about one picture), edit (questions, a change, and a question about the result), draw (a picture on
request, questions about it, perhaps a change).
"""

from __future__ import annotations

import random

from llada_uni.errors import UserError
from llada_uni.world.drawing import GENEVAL, plan_of
from llada_uni.world.edits import EDIT_KINDS, SINGLE, expected, instruct
from llada_uni.world.questions import UNDERSTAND_KINDS, Asked, ask, unique
from llada_uni.world.samples import Part, Sample, Turn, until
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene
from llada_uni.world.split import in_split
from llada_uni.world.wordings import Speaker

DIALOGUE_KINDS = {"questions": 0.4, "edit": 0.3, "draw": 0.3}
_ASKED = {k: w for k, w in UNDERSTAND_KINDS.items() if k not in ("caption", "two pictures")}
_EDITS = {k: EDIT_KINDS[k] for k in SINGLE}


class _Talk:
    """A dialogue as it grows: what was said and what each answer must be. `scene`: the picture that is talked about."""

    def __init__(self, rng: random.Random, say: Speaker, split: str) -> None:
        self.rng, self.say, self.split = rng, say, split
        self.turns: list[Turn] = []
        self.expect: list[dict] = []
        self.shown: list[Part] = []
        self._scene: Scene | None = None
        self.named = ""

    @property
    def scene(self) -> Scene:
        """What was shown or drawn last. UserError before that."""
        if self._scene is None:
            raise UserError("a dialogue about a picture begins with one")
        return self._scene

    def show(self, scene: Scene) -> None:
        """The user brings a picture along with the next words."""
        self._scene, self.shown = scene, [scene]

    def _said(self, words: str, answer: Part, expect: dict) -> None:
        self.turns += [Turn("user", [*self.shown, words]), Turn("assistant", [answer])]
        self.expect.append(expect)
        self.shown = []

    def question(self) -> None:
        """A question that was not asked before; after naming a thing it may ask about "it"."""
        rng, before = self.rng, {part for turn in self.turns for part in turn.parts}
        things = {t.concept: t for _, t in unique(self.scene)}
        if self.named in things and rng.random() < 0.4:
            asked = Asked(self.say.pick("style of it"), things[self.named].style)
        else:
            kinds = (rng.choices(tuple(_ASKED), tuple(_ASKED.values()))[0] for _ in iter(int, 1))
            found = (ask(rng, self.scene, kind, self.say) for kind in kinds)
            asked = next(one for one in found if one is not None and one.question not in before)
        self.named = asked.answer
        self._said(asked.question, asked.answer, asked.expect())

    def edit(self) -> bool:
        """An instruction, if the picture allows the one that was drawn and the result belongs to the split."""
        kind = self.rng.choices(tuple(_EDITS), tuple(_EDITS.values()))[0]
        made = instruct(self.rng, self.scene, kind, self.say)
        if made is None or (self.split != "heldout" and not in_split(made[1], self.split)):
            return False
        text, target = made
        self._said(text, target, expected(self.scene, target))
        self._scene, self.named = target, ""
        return True

    def draw(self) -> None:
        """A request for a picture."""
        plan = plan_of(self.rng, self.rng.choice(GENEVAL), self.split)
        self._said(plan.prompt(self.say), plan.scene(), plan.expect())
        self._scene = plan.scene()


def sample_dialogue(rng: random.Random, kind: str, split: str, wordings: str) -> Sample:
    """A dialogue of the kind; the first picture belongs to the split."""
    say = Speaker(rng, wordings)

    def make() -> Sample | None:
        talk = _Talk(rng, say, split)
        if kind == "draw":
            talk.draw()
            talk.question()
            done = rng.random() < 0.5 or talk.edit()
        else:
            talk.show(sample_scene(rng, split, things=rng.choice((1, 2, 2, 3, 3, 4))))
            for _ in range(rng.choice((2, 3)) if kind == "questions" else 1):
                talk.question()
            done = kind == "questions" or talk.edit()
            if kind == "edit" and done and rng.random() < 0.6:
                talk.question()
        if not done:
            return None
        *turns, last = talk.turns
        return Sample("dialogue", kind, turns, last.parts, {"turns": talk.expect})

    return until(make)
