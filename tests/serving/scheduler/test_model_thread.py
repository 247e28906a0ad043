"""The model thread: many at once equal each alone; failures stay where they belong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from llada_uni.errors import UserError
from llada_uni.generation.batch import Request
from llada_uni.generation.engine import Engine
from llada_uni.generation.settings import Settings
from llada_uni.serving.errors import Cancelled, Draining, Failed
from llada_uni.serving.metrics import Metrics
from llada_uni.serving.scheduler.model_thread import ModelThread
from tests.serving.conftest import PATIENCE, wait_until


@pytest.fixture
def thread(model):
    started = ModelThread(model.parts.backbone, 8, 1 << 20, Metrics())
    started.start()
    yield started
    started.close()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def nothing() -> None:
    pass


def request(model, words: str = "a cat", length: int = 12, on_step=None, temperature: float = 0.0, seed: int = 0) -> Request:
    text = model.parts.text
    settings = Settings(
        mask_id=text.mask_id, block_length=8, steps=4, threshold=0.9, gen_length=length, stop_ids=(text.eos_id,),
        temperature=temperature,
    )  # fmt: skip
    return Request(text.encode(words), settings, None, torch.Generator().manual_seed(seed), None, on_step)


def test_many_at_once_equal_each_alone(model, thread, pool):
    made = [
        request(model, words, 20, temperature=1.0, seed=i) for i, words in enumerate(["a cat", "a dog on green", "what"] * 3)
    ]
    futures = [pool.submit(thread.generate, one, nothing) for one in made]
    found = [future.result(PATIENCE).tokens for future in futures]
    again = [
        request(model, words, 20, temperature=1.0, seed=i) for i, words in enumerate(["a cat", "a dog on green", "what"] * 3)
    ]
    engine = Engine(model.parts.backbone)
    assert found == [engine.generate(one.prompt, one.settings, generator=one.generator).tokens for one in again]
    assert thread.metrics.registry.get_sample_value("llada_uni_accepted_per_step_count") > 0


def test_steps_are_heard_in_the_calling_thread(model, thread):
    import threading

    heard = []
    made = thread.generate(request(model, on_step=lambda event: heard.append((threading.get_ident(), event))), nothing)
    assert {ident for ident, _ in heard} == {threading.get_ident()} and len(heard) == made.evaluations


def test_a_wrong_request_and_a_failing_listener_fail_alone(model, thread, pool):
    def break_down(event):
        raise ZeroDivisionError

    good = pool.submit(thread.generate, request(model, "a dog"), nothing)
    with pytest.raises(UserError, match="context"):
        thread.generate(request(model, length=10**6), nothing)
    with pytest.raises(ZeroDivisionError):
        thread.generate(request(model, on_step=break_down), nothing)
    assert good.result(PATIENCE).tokens
    assert thread.generate(request(model), nothing).tokens
    wait_until(lambda: not thread._under_way and not thread._engine.active, "the broken request left the batch")


def test_a_request_ends_when_its_check_says_so(model, thread):
    calls = []

    def check():
        calls.append(1)
        if len(calls) > 2:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        thread.generate(request(model, length=200), check)
    assert len(calls) == 3
    wait_until(lambda: thread._engine.active == 0, "its place is free")


def test_a_failing_forward_fails_those_under_way_and_the_thread_lives_on(model, thread, monkeypatch, caplog):
    thread.generate(request(model), nothing)
    before = thread._engine

    def explode(*args, **more):
        raise RuntimeError("no memory left at 0x1234")

    with monkeypatch.context() as broken:
        broken.setattr(before.model, "hidden", explode)
        with pytest.raises(Failed) as error:
            thread.generate(request(model), nothing)
    assert "0x1234" not in str(error.value) and "0x1234" in caplog.text
    assert thread.generate(request(model), nothing).tokens
    assert thread._engine is not before


def test_closing_ends_what_runs_and_what_comes(model):
    thread = ModelThread(model.parts.backbone, 8, 0, Metrics())
    thread.start()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(thread.generate, request(model, length=300), nothing)
        wait_until(lambda: thread._under_way, "the request began")
        thread.close()
        with pytest.raises(Draining):
            running.result(PATIENCE)
    with pytest.raises(Draining):
        thread.generate(request(model), nothing)


def test_a_small_batch_waits_for_company_only_where_others_use_the_processor(model, monkeypatch):
    pauses = []
    monkeypatch.setattr("llada_uni.serving.scheduler.model_thread.time.sleep", pauses.append)
    for crowded in (False, True):
        thread = ModelThread(model.parts.backbone, 8, 0, Metrics(), lambda crowded=crowded: crowded)
        thread.start()
        thread.generate(request(model), nothing)
        thread.close()
        assert bool(pauses) is crowded
