"""Words about pictures, conversations, and interleaved answers.

What flows through: questions and messages with pictures -> turns of codes and text -> words, or words and
frames in turn.
Source: arXiv:2604.20796 and the released configuration for templates and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from llada_uni.errors import UserError
from llada_uni.generation.interleave import Phases, Scales, Story
from llada_uni.generation.interleave import interleave as alternate
from llada_uni.results import (
    ChatResult,
    EndEvent,
    Evaluations,
    Event,
    ImageEvent,
    OnProgress,
    TextEvent,
    TextResult,
)
from llada_uni.tasks.checks import check_grid, check_pictures, check_seed, check_words, generator_of
from llada_uni.tasks.common import (
    Clock,
    check_decoder,
    encode_pictures,
    evaluations_of,
    paint,
    phases_of,
    sampling_of,
)
from llada_uni.tasks.defaults import Words, adjusted
from llada_uni.tasks.listening import check_stops
from llada_uni.tasks.messages import read_messages
from llada_uni.tasks.parts import Parts
from llada_uni.text.prompts import Turn

ANSWER_FRAMES = 4  # pictures that one answer in a conversation may hold
MODALITIES = ("text", "image")


def understand(
    parts: Parts,
    images: Any,
    question: str,
    settings: dict[str, Any],
    stop: Sequence[str],
    seed: int | None,
    on_progress: OnProgress | None,
) -> TextResult:
    """See `UniModel.understand`."""
    question, seed = check_words(question, "question"), check_seed(seed)
    pictures = check_pictures(images)
    write = _writer(parts, settings, stop, on_progress)
    clock = Clock()
    codes = encode_pictures(parts, pictures, "understand")
    clock.lap("encode")
    text, reason, work = write([Turn("user", (*codes, question))], seed)
    clock.lap("text")
    return TextResult(text, seed, reason != "length", work, clock.total())


def chat(
    parts: Parts,
    messages: Any,
    settings: dict[str, Any],
    stop: Sequence[str],
    modalities: Sequence[str],
    seed: int | None,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
) -> ChatResult:
    """See `UniModel.chat`. settings: of words."""
    wanted = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    if "text" not in wanted or not set(wanted) <= set(MODALITIES):
        raise UserError(f"modalities must be ('text',) or ('text', 'image'), not {modalities!r}")
    if "image" not in wanted:
        return _chat_in_words(parts, messages, settings, stop, seed, on_progress)
    turns = read_messages(parts, messages)
    if parts.decoder.variants == () and decoder is None:
        decoder = "none"  # a conversation needs no decoder; a picture in an answer stays codes then
    events = interleave(
        parts, turns, "understand", ANSWER_FRAMES, None, None, None, {}, settings, stop, seed, decoder, decoder_steps,
        on_progress,
    )  # fmt: skip
    pieces: list[str | ImageEvent] = []
    for event in events:
        if isinstance(event, EndEvent):
            return ChatResult(tuple(pieces), event)
        pieces.append(event.text if isinstance(event, TextEvent) else event)
    raise AssertionError("an interleaved answer ends with an EndEvent")


def _chat_in_words(
    parts: Parts,
    messages: Any,
    settings: dict[str, Any],
    stop: Sequence[str],
    seed: int | None,
    on_progress: OnProgress | None,
) -> ChatResult:
    seed, write, clock = check_seed(seed), _writer(parts, settings, stop, on_progress), Clock()
    turns = read_messages(parts, messages)
    clock.lap("encode")
    text, reason, work = write(turns, seed)
    clock.lap("text")
    return ChatResult((text,) if text else (), EndEvent(reason, seed, work, clock.total()))


def _writer(parts: Parts, settings: dict[str, Any], stop: Sequence[str], on_progress: OnProgress | None) -> Any:
    """(turns, seed) -> (words, how they ended, work); the settings are checked here, before anything is read."""
    block_length = settings.pop("block_length", None)
    words: Words = adjusted(parts.defaults.understand.text, **settings)
    phases = phases_of(parts, on_progress, block_length, check_stops(stop))

    def write(turns: list[Turn], seed: int) -> tuple[str, str, Evaluations]:
        ids = parts.format.prompt("understand", turns)
        written = phases.write(ids, sampling_of(words), words.max_tokens, generator_of(seed), images=False)
        reason = "stop" if phases.engine.stopped else "finished" if written.end == "eos" else "length"
        return phases.engine.text, reason, evaluations_of(written.work)

    return write


def interleave(
    parts: Parts,
    turns: list[Turn],
    task: str,
    max_frames: int | None,
    height: int | None,
    width: int | None,
    steps: int | None,
    scales: dict[str, float | None],
    settings: dict[str, Any],
    stop: Sequence[str],
    seed: int | None,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
) -> Iterator[Event]:
    """See `UniModel.interleave`. Everything is checked before the first event, not when it is asked for.

    steps: of pictures. settings: of words; those that are not about words alone hold for pictures, too.
    """
    seed, default = check_seed(seed), parts.defaults.interleave
    chosen = adjusted(default, max_frames=max_frames, **scales)
    block_length = settings.pop("block_length", None)
    both = {name: value for name, value in settings.items() if name not in ("steps", "max_tokens")}
    grid = check_grid(
        default.height if height is None else height,
        default.width if width is None else width,
        parts.pixels_per_code,
    )
    check_decoder(parts, decoder)
    words = adjusted(default.text, **settings)
    story = Story(
        grid,
        sampling_of(adjusted(default.codes, steps=steps, **both)),
        sampling_of(words),
        words.max_tokens,
        chosen.max_frames,
        Scales(chosen.first_scale, chosen.text_scale, chosen.image_scale, chosen.rescale),
    )
    phases = phases_of(parts, on_progress, block_length, check_stops(stop))
    ids = parts.format.prompt(task, turns)
    if phases.room(ids) < 1:
        raise UserError(f"the prompt has {len(ids)} tokens; the context of this model is {phases.context} tokens")
    return _events(parts, phases, task, turns, story, seed, decoder, decoder_steps, on_progress)


def _events(
    parts: Parts,
    phases: Phases,
    task: str,
    turns: list[Turn],
    story: Story,
    seed: int,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
) -> Iterator[Event]:
    clock, decoded = Clock(), 0
    for piece in alternate(phases, task, turns, story, generator_of(seed)):
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
            image = None
            if decoder != "none":
                image, evaluations = paint(parts, piece.codes, decoder, decoder_steps, seed, on_progress)
                decoded += evaluations
                clock.lap("decode")
            yield replace(piece, pixels=image, seed=seed)
