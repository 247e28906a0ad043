"""How a sample is put to the model, and its answer judged: one function a task, all with the same shape.

sample and seed -> a public call of the model -> text or images -> the checker -> a `Judged` answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image

from llada_uni.evaluation import answers
from llada_uni.evaluation.suite import Calls, Judged
from llada_uni.world.captions import caption
from llada_uni.world.checker import Checker, Reading
from llada_uni.world.evaluation import scoring
from llada_uni.world.render import cell_mask, render
from llada_uni.world.samples import Part, Sample, Turn
from llada_uni.world.scene import Scene


@dataclass(frozen=True)
class Context:
    """What every question needs: the model, the checker, and keyword arguments of the answers."""

    model: Any
    checker: Checker
    settings: Calls

    @property
    def pixels(self) -> int:
        return self.settings["size"]["pixels"]

    def picture(self, scene: Scene) -> Image.Image:
        return render(scene, self.pixels)

    def content(self, parts: list[Part]) -> list[str | Image.Image]:
        """Parts of a turn as the model takes them."""
        return [self.picture(part) if isinstance(part, Scene) else part for part in parts]

    def pictures_and_text(self, turn: Turn) -> tuple[list[Image.Image], str]:
        """A turn of the user that holds pictures and then one text."""
        *pictures, text = self.content(turn.parts)
        return cast(list[Image.Image], pictures), cast(str, text)  # in this order: see Turn


def words_of(sample: Sample) -> str:
    """The user's last words."""
    return sample.turns[-1].text


def say(reading: Reading) -> str:
    """What was read, for people."""
    lost = sum(reading.unknown)
    return caption(reading.scene) + (f" ({lost} cells unreadable)" if lost else "")


def ask_drawing(context: Context, sample: Sample, seed: int, thinking: bool = False) -> Judged:
    """Text to image; with thinking, `thought` tells how often the thought is the expected one."""
    prompt, size, drawing = words_of(sample), context.pixels, sample.answer[-1]
    assert isinstance(drawing, Scene)  # behind the thought, where there is one
    how = context.settings["think" if thinking else "generate"]
    result = context.model.generate_image(prompt, height=size, width=size, seed=seed, thinking=thinking, **how)
    picture = answers.picture_of(result)
    reading = context.checker.read(picture)
    scores, got = scoring.score_drawing(sample.expect, reading), say(reading)
    if thinking:
        thought = answers.thinking_of(result)
        scores["thought"] = float(scoring.normal(thought) == scoring.normal(sample.expect["thought"]))
        got = f"{thought} -> {got}"
    return Judged(prompt, scores, caption(drawing), got, [("drawn", picture)])


def ask_thinking(context: Context, sample: Sample, seed: int) -> Judged:
    """Text to image with a thought before."""
    return ask_drawing(context, sample, seed, thinking=True)


def ask_question(context: Context, sample: Sample, seed: int) -> Judged:
    """A question about one picture or two."""
    pictures, question = context.pictures_and_text(sample.turns[-1])
    answer = answers.text_of(context.model.understand(pictures, question, seed=seed, **context.settings["understand"]))
    scores = scoring.score_answer(sample.expect, answer)
    if sample.kind == "caption":
        scores["object_f1"] = scoring.object_f1(answer, sample.expect["answer"])
    shown = [(f"picture {i}", picture) for i, picture in enumerate(pictures, 1)]
    return Judged(question, scores, sample.expect["answer"], answer, shown)


def ask_edit(context: Context, sample: Sample, seed: int) -> Judged:
    """An edit of one picture, or with two references."""
    before, instruction = context.pictures_and_text(sample.turns[-1])
    result = context.model.edit_image(before, instruction, seed=seed, **context.settings["edit"])
    after = answers.picture_of(result)
    reading = context.checker.read(after)
    pictures = [*(("before", picture) for picture in before), ("after", after)]
    return Judged(
        instruction, scoring.score_edit(sample.expect, reading), caption(sample.expect["scene"]), say(reading), pictures
    )


def ask_inpaint(context: Context, sample: Sample, seed: int) -> Judged:
    """Refilling of cells: the open ones as the prompt says, the others as they were."""
    prompt, expect = words_of(sample), sample.expect
    before, mask = context.picture(expect["source"]), cell_mask(expect["cells"], context.pixels)
    after = answers.picture_of(context.model.inpaint(before, mask, prompt, seed=seed, **context.settings["inpaint"]))
    reading = context.checker.read(after)
    pictures = [("before", before), ("mask", mask), ("after", after)]
    return Judged(prompt, scoring.score_edit(expect, reading), caption(expect["scene"]), say(reading), pictures)


