"""The engine equals the oracle token for token, both equal the recorded generations; promises to callers."""

from __future__ import annotations

import json
import random

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import engine, oracle
from llada_uni.generation.engine import Engine
from llada_uni.generation.params import CONFIDENCES
from llada_uni.generation.settings import Guidance, Settings, Sprint
from llada_uni.generation.unmasking import RULES
from tests.backbone.helpers import recorded_backbone, small_config

MASK = 39
FILLING = [name for name, rule in RULES.items() if not rule.edits]  # those that edit: test_editing.py


@pytest.fixture(scope="module")
def model() -> Backbone:
    """float64, so that the order of sums cannot turn a comparison of two confidences round."""
    return Backbone(small_config(initializer_range=0.6)).double().eval()


@pytest.fixture(scope="module")
def recorded(golden):
    entries = json.loads((golden / "backbone" / "generation.json").read_text())
    assert len(entries) == 14
    return recorded_backbone(golden / "backbone"), entries


@pytest.mark.parametrize("generate", [oracle.generate, engine.generate], ids=["oracle", "engine"])
@pytest.mark.parametrize("index", range(14))
def test_recorded_generations(recorded, index, generate):
    model, entries = recorded
    entry = entries[index]
    scale = entry.get("cfg_scale", 1.0)
    settings = Settings(
        mask_id=entry["mask_id"],
        block_length=entry["block_length"],
        steps=entry["steps"],
        threshold=entry["threshold"],
        gen_length=entry["gen_length"],
        stop_ids=(entry["eos_id"] if entry["kind"] == "text" else entry["eoi_id"],),
        early_stop=entry.get("eos_early_stop", True),
        guidance=Guidance.simple(scale) if scale != 1 else None,
    )
    branches = {"uncond": entry["uncond_prompt"]} if scale != 1 else None
    result = generate(model, entry["prompt"], settings, branches)
    assert result.tokens == entry["output"]
    if "model_evaluations" in entry:
        assert result.evaluations == entry["model_evaluations"]
        assert result.branch_evaluations == result.evaluations * (2 if branches else 1)


def random_case(rng: random.Random) -> dict:
    """Arguments of one generation, of every kind there is."""
    gen_length = rng.randint(1, 22)
    # Masks with nothing before them are all alike: rounding would choose among equal confidences.
    prompt = [rng.randrange(MASK) for _ in range(rng.randint(0, 20))] or [7]
    other = [rng.randrange(MASK) for _ in range(rng.randint(0, 24))]
    third = [rng.randrange(MASK) for _ in range(rng.randint(0, 12))]
    guidance, branches = None, None
    kind = rng.choice(["none", "simple", "editing"])
    if kind == "simple":
        guidance = Guidance.simple(rng.uniform(0, 4), rng.choice([0.0, 0.7]))
        branches = {"uncond": other}
    elif kind == "editing":
        image = rng.choice([0.0, rng.uniform(0.1, 2)])
        guidance = Guidance.editing(rng.uniform(0, 5), image, rng.choice([0.0, 0.7]))
        branches = {"no_text": other, "no_image": third}
    canvas = None
    if rng.random() < 0.3:
        canvas = [MASK if rng.random() < 0.6 else rng.randrange(MASK) for _ in range(gen_length)]
    temperature = rng.choice([0.0, 0.0, 0.7, 1.3])
    rule = rng.choice(["threshold", "threshold", *FILLING])
    confidence = None if rule == "entropy" else rng.choice([None, *CONFIDENCES])
    sprint = None
    if rng.random() < 0.5:
        shares = {"r": rng.random()} if rng.random() < 0.5 else {"r_text": rng.random(), "r_img": rng.random()}
        # With the norm alone, equal tokens tie in the first layer, and rounding would choose.
        sprint = Sprint(**shares, alpha=rng.choice([0.0, 0.5, 0.9]))
    settings = Settings(
        mask_id=MASK,
        block_length=rng.choice([1, 2, 3, 4, 8, 16]),
        steps=rng.randint(1, 10),
        threshold=rng.choice([0.0, 0.2, 0.4, 0.6, 0.9, 1.0]),
        gen_length=gen_length,
        stop_ids=tuple(rng.randrange(MASK) for _ in range(rng.choice([0, 0, 1, 3]))),
        early_stop=rng.random() < 0.5,
        temperature=temperature,
        top_k=rng.choice([0, 0, 1, 5]),
        top_p=rng.choice([1.0, 1.0, 0.5]),
        allowed=rng.choice([None, None, range(24, 40), [1, 5, 6, 30]]),
        guidance=guidance,
        overhang=rng.choice([None, True, False]),
        rule=rule,
        confidence=confidence,
        sprint=sprint,
    )
    return {
        "prompt": prompt,
        "settings": settings,
        "branches": branches,
        "canvas": canvas,
        "seed": rng.randrange(1000) if settings.samples else None,
    }


