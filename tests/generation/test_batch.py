"""A request gets in a batch what it gets alone, whenever it joins and whatever the others are or do."""

from __future__ import annotations

import random

import pytest
import torch

from llada_uni.backbone import Backbone
from llada_uni.errors import UserError
from llada_uni.generation import batch as batch_module
from llada_uni.generation import engine, oracle
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.settings import Guidance, Settings, Sprint
from llada_uni.generation.stream import Stream
from tests.backbone.helpers import small_config
from tests.generation.test_engine import MASK, base, random_case

PREFILLS = (1, 4, 8, 1024)  # one block at a time, a few places, whole prompts


@pytest.fixture(scope="module")
def model() -> Backbone:
    return Backbone(small_config(initializer_range=0.6)).double().eval()


def request_of(case: dict, on_step=None) -> Request:
    case = dict(case)
    seed = case.pop("seed")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return Request(**case, generator=generator, on_step=on_step)


def alone(model: Backbone, case: dict, generate=engine.generate):
    events = []
    request = request_of(case, events.append)
    fields = ("prompt", "settings", "branches", "generator", "canvas", "on_step")
    return generate(model, *(getattr(request, name) for name in fields)), events


def mixed(model: Backbone, cases: list[dict], rng: random.Random, **options):
    """The cases added at random moments of one engine: results and events in their order, and the engine."""
    batch = BatchEngine(model, **options)
    events: list[list] = [[] for _ in cases]
    tickets, done, rest = {}, {}, list(range(len(cases)))
    while rest or batch.active or batch.waiting:
        while rest and (rng.random() < 0.4 or not (batch.active or batch.waiting)):
            number = rest.pop(0)
            tickets[batch.add(request_of(cases[number], events[number].append))] = number
        for ticket, result in batch.step():
            done[tickets[ticket]] = result
    return [done[i] for i in range(len(cases))], events, batch


@pytest.mark.parametrize("part", range(4))
def test_a_batch_gives_what_each_request_gets_alone(model, part):
    """30 random mixes of one to six requests a part, in float64; the oracle is the judge of every third."""
    rng = random.Random(100 + part)
    most = 0
    for number in range(30):
        cases = [random_case(rng) for _ in range(rng.randint(1, 6))]
        judge = oracle.generate if number % 3 == 0 else engine.generate
        expected = [alone(model, case, judge) for case in cases]
        results, events, _ = mixed(model, cases, rng, max_rows=rng.choice([1, 4, 64]), prefill=PREFILLS[number % 4])
        for i, (result, seen) in enumerate(expected):
            assert results[i] == result and events[i] == seen, f"mix {number} of part {part}, case {i}: {cases[i]}"
        most = max(most, len(cases))
    assert most == 6


def test_float32_batches_give_the_tokens_of_each_request_alone():
    """100 random mixes in float32, where the order of sums differs with the batch."""
    model = Backbone(small_config(initializer_range=0.6)).eval()
    rng = random.Random(7)
    for number in range(100):
        cases = [random_case(rng) for _ in range(rng.randint(2, 3))]
        results, _, _ = mixed(model, cases, rng)
        for result, case in zip(results, cases, strict=True):
            assert result.tokens == alone(model, case)[0].tokens, f"mix {number}: {case}"


def test_shared_prefixes_change_nothing_and_are_computed_once(model):
    rng = random.Random(3)
    hits = 0
    for number in range(40):
        shared = [rng.randrange(MASK) for _ in range(24)]
        cases = []
        for _ in range(4):
            case = random_case(rng)
            case["prompt"] = shared[: rng.randint(4, 24)] + case["prompt"][: rng.randint(0, 5)]
            case["settings"] = case["settings"].replace(block_length=rng.choice([2, 4]))
            cases.append(case)
        limit = rng.choice([3_000, 1_000_000])
        results, _, batch = mixed(model, cases, rng, prefix_cache_bytes=limit, prefill=PREFILLS[number % 4])
        assert batch.prefixes.bytes <= limit
        hits += batch.prefixes.hits
        for result, case in zip(results, cases, strict=True):
            assert result == alone(model, case)[0], f"mix {number}: {case}"
    assert hits > 100


def count_tokens(model: Backbone, call) -> int:
    """Tokens that go through the model during a call."""
    sizes = []
    hook = model.model.word_embeddings.register_forward_hook(lambda _, args, __: sizes.append(args[0].numel()))
    try:
        call()
    finally:
        hook.remove()
    return sum(sizes)


def test_requests_added_together_compute_their_common_prompt_once(model):
    prompt = [(7 * i) % MASK for i in range(40)]
    settings = base(steps=1, threshold=0.0, gen_length=4, overhang=False)
    requests = [Request(prompt, settings)] * 4
    apart = count_tokens(model, lambda: BatchEngine(model).run(requests))
    together = BatchEngine(model, prefix_cache_bytes=1_000_000)
    assert apart - count_tokens(model, lambda: together.run(requests)) == 3 * 40
    assert together.prefixes.hits == 3 * 10


def test_a_request_that_waits_for_a_block_counts_it_once(model, monkeypatch):
    """And no caches are made for it before it begins."""
    made = []
    monkeypatch.setattr(batch_module, "Stream", lambda *given: made.append(1) or Stream(*given))
    prompt = [(7 * i) % MASK for i in range(40)]
    batch = BatchEngine(model, prefix_cache_bytes=1_000_000, prefill=8)
    for seed in range(3):
        batch.add(Request([*prompt, seed], base(gen_length=4)))
    for _ in range(4):  # 40 places, 8 a forward: the fifth one reaches the block
        batch.step()
        assert len(made) == batch.active == 1
    while batch.active or batch.waiting:
        batch.step()
    assert len(made) == 3 and batch.prefixes.hits == 2 * 10


