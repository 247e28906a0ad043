"""One job's work, in a worker thread: the ordinary calls of UniModel, on the parts that all jobs share.

What flows through: a Task and SharedParts -> the call of `UniModel` -> events on the way (progress.py), images as they
are finished, and an `EndEvent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from llada_uni.model import UniModel
from llada_uni.results import ChatResult, EndEvent, ImageEvent, ImageResult, StreamEvent, Usage
from llada_uni.serving.scheduler.progress import Reporter
from llada_uni.serving.scheduler.shared_parts import SharedParts
from llada_uni.serving.tasks import Chat, Draw, Edit, Inpaint, Interleaved, Message, Task
from llada_uni.tasks.checks import check_seed

Emit = Callable[[StreamEvent], None]


def work(parts: SharedParts, task: Task, emit: Emit) -> EndEvent:
    """Runs the task to its end. Raises UserError for what is wrong with it, and what `parts` raise to end it."""
    task = replace(task, seed=check_seed(task.seed))
    model = UniModel(parts)
    partials = 0 if isinstance(task, Chat) or task.decoder == "none" else task.drafts
    report = Reporter(parts, emit, isinstance(task, Draw), partials, task.seed)
    return _CALLS[type(task)](model, task, report, emit)


def _draw(model: UniModel, task: Draw, report: Reporter, emit: Emit) -> EndEvent:
    result = model.generate_image(
        task.prompt, task.height, task.width, cfg_scale=task.cfg_scale, thinking=task.thinking,
        **_painting(task, report), **task.sampling.given(),
    )  # fmt: skip
    return _give(model, result, emit)


def _edit(model: UniModel, task: Edit, report: Reporter, emit: Emit) -> EndEvent:
    result = model.edit_image(
        list(task.images), task.instruction, task.height, task.width, **_scales(task),
        **_painting(task, report), **task.sampling.given(),
    )  # fmt: skip
    return _give(model, result, emit)


def _inpaint(model: UniModel, task: Inpaint, report: Reporter, emit: Emit) -> EndEvent:
    result = model.inpaint(
        task.image, task.mask, task.prompt, cfg_scale=task.cfg_scale,
        **_painting(task, report), **task.sampling.given(),
    )  # fmt: skip
    return _give(model, result, emit)


def _chat(model: UniModel, task: Chat, report: Reporter, emit: Emit) -> EndEvent:
    result: ChatResult = model.chat(
        _messages(task.turns), seed=task.seed, on_progress=report, max_tokens=task.max_tokens, text_steps=task.steps,
        stop=task.stop, modalities=("text",), **task.sampling.given(),
    )  # fmt: skip
    return _counted(model, result.end, 0)


def _interleaved(model: UniModel, task: Interleaved, report: Reporter, emit: Emit) -> EndEvent:
    events = model.interleave(
        _messages(task.turns), task.max_frames, height=task.height, width=task.width, **_scales(task),
        **_painting(task, report), max_tokens=task.max_tokens, stop=task.stop, **task.sampling.given(),
    )  # fmt: skip
    images = 0
    for event in events:  # the text went out as it was accepted
        if isinstance(event, ImageEvent):
            images += 1
            emit(event)
        elif isinstance(event, EndEvent):
            return _counted(model, event, images)
    raise AssertionError("an interleaved answer ends with an EndEvent")


_CALLS = {Draw: _draw, Edit: _edit, Inpaint: _inpaint, Chat: _chat, Interleaved: _interleaved}


def _painting(task: Any, report: Reporter) -> dict[str, Any]:
    """What every call that paints takes."""
    return {
        "image_steps": task.steps,
        "seed": task.seed,
        "decoder": task.decoder,
        "decoder_steps": task.decoder_steps,
        "on_progress": report,
    }


def _scales(task: Edit | Interleaved) -> dict[str, float | None]:
    return {"text_scale": task.text_scale, "image_scale": task.image_scale, "rescale": task.rescale}


def _messages(turns: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": list(turn.parts)} for turn in turns]


def _give(model: UniModel, result: ImageResult, emit: Emit) -> EndEvent:
    """The one image of a task, and its end."""
    emit(ImageEvent(result.pixels, result.codes, 1, seed=result.seed, reasoning=result.thinking))
    return _counted(model, EndEvent("finished", result.seed, result.evaluations, result.seconds), 1)


def _counted(model: UniModel, end: EndEvent, images: int) -> EndEvent:
    """The end with the tokens that the job's own engine has counted."""
    engine = model.parts.engine
    return replace(end, usage=Usage(engine.prompt_tokens or 0, engine.tokens, images))
