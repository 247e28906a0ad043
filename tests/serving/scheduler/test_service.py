"""The service with the tiny model: every kind of task gives what UniModel gives alone, also in a crowd; limits; metrics."""

from __future__ import annotations

import asyncio
import threading

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.requests import Chat, Draw, Edit, Inpaint, Story, Understand
from llada_uni.results import EndEvent, ImageEvent, PartialImage, Progress, TextDelta
from llada_uni.serving.errors import Draining, QueueFull
from llada_uni.serving.scheduler.service import Service
from tests.serving.conftest import PATIENCE, events_of, results, running, wait_until

PICTURE = Image.new("RGB", (32, 32), (250, 240, 120))
PICTURE.paste((20, 90, 200), (0, 0, 16, 16))
MASK = Image.new("L", (32, 32), 0)
MASK.paste(255, (0, 0, 16, 8))
HOT = {"temperature": 1.0, "top_k": 20}
SLOW = {"threshold": 1.0}


def said(*parts):
    return [{"role": "user", "content": list(parts)}]


def chat(*parts, **settings) -> Chat:
    """A request for an answer in text alone."""
    return Chat(messages=said(*parts), modalities="text", **settings)


def alike(result, outcome) -> bool:
    """An ImageResult of UniModel and the outcome of a job."""
    (event,) = outcome.images
    same = result.codes == event.codes and result.image.tobytes() == event.image.tobytes()
    return same and (result.seed, result.thinking) == (event.seed, event.reasoning)


def test_a_drawing_tells_its_steps_and_equals_one_made_alone(service, model):
    events = events_of(service.submit(Draw(prompt="a cat on green", seed=5)))
    assert [type(event) for event in events[-2:]] == [ImageEvent, EndEvent]
    drafts = [event for event in events if isinstance(event, Progress)]
    assert drafts[0].stage == "codes" and drafts[-1].stage == "decode"
    picture, end = events[-2:]
    alone = model.generate_image("a cat on green", seed=5)
    assert picture.image.tobytes() == alone.image.tobytes() and picture.codes == alone.codes
    assert (picture.codes.height, picture.codes.width, picture.number, picture.seed, picture.reasoning) == (4, 4, 1, 5, None)
    assert end.reason == "finished" and end.seed == 5 and end.evaluations == alone.evaluations
    assert (end.usage.completion_tokens, end.usage.images) == (16, 1) and end.usage.prompt_tokens > 4
    assert {"codes", "decode", "total"} <= set(end.seconds)


def test_in_a_crowd_every_task_gives_what_it_gives_alone(service, model):
    jobs = {
        "draw": [service.submit(Draw(prompt="a cat", seed=seed, **HOT)) for seed in range(6)],
        "base": [service.submit(Draw(prompt="a dog", height=16, width=48, seed=seed, decoder="base")) for seed in range(2)],
        "edit": [service.submit(Edit(images=[PICTURE], instruction="a dog", seed=3, text_scale=3.0, rescale=0.5))],
        "inpaint": [service.submit(Inpaint(image=PICTURE, mask=MASK, prompt="a dog", seed=4, cfg_scale=1.5))],
        "think": [service.submit(Draw(prompt="two cats", seed=1, thinking=True))],
        "chat": [
            service.submit(chat(PICTURE, "what is there?", seed=seed, max_tokens=20, **HOT)) for seed in (1, 2)
        ],
        "ask": [service.submit(Understand(images=PICTURE, question="what is there?", seed=1, max_tokens=20, **HOT))],
        "story": [service.submit(Story(messages=said("tell a story"), seed=2, max_frames=1, **HOT))],
    }
    got = dict(zip(jobs, [results(*each) for each in jobs.values()], strict=True))
    for seed, outcome in enumerate(got["draw"]):
        assert alike(model.generate_image("a cat", seed=seed, temperature=1.0, top_k=20), outcome)
    for seed, outcome in enumerate(got["base"]):
        assert alike(model.generate_image("a dog", 16, 48, seed=seed, decoder="base"), outcome)
    assert alike(model.edit_image(PICTURE, "a dog", seed=3, text_scale=3.0, rescale=0.5), got["edit"][0])
    assert alike(model.inpaint(PICTURE, MASK, "a dog", seed=4, cfg_scale=1.5), got["inpaint"][0])
    thought = model.generate_image("two cats", seed=1, thinking=True)
    assert alike(thought, got["think"][0]) and (got["think"][0].reasoning or "") == thought.thinking
    for seed, outcome in zip((1, 2), got["chat"], strict=True):
        words = {"max_tokens": 20, "temperature": 1.0, "top_k": 20}
        assert outcome.text == model.understand(PICTURE, "what is there?", seed=seed, **words).text
    assert got["ask"][0].text == got["chat"][0].text
    events = list(model.interleave("tell a story", 1, seed=2, temperature=1.0, top_k=20))
    story = got["story"][0]
    assert [event.image.tobytes() for event in events if isinstance(event, ImageEvent)] == [
        picture.image.tobytes() for picture in story.images
    ]
    assert story.text == "".join(event.text for event in events if not isinstance(event, ImageEvent | EndEvent))


