"""Rules that edit: what they change, when a block ends, that the engine equals the oracle, that what is final stays."""

from __future__ import annotations

import random

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import engine
from llada_uni.generation.batch import BatchEngine
from llada_uni.generation.corrections import Corrections
from llada_uni.generation.params import Sampling
from llada_uni.generation.sampling import judge
from llada_uni.generation.settings import Settings
from llada_uni.generation.unmasking import MASK, PRESETS, RULES, Step, decide
from tests.backbone.helpers import small_config
from tests.generation import test_engine
from tests.generation.test_batch import alone, request_of
from tests.generation.test_engine import base, random_case

EDITING = [name for name, rule in RULES.items() if rule.edits]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return Backbone(small_config(initializer_range=0.6)).double().eval()


def step(**changes) -> Step:
    """Five positions: two masks, then the tokens 7, 8 and 9."""
    given = {
        "confidence": [0.6, 0.9, 0.5, 0.5, 0.5],
        "threshold": 0.8,
        "block_length": 5,
        "steps": 5,
        "step": 0,
        "likeliest": [0.6, 0.9, 0.5, 0.5, 0.5],
        "proposals": [1, 2, 3, 4, 5],
        "tokens": [MASK, MASK, 7, 8, 9],
        "rivals": [1, 2, 7, 6, 5],
        "certainty": [0.6, 0.9, 0.99, 0.4, 0.7],
        "own": [0.0, 0.0, 0.99, 0.1, 0.2],
        "edit_threshold": 0.5,
        "budget": 8,
    }
    return Step(**given | changes)


def test_a_surer_rival_takes_the_place_of_a_token():
    assert decide("t2t", step()) == {1: 2, 4: 5}  # 7 is its own rival, 6 is not sure enough
    assert decide("t2t", step(edit_threshold=0.0)) == {1: 2, 3: 6, 4: 5}
    assert decide("t2t", step(threshold=1.0, edit_threshold=1.0)) == {1: 2}  # the best one, where none is sure
    assert decide("t2t", step(threshold=1.0, step=4)) == {0: 1, 1: 2, 4: 5}  # the last step fills what is left


def test_doubtful_tokens_become_masks_again_the_least_probable_first():
    assert decide("t2m", step()) == {1: 2, 3: MASK, 4: MASK}
    assert decide("t2m", step(budget=1)) == {1: 2, 3: MASK}
    assert decide("t2m", step(budget=0)) == {1: 2}
    assert decide("t2m", step(edit_threshold=0.15)) == {1: 2, 3: MASK}


def test_what_is_shown_of_a_step():
    now = step()
    changes = {1: 2, 3: MASK, 4: 5}
    assert [now.shown(i, changes) for i in range(5)] == [(1, 0.6), (2, 0.9), (7, 0.99), (4, 0.5), (5, 0.7)]


def test_the_opinion_on_tokens_that_stand_is_free_of_sampling():
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    found = judge(shares.log(), torch.tensor([1, 2]))
    assert found.rival.tolist() == [0, 2]
    assert found.certainty.tolist() == pytest.approx([0.7, 0.6]) and found.own.tolist() == pytest.approx([0.2, 0.6])
    without = judge(shares.log(), torch.tensor([1, 2]), forbidden=0)
    assert without.rival.tolist() == [1, 2] and without.own.tolist() == pytest.approx([0.2, 0.6])


def test_a_block_is_settled_when_nothing_changes_or_its_rounds_or_its_budget_are_used_up():
    def corrections(rule: str, **changes) -> Corrections:
        return Corrections(Settings(mask_id=1, rule=rule, **changes), steps=4)

    assert corrections("threshold").limit == 4 and corrections("t2t", edit_rounds=3).limit == 7
    plain = corrections("threshold")
    plain.note({1: 5}, False)
    assert plain.settled([0, 1])
    edits = corrections("t2t", edit_rounds=2)
    edits.note({1: 5}, False)
    assert not edits.settled([0, 1]) and edits.settled([0])  # what is watched did not change
    edits.note({}, True)
    assert edits.settled([0, 1])
    edits.note({1: 6}, True)
    assert edits.settled([0, 1])  # two rounds
    assert corrections("t2t", edit_rounds=0).settled([0, 1])
    back = corrections("t2m", edit_budget=2)
    assert [back.budget(step) for step in (0, 18, 19)] == [2, 2, 0]  # the last of 20 steps leaves no mask
    back.note({1: MASK}, True)
    assert not back.settled([1]) and back.budget(0) == 1
    back.note({2: MASK}, True)
    assert back.settled([1, 2])


def editing_case(rng: random.Random) -> dict:
    """A case of every kind with a rule that edits."""
    case = random_case(rng)
    settings = case["settings"].replace(
        rule=rng.choice(EDITING),
        confidence=rng.choice([None, None, "margin", "random"]),
        edit_threshold=rng.choice([None, 0.0, 0.1, 0.3, 0.6]),
        edit_rounds=rng.choice([0, 1, 16]),
        edit_budget=rng.choice([0, 2, 8]),
    )
    return {**case, "settings": settings, "seed": 5 if settings.samples else None}


