"""Interleaved answers with an engine that says what it is told: order, broken headers, limits, guidance."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_uni.errors import UserError
from llada_uni.generation.interleave import (
    Plan,
    interleave,
)
from llada_uni.generation.params import FramesGuided, Sampling
from llada_uni.generation.phases import Phases
from llada_uni.results import EndEvent, Evaluations, ImageEvent, TextEvent
from llada_uni.text.prompts import PromptFormat, Turn
from llada_uni.text.tokenizer import train_tokenizer

TEXT = train_tokenizer(["a cat", "the cat goes", "hello", "tell a story"] * 2, 480)
OFFSET = 512
FORMAT = PromptFormat(TEXT, OFFSET)
CODES = 8
TURNS = [Turn("user", ("tell a story",))]
NO_GUIDANCE = FramesGuided(first_scale=1.0, text_scale=1.0, image_scale=0.0, rescale=0.0)
HOW = Sampling(steps=4, threshold=0.9)


@dataclass
class Call:
    prompt: list[int]
    settings: object
    branches: dict
    canvas: list[int] | None


class Scripted:
    """An engine whose words are given; it draws code 1 everywhere. Cuts what is longer than was asked, as
    engines do.
    """

    def __init__(self, *answers: list[int]) -> None:
        self.answers, self.calls = list(answers), []

    def generate(self, prompt, settings, branches=None, generator=None, canvas=None, on_step=None):
        self.calls.append(Call(prompt, settings, branches or {}, canvas))
        if settings.allowed is not None:
            assert tuple(settings.allowed) == tuple(range(OFFSET, OFFSET + CODES))
            tokens = [OFFSET + 1] * settings.gen_length
        else:
            tokens = self.answers.pop(0)[: settings.gen_length]
        return SimpleNamespace(tokens=tokens, evaluations=2, branch_evaluations=4)


def say(words: str) -> list[int]:
    return TEXT.encode(words)


def header(height: int = 2, width: int = 3) -> list[int]:
    return FORMAT.image_header(height, width)


EOS = [TEXT.eos_id]


def run(*answers, context=400, max_frames=5, scales=NO_GUIDANCE, max_tokens=30):
    engine = Scripted(*answers)
    story = Plan((2, 2), HOW, HOW, max_tokens, max_frames, scales)
    phases = Phases(engine, FORMAT, context, CODES, block_length=8)
    return list(interleave(phases, "interleave", TURNS, story)), engine


def test_words_and_frames_come_in_order():
    events, engine = run(say("a cat") + header(), say("the cat goes") + header(1, 2), say("hello") + EOS)
    assert [type(event) for event in events] == [TextEvent, ImageEvent, TextEvent, ImageEvent, TextEvent, EndEvent]
    assert [event.text for event in events if isinstance(event, TextEvent)] == ["a cat", "the cat goes", "hello"]
    first, second = (event for event in events if isinstance(event, ImageEvent))
    assert (first.codes.height, first.codes.width, first.number, first.repaired) == (2, 3, 1, None)
    assert (second.codes.height, second.codes.width, second.number) == (1, 2, 2)
    assert events[-1].reason == "finished"
    assert events[-1].evaluations == Evaluations(10, 20)
    # What the model sees before its second sentence is what training has: all before it, whole image blocks.
    before = FORMAT.prompt("interleave", TURNS) + say("a cat") + FORMAT.image_block(first.codes)
    assert engine.calls[2].prompt == before
    assert engine.calls[3].prompt == before + say("the cat goes") + header(1, 2)


BROKEN = {
    "no size": [TEXT.image_start_id, TEXT.boi_id],
    "one size": [TEXT.image_start_id, TEXT.size_id(2), TEXT.boi_id],
    "three sizes": [TEXT.image_start_id, *[TEXT.size_id(2)] * 3, TEXT.boi_id],
    "no start": [TEXT.size_id(2), TEXT.size_id(2), TEXT.boi_id],
    "boi alone": [TEXT.boi_id],
    "words for a size": [TEXT.image_start_id, *say("cat"), TEXT.size_id(2), TEXT.boi_id],
    "a code for a size": [TEXT.image_start_id, OFFSET + 3, TEXT.size_id(2), TEXT.boi_id],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_header_is_mended_with_the_size_of_the_story(broken):
    events, engine = run(say("a cat") + broken, say("hello") + EOS)
    frame = next(event for event in events if isinstance(event, ImageEvent))
    assert (frame.codes.height, frame.codes.width) == (2, 2)
    assert "header" in frame.repaired
    assert engine.calls[1].prompt[-4:] == header(2, 2)
    assert events[0].text.startswith("a cat") and events[-1].reason == "finished"
    shown = engine.calls[2].prompt
    assert shown.count(TEXT.image_start_id) == shown.count(TEXT.boi_id) == shown.count(TEXT.image_end_id) == 1


def test_a_frame_too_large_for_the_context_takes_the_size_of_the_story():
    events, _ = run(say("a cat") + header(64, 64), say("hello") + EOS, context=60)
    frame = next(event for event in events if isinstance(event, ImageEvent))
    assert (frame.codes.height, frame.codes.width) == (2, 2) and "context" in frame.repaired


def test_a_full_context_ends_the_answer():
    room = len(FORMAT.prompt("interleave", TURNS)) + 2 + 4 + 2 * 2 + 1
    events, _ = run(say("a cat") + header(2, 2), context=room - 1)
    assert [type(event) for event in events] == [TextEvent, EndEvent] and events[-1].reason == "context"
    events, _ = run(say("a cat") + header(2, 2), context=room)
    assert [type(event) for event in events] == [TextEvent, ImageEvent, EndEvent] and events[-1].reason == "context"


def test_limits():
    events, _ = run(*[say("a cat") + header(1, 1)] * 3, max_frames=3)
    assert sum(isinstance(event, ImageEvent) for event in events) == 3 and events[-1].reason == "frames"
    events, _ = run(say("the cat goes") * 20, max_tokens=7)
    assert [type(event) for event in events] == [TextEvent, EndEvent] and events[-1].reason == "length"
    assert events[0].tokens == 7
    with pytest.raises(UserError, match="context"):
        run(EOS, context=3)


def test_an_answer_may_be_empty_or_begin_with_a_frame():
    assert [type(event) for event in run(EOS)[0]] == [EndEvent]
    events, _ = run(header(1, 1), EOS)
    assert [type(event) for event in events] == [ImageEvent, EndEvent]


def test_no_guidance_where_the_scales_change_nothing():
    _, engine = run(say("a cat") + header(), say("hello") + header(), EOS)
    drawn = [call for call in engine.calls if call.settings.allowed is not None]
    assert len(drawn) == 2
    assert all(call.settings.guidance.branches == () for call in drawn)


def test_frames_after_the_first_have_two_scales():
    scales = FramesGuided(first_scale=2.0, text_scale=7.5, image_scale=1.5, rescale=0.7)
    _, engine = run(say("a cat") + header(), say("hello") + header(), EOS, scales=scales)
    first, second = (call for call in engine.calls if call.settings.allowed is not None)
    uncondition = FORMAT.unconditional("interleave", TURNS)
    assert first.settings.guidance.kind == "simple" and first.settings.guidance.scale == 2.0
    assert first.settings.guidance.branches == ("uncond",)
    assert first.branches["uncond"] == uncondition + header()
    guidance = second.settings.guidance
    assert (guidance.kind, guidance.text_scale, guidance.image_scale) == ("editing", 7.5, 1.5)
    assert guidance.rescale == 0.7
    history = second.prompt[: -len(say("hello") + header())]
    assert guidance.branches == ("no_text", "no_image")
    assert second.branches["no_text"] == history + say("<uncondition>") + header()
    assert second.branches["no_image"] == FORMAT.prompt("interleave", TURNS) + say("hello") + header()


ANY_ID = st.integers(0, OFFSET + CODES - 1) | st.sampled_from([*header(2, 2), *EOS, TEXT.image_end_id, TEXT.mask_id])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(ANY_ID, max_size=12), min_size=8, max_size=8), st.integers(20, 80))
def test_whatever_the_model_writes_the_answer_ends(answers, context):
    def cut(ids):  # an engine ends with the first stop token, if there is one
        for at, token in enumerate(ids):
            if token in (TEXT.eos_id, TEXT.boi_id):
                return ids[: at + 1]
        return ids

    events, engine = run(*map(cut, answers), context=context, max_frames=6)
    assert isinstance(events[-1], EndEvent) and sum(isinstance(event, EndEvent) for event in events) == 1
    for call in engine.calls:
        assert len(call.prompt) + call.settings.gen_length <= context
        inside = call.prompt[len(FORMAT.prompt("interleave", TURNS)) :]
        assert TEXT.mask_id not in inside and TEXT.eos_id not in inside


def test_fixed_codes_go_through_the_canvas():
    engine = Scripted()
    phases = Phases(engine, FORMAT, 100, CODES)
    start = FORMAT.prompt("generate", TURNS) + header(1, 3)
    drawn = phases.draw(start, (1, 3), HOW, canvas=[4, None, 0])
    assert engine.calls[0].canvas == [OFFSET + 4, TEXT.mask_id, OFFSET]
    assert engine.calls[0].settings.gen_length == 3 and drawn.codes.width == 3
    with pytest.raises(UserError, match="context"):
        phases.draw(start, (64, 64), HOW)