def run(generate, model, case):
    case = dict(case)
    seed = case.pop("seed")
    events = []
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    result = generate(model, **case, generator=generator, on_step=events.append)
    return result, events, None if seed is None else generator.get_state().tolist()


def equal_on_both(model, case, name):
    """What the oracle gives and its events, which the engine must give as well: (output, events)."""
    slow, slow_events, slow_state = run(oracle.generate, model, case)
    fast, fast_events, fast_state = run(engine.generate, model, case)
    assert fast == slow, f"{name}: {case}"
    assert fast_events == slow_events and fast_state == slow_state
    for mine, its in zip(fast_events, slow_events, strict=True):
        assert mine.confidences == pytest.approx(its.confidences, abs=1e-6)
    return slow, slow_events


@pytest.mark.parametrize("part", range(5))
def test_engine_equals_oracle_on_random_settings(model, part):
    """50 settings a part: 250 in all."""
    rng = random.Random(part)
    seen = {"guided": 0, "two": 0, "sampled": 0, "stopped": 0, "fixed": 0, "longer": 0, "shorter": 0}
    seen |= dict.fromkeys(FILLING, 0) | dict.fromkeys(CONFIDENCES, 0) | {"pruned": 0, "pruned with two": 0}
    for number in range(50):
        case = random_case(rng)
        slow, _ = equal_on_both(model, case, f"case {number} of part {part}")
        assert len(slow.tokens) <= case["settings"].gen_length and MASK not in slow.tokens
        seen["guided"] += slow.branch_evaluations > slow.evaluations
        seen["two"] += slow.branch_evaluations == 3 * slow.evaluations > 0
        seen["sampled"] += case["seed"] is not None
        seen["stopped"] += len(slow.tokens) < case["settings"].gen_length
        seen["fixed"] += case["canvas"] is not None
        seen[case["settings"].rule] += 1
        seen[case["settings"].measure] += 1
        pruned = case["settings"].prunes is not None and len(slow.accepted) > 3
        seen["pruned"] += pruned
        seen["pruned with two"] += pruned and slow.branch_evaluations == 3 * slow.evaluations
        if case["branches"]:
            first = len(next(iter(case["branches"].values())))
            seen["longer"] += first > len(case["prompt"])
            seen["shorter"] += first < len(case["prompt"])
    assert all(seen.values()), f"a kind of setting never came up: {seen}"


def base(**changes) -> Settings:
    settings = {"mask_id": MASK, "block_length": 4, "steps": 4, "threshold": 0.9, "gen_length": 12, "early_stop": True}
    return Settings(**settings | changes)


def test_float32_engine_equals_oracle_on_a_guided_image():
    model = Backbone(small_config(initializer_range=0.6)).eval()
    settings = base(gen_length=30, allowed=range(24, 39), guidance=Guidance.simple(2.0))
    branches = {"uncond": [4, 5, 6]}
    prompt = [1, 2, 3, 4, 5, 6, 7]
    slow = oracle.generate(model, prompt, settings, branches)
    assert Engine(model).generate(prompt, settings, branches) == slow


def test_the_engine_computes_the_open_block_only(model):
    """After the first forward a step costs one block, or two where a finished one goes along."""
    sizes = []
    hook = model.model.word_embeddings.register_forward_hook(lambda _, args, __: sizes.append(args[0].shape[1]))
    try:
        result = Engine(model).generate(list(range(18)), base(steps=2, threshold=1.0))
    finally:
        hook.remove()
    assert sizes == [20, 8, 4, 8, 4, 8, 4] and result.evaluations == 7


def test_a_branch_equal_to_the_prompt_changes_nothing(model):
    prompt = [3, 1, 4, 1, 5, 9]
    plain = Engine(model).generate(prompt, base())
    same = Engine(model).generate(prompt, base(guidance=Guidance.simple(5.0)), {"uncond": prompt})
    assert same.tokens == plain.tokens and same.branch_evaluations == 2 * plain.branch_evaluations


