"""Experts of a block limited: the engine equals the oracle, alone, in batches, and with shared prefixes; bounds are said."""

from __future__ import annotations

import random

import pytest

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import engine, oracle
from llada_uni.generation.batch import BatchEngine
from tests.backbone.helpers import small_config
from tests.generation.test_batch import alone, mixed, request_of
from tests.generation.test_engine import MASK, base, random_case, run

CONFIG = small_config(initializer_range=0.6)
LEAST, ALL = CONFIG.num_experts_per_tok, CONFIG.num_experts


@pytest.fixture(scope="module")
def model() -> Backbone:
    return Backbone(CONFIG).double().eval()


def limited_case(rng: random.Random, most: int | None = None) -> dict:
    case = random_case(rng)
    case["settings"] = case["settings"].replace(block_experts=most or rng.randint(LEAST, ALL))
    return case


def test_engine_equals_oracle_on_random_settings(model):
    rng = random.Random(11)
    for number in range(60):
        case = limited_case(rng)
        slow, fast = run(oracle.generate, model, case), run(engine.generate, model, case)
        assert fast == slow, f"case {number}: {case}"


def test_requests_with_other_limits_share_a_batch(model):
    rng = random.Random(12)
    for _ in range(15):
        cases = [limited_case(rng) if rng.random() < 0.7 else random_case(rng) for _ in range(4)]
        results = BatchEngine(model).run([request_of(case) for case in cases])
        assert results == [alone(model, case)[0] for case in cases]


def test_prefixes_are_shared_only_by_equal_limits(model):
    rng = random.Random(13)
    for _ in range(20):
        shared = [rng.randrange(MASK) for _ in range(16)]
        cases = [limited_case(rng, rng.choice([LEAST, LEAST + 1])) for _ in range(4)]
        for case in cases:
            case["prompt"] = shared + case["prompt"][:3]
            case["settings"] = case["settings"].replace(block_length=4)
        results, _, _ = mixed(model, cases, rng, prefix_cache_bytes=1_000_000)
        assert results == [alone(model, case)[0] for case in cases]


def test_a_limit_of_all_experts_changes_nothing_and_a_small_one_does(model):
    prompt = list(range(18))
    plain = engine.generate(model, prompt, base(gen_length=24))
    assert engine.generate(model, prompt, base(gen_length=24, block_experts=ALL)) == plain
    assert engine.generate(model, prompt, base(gen_length=24, block_experts=LEAST)).tokens != plain.tokens


def test_fewer_experts_than_a_token_takes_are_refused(model):
    with pytest.raises(UserError, match=f"block_experts is 1; allowed: at least {LEAST}"):
        engine.generate(model, [1], base(block_experts=1))