def _interleaved(
    context: Context, sample: Sample, seed: int, score: Callable[[dict, list[tuple[str, Reading | None]]], dict[str, float]]
) -> Judged:
    messages = [{"role": "user", "content": context.content(sample.turns[-1].parts)}]
    parts = context.model.interleave(messages, seed=seed, **context.settings["interleave"])
    frames = answers.frames_of(parts)
    read = [(text, None if picture is None else context.checker.read(picture)) for text, picture in frames]
    got = " / ".join(f"{text} [{'no picture' if r is None else say(r)}]" for text, r in read)
    wanted = " / ".join(part if isinstance(part, str) else f"[{caption(part)}]" for part in sample.answer)
    shown = [("given", part) for part in messages[0]["content"] if not isinstance(part, str)]
    shown += [(text, picture) for text, picture in frames if picture is not None]
    return Judged(words_of(sample), score(sample.expect, read), wanted, got, shown)


def ask_story(context: Context, sample: Sample, seed: int) -> Judged:
    """A story in words and pictures."""
    return _interleaved(context, sample, seed, scoring.score_story)


def ask_reasoning(context: Context, sample: Sample, seed: int) -> Judged:
    """A task solved step by step, with a picture a step."""
    return _interleaved(context, sample, seed, scoring.score_reasoning)


def ask_dialogue(context: Context, sample: Sample, seed: int) -> Judged:
    """A whole dialogue: every turn of the user is put to the model, which sees its own earlier answers, right or wrong.

    right: share of its answers that are right. whole: all are.
    """
    turns = [*sample.turns, Turn("assistant", sample.answer)]
    messages: list[dict[str, Any]] = []
    rights, got, pictures = [], [], []
    for number, (turn, expect) in enumerate(zip(turns[::2], sample.expect["turns"], strict=True)):
        content = context.content(turn.parts)
        messages.append({"role": "user", "content": content})
        result = context.model.chat(messages, seed=seed + number, **context.settings["chat"])
        pictures += [("shown", part) for part in content if not isinstance(part, str)]
        right, reply, said, drawn = _judge_turn(context, result, expect)
        messages.append({"role": "assistant", "content": reply})
        rights.append(right)
        got.append(said)
        pictures += drawn
    asked = " / ".join(turn.text for turn in turns[::2])
    wanted = " / ".join(part if isinstance(part, str) else f"[{caption(part)}]" for t in turns[1::2] for part in t.parts)
    share = sum(rights) / len(rights)
    return Judged(asked, {"right": share, "whole": float(share == 1.0)}, wanted, " / ".join(got), pictures)


def _judge_turn(
    context: Context, result: Any, expect: dict
) -> tuple[float, list[str | Image.Image], str, list[tuple[str, Image.Image]]]:
    """(right, the answer as the next message holds it, the same for people, pictures) of one turn."""
    if "answer" in expect:
        text = answers.text_of(result)
        return scoring.score_answer(expect, text)["right"], [text or " "], text, []
    found = answers.drawn_in(result)
    if found is None:
        text = answers.text_of(result)
        return 0.0, [text or " "], f"{text} [no picture]", []
    reading = context.checker.read(found)
    score = scoring.score_edit if "scene" in expect else scoring.score_drawing
    return score(expect, reading)["right"], [found], f"[{say(reading)}]", [("answered", found)]


def ask_decoder(context: Context, scene: Scene, seed: int, decoder: str, steps: int) -> Judged:
    """Codes of a rendered picture, decoded and read; no backbone takes part. distance: root mean square, 0 to 1."""
    before = context.picture(scene)
    codes = context.model.encode_image(before)
    after = answers.picture_of(context.model.decode_codes(codes, decoder=decoder, decoder_steps=steps, seed=seed))
    reading = context.checker.read(after)
    apart = np.asarray(before, np.float32) - np.asarray(after.resize(before.size), np.float32)
    scores = scoring.score_decoded(scene, reading) | {"distance": float(np.sqrt((apart**2).mean()) / 255)}
    return Judged("", scores, caption(scene), say(reading), [("before", before), ("after", after)])


ASK: dict[str, Callable[[Context, Sample, int], Judged]] = {
    "t2i": ask_drawing,
    "think": ask_thinking,
    "understand": ask_question,
    "edit": ask_edit,
    "inpaint": ask_inpaint,
    "story": ask_story,
    "reasoning": ask_reasoning,
    "dialogue": ask_dialogue,
}
"""By the sample's task."""
