"""What goes wrong: clients that leave, parts that break, the end under load, models that cannot be read, memory."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref

import pytest
from PIL import Image

from llada_uni.model import UniModel
from llada_uni.requests import Chat, Draw, Edit, Story
from llada_uni.results import Progress
from llada_uni.serving.errors import Cancelled, Draining, Failed, TimedOut
from tests.serving.conftest import PATIENCE, results, running, wait_until

SLOW = {"image_steps": 8, "threshold": 1.0}  # a step for every few tokens
WORDS = [{"role": "user", "content": "tell a story"}]


def words(**settings) -> Chat:
    """A request for an answer in text alone."""
    return Chat(messages=WORDS, modalities="text", **{"seed": 1, **settings})


def slow_words(seed: int = 1) -> Chat:
    return words(seed=seed, text_steps=8, max_tokens=400, threshold=1.0)


def is_idle(service) -> bool:
    thread = service._model_thread
    return not service._running and not service._queue and thread._engine.active == thread._engine.waiting == 0


# --- clients ---


def test_a_client_that_leaves_in_mid_stream_frees_its_place(service):
    job = service.submit(Draw(prompt="a cat", seed=1, **SLOW))

    async def leave_after_the_first_draft():
        async for event in job.events():
            assert isinstance(event, Progress)
            break
        job.cancel()

    asyncio.run(leave_after_the_first_draft())
    wait_until(lambda: is_idle(service), "the place is free")
    (error,) = results(job)
    assert isinstance(error, Cancelled)
    assert service.metrics.registry.get_sample_value("llada_uni_failures_total", {"kind": "Cancelled"}) >= 1


def test_a_cancelled_job_leaves_while_it_writes_and_while_it_waits(model):
    with running(model, max_batch=1) as service:
        first, second, third = (service.submit(slow_words(seed)) for seed in (1, 2, 3))
        wait_until(lambda: service._model_thread._under_way, "the first job is in the batch")
        second.cancel()
        first.cancel()
        outcomes = results(first, second, third)
        assert [type(outcome) for outcome in outcomes[:2]] == [Cancelled, Cancelled]
        assert outcomes[2].end.seed == 3


def test_a_job_has_its_time(model):
    with running(model, max_batch=1, timeout=0.05) as service:
        jobs = [service.submit(slow_words(seed)) for seed in (1, 2)]
        assert [type(outcome) for outcome in results(*jobs)] == [TimedOut, TimedOut]
        wait_until(lambda: is_idle(service), "the places are free")


def test_a_client_does_not_wait_for_a_worker_that_is_late(model, monkeypatch):
    import threading

    go = threading.Event()
    monkeypatch.setattr("llada_uni.serving.scheduler.service.work", lambda *args: go.wait(PATIENCE))
    with running(model, timeout=0.05) as service:
        (error,) = results(service.submit(Draw(prompt="a cat")))
        go.set()
        assert isinstance(error, TimedOut)


# --- parts that break ---


def test_a_forward_that_breaks_fails_what_runs_and_spares_what_comes(service, monkeypatch):
    good = results(service.submit(Draw(prompt="a cat", seed=3)))[0]
    backbone = service.model.parts.backbone
    whole, calls = type(backbone).hidden, []

    def breaks_once(*args, **more):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("bad news from /secret/place")
        return whole(backbone, *args, **more)

    with monkeypatch.context() as broken:
        broken.setattr(backbone, "hidden", breaks_once)
        (error,) = results(service.submit(Draw(prompt="a cat", seed=3, **SLOW)))
    assert isinstance(error, Failed) and "secret" not in str(error)
    again = results(service.submit(Draw(prompt="a cat", seed=3)))[0]
    assert again.images[0].image.tobytes() == good.images[0].image.tobytes() and service.ready


def test_an_exception_in_one_request_leaves_the_others_alone(service, model, monkeypatch, caplog):
    from llada_uni.tasks import preview

    real = preview.decode

    def decode(parts, codes, asked, seed):
        if seed == 666:
            raise ZeroDivisionError("devil at /secret/place")
        return real(parts, codes, asked, seed)

    monkeypatch.setattr(preview, "decode", decode)
    jobs = [service.submit(Draw(prompt="a cat", seed=seed, **SLOW), partial_images=1) for seed in (1, 666, 2)]
    first, broken, second = results(*jobs)
    assert isinstance(broken, Failed) and "secret" not in str(broken) and "devil" in caplog.text
    for seed, outcome in ((1, first), (2, second)):
        alone = model.generate_image("a cat", seed=seed, image_steps=8, threshold=1.0)
        assert outcome.images[0].image.tobytes() == alone.image.tobytes()
    wait_until(lambda: is_idle(service), "the place of the broken one is free")


def test_a_decoder_that_breaks_fails_its_pictures_only(service, monkeypatch):
    decoder = service.model.parts.decoder

    def broken(*args, **more):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(decoder, "decode_many", broken)
        image, text = results(service.submit(Draw(prompt="a cat", seed=1)), service.submit(words()))
    assert isinstance(image, Failed) and text.end.seed == 1
    assert results(service.submit(Draw(prompt="a cat", seed=1)))[0].images


# --- the end ---


def test_draining_under_load_finishes_or_refuses_and_loses_nothing(model):
    with running(model, max_batch=2, max_queue=20) as service:
        jobs = [service.submit(Draw(prompt="a cat", seed=seed)) for seed in range(12)]
        wait_until(lambda: len(service._running) == 2, "two jobs run")

        async def drain_and_read():
            reading = asyncio.gather(*(job.result() for job in jobs), return_exceptions=True)
            ended = await service.drain(PATIENCE)
            with pytest.raises(Draining):
                service.submit(Draw(prompt="a cat"))
            return ended, await reading

        ended, outcomes = asyncio.run(asyncio.wait_for(drain_and_read(), PATIENCE))
        assert ended and not service.ready
        refused = [outcome for outcome in outcomes if isinstance(outcome, Draining)]
        finished = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        assert len(refused) + len(finished) == 12 and len(finished) >= 2 and refused
        assert all(outcome.images for outcome in finished)


def test_what_outlasts_the_grace_ends_with_draining(model):
    with running(model, max_batch=1) as service:
        job = service.submit(slow_words())
        wait_until(lambda: service._model_thread._under_way, "the job runs")
        assert asyncio.run(service.drain(0)) is False
        service.close()
        (error,) = results(job)
        assert isinstance(error, Draining)


# --- models ---


def break_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_config(folder):
    (folder / "config.json").write_text("{")


def break_decoder(folder):
    next((folder / "decoder-turbo").glob("*.safetensors")).write_bytes(b"nothing")


def break_settings(folder):
    (folder / "generation_config.json").write_text(json.dumps({"generate": {"codes": {"steps": 0}}}))


def remove_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("harm", [break_weights, break_config, break_decoder, break_settings, remove_tokenizer])
def test_a_corrupted_model_is_one_line_and_the_service_stays_up(serving_folder, tmp_path, harm):
    folder = tmp_path / "model"
    shutil.copytree(serving_folder, folder)
    harm(folder)
    with running(UniModel.from_pretrained(folder, device="cpu")) as service:
        assert not service.ready and "\n" not in service.failure
        assert str(tmp_path) not in service.failure, "an answer says nothing about where files are"
        with pytest.raises(Draining, match="cannot be loaded"):
            service.submit(Draw(prompt="a cat"))


def test_a_model_without_a_decoder_serves_words(serving_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(serving_folder, folder)
    for name in ("decoder", "decoder-turbo", "vae"):
        shutil.rmtree(folder / name)
    with running(UniModel.from_pretrained(folder, device="cpu")) as service:
        text, image = results(service.submit(words()), service.submit(Draw(prompt="a cat", seed=1)))
        assert text.end.seed == 1 and "decoder" in str(image) and str(tmp_path) not in str(image)


# --- memory ---


def test_nothing_is_kept_of_jobs_that_are_over(service):
    picture = Image.new("RGB", (32, 32))
    jobs = [
        service.submit(request, partial_images=2)
        for request in (
            Draw(prompt="a cat", seed=1),
            Edit(images=[picture], instruction="a dog", seed=1),
            Story(messages=WORDS, seed=1, max_frames=1),
            words(stop=("a",)),
            Draw(prompt="a cat", height=33),
        )
    ]
    results(*jobs)
    gone = [weakref.ref(job) for job in jobs]
    del jobs
    service.submit(words(seed=2))
    wait_until(lambda: is_idle(service), "all is done")
    gc.collect()
    assert [ref() for ref in gone] == [None] * 5
    assert service._model_thread._engine.prefixes.bytes <= service.limits.prefix_cache_bytes
