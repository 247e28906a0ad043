"""Words about pictures, conversations, and interleaved answers.

What flows through: questions and messages with pictures -> turns of codes and text -> words, or words and
frames in turn.
Source: arXiv:2604.20796 and the released configuration for templates and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.generation.interleave import End, Scales, Story, Text
from llada_uni.generation.interleave import interleave as alternate
from llada_uni.image.codes import ImageCodes
from llada_uni.image.preprocess import open_image
from llada_uni.prompts import Turn
from llada_uni.results import (
    ChatResult,
    EndEvent,
    Event,
    ImageEvent,
    ImageResult,
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
    reporter,
    sampling_of,
)
from llada_uni.tasks.defaults import Words, adjusted
from llada_uni.tasks.parts import Parts

ANSWER_FRAMES = 4  # pictures that one answer in a conversation may hold


def understand(
    parts: Parts,
    images: Any,
    question: str,
    settings: dict[str, Any],
    seed: int | None,
    on_progress: OnProgress | None,
) -> TextResult:
    """See `UniModel.understand`."""
    question, seed = check_words(question, "question"), check_seed(seed)
    pictures = check_pictures(images)
    words: Words = adjusted(parts.defaults.understand.text, **settings)
    clock = Clock()
    codes = encode_pictures(parts, pictures, "understand")
    clock.lap("encode")
    ids = parts.format.prompt("understand", [Turn("user", (*codes, question))])
    report = reporter(on_progress, "text", words.max_tokens)
    written = phases_of(parts).write(
        ids, sampling_of(words), words.max_tokens, generator_of(seed), images=False, on_step=report
    )
    clock.lap("text")
    text = parts.text.decode(written.ids).strip()
    return TextResult(text, seed, written.end == "eos", evaluations_of(written.work), clock.total())


def interleave(
    parts: Parts,
    turns: list[Turn],
    task: str,
    max_frames: int | None,
    height: int | None,
    width: int | None,
    steps: int | None,
    scales: dict[str, float | None],
    seed: int | None,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
) -> Iterator[Event]:
    """See `UniModel.interleave`. Everything is checked before the first event, not when it is asked for."""
    seed, default = check_seed(seed), parts.defaults.interleave
    chosen = adjusted(default, max_frames=max_frames, **scales)
    grid = check_grid(
        default.height if height is None else height,
        default.width if width is None else width,
        parts.pixels_per_code,
    )
    check_decoder(parts, decoder)
    story = Story(
        grid,
        sampling_of(adjusted(default.codes, steps=steps)),
        sampling_of(default.text),
        default.text.max_tokens,
        chosen.max_frames,
        Scales(chosen.first_scale, chosen.text_scale, chosen.image_scale, chosen.rescale),
    )
    phases = phases_of(parts)
    ids = parts.format.prompt(task, turns)
    if phases.room(ids) < 1:
        raise UserError(
            f"the prompt has {len(ids)} tokens; the context of this model is {phases.context} tokens"
        )
    return _events(parts, phases, task, turns, story, seed, decoder, decoder_steps, on_progress)


def _events(
    parts: Parts,
    phases: Any,
    task: str,
    turns: list[Turn],
    story: Story,
    seed: int,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
) -> Iterator[Event]:
    clock, decoded = Clock(), 0
    listeners: dict[str, Any] = {}
    totals = {"text": story.max_tokens, "codes": story.grid[0] * story.grid[1]}

    def report(stage: str, event: Any) -> None:
        if stage not in listeners:
            listeners[stage] = reporter(on_progress, stage, totals[stage])
        listeners[stage](event)

    step = None if on_progress is None else report
    for piece in alternate(phases, task, turns, story, generator_of(seed), step):
        listeners.clear()  # the next piece counts from zero
        if isinstance(piece, Text):
            clock.lap("text")
            yield TextEvent(piece.text, piece.tokens)
        elif isinstance(piece, End):
            clock.lap("text")
            yield EndEvent(piece.reason, seed, evaluations_of(piece.work, decoded), clock.total())
        else:
            clock.lap("codes")
            image = None
            if decoder != "none":
                image, evaluations = paint(parts, piece.codes, decoder, decoder_steps, seed, on_progress)
                decoded += evaluations
                clock.lap("decode")
            yield ImageEvent(image, piece.codes, piece.number, piece.repaired)


def chat(
    parts: Parts,
    messages: Any,
    seed: int | None,
    decoder: str | None,
    decoder_steps: int | None,
    on_progress: OnProgress | None,
) -> ChatResult:
    """See `UniModel.chat`."""
    turns = read_messages(parts, messages)
    if parts.decoder.variants == () and decoder is None:
        decoder = "none"  # a conversation needs no decoder; a picture in an answer stays codes then
    events = interleave(
        parts,
        turns,
        "understand",
        ANSWER_FRAMES,
        None,
        None,
        None,
        {},
        seed,
        decoder,
        decoder_steps,
        on_progress,
    )
    pieces: list[str | ImageEvent] = []
    for event in events:
        if isinstance(event, EndEvent):
            return ChatResult(tuple(pieces), event)
        pieces.append(event.text if isinstance(event, TextEvent) else event)
    raise AssertionError("an interleaved answer ends with an EndEvent")


def read_messages(parts: Parts, messages: Any) -> list[Turn]:
    """Turns of codes and text from a prompt, or from messages {"role": "user" or "assistant", "content":
    ...}.

    Content is a string, a picture (also one of our results), or a list of these; items may also be {"type":
    "text", "text": ...} and {"type": "image", "image": ...}. UserError for anything else, for an empty user
    turn, and for the wrong order of roles.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": check_words(messages, "prompt")}]
    if not isinstance(messages, Sequence) or not messages:
        raise UserError("messages must be a text or a list of {'role': ..., 'content': ...}")
    read: list[tuple[str, list[Any]]] = []
    for message in messages:
        if isinstance(message, Turn):
            read.append((message.role, list(message.parts)))
            continue
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise UserError("a message must hold 'role' and 'content'")
        content = message["content"]
        items = content if isinstance(content, list | tuple) else [content]
        read.append((message["role"], [_read_item(item) for item in items]))
    for role, items in read:
        if role == "user" and not any(isinstance(item, str) and item.strip() for item in items):
            raise UserError("a user's message needs words: it has none")
    alone = sum(not isinstance(item, str) for _, items in read for item in items) == 1
    turns = []
    for role, items in read:
        done: list[str | ImageCodes] = []
        for item in items:
            if isinstance(item, Image.Image):
                done.append(parts.image_tokenizer.encode(item, mode="understand", alone=alone))
            else:
                done.append(item if isinstance(item, str) else item.check_range(parts.codebook_size))
        turns.append(Turn(role, tuple(done)))
    return turns


def _read_item(item: Any) -> str | Image.Image | ImageCodes:
    if isinstance(item, Mapping):
        kind = item.get("type")
        if kind == "text" and isinstance(item.get("text"), str):
            return item["text"]
        if kind == "image" and "image" in item:
            picture = item["image"]
            return picture if isinstance(picture, ImageCodes) else open_image(picture)
        raise UserError(
            "an item of a message is {'type': 'text', 'text': ...} or {'type': 'image', 'image': ...}"
        )
    if isinstance(item, str | ImageCodes):
        return item
    if isinstance(item, ImageEvent | ImageResult):
        return item.codes
    return open_image(item)
