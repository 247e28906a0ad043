"""Best of N by the model's own judgment: candidates of an image, each judged by what the model answers about it.

N sets of codes -> "is this ...?" to the same model -> log-odds of yes against no -> the best one. An answer may work something
out before it says yes or no, so it is written first; the odds are read where it decides. Source: arXiv:2512.19433.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from llada_uni.errors import UserError
from llada_uni.generation.params import LARGEST_SEED, Sampling, TextSampling
from llada_uni.generation.phases import Drawn, Phases, Work
from llada_uni.generation.settings import Settings, StepEvent
from llada_uni.image.codes import ImageCodes
from llada_uni.results import Candidate
from llada_uni.text.prompts import Turn
from llada_uni.text.tokenizer import TextTokenizer

STRIDE = 1_000_003  # between the seeds of candidates, far from neighboring ones (on a CPU torch reads the lower 32 bits alone)
TEMPERATURE = 1.0  # of candidates where the settings are greedy: equal ones are no choice
LONGEST = 64  # tokens of an answer at most
ANSWERS = (("yes", "no"), (" yes", " no"), ("Yes", "No"), (" Yes", " No"))
SUREST = 1 - 2**-24  # probabilities are float32


def candidate_seed(seed: int, number: int) -> int:
    """The seed of candidate `number` (from 0); the first has the request's own."""
    return (seed + number * STRIDE) % (LARGEST_SEED + 1)


def varied(sampling: Sampling) -> Sampling:
    """The sampling of candidates: greedy settings get a temperature."""
    return sampling if sampling.temperature > 0 or sampling.measure == "random" else sampling.replace(temperature=TEMPERATURE)


def best_of(
    draw: Callable[[int], Drawn], judge: Judge, question: str, seed: int, count: int
) -> tuple[Drawn, tuple[Candidate, ...], int]:
    """Draws `count` candidates, each with its own seed: (the best with the work of all, all of them in order, its seed).

    Of equal scores the first is taken.
    """
    drawn, candidates, work = [], [], Work()
    for number in range(count):
        own = candidate_seed(seed, number)
        one = draw(own)
        score, judged = judge.log_odds(one.codes, question)
        work += one.work + judged
        drawn.append(one)
        candidates.append(Candidate(own, score, one.codes))
    best = max(range(count), key=lambda number: candidates[number].score)
    return Drawn(drawn[best].codes, work), tuple(candidates), candidates[best].seed


class Judge:
    """Asks the model about codes. phases: with a plain engine (`plain_phases`); sampling: of answers, made greedy here.

    UserError where the tokenizer has no single token for yes and no.
    """

    def __init__(self, phases: Phases, sampling: TextSampling) -> None:
        self.phases, self.sampling = phases, sampling.replace(temperature=0.0)
        self.pairs = _pairs(phases.form.text)
        if not self.pairs:
            raise UserError("n_best: the tokenizer has no token for yes and no, so this model cannot judge what it draws")

    def log_odds(self, codes: ImageCodes, question: str) -> tuple[float, Work]:
        """ln p(yes) - ln p(no) at the last of these words in the model's answer, or at its beginning where it says neither."""
        ids = self.phases.form.prompt("understand", [Turn("user", (codes, question))])
        longest = min(self.sampling.max_tokens, LONGEST)
        written = self.phases.write(ids, self.sampling, longest, images=False)
        said = list(written.ids)
        either = {token: pair for pair in self.pairs for token in pair}
        at = next((i for i in reversed(range(len(said))) if said[i] in either), None)
        pair = self.pairs[0] if at is None else either[said[at]]
        probability, work = self._probability(ids, said if at is not None else [], at or 0, pair)
        probability = min(max(probability, 1 - SUREST), SUREST)
        return math.log(probability / (1 - probability)), written.work + work

    def _probability(self, prompt: list[int], said: list[int], at: int, pair: tuple[int, int]) -> tuple[float, Work]:
        """The probability of yes against no at position `at` of an answer, all else in it as it was said."""
        text = self.phases.form.text
        canvas = [*said, text.eos_id] if said else [text.mask_id]
        canvas[at] = text.mask_id
        settings = Settings(
            mask_id=text.mask_id,
            gen_length=len(canvas),
            steps=1,
            threshold=0.0,
            block_length=self.phases.block_length,
            allowed=pair,
            early_stop=False,
        )
        events: list[StepEvent] = []
        made = self.phases.engine.generate(prompt, settings, canvas=canvas, on_step=events.append)
        event = next(event for event in events if 0 <= at - event.block_start < len(event.tokens))
        sure = event.confidences[at - event.block_start]
        yes = made.tokens[at] == pair[0]
        return sure if yes else 1 - sure, Work(made.evaluations, made.branch_evaluations)


def _pairs(text: TextTokenizer) -> list[tuple[int, int]]:
    """(yes, no) in the spellings that are one token each; that of the beginning of an answer first."""
    encoded = [(text.encode(yes), text.encode(no)) for yes, no in ANSWERS]
    return [(yes[0], no[0]) for yes, no in encoded if len(yes) == len(no) == 1]
