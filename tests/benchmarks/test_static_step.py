"""A step of fixed shape drafts what the usual path drafts; run one by one on a CPU, as it is recorded on a GPU."""

from __future__ import annotations

import pytest
import torch

from benchmarks.static_step import StaticStep
from llada_uni.backbone import Backbone, KeyValueCache
from llada_uni.generation import engine
from llada_uni.generation.settings import Settings
from tests.backbone.helpers import small_config

MASK, BLOCK = 39, 4


@pytest.fixture(scope="module")
def model() -> Backbone:
    return Backbone(small_config(initializer_range=0.6)).double().eval()


def started(model: Backbone, prompts: list[list[int]], capacity: int, **options) -> StaticStep:
    step = StaticStep(model, len(prompts), BLOCK, capacity, **options)
    for row, prompt in enumerate(prompts):
        cache = KeyValueCache(model.config, 1, len(prompt), dtype=torch.float64)
        with torch.inference_mode():
            for begin in range(0, len(prompt), BLOCK):
                model.hidden(torch.tensor([prompt[begin : begin + BLOCK]]), cache=cache)
        step.take(row, cache)
    return step


def fill(step: StaticStep, lengths: list[int], blocks: int) -> list[list[int]]:
    """Greedy answers: each step accepts the most certain draft of each row; a finished block is committed by one step."""
    begin = torch.tensor(lengths)
    answers: list[list[int]] = [[] for _ in lengths]
    for _ in range(blocks):
        tokens = torch.full((len(lengths), BLOCK), MASK)
        for _ in range(BLOCK):
            drafts, confidence = step(tokens, begin)
            best = confidence.masked_fill(tokens != MASK, -2.0).argmax(-1, keepdim=True)
            tokens.scatter_(1, best, drafts.gather(1, best))
        step(tokens, begin)
        for answer, row in zip(answers, tokens.tolist(), strict=True):
            answer += row
        begin += BLOCK
    return answers


def test_rows_of_different_lengths_get_what_the_engine_gives_each(model):
    prompts = [[i * k % MASK for i in range(length)] for k, length in ((3, 8), (5, 12), (7, 4))]
    step = started(model, prompts, capacity=32, forbidden=MASK)
    answers = fill(step, [len(prompt) for prompt in prompts], blocks=3)
    settings = Settings(mask_id=MASK, block_length=BLOCK, steps=BLOCK, threshold=1.0, gen_length=3 * BLOCK)
    assert answers == [engine.generate(model, prompt, settings).tokens for prompt in prompts]


def test_a_part_of_the_vocabulary(model):
    step = started(model, [[1, 2, 3, 4]], capacity=16, choice=slice(24, 39))
    drafts, confidence = step(torch.full((1, BLOCK), MASK), torch.tensor([4]))
    ids = torch.tensor([[1, 2, 3, 4, *[MASK] * BLOCK]])
    places = torch.arange(8)
    with torch.inference_mode():
        logits = model(ids, attention_mask=(places // BLOCK <= places[:, None] // BLOCK)[None, None])[0, 4:, 24:39]
    assert torch.equal(drafts[0], logits.argmax(-1))
    assert torch.allclose(confidence[0], logits.softmax(-1).amax(-1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records a CUDA graph")
def test_a_graph_replays_the_same_step():
    model = Backbone(small_config(hidden_size=64, moe_intermediate_size=32, head_dim=16)).to("cuda", torch.bfloat16).eval()
    for router in model.routers():
        router.float()
    step = StaticStep(model, 2, BLOCK, 32)
    tokens, begin = torch.randint(0, MASK, (2, BLOCK), device="cuda"), torch.tensor([0, 0], device="cuda")
    drafts, confidence = step(tokens, begin)
    step.capture()
    again, certainty = step(tokens, begin)
    assert torch.equal(drafts, again) and torch.equal(confidence, certainty)
