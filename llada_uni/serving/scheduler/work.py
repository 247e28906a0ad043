"""One job's work, in a worker thread: a request runs as ever (`UniModel.run`), on the parts that all jobs share.

Its progress becomes events (progress.py); images go out as they are finished, and an `EndEvent` is the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llada_uni.generation.params import CODES_ONLY
from llada_uni.model import UniModel
from llada_uni.requests import Draw, Request
from llada_uni.results import ChatResult, EndEvent, ImageEvent, ImageResult, StreamEvent, TextResult, Usage
from llada_uni.serving.scheduler.progress import Reporter
from llada_uni.serving.scheduler.shared_parts import SharedParts
from llada_uni.tasks.checks import check_seed

Emit = Callable[[StreamEvent], None]


def work(parts: SharedParts, request: Request, emit: Emit, partial_images: int = 0) -> EndEvent:
    """Runs a request to its end. Raises UserError for what is wrong with it, and what `parts` raise to end it."""
    seed = check_seed(request.seed)
    partials = 0 if getattr(request, "decoder", None) == CODES_ONLY else partial_images
    report = Reporter(parts, emit, isinstance(request, Draw), partials, seed)
    result = UniModel(parts).run(request.replace(seed=seed), report)
    images = 0
    if isinstance(result, ImageResult):
        drawn = ImageEvent(result.pixels, result.codes, 1, None, seed, result.thinking, result.notices, result.candidates)
        emit(drawn)
        images, end = 1, EndEvent("finished", seed, result.evaluations, result.seconds)
    elif isinstance(result, TextResult):
        end = EndEvent("finished" if result.finished else "length", seed, result.evaluations, result.seconds)
    elif isinstance(result, ChatResult):
        end = result.end
    else:
        for event in result:  # the text went out as it was accepted
            if isinstance(event, ImageEvent):
                images += 1
                emit(event)
            elif isinstance(event, EndEvent):
                end = event
    counted = parts.counting
    usage = Usage(counted.prompt_tokens or 0, counted.tokens, images, counted.prompt_codes, counted.codes)
    return replace(end, usage=usage)
