"""Best of N: candidates with seeds of their own, judged by the odds of yes against no, the best given with all scores."""

from __future__ import annotations

import json
import math

import pytest

from llada_uni.errors import UserError
from llada_uni.generation.params import LARGEST_SEED, GenerateSettings, Sampling
from llada_uni.generation.phases import Drawn, Work
from llada_uni.generation.settings import Settings
from llada_uni.image.codes import ImageCodes
from llada_uni.model import UniModel
from llada_uni.requests import Draw
from llada_uni.tasks.common import plain_phases
from llada_uni.tasks.judge import STRIDE, Judge, best_of, candidate_seed, varied
from llada_uni.text.prompts import Turn
from tests import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    """The tiny model, with tokens for yes and no."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "WORDS", [*tiny_model.WORDS, *["yes", "no", "a cat yes", "a dog no"] * 20])
        return UniModel.from_pretrained(
            tiny_model.make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden), device="cpu"
        )


def judge_of(model: UniModel) -> Judge:
    return Judge(plain_phases(model.parts, Draw(prompt="-")), model.parts.defaults.understand.text)


def test_seeds_of_candidates_differ_and_stay_in_range():
    assert candidate_seed(7, 0) == 7 and candidate_seed(7, 2) == 7 + 2 * STRIDE
    assert 0 <= candidate_seed(LARGEST_SEED, 3) <= LARGEST_SEED


def test_greedy_settings_get_a_temperature_others_stay():
    assert varied(Sampling()).temperature == 1.0
    for sampling in (Sampling(temperature=0.5), Sampling(confidence="random")):
        assert varied(sampling) == sampling


def test_the_best_score_wins_and_of_equal_ones_the_first():
    class Scripted:
        def log_odds(self, codes, question):
            assert question == "is there a cat?"
            return {0: -1.0, 1: 2.0, 2: 2.0}[codes.codes[0]], Work(1, 1)

    seeds = []

    def draw(seed):
        seeds.append(seed)
        return Drawn(ImageCodes((len(seeds) - 1,), 1, 1), Work(2, 4))

    best, candidates, chosen = best_of(draw, Scripted(), "is there a cat?", 5, 3)
    assert best == Drawn(ImageCodes((1,), 1, 1), Work(9, 15))  # the work of all, judgments included
    assert [one.score for one in candidates] == [-1.0, 2.0, 2.0] and [one.seed for one in candidates] == seeds
    assert chosen == seeds[1] == candidate_seed(5, 1)


def test_the_odds_are_those_of_the_two_tokens_where_the_answer_decides(model, monkeypatch):
    """By the oracle, from the logits of the very position."""
    from llada_uni.generation import oracle

    judge, codes = judge_of(model), ImageCodes(tuple(range(16)), 4, 4)
    yes, no = judge.pairs[0]
    text = model.parts.format.text
    assert text.decode([yes]).strip().lower() == "yes" and text.decode([no]).strip().lower() == "no"
    score, work = judge.log_odds(codes, "is this a cat?")
    assert math.isfinite(score) and work.evaluations >= 2
    prompt = model.parts.format.prompt("understand", [Turn("user", (codes, "is this a cat?"))])
    said = [text.encode("a")[0], no, text.encode("b")[0]]
    probability, _ = judge._probability(prompt, said, 1, (yes, no))
    hidden = []
    monkeypatch.setattr(oracle, "combine", lambda logits, guidance: hidden.append(logits[0]) or logits[0])
    settings = Settings(mask_id=text.mask_id, gen_length=4, steps=1, threshold=0.0, block_length=8, allowed=(yes, no))
    canvas = [said[0], text.mask_id, said[2], text.eos_id]
    oracle.generate(model.parts.backbone, prompt, settings, canvas=canvas)
    at = hidden[0][len(prompt) + 1]
    assert math.log(probability / (1 - probability)) == pytest.approx((at[yes] - at[no]).item(), abs=1e-4)


def test_the_best_candidate_is_given_with_all_scores_and_its_seed_draws_it_alone(model):
    steps = []
    result = model.generate_image("a cat", seed=3, n_best=3, decoder="none", on_progress=steps.append)
    assert len(result.candidates) == 3 and len({one.codes.codes for one in result.candidates}) == 3
    best = max(result.candidates, key=lambda one: one.score)
    assert result.codes == best.codes and result.seed == 3
    again = model.generate_image("a cat", seed=best.seed, temperature=1.0, decoder="none")
    assert again.codes == best.codes and again.candidates == ()
    assert model.generate_image("a cat", seed=3, n_best=3, decoder="none").candidates == result.candidates
    assert json.loads(json.dumps(result.to_json()))["candidates"][1]["seed"] == candidate_seed(3, 1)
    assert "candidates" not in again.to_json()
    assert result.evaluations.backbone > 3 * again.evaluations.backbone
    assert all(step.stage == "codes" for step in steps)  # nobody hears the judgments


def test_reasoning_text_is_written_once(model):
    result = model.generate_image("a cat", seed=3, n_best=2, thinking=True, decoder="none")
    assert result.thinking is not None and len(result.candidates) == 2


def test_what_cannot_be_judged_is_said(model, tmp_path, golden):
    for wrong in ({"n_best": 0}, {"n_best": 65}):
        with pytest.raises(UserError, match="n_best must be a whole number from 1 to 64"):
            model.generate_image("a cat", **wrong)
    with pytest.raises(UserError, match="a question of at most 500 characters with"):
        model.generate_image("a cat", n_best=2, judge_question="is it?")
    plain = UniModel.from_pretrained(tiny_model.make_tiny_model(tmp_path / "plain", golden), device="cpu")
    with pytest.raises(UserError, match="has no token for yes and no"):
        plain.generate_image("a cat", n_best=2)


def test_one_image_is_the_default():
    assert GenerateSettings().n_best == 1
