"""With a grammar: the engine equals the oracle, every answer is of the grammar, and streams show final text alone."""

from __future__ import annotations

import random
import re

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import engine, oracle
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.grammar.grammar import Grammars, expression_of
from llada_uni.generation.grammar.lift import Vocabulary
from llada_uni.generation.params import CONFIDENCES
from llada_uni.generation.settings import Guidance, Settings
from llada_uni.generation.unmasking import RULES
from tests.backbone.helpers import small_config
from tests.generation.test_engine import MASK, run

END = 38
LETTERS = [*"abcdefghijkl", "ab", "cab", *'"{}:,10[]', "true", '{"', '":']
SPELLED = {i: text.encode() for i, text in enumerate(LETTERS)}
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 10, "ab"]}}, "required": ["b"]}
REGEXES = {
    "letters": "[a-d]{2,9}",
    "words": "(ab|cab|ba)+",
    "choices": expression_of(choices=["cab", "a", "dead", "badab"]),
    "schema": expression_of(json_schema=SCHEMA).replace("false", "true"),
}


@pytest.fixture(scope="module")
def model() -> Backbone:
    return Backbone(small_config(initializer_range=0.6)).double().eval()


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(Vocabulary(SPELLED, END))


def text_of(tokens: list[int]) -> str:
    assert tokens[-1] == END and END not in tokens[:-1]
    return "".join(LETTERS[token] for token in tokens[:-1])


def random_case(rng: random.Random, grammars: Grammars) -> dict:
    grammar = grammars.of(REGEXES[rng.choice(list(REGEXES))])
    rule = rng.choice(["threshold", *RULES])
    guidance = Guidance.simple(rng.uniform(0.5, 3)) if rng.random() < 0.2 else None
    settings = Settings(
        mask_id=MASK,
        block_length=rng.choice([1, 3, 4, 8, 16]),
        steps=rng.randint(1, 8),
        threshold=rng.choice([0.0, 0.3, 0.6, 0.9]),
        gen_length=grammar.fast.shortest + rng.randint(0, 10),
        stop_ids=(END,),
        early_stop=rng.random() < 0.7,
        temperature=rng.choice([0.0, 0.0, 0.7, 1.5]),
        top_k=rng.choice([0, 0, 3]),
        top_p=rng.choice([1.0, 0.6]),
        guidance=guidance,
        overhang=rng.choice([None, True, False]),
        rule=rule,
        confidence=None if rule == "entropy" else rng.choice([None, *CONFIDENCES]),
        edit_threshold=rng.choice([None, 0.0, 0.1, 0.5]),
        edit_budget=rng.choice([0, 2, 8]),
        grammar=grammar,
    )
    return {
        "prompt": [rng.randrange(MASK) for _ in range(rng.randint(1, 12))],
        "settings": settings,
        "branches": {"uncond": [3, 5]} if guidance else None,
        "canvas": None,
        "seed": rng.randrange(1000) if settings.samples else None,
    }


@pytest.mark.parametrize("part", range(3))
def test_engine_equals_oracle(model, grammars, part):
    rng = random.Random(f"held {part}")
    edited = 0
    for number in range(40):
        case = random_case(rng, grammars)
        slow, slow_events, slow_state = run(oracle.generate, model, case)
        fast, fast_events, fast_state = run(engine.generate, model, case)
        assert fast == slow, f"case {number} of part {part}: {case}"
        assert fast_events == slow_events and fast_state == slow_state
        assert case["settings"].grammar.automaton.accepts(text_of(fast.tokens).encode()), case
        edited += fast.edits
    assert edited > 0


def test_a_batch_gives_each_its_own_text(model, grammars):
    rng = random.Random(7)
    cases = [random_case(rng, grammars) for _ in range(8)]

    def request(case):
        case = dict(case)
        seed = case.pop("seed")
        return Request(**case, generator=None if seed is None else torch.Generator().manual_seed(seed))

    together = BatchEngine(model).run([request(case) for case in cases])
    alone = [BatchEngine(model).run([request(case)])[0] for case in cases]
    assert [made.tokens for made in together] == [made.tokens for made in alone]


def test_what_is_shown_as_final_never_changes(model, grammars):
    rng = random.Random(11)
    for _ in range(20):
        case = random_case(rng, grammars)
        made, events, _ = run(engine.generate, model, case)
        final: dict[int, int] = {}
        for event in events:
            for n, (token, accepted) in enumerate(zip(event.tokens, event.accepted, strict=True)):
                if accepted:
                    assert final.setdefault(event.block_start + n, token) == token
        assert all(final[i] == token for i, token in enumerate(made.tokens))


def test_too_few_tokens_are_said_before_anything_is_computed(grammars):
    grammar = grammars.of("(abc){5}")
    with pytest.raises(UserError, match=re.escape("its shortest text takes 7 tokens, the end included, and 6 are allowed")):
        engine.generate(
            Backbone(small_config()), [1], Settings(mask_id=MASK, gen_length=6, stop_ids=(END,), grammar=grammar)
        )


def test_tokens_that_cannot_spell_the_grammar(grammars):
    with pytest.raises(UserError, match="the tokens of this model spell no text of it"):
        grammars.of("xyz").check_length(100)


def test_a_grammar_wants_an_open_answer(model, grammars):
    settings = Settings(mask_id=MASK, gen_length=4, stop_ids=(END,), grammar=grammars.of("ab"))
    with pytest.raises(ValueError, match="must be open everywhere"):
        engine.generate(model, [1], settings, canvas=[1, MASK, MASK, MASK])
    with pytest.raises(ValueError, match="end token must be one of stop_ids"):
        engine.generate(model, [1], Settings(mask_id=MASK, gen_length=4, grammar=grammars.of("ab")))


def test_grammars_are_made_once(grammars):
    assert grammars.of("ab|cd") is grammars.of("ab|cd")
