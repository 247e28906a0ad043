"""Best of N by the model's own judgment against one drawing: at equal candidates, at equal cost, and how good the judgment is.

    python -m benchmarks.best_of_n --store FILE [--limit 100] [--suites geneval,text,wise] [--seed 61] [--json FILE]
        [--question TEXT] [--candidates 4] [--threads N]

Every drawing is read back by the world's checker, which says whether it is right. For each prompt of a suite (wise: without
the reasoning text) it draws the directory's own image, and N cheap candidates (few steps, a low threshold, temperature 1, no
guidance), each judged by the model's answer to the question. Reported: the share of right images of the directory's drawing,
of a candidate picked by chance, of the one that the model judges best, and of the best there is; evaluations of each; and the
area under the curve (AUC) of the judgment against the checker, over all candidates and among those of one prompt.
What is in the store is not measured again, so a run that was stopped goes on.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Row
from llada_uni.evaluation.intervals import wilson
from llada_uni.files.weights import write_json
from llada_uni.generation.params import GenerateSettings
from llada_uni.image.codes import ImageCodes
from llada_uni.requests import Draw
from llada_uni.tasks.common import plain_phases
from llada_uni.tasks.judge import TEMPERATURE, Judge, candidate_seed
from llada_uni.world.checker import Checker
from llada_uni.world.evaluation import scoring
from llada_uni.world.evaluation.asking import words_of
from llada_uni.world.evaluation.suites import draw_samples
from llada_uni.world.render import PIXELS
from llada_uni.world.samples import Sample

CHEAP: dict[str, Any] = {"image_steps": 4, "threshold": 0.5, "rule": "adaptive", "temperature": TEMPERATURE, "cfg_scale": 1.0}
DECODER: dict[str, Any] = {"decoder": "turbo", "decoder_steps": 4}  # as good as 8 for the checker (docs/results.md: turbo4)
SUITES = "geneval,text,wise"


class Bench:
    """The model, its judge, and the checker."""

    def __init__(self, question: str, candidates: int) -> None:
        from llada_uni.model import UniModel

        self.model = UniModel.from_pretrained("world")
        parts = self.model.parts
        self.judge = Judge(plain_phases(parts, Draw(prompt="-")), parts.defaults.understand.text)
        self.checker, self.question, self.candidates = Checker(size=PIXELS), question, candidates

    def prompt(self, sample: Sample, seed: int) -> dict[str, Any]:
        """What one prompt came to."""
        prompt = words_of(sample)
        self.read: dict[ImageCodes, bool] = {}  # codes of this prompt -> whether they are right
        candidates = []
        for number in range(self.candidates):
            one = self._drawn(sample, prompt, candidate_seed(seed, number), CHEAP)
            score, work = self.judge.log_odds(one.pop("codes"), self.question.replace("{prompt}", prompt))
            candidates.append({**one, "score": score, "judged": work.branches})
        single = self._drawn(sample, prompt, seed, {})
        del single["codes"]
        return {"prompt": prompt, "single": single, "candidates": candidates}

    def _drawn(self, sample: Sample, prompt: str, seed: int, how: Mapping[str, Any]) -> dict[str, Any]:
        result = self.model.generate_image(prompt, PIXELS, PIXELS, seed=seed, decoder="none", **how)
        if result.codes not in self.read:
            image = self.model.decode_codes(result.codes, seed=seed, **DECODER).image
            self.read[result.codes] = scoring.score_drawing(sample.expect, self.checker.read(image))["right"] == 1.0
        return {"right": self.read[result.codes], "evaluations": result.evaluations.branches, "codes": result.codes}


def auc(scores: Sequence[tuple[float, bool]]) -> float | None:
    """The share of pairs (a right one, a wrong one) in which the right one has the larger score; equal scores count half."""
    right = [score for score, good in scores if good]
    wrong = [score for score, good in scores if not good]
    if not right or not wrong:
        return None
    return sum((r > w) + 0.5 * (r == w) for r in right for w in wrong) / (len(right) * len(wrong))


def auc_within(prompts: Sequence[Mapping[str, Any]]) -> float | None:
    """The same among candidates of one prompt, over all prompts that have right and wrong ones, each with equal weight."""
    each = [auc([(one["score"], one["right"]) for one in prompt["candidates"]]) for prompt in prompts]
    known = [value for value in each if value is not None]
    return statistics.fmean(known) if known else None


def rows(suite: str, prompts: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """The four ways to draw, as shares of right images, with evaluations (branches of guidance counted) an image."""
    count, candidates = len(prompts), len(prompts[0]["candidates"])
    judged = [max(prompt["candidates"], key=lambda one: one["score"])["right"] for prompt in prompts]
    cheap = [one["evaluations"] for prompt in prompts for one in prompt["candidates"]]
    answers = [one["judged"] for prompt in prompts for one in prompt["candidates"]]
    of_one = statistics.fmean(prompt["single"]["evaluations"] for prompt in prompts)
    of_best = candidates * (statistics.fmean(cheap) + statistics.fmean(answers))
    chance = statistics.fmean(one["right"] for prompt in prompts for one in prompt["candidates"])
    single = statistics.fmean(prompt["single"]["right"] for prompt in prompts)
    there_is = statistics.fmean(any(one["right"] for one in prompt["candidates"]) for prompt in prompts)
    scored = [(one["score"], one["right"]) for prompt in prompts for one in prompt["candidates"]]
    aucs = {"AUC": auc(scored), "AUC within a prompt": auc_within(prompts)}

    def row(name: str, share: float, evaluations: float, **more: Any) -> Row:
        interval = [round(end, 3) for end in wilson(round(share * count), count)]
        return Row(
            f"{suite}: {name}", "directory", "right", share, single, None,
            {"interval": interval, "n": count, "evaluations": evaluations, **more},
        )  # fmt: skip

    yield row("directory", single, of_one)
    yield row("one candidate", chance, statistics.fmean(cheap))
    yield row(f"best of {candidates}", statistics.fmean(judged), of_best, **aucs)
    yield row(f"best there is of {candidates}", there_is, of_best)


def measured(store: Path, suites: Sequence[str], limit: int, seed: int, question: str, candidates: int) -> Iterator[Row]:
    """Measures what the store lacks, prompt by prompt."""
    about = {"seed": seed, "question": question, "candidates": candidates, "cheap": CHEAP}
    found = common.stored(store, about, {"suites": {}})
    bench: Bench | None = None
    for suite in suites:
        done = found["suites"].setdefault(suite, [])
        for number, sample in enumerate(draw_samples(suite, limit, seed, "heldout")):
            if number < len(done):
                continue
            bench = bench or Bench(question, candidates)
            done.append(bench.prompt(sample, seed + number))
            write_json(store, found)
        yield from rows(suite, done[:limit])


def main(given: Sequence[str] | None = None) -> int:
    parser = common.arguments(
        __doc__,
        store={"type": Path, "required": True, "help": "the file of what was measured; a run goes on from it"},
        limit={"type": int, "default": 100, "help": "prompts a suite (default 100)"},
        seed={"type": int, "default": 61, "help": "of the samples (default 61)"},
        suites={"default": SUITES, "help": f"names with commas (default {SUITES})"},
        question={"default": GenerateSettings().judge_question, "help": "by which candidates are judged"},
        candidates={"type": int, "default": 4, "help": "of a prompt (default 4)"},
    )
    options = common.start(parser, given)
    limit, suites = (2, ["geneval"]) if options.quick else (options.limit, options.suites.split(","))
    return common.run(
        lambda: measured(options.store, suites, limit, options.seed, options.question, options.candidates), options.json
    )


if __name__ == "__main__":
    raise SystemExit(main())