def test_an_answer_behind_nothing(model):
    canvas = [5, *[MASK] * 11]
    assert engine.generate(model, [], base(), canvas=canvas) == oracle.generate(model, [], base(), canvas=canvas)


def test_scales_that_change_nothing_cost_nothing(model):
    for guidance in (Guidance.simple(1.0), Guidance.editing(1.0, 0.0)):
        result = Engine(model).generate([3, 1, 4], base(guidance=guidance), {})
        assert result.branch_evaluations == result.evaluations
        assert result.tokens == Engine(model).generate([3, 1, 4], base()).tokens


def test_fixed_places_of_a_canvas_stay_and_are_seen(model):
    canvas = [MASK] * 12
    canvas[5], canvas[6] = 7, 8
    result = Engine(model).generate([1, 2], base(), canvas=canvas)
    assert result.tokens[5:7] == [7, 8] and len(result.tokens) == 12 and MASK not in result.tokens
    changed = [*canvas]
    changed[5] = 20
    other = Engine(model).generate([1, 2], base(), canvas=changed)
    assert other.tokens[:5] + other.tokens[7:] != result.tokens[:5] + result.tokens[7:]
    done = Engine(model).generate([1, 2], base(overhang=False), canvas=list(range(12)))
    assert done.tokens == list(range(12)) and done.evaluations == 0


def test_only_allowed_ids_are_chosen(model):
    assert set(Engine(model).generate([1], base(allowed=range(24, 36))).tokens) <= set(range(24, 36))
    assert set(Engine(model).generate([1], base(allowed=[2, 9, 39])).tokens) <= {2, 9}


def test_the_same_generator_state_gives_the_same_answer_and_no_global_state_is_used(model):
    settings = base(temperature=1.0, gen_length=24)
    before = torch.get_rng_state()
    answers = [Engine(model).generate([1, 2], settings, generator=torch.Generator().manual_seed(s)).tokens for s in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    assert torch.equal(before, torch.get_rng_state())


def test_events_tell_how_the_answer_fills_up(model):
    events = []
    result = Engine(model).generate([1, 2, 3], base(), on_step=events.append)
    assert [e.block_start for e in events] == sorted(e.block_start for e in events)
    assert {e.block_start for e in events} == {0, 1, 5, 9}
    last = {e.block_start: e for e in events}
    assert [t for start in sorted(last) for t in last[start].tokens] == result.tokens
    assert all(all(e.accepted) for e in last.values())
    before = {start: (False,) * len(e.tokens) for start, e in last.items()}
    for e in events:  # what was final before is certain; a draft of random weights never is
        assert tuple(c == 1 for c in e.confidences) == before[e.block_start]
        before[e.block_start] = e.accepted
    for e in events:
        assert len(e.tokens) == len(e.accepted) == len(e.confidences)
        assert all(0 < certainty <= 1 for certainty in e.confidences)
        for i, done in enumerate(e.accepted):
            assert not done or e.tokens[i] == result.tokens[e.block_start + i]


@pytest.mark.parametrize(
    ("prompt", "changes", "call", "message"),
    [
        ([1, 40], {}, {}, "token 40 is unknown; allowed: 0 to 39"),
        ([-1], {}, {}, "token -1 is unknown"),
        ([1], {"allowed": range(30, 50)}, {}, "token 40 is unknown"),
        ([1] * 8190, {}, {}, "8202 tokens; allowed: 8192"),
        ([1], {}, {"canvas": [1, 2]}, "canvas: 2 tokens for an answer of 12"),
        ([1], {"guidance": Guidance.simple(2.0)}, {}, "the branch uncond is missing"),
        (
            [1],
            {"guidance": Guidance.editing(2.0, 1.0)},
            {"branches": {"no_text": [1]}},
            "no_image is missing",
        ),
        ([1], {"temperature": 1.0}, {}, "needs a torch.Generator"),
    ],
)
@pytest.mark.parametrize("generate", [oracle.generate, engine.generate], ids=["oracle", "engine"])
def test_wrong_calls(model, generate, prompt, changes, call, message):
    with pytest.raises(ValueError, match=message):
        generate(model, prompt, base(**changes), **call)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_length": 0},
        {"steps": 0},
        {"gen_length": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"allowed": []},
        {"allowed": [MASK]},
    ],
)
def test_impossible_settings(changes):
    with pytest.raises(UserError, match=r"allowed|must be a"):  # both name what may be given
        base(**changes)