@pytest.mark.parametrize("part", range(3))
def test_engine_equals_oracle_on_random_settings(model, part):
    """100 settings a part: 300 in all."""
    rng = random.Random(1000 + part)
    seen = dict.fromkeys((*EDITING, "guided", "sampled", "canvas", "restricted", "pruned", "edited", "stopped"), 0)
    for number in range(100):
        case = editing_case(rng)
        slow, slow_events = test_engine.equal_on_both(model, case, f"case {number} of part {part}")
        settings = case["settings"]
        assert test_engine.MASK not in slow.tokens and len(slow.tokens) <= settings.gen_length
        blocks = len({event.block_start for event in slow_events})
        assert slow.evaluations <= blocks * (min(settings.steps, settings.gen_length) + settings.edit_rounds)
        only_final_tokens_stay(slow_events, slow.tokens)
        seen[settings.rule] += 1
        seen["guided"] += slow.branch_evaluations > slow.evaluations
        seen["sampled"] += case["seed"] is not None
        seen["canvas"] += case["canvas"] is not None
        seen["restricted"] += settings.allowed is not None
        seen["pruned"] += settings.prunes is not None
        seen["edited"] += slow.edits > 0
        seen["stopped"] += len(slow.tokens) < settings.gen_length
    assert all(seen.values()), f"a kind of setting never came up: {seen}"


def only_final_tokens_stay(events, tokens) -> None:
    """What an event calls final is what every later event and the answer have there, and at the end all is final."""
    final: dict[int, int] = {}
    for event in events:
        for i, (token, accepted) in enumerate(zip(event.tokens, event.accepted, strict=True), event.block_start):
            assert final.get(i, token) == token and (accepted or i not in final)
            if accepted:
                final[i] = token
    there = range(min((event.block_start for event in events), default=0), len(tokens)) if events else ()
    assert all(final.get(i, token) == token for i, token in enumerate(tokens))
    assert all(i in final for i in there if any(e.block_start <= i < e.block_start + len(e.tokens) for e in events))


def test_requests_with_and_without_edits_share_a_batch(model):
    rng = random.Random(5)
    for _ in range(15):
        cases = [editing_case(rng) if rng.random() < 0.6 else random_case(rng) for _ in range(4)]
        results = BatchEngine(model).run([request_of(case) for case in cases])
        assert results == [alone(model, case)[0] for case in cases]


def test_a_bound_that_nothing_passes_changes_nothing_but_the_rounds_that_look(model):
    prompt = [3, 1, 4, 1, 5]
    plain = engine.generate(model, prompt, base(rule="adaptive"))
    for rule, bound in (("t2t", 1.0), ("t2m", 0.0)):
        same = engine.generate(model, prompt, base(rule=rule, edit_threshold=bound))
        assert same.tokens == plain.tokens and same.edits == 0
        assert same.evaluations == plain.evaluations + 4  # a look at each of the four blocks
        quick = engine.generate(model, prompt, base(rule=rule, edit_threshold=bound, edit_rounds=0))
        assert quick.tokens == plain.tokens and quick.evaluations == plain.evaluations


def test_given_positions_of_a_canvas_are_never_edited(model):
    canvas = [test_engine.MASK, 7, test_engine.MASK, 8, *[test_engine.MASK] * 8]
    for rule, bound in (("t2t", 0.0), ("t2m", 1.0)):
        result = engine.generate(model, [1, 2], base(rule=rule, edit_threshold=bound), canvas=canvas)
        assert (result.tokens[1], result.tokens[3]) == (7, 8) and result.edits > 0


def test_presets_bring_the_rule_and_both_thresholds():
    for name, (threshold, edit_threshold) in PRESETS.items():
        for sampling in (Sampling(preset=name), Sampling(rule="left", threshold=0.98).overlaid({"preset": name})):
            assert (sampling.rule, sampling.threshold, sampling.edit_bound) == ("t2t", threshold, edit_threshold)
    quality = Sampling(preset="quality", threshold=0.8)
    assert (quality.threshold, quality.edit_bound) == (0.8, 0.5)  # what is said goes before the preset
    assert quality.overlaid({"edit_threshold": 0.6}).edit_bound == 0.6
    other = quality.overlaid({"rule": "t2m"})
    assert other.preset is None and other.edit_bound == RULES["t2m"].edit_threshold


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "best"}, "preset must be one of conservative, quality, speed"),
        ({"preset": "speed", "rule": "left"}, "preset is 'speed', of the rule 't2t'; allowed with the rule 'left': none"),
        ({"edit_rounds": -1}, "edit_rounds must be a whole number from 0 to 4096"),
        ({"edit_threshold": 1.5}, "edit_threshold must be a number from 0 to 1"),
        ({"rule": "t2m", "stop_on_accept": True}, "stop_on_accept is for rules that only fill"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(UserError, match=message):
        Settings(mask_id=1, **changes)
