"""Answers about images, conversations, and answers in which text and images alternate.

Questions and messages with images -> turns of codes and text -> text, or text and frames in turn.
Source: arXiv:2604.20796 and the released configuration for templates and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from llada_uni.errors import UserError
from llada_uni.generation.interleave import Plan
from llada_uni.generation.interleave import interleave as alternate
from llada_uni.generation.params import CODES_ONLY
from llada_uni.generation.phases import Phases
from llada_uni.requests import Chat, Story, Understand
from llada_uni.results import (
    ChatResult,
    EndEvent,
    EndReason,
    Evaluations,
    Event,
    ImageEvent,
    OnProgress,
    TextEvent,
    TextResult,
)
from llada_uni.tasks.checks import check_grid, check_pictures, check_seed, check_text, generator_of
from llada_uni.tasks.common import Clock, encode_pictures, evaluations_of, grammar_of, phases_of, settings_of
from llada_uni.tasks.decode import check_decoder, decode
from llada_uni.tasks.messages import read_messages
from llada_uni.tasks.parts import Parts
from llada_uni.tasks.sizes import Sized, sized
from llada_uni.text.prompts import Turn

ANSWER_FRAMES = 4  # images that one answer in a conversation may hold where the request does not say


def understand(parts: Parts, request: Understand, on_progress: OnProgress | None) -> TextResult:
    """See `UniModel.understand`."""
    seed, pictures = check_seed(request.seed), check_pictures(request.images)
    if not parts.defaults.as_published:
        check_text(request.question, "question")
    write, clock = _writer(parts, request, on_progress), Clock()
    codes = encode_pictures(parts, pictures, "understand")
    clock.lap("encode")
    text, reason, work = write([Turn("user", (*codes, request.question))], seed)
    clock.lap("text")
    return TextResult(text, seed, reason != "length", work, clock.total())


def chat(parts: Parts, request: Chat, on_progress: OnProgress | None) -> ChatResult:
    """See `UniModel.chat`."""
    if "image" not in request.modalities:
        return _chat_in_text(parts, request, on_progress)
    if request.max_frames is None:
        request = request.replace(max_frames=ANSWER_FRAMES)
    if parts.decoder.variants == () and request.decoder is None:
        request = request.replace(decoder=CODES_ONLY)  # a conversation needs no decoder; an image in an answer stays codes then
    pieces: list[str | ImageEvent] = []
    for event in _alternating(parts, request, "understand", on_progress):
        if isinstance(event, EndEvent):
            return ChatResult(tuple(pieces), event)
        pieces.append(event.text if isinstance(event, TextEvent) else event)
    raise AssertionError("an interleaved answer ends with an EndEvent")


def interleave(parts: Parts, request: Story, on_progress: OnProgress | None) -> Iterator[Event]:
    """See `UniModel.interleave`. Everything is checked before the first event, not when it is asked for."""
    return _alternating(parts, request, "interleave", on_progress)


def _chat_in_text(parts: Parts, request: Chat, on_progress: OnProgress | None) -> ChatResult:
    seed, write, clock = check_seed(request.seed), _writer(parts, request, on_progress), Clock()
    turns = read_messages(parts, request.messages)
    clock.lap("encode")
    text, reason, work = write(turns, seed)
    clock.lap("text")
    return ChatResult((text,) if text else (), EndEvent(reason, seed, work, clock.total()))


Writer = Callable[[list[Turn], int], tuple[str, EndReason, Evaluations]]


def _writer(parts: Parts, request: Understand | Chat, on_progress: OnProgress | None) -> Writer:
    """(turns, seed) -> (text, how it ended, work); the settings are checked here, before anything is read."""
    settings = settings_of(request, parts.defaults.understand).text
    phases = phases_of(parts, request, on_progress)
    grammar = grammar_of(parts, request, settings.max_tokens)

    def write(turns: list[Turn], seed: int) -> tuple[str, EndReason, Evaluations]:
        ids = parts.format.prompt("understand", turns)
        written = phases.write(ids, settings, settings.max_tokens, generator_of(seed), images=False, grammar=grammar)
        reason: EndReason = "stop" if phases.engine.stopped else "finished" if written.end == "eos" else "length"
        return phases.engine.text, reason, evaluations_of(written.work)

    return write


def _alternating(parts: Parts, request: Chat | Story, task: str, on_progress: OnProgress | None) -> Iterator[Event]:
    """Text and images in turn, with the system text of `task`."""
    seed, settings = check_seed(request.seed), settings_of(request, parts.defaults.interleave)
    turns = read_messages(parts, request.messages)
    other_size = settings_of(request, parts.defaults).other_size
    size = sized(parts, settings.height, settings.width, other_size)
    trained = () if other_size == "draw" else parts.defaults.trained_sizes
    plan = Plan(
        size.grid,
        settings.codes,
        settings.text,
        settings.text.max_tokens,
        settings.max_frames,
        settings,
        tuple(check_grid(*one, parts.pixels_per_code) for one in trained),
    )
    check_decoder(parts, request)
    phases = phases_of(parts, request, on_progress)
    ids = parts.format.prompt(task, turns)
    if phases.room(ids) < 1:
        raise UserError(f"the prompt has {len(ids)} tokens; the context of this model is {phases.context} tokens")
    return _events(parts, phases, task, turns, plan, size, seed, request, on_progress)


def _events(
    parts: Parts,
    phases: Phases,
    task: str,
    turns: list[Turn],
    plan: Plan,
    size: Sized,
    seed: int,
    asked: Chat | Story,
    on_progress: OnProgress | None,
) -> Iterator[Event]:
    clock, decoded = Clock(), 0
    for piece in alternate(phases, task, turns, plan, generator_of(seed)):
        if isinstance(piece, TextEvent):
            clock.lap("text")
            if phases.engine.text:  # without the stop string that may stand in the piece
                yield TextEvent(phases.engine.text, piece.tokens)
        elif isinstance(piece, EndEvent):
            clock.lap("text")
            reason = "stop" if phases.engine.stopped else piece.reason
            work = piece.evaluations + Evaluations(decoder=decoded)
            yield replace(piece, reason=reason, seed=seed, evaluations=work, seconds=clock.total())
        else:
            clock.lap("codes")
            image, of = None, size if (piece.codes.height, piece.codes.width) == size.grid else None
            if asked.decoder != CODES_ONLY:
                image, evaluations = decode(parts, piece.codes, asked, seed, on_progress, of)
                decoded += evaluations
                clock.lap("decode")
            yield replace(piece, pixels=image, seed=seed, notices=of.notices if of else ())