def test_words_arrive_as_they_settle_and_end_at_a_stop_string(service, model):
    plain = model.understand(PICTURE, "what?", seed=1, max_tokens=30, temperature=1.0)
    assert len(plain.text) > 8
    asked = chat(PICTURE, "what?", seed=1, max_tokens=30, temperature=1.0)
    events = events_of(service.submit(asked))
    deltas = [event.text for event in events if isinstance(event, TextDelta)]
    assert "".join(deltas) == plain.text and len(deltas) > 1
    assert events[-1].usage.completion_tokens >= 1 and events[-1].reason in ("finished", "length")
    stop = plain.text[4:6]
    (cut,) = results(service.submit(asked.replace(stop=stop)))
    assert cut.text == plain.text[: plain.text.find(stop)].strip() and cut.end.reason == "stop"
    assert cut.end.evaluations.backbone <= events[-1].evaluations.backbone


def test_system_words_stand_before_the_users(service, model):
    messages = [{"role": "system", "content": "be brief"}, *said("what?")]
    (found,) = results(service.submit(Chat(messages=messages, modalities="text", seed=1)))
    assert found.text == model.chat([{"role": "user", "content": "be brief\nwhat?"}], seed=1, modalities=("text",)).text


def test_partial_pictures_come_before_the_finished_one(service):
    events = events_of(service.submit(Draw(prompt="a cat", seed=1, image_steps=4, **SLOW), partial_images=3))
    partials = [event for event in events if isinstance(event, PartialImage)]
    assert [partial.index for partial in partials] == list(range(len(partials))) and 1 <= len(partials) <= 3
    assert all(partial.image.size == (32, 32) for partial in partials)
    last = max(i for i, event in enumerate(events) if isinstance(event, PartialImage))
    assert isinstance(events[-2], ImageEvent) and last < len(events) - 2
    codes_only = events_of(service.submit(Draw(prompt="a cat", seed=1, decoder="none"), partial_images=3))
    assert not any(isinstance(event, PartialImage) for event in codes_only) and codes_only[-2].pixels is None


def test_a_seed_is_drawn_and_named_when_none_is_given(service):
    (first,) = results(service.submit(Draw(prompt="a cat", **HOT)))
    (again,) = results(service.submit(Draw(prompt="a cat", **HOT, seed=first.end.seed)))
    assert first.images[0].seed == first.end.seed
    assert again.images[0].image.tobytes() == first.images[0].image.tobytes()