def test_a_long_prompt_does_not_hold_up_the_others(model):
    """Its pieces end at block borders; the forwards before the last piece give it no drafts, but the others theirs."""
    sizes, events = [], []
    batch = BatchEngine(model, prefill=10)
    batch.add(Request([1], base(gen_length=40, steps=4, threshold=1.0), on_step=events.append))
    batch.step()
    prompt = [(3 * i) % MASK for i in range(33)]
    ticket = batch.add(Request(prompt, base()))
    hook = model.model.word_embeddings.register_forward_hook(lambda _, args, __: sizes.append(args[0].numel()))
    try:
        done = {}
        for _ in range(4):
            before = len(events)
            done.update(batch.step())
            assert len(events) == before + 1
    finally:
        hook.remove()
    assert sizes == [4 + 8, 4 + 8, 8 + 8, 4 + 12]  # the other: its block, once with a finished one; 32 places and a block
    while ticket not in done:
        done.update(batch.step())
    assert done[ticket] == engine.generate(model, prompt, base())


def test_the_prefix_cache_keeps_to_its_limit_and_forgets_the_oldest(model):
    settings = base(steps=1, threshold=0.0, gen_length=4)
    first, second = [1] * 8, [2] * 8
    block = 2 * 2 * 2 * 4 * 8 * 8  # layers, keys and values, heads, places, features, bytes
    batch = BatchEngine(model, prefix_cache_bytes=3 * block)
    for prompt in (first, second, second):
        batch.run([Request(prompt, settings)])
    assert batch.prefixes.bytes == 3 * block and batch.prefixes.hits == 2
    batch.run([Request(first, settings)])
    assert batch.prefixes.hits == 3, "the beginning of the older chain outlives its end"


def test_requests_wait_for_room_and_a_large_one_runs_alone(model):
    guided = Request([1, 2], base(guidance=Guidance.editing(2.0, 1.0)), {"no_text": [3], "no_image": [4]})
    batch = BatchEngine(model, max_rows=2)
    tickets = [batch.add(Request([i], base())) for i in range(3)] + [batch.add(guided)]
    assert batch.waiting == 4 and batch.active == 0
    batch.step()
    assert batch.waiting == 2 and batch.active == 2
    done = {}
    while batch.active or batch.waiting:
        done.update(batch.step())
        assert batch.active <= 2
    assert set(done) == set(tickets)
    assert done[tickets[3]] == engine.generate(model, guided.prompt, guided.settings, guided.branches)


def test_a_cancelled_request_leaves_and_the_others_go_on(model):
    batch = BatchEngine(model, max_rows=2)
    tickets = [batch.add(Request([i], base())) for i in range(3)]
    batch.step()
    assert batch.cancel(tickets[0]) and batch.cancel(tickets[2])
    assert not batch.cancel(tickets[0]) and not batch.cancel(99)
    done = {}
    while batch.active or batch.waiting:
        done.update(batch.step())
    assert done == {tickets[1]: engine.generate(model, [1], base())}


def test_a_listener_may_cancel_any_request(model):
    batch = BatchEngine(model)
    tickets: list[int] = []
    listeners = [lambda _: batch.cancel(tickets[0]), lambda _: batch.cancel(tickets[2]), None]
    tickets += [batch.add(Request([i], base(), on_step=listener)) for i, listener in enumerate(listeners)]
    done = {}
    while batch.active:
        done.update(batch.step())
    assert done == {}  # before the first step they only wait
    while batch.active or batch.waiting:
        done.update(batch.step())
    assert done == {tickets[1]: engine.generate(model, [1], base())}


def test_a_listener_that_raises_ends_its_own_request_only(model):
    def broken(event):
        if event.step == 1:
            raise RuntimeError("the listener is gone")

    results = BatchEngine(model).run([Request([1], base(), on_step=broken), Request([2], base())])
    assert str(results[0].failure) == "the listener is gone" and results[0].evaluations == 2
    assert results[1] == engine.generate(model, [2], base()) and results[1].failure is None
    with pytest.raises(RuntimeError, match="listener is gone"):
        engine.generate(model, [1], base(), on_step=broken)


def test_a_wrong_request_is_refused_when_it_is_added(model):
    batch = BatchEngine(model)
    with pytest.raises(UserError, match="token 40 is unknown"):
        batch.add(Request([40], base()))
    with pytest.raises(ValueError, match="the branch uncond is missing"):
        batch.add(Request([1], base(guidance=Guidance.simple(2.0))))
    assert batch.waiting == 0


def test_a_request_with_nothing_to_do_is_finished_at_once(model):
    request = Request([1], base(overhang=False), canvas=list(range(12)))
    assert BatchEngine(model).run([request])[0].tokens == list(range(12))


def test_pruned_and_plain_requests_share_a_batch_and_a_prefix_cache(model):
    settings = Settings(mask_id=MASK, block_length=4, steps=4, gen_length=16, threshold=1.0)
    pruned = settings.replace(sprint=Sprint(r=0.3))
    prompt = list(range(18))
    batch = BatchEngine(model, prefix_cache_bytes=1_000_000)
    for _ in range(2):  # the second time the prefix is known, with and without what SPRINT needs
        results = batch.run([Request(prompt, settings), Request(prompt, pruned)])
        assert results[0] == oracle.generate(model, prompt, settings)
        assert results[1] == oracle.generate(model, prompt, pruned)
