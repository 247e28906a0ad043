"""The demonstration: every task once on the shipped model, and a page about it.

A model and a seed -> pictures and words, made now -> PNG files, `results.json`, and
`index.html` with the pictures embedded (llada_uni/world/demo/demo_page.py). Under each picture stands what the checker
of the small world, a program without any learned part, reads in it: the reader need not take the model's
word.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llada_uni.files.weights import atomic_file, write_json
from llada_uni.model import UniModel
from llada_uni.results import EndEvent, ImageResult, OnProgress, TextEvent, save_image
from llada_uni.world.demo.demo_page import render_page
from llada_uni.world.render import cell_mask

PROMPTS = (
    "a cartoon cat at the top left and a cartoon dog at the bottom right on green",
    "seven 3d strawberries on blue",
    "a flat fox and a flat rocket on purple",
    "cartoon lion top left, flat unicorn top right, 3d dragon middle center, flat whale bottom left on pink",
    "the number 407 above three 3d balloons",
)
UNSEEN = {PROMPTS[2]: "Never seen: no training picture had a fox and a rocket together."}
THINKING = (
    "two plus three flat lemons",
    "the animal that says quack in 3d style",
    "two bears and one more duck than bears in cartoon style",
    "a car at the opposite of the top left on blue",
    "the number after 2, 4, 6",
)
QUESTIONS = (
    "what is at the top left?",
    "where is the dog?",
    "which color is the background?",
    "how many dogs are there?",
    "is the cat above the dog?",
    "describe the picture",
)
TALK = ("what is at the bottom right?", "which style is it?")
EDITS = (
    "replace the cat with a fox",
    "make the background pink",
    "add a lemon at the top right",
    "remove the dog",
    "make everything 3d",
)
REFILL = (6, "cartoon cat top left, cartoon apple bottom left, cartoon dog bottom right on green")
STORIES = ("tell a story about mia the bear and leo the penguin by the sea in cartoon style in four pictures",)


def run_demo(
    model: UniModel,
    out: Path,
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Runs every task, writes the page, the pictures and `results.json` to `out`, and returns the results.

    say: hears a line about each step as it is finished. The same seed gives the same pictures.
    """
    for old in out.glob("story-*.png"):  # an earlier story may have had more frames
        old.unlink()
    show = _Show(model, out, seed, say, on_progress)
    started = time.perf_counter()
    first = show.draw()
    show.think()
    show.questions(first)
    show.edits(first)
    show.refill(first)
    show.stories()
    results = {
        "model": str(model.folder.name),
        "seed": seed,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "device": str(model.parts.device),
            "dtype": str(model.parts.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "processor": platform.machine(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "parameters": sum(p.numel() for p in model.parts.backbone.parameters()),
        "seconds": round(time.perf_counter() - started, 2),
        "sections": show.sections,
    }
    write_json(out / "results.json", results)
    with atomic_file(out / "index.html") as temporary:
        temporary.write_text(render_page(results, out), encoding="utf-8")
    say(f"page: {out / 'index.html'}")
    return results


class _Show:
    """The steps, and what they have made so far."""

    def __init__(
        self,
        model: UniModel,
        out: Path,
        seed: int,
        say: Callable[[str], None],
        on_progress: OnProgress | None,
    ) -> None:
        self.model, self.out, self.seed, self.say, self.on_progress = model, out, seed, say, on_progress
        self.sections: list[dict[str, Any]] = []
        self.checker: Any = None

    def section(self, name: str, title: str, note: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        self.sections.append({"name": name, "title": title, "note": note, "items": items})
        self.say(title)
        return items

    def picture(self, image: Image.Image, name: str) -> dict[str, Any]:
        """Saves a picture; its file, and what the checker reads in it."""
        save_image(image, self.out / f"{name}.png")
        return {"file": f"{name}.png", "reads": self.read(image)}

    def read(self, image: Image.Image) -> str | None:
        """The checker's caption, or None for a picture that is not of the small world's size."""
        from llada_uni.world.captions import caption
        from llada_uni.world.checker import Checker
        from llada_uni.world.render import PIXELS

        if image.size != (PIXELS, PIXELS):
            return None
        if self.checker is None:
            self.checker = Checker(size=image.width)
        return caption(self.checker.read(image).scene)

    def result(self, result: ImageResult, name: str) -> dict[str, Any]:
        """A drawn result as an item: its picture, and everything but the pixels."""
        self.say(f"  {result.prompt!r}: {name}.png in {result.seconds['total']:.1f} s")
        return {**result.to_json(), **self.picture(result.image, name)}

    def draw(self) -> ImageResult:
        items = self.section("draw", "Drawing from words", "Text to codes to pixels, by one model.")
        drawn = []
        for number, prompt in enumerate(PROMPTS):
            drawn.append(self.model.generate_image(prompt, seed=self.seed + number, on_progress=self.on_progress))
            item = self.result(drawn[-1], f"draw-{number + 1}")
            items.append({**item, "unseen": UNSEEN.get(prompt)})
        return drawn[0]

    def think(self) -> None:
        note = "The prompt does not say what to draw; the model works it out in words first."
        items = self.section("think", "Drawing after thinking", note)
        for number, prompt in enumerate(THINKING):
            result = self.model.generate_image(prompt, seed=self.seed + number, thinking=True, on_progress=self.on_progress)
            items.append(self.result(result, f"think-{number + 1}"))

    def questions(self, drawn: ImageResult) -> None:
        note = "The first picture, read back through the image tokenizer as any picture from outside would be."
        items = self.section("understand", "Answering questions about it", note)
        picture = {"file": "draw-1.png", "reads": self.read(drawn.image)}
        exchange = []
        for question in QUESTIONS:
            answer = self.model.understand(drawn.image, question, seed=self.seed, on_progress=self.on_progress)
            exchange.append({"question": question, "answer": answer.text, **answer.to_json()})
            self.say(f"  {question} {answer.text}")
        items.append({**picture, "kind": "questions", "exchange": exchange})
        messages: list[dict[str, Any]] = []
        exchange = []
        for number, words in enumerate(TALK):
            messages.append({"role": "user", "content": [drawn.image, words] if number == 0 else words})
            reply = self.model.chat(messages, seed=self.seed, on_progress=self.on_progress)
            messages.append({"role": "assistant", "content": list(reply.parts)})
            exchange.append({"question": words, "answer": reply.text, **reply.to_json()})
            self.say(f"  {words} {reply.text}")
        items.append({**picture, "kind": "dialogue", "exchange": exchange})

    def edits(self, drawn: ImageResult) -> None:
        note = "One instruction each, all on the first picture; what is not named should stay."
        items = self.section("edit", "Editing it", note)
        for number, instruction in enumerate(EDITS):
            result = self.model.edit_image(drawn.image, instruction, seed=self.seed, on_progress=self.on_progress)
            items.append({**self.result(result, f"edit-{number + 1}"), "before": "draw-1.png"})

    def refill(self, drawn: ImageResult) -> None:
        note = "The white part of the mask is drawn again; all other codes are kept as they are."
        items = self.section("inpaint", "Filling a part of it", note)
        cell, prompt = REFILL
        mask = cell_mask([cell], drawn.image.width)
        save_image(mask, self.out / "mask.png")
        result = self.model.inpaint(drawn.image, mask, prompt, seed=self.seed, on_progress=self.on_progress)
        items.append({**self.result(result, "inpaint-1"), "before": "draw-1.png", "mask": "mask.png"})

    def stories(self) -> None:
        note = "Sentences and pictures in turn; each picture is drawn knowing everything before it."
        items = self.section("story", "Telling an illustrated story", note)
        for number, prompt in enumerate(STORIES):
            frames: list[dict[str, Any]] = []
            words, end = "", None
            self.say(f"  {prompt!r}")
            for event in self.model.interleave(prompt, seed=self.seed, on_progress=self.on_progress):
                if isinstance(event, TextEvent):
                    words = event.text
                    self.say(f"    {words}")
                elif isinstance(event, EndEvent):
                    end = event.to_json()
                else:
                    name = f"story-{number + 1}-{event.number}"
                    frames.append({"text": words, **self.picture(event.image, name)})
                    words = ""
            if words:
                frames.append({"text": words})
            items.append({"prompt": prompt, "frames": frames, **(end or {})})