WRONG = {
    "size": (Draw(prompt="a cat", height=33), "multiple of 8"),
    "rule": (Draw(prompt="a cat", rule="entropy", confidence="margin"), "confidence"),
    "role": (Chat(messages=[{"role": "robot", "content": "hi"}], modalities="text"), "role"),
    "no turns": (Story(messages=[]), "messages"),
    "mask": (Inpaint(image=PICTURE, mask=MASK.resize((16, 16)), prompt="a cat"), "equal"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_one_clear_line(service, name):
    request, words = WRONG[name]
    (error,) = results(service.submit(request))
    assert isinstance(error, UserError) and words in str(error) and "\n" not in str(error)


def test_limits(model):
    sizes = {"max_pixels": 2000, "max_pictures": 1, "max_tokens": 10, "max_prompt_chars": 20}
    with running(model, **sizes) as service:
        for request, words in (
            (Draw(prompt="a" * 21), "21 characters"),
            (Draw(prompt="a cat", height=64, width=64), "64 x 64 pixels"),
            (Edit(images=[PICTURE, PICTURE], instruction="a dog"), "2 images"),
            (Edit(images=[PICTURE.resize((50, 50))], instruction="a dog"), "50 x 50 pixels"),
            (chat("what?", max_tokens=11), "max_tokens is 11"),
            (Draw(prompt="a cat", reasoning_max_tokens=11), "reasoning_max_tokens is 11"),
        ):
            with pytest.raises(UserError, match=words):
                service.submit(request)
        assert service.metrics.registry.get_sample_value("llada_uni_failures_total", {"kind": "UserError"}) == 6


def test_a_full_queue_refuses_and_says_when_to_come_back(model):
    with running(model, max_batch=1, max_queue=1) as service:
        slow = chat("what?", seed=1, text_steps=4, **SLOW)
        first = service.submit(slow)
        wait_until(lambda: first in service._running, "the first job runs")
        second = service.submit(slow)
        with pytest.raises(QueueFull) as error:
            service.submit(slow)
        assert error.value.retry_after >= 1 and error.value.status == 429
        second.cancel()
        third = service.submit(slow)  # its place in the queue is free at once
        outcomes = results(first, third)
        assert [outcome.end.reason for outcome in outcomes] != [] and all(o.end.seed == 1 for o in outcomes)


def test_words_go_before_pictures_that_would_have_to_wait_anyway(model, monkeypatch):
    with running(model, max_batch=1) as service:
        first = service.submit(Draw(prompt="a cat", seed=1, image_steps=8, **SLOW))
        wait_until(lambda: first in service._running, "the first job runs")
        draw, ask = service.submit(Draw(prompt="a cat", seed=2)), service.submit(chat("what?", seed=3))
        assert service._whose_turn() is draw
        monkeypatch.setattr(type(service._lanes), "crowded", True)
        assert service._whose_turn() is ask
        assert all(outcome.end for outcome in results(first, draw, ask))


def test_metrics_count_what_was_done(model):
    with running(model, prefix_cache_bytes=1 << 20) as service:
        results(*(service.submit(Draw(prompt="a cat and a dog on green", seed=seed)) for seed in range(3)))
        value = service.metrics.registry.get_sample_value
        assert value("llada_uni_job_seconds_count", {"task": "draw"}) == 3
        assert value("llada_uni_tokens_total", {"kind": "completion"}) == 48
        assert value("llada_uni_evaluations_total", {"network": "decoder"}) == 6
        assert value("llada_uni_pictures_total") == 3 and value("llada_uni_jobs_running") == 0
        assert value("llada_uni_prefix_cache_bytes") > 0 and value("llada_uni_prefix_cache_hits") > 0
        assert b"llada_uni_accepted_per_step_bucket" in service.metrics.render()


def test_before_and_after_its_life_it_refuses(model):
    service = Service(model)
    assert not service.ready and service.failure is None
    with pytest.raises(Draining):
        service.submit(Draw(prompt="a cat"))
    with running(model) as ended:
        pass
    with pytest.raises(Draining):
        ended.submit(Draw(prompt="a cat"))
    assert not [thread for thread in threading.enumerate() if thread in ended._threads]
    service.close()  # nothing was begun


def test_a_slow_reader_sees_the_newest_draft_only(service):
    job = service.submit(Draw(prompt="a cat", seed=1))
    wait_until(lambda: job._ended, "the job ended")
    stages = [event.stage for event in events_of(job) if isinstance(event, Progress)]
    assert stages == ["codes", "decode"]


def test_a_reader_may_come_late_and_in_another_loop(service):
    job = service.submit(chat("what?", seed=1))
    wait_until(lambda: job._ended, "the job ended")
    assert asyncio.run(asyncio.wait_for(job.result(), PATIENCE)).end.seed == 1
