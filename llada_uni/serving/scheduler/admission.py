"""Whether a task is within the limits of a service, before any work is done for it.

What flows through: a Task -> nothing, or UserError with the limit in words. Whether its values make sense is checked by
the task itself.
"""

from __future__ import annotations

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.serving.scheduler.limits import Limits
from llada_uni.serving.tasks import Chat, Draw, Edit, Inpaint, Interleaved, Task


def check_task(task: Task, limits: Limits) -> None:
    """UserError when words, pictures or what is asked for exceed the limits."""
    characters = sum(map(len, _words(task)))
    if characters > limits.max_prompt_chars:
        raise UserError(f"the request has {characters} characters of text; allowed: {limits.max_prompt_chars}")
    pictures = _pictures(task)
    if len(pictures) > limits.max_pictures:
        raise UserError(f"the request has {len(pictures)} pictures; allowed: {limits.max_pictures}")
    for picture in pictures:
        _check_size("a picture of the request", picture.width, picture.height, limits)
    if isinstance(task, Draw | Edit | Interleaved) and task.height and task.width:
        _check_size("the picture asked for", task.width, task.height, limits)
    if isinstance(task, Chat | Interleaved) and (task.max_tokens or 0) > limits.max_tokens:
        raise UserError(f"max_tokens is {task.max_tokens}; allowed: {limits.max_tokens}")


def _check_size(what: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise UserError(f"{what} has {width} x {height} pixels; allowed: {limits.max_pixels} in all")


def _words(task: Task) -> list[str]:
    if isinstance(task, Draw | Inpaint):
        return [task.prompt]
    if isinstance(task, Edit):
        return [task.instruction]
    return [part for turn in task.turns for part in turn.parts if isinstance(part, str)]


def _pictures(task: Task) -> list[Image.Image]:
    if isinstance(task, Draw):
        return []
    if isinstance(task, Edit):
        return list(task.images)
    if isinstance(task, Inpaint):
        return [task.image]
    return [part for turn in task.turns for part in turn.parts if isinstance(part, Image.Image)]
