"""The suites: draw samples, ask the model through its public calls, read the pictures, score.

samples of a split (seeded) -> call -> picture or text -> checker -> scores -> Record. `run_suites` puts the
records together into a report with 95 % intervals. The numbers come from the checker alone, never from the
model.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation import calls, scoring
from llada_uni.evaluation.report import build_report, write_html
from llada_uni.world.checker import Checker
from llada_uni.world.render import render
from llada_uni.world.samples import Sample
from llada_uni.world.scene import Scene, sample_scene
from llada_uni.world.tasks import sample_task

DEFAULT_SETTINGS: dict[str, dict[str, Any]] = {
    "generate": {"decoder": "turbo"},
    "think": {"decoder": "turbo"},
    "understand": {},
    "edit": {"decoder": "turbo"},
    "inpaint": {"decoder": "turbo"},
    "interleave": {"max_frames": 4, "decoder": "turbo"},
    "chat": {"decoder": "turbo"},
    "decode": {},
    "size": {"pixels": 128},
}
"""Keyword arguments of the model's calls; what is not named is the model directory's own default. Both are
written into the report."""


@dataclass
class Record:
    """One judged answer. key: its class in the report; score: the suite's headline number for it; scores:
    all of them; prompt, wanted, got: for people; pictures: (caption, picture) pairs for the page."""

    suite: str
    key: str
    prompt: str
    score: float
    scores: dict[str, float]
    wanted: str = ""
    got: str = ""
    pictures: list[tuple[str, Image.Image]] = field(default_factory=list)
    seconds: float = 0.0
    error: bool = False


@dataclass(frozen=True)
class Context:
    """What every suite needs: the model, the checker, the settings, and the seed of a sample."""

    model: Any
    checker: Checker
    settings: dict[str, dict[str, Any]]

    @property
    def pixels(self) -> int:
        return self.settings["size"]["pixels"]

    def picture(self, scene: Scene) -> Image.Image:
        return render(scene, self.pixels)


def say(scene: Scene) -> str:
    """A scene in short, for people."""
    cells = ", ".join("-" if t is None else f"{t.style} {t.concept}" for t in scene.cells)
    return f"{cells} | {' + '.join(scene.background)}"


def _prompt(sample: Sample) -> str:
    return next(p for p in sample.turns[-1].parts if isinstance(p, str))


def _drawn(context: Context, sample: Sample, seed: int, thinking: bool) -> Record:
    prompt, size = _prompt(sample), context.pixels
    how = context.settings["think" if thinking else "generate"]
    result = context.model.generate_image(
        prompt, height=size, width=size, seed=seed, thinking=thinking, **how
    )
    picture = calls.picture_of(result)
    reading = context.checker.read(picture)
    scores = scoring.score_objects(sample.expect, reading)
    got = say(reading.scene)
    if thinking:
        thought = calls.thinking_of(result)
        scores["thought"] = float(scoring.normal(thought) == scoring.normal(sample.expect["thought"]))
        got = f"{thought} -> {got}"
    wanted = say(sample.answer[-1]) if isinstance(sample.answer[-1], Scene) else ""
    return Record(
        sample.task, sample.kind, prompt, scores["objects"], scores, wanted, got, [("drawn", picture)]
    )


def ask_t2i(context: Context, sample: Sample, seed: int) -> Record:
    """Text to image; the headline is the share of asked objects that are right."""
    return _drawn(context, sample, seed, thinking=False)


def ask_think(context: Context, sample: Sample, seed: int) -> Record:
    """The same with a thought before; `thought` tells how often it is the expected sentence."""
    return _drawn(context, sample, seed, thinking=True)


def ask_understand(context: Context, sample: Sample, seed: int) -> Record:
    """A question about a picture; right means the canonical answer."""
    scene, question = sample.turns[-1].parts
    picture = context.picture(scene)
    how = context.settings["understand"]
    answer = calls.text_of(context.model.understand([picture], question, **how))
    scores = scoring.score_answer(sample.expect, answer)
    wanted = sample.expect["answer"]
    return Record(
        "understand", sample.kind, question, scores["exact"], scores, wanted, answer, [("asked", picture)]
    )


def ask_edit(context: Context, sample: Sample, seed: int) -> Record:
    """An edit; right means that the asked change is there and everything else is as it was."""
    source, instruction = sample.turns[-1].parts
    before = context.picture(source)
    result = context.model.edit_image([before], instruction, seed=seed, **context.settings["edit"])
    after = calls.picture_of(result)
    reading = context.checker.read(after)
    scores = scoring.score_edit(sample.expect, reading)
    wanted, got = say(sample.expect["scene"]), say(reading.scene)
    pictures = [("before", before), ("after", after)]
    return Record("edit", sample.kind, instruction, scores["exact"], scores, wanted, got, pictures)


def ask_inpaint(context: Context, sample: Sample, seed: int) -> Record:
    """Refilling of cells; right means open cells as the prompt says and the others as they were."""
    prompt, expect = _prompt(sample), sample.expect
    before, mask = context.picture(expect["source"]), calls.cell_mask(expect["cells"], context.pixels)
    result = context.model.inpaint(before, mask, prompt, seed=seed, **context.settings["inpaint"])
    after = calls.picture_of(result)
    reading = context.checker.read(after)
    scores = scoring.score_inpaint(expect, reading)
    key = "one cell" if len(expect["cells"]) == 1 else "two cells"
    pictures = [("before", before), ("mask", mask), ("after", after)]
    return Record(
        "inpaint", key, prompt, scores["exact"], scores, say(expect["scene"]), say(reading.scene), pictures
    )


def ask_story(context: Context, sample: Sample, seed: int) -> Record:
    """A story; the headline is whether every asked character is in every picture."""
    prompt = _prompt(sample)
    parts = context.model.interleave(prompt, seed=seed, **context.settings["interleave"])
    frames = calls.frames_of(parts)
    read = [(text, None if p is None else context.checker.read(p)) for text, p in frames]
    scores = scoring.score_story(sample.expect, read)
    key = "one character" if len(sample.expect["characters"]) == 1 else "two characters"
    got = " / ".join(f"{text} [{'no picture' if r is None else say(r.scene)}]" for text, r in read)
    pictures = [(text, p) for text, p in frames if p is not None]
    wanted = ", ".join(f"{c['style'] or 'any'} {c['concept']}" for c in sample.expect["characters"])
    return Record("stories", key, prompt, scores["characters"], scores, wanted, got, pictures)


def ask_dialogue(context: Context, sample: Sample, seed: int) -> Record:
    """The last turn of a dialogue whose earlier answers are given; right as for a question, or as for an
    edit."""
    scene = sample.turns[0].parts[0]
    before = context.picture(scene)
    messages = [
        {"role": t.role, "content": [before if isinstance(p, Scene) else p for p in t.parts]}
        for t in sample.turns
    ]
    result = context.model.chat(messages, seed=seed, **context.settings["chat"])
    asked = " / ".join(p for t in sample.turns for p in t.parts if isinstance(p, str))
    if sample.kind == "edit":
        after = calls.picture_of(result)
        reading = context.checker.read(after)
        scores = scoring.score_edit(sample.expect, reading)
        wanted, got = say(sample.expect["scene"]), say(reading.scene)
        pictures = [("before", before), ("after", after)]
    else:
        wanted, got = sample.expect["answer"], calls.text_of(result)
        scores, pictures = scoring.score_answer(sample.expect, got), [("asked", before)]
    return Record("dialogue", sample.kind, asked, scores["exact"], scores, wanted, got, pictures)


def ask_decoder(context: Context, scene: Scene, seed: int, variant: str) -> Record:
    """Codes of a rendered picture, decoded and read; no backbone takes part. Right: things read in their
    cells."""
    before = context.picture(scene)
    how = context.settings["decode"]
    codes = context.model.encode_image(before)
    after = calls.picture_of(context.model.decode_codes(codes, decoder=variant, seed=seed, **how))
    reading = context.checker.read(after)
    scores = scoring.score_decoded(scene, reading)
    pictures = [("before", before), ("after", after)]
    return Record("decoder", variant, "", scores["objects"], scores, say(scene), say(reading.scene), pictures)


_ASK: dict[str, tuple[str, Callable[[Context, Sample, int], Record]]] = {
    "t2i": ("t2i", ask_t2i),
    "understand": ("understand", ask_understand),
    "edit": ("edit", ask_edit),
    "inpaint": ("inpaint", ask_inpaint),
    "stories": ("story", ask_story),
    "think": ("think", ask_think),
    "dialogue": ("dialogue", ask_dialogue),
}
_ZERO = {
    "t2i": ("objects", "exact"),
    "think": ("objects", "exact", "thought"),
    "understand": ("exact",),
    "edit": ("asked", "kept", "exact"),
    "inpaint": ("refilled", "kept", "exact"),
    "dialogue": ("exact",),
    "stories": ("characters", "styles", "agreement", "events"),
}  # what an answer that cannot be used scores nought in
_HOPELESS = 10  # so many unusable answers from the start on, and the suite is given up
SUITES: tuple[str, ...] = (*_ASK, "decoder", "robust")
"""Names of the suites. "robust" asks t2i and understand in held-out wordings."""


def draw_samples(suite: str, limit: int, seed: int, split: str) -> list[Sample]:
    """The `limit` samples that a suite asks: the same for the same arguments, whatever the model."""
    rng = random.Random(f"{suite}/{split}/{seed}")
    if suite == "robust":
        return [sample_task(rng, ("t2i", "understand")[i % 2], split, "heldout") for i in range(limit)]
    return [sample_task(rng, _ASK[suite][0], split) for _ in range(limit)]


def _records(context: Context, suite: str, limit: int, seed: int, split: str) -> Iterable[Record]:
    if suite == "decoder":
        rng = random.Random(f"decoder/{split}/{seed}")
        for i in range(limit):
            scene = sample_scene(rng, split)
            for variant in ("turbo", "base"):
                yield ask_decoder(context, scene, seed + i, variant)
        return
    errors = 0
    for i, sample in enumerate(draw_samples(suite, limit, seed, split)):
        name = suite if suite in _ASK else sample.task
        try:
            record = _ASK[name][1](context, sample, seed + i)
        except (
            UserError
        ) as error:  # an answer that cannot be used is a wrong answer, not the end of everything
            errors += 1
            if errors == i + 1 and errors in (_HOPELESS, limit):
                raise  # but a model that cannot do the task at all is no model with a score of 0
            scores = {key: 0.0 for key in _ZERO[name]}
            record = Record(
                suite, sample.kind, _prompt(sample), 0.0, scores, got=f"error: {error}", error=True
            )
        record.suite = suite
        if suite == "robust":
            record.key = sample.task
        yield record


def _defaults_of(model: Any) -> dict | None:
    """The settings that the model's directory brings, where it has any: None for other models."""
    defaults = getattr(getattr(model, "parts", None), "defaults", None)
    return defaults.to_json() if hasattr(defaults, "to_json") else None


def run_suites(
    model: Any,
    suites: Iterable[str] = (
        "t2i",
        "understand",
        "edit",
        "inpaint",
        "stories",
        "think",
        "dialogue",
        "decoder",
    ),
    limit: int = 200,
    seed: int = 0,
    split: str = "heldout",
    json_path: str | Path | None = None,
    html_dir: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    checker: Checker | None = None,
) -> dict:
    """Evaluates `model` (llada_uni.model.UniModel, or anything with its calls).

    suites: names of SUITES; limit: samples a suite (at least 1); split: "heldout" or "seen"; settings:
    changes to DEFAULT_SETTINGS; progress(suite, done, total) after every sample; json_path, html_dir: where
    to write the report and a page of pictures right and wrong. Sample i of a suite is drawn with seed + i.

    Returns {"suites": {NAME: {"overall", "interval" (95 % Wilson), "n", "classes": {KEY: {"score", "n",
    "interval"}}, "metrics": {NAME: mean}, "errors", "seconds", "meaning"}}, "settings": {...}}. "errors"
    counts answers that were no picture or no text; they score 0. A suite whose first samples all fail has
    only "failed": the reason. UserError for unknown names, or when every suite fails.
    """
    suites = list(suites)
    unknown = [s for s in suites if s not in SUITES]
    if unknown or not suites:
        raise UserError(f"unknown suites {unknown}; known: {', '.join(SUITES)}")
    if split not in ("heldout", "seen"):
        raise UserError(f"unknown split {split!r}; known: heldout, seen")
    if limit < 1:
        raise UserError(f"at least 1 sample a suite is needed, asked for {limit}")
    used = {call: {**how, **(settings or {}).get(call, {})} for call, how in DEFAULT_SETTINGS.items()}
    context = Context(model, checker or Checker(size=used["size"]["pixels"]), used)
    pinned = {
        "limit": limit,
        "seed": seed,
        "split": split,
        "calls": used,
        "model_defaults": _defaults_of(model),
    }
    records: list[Record] = []
    failed: dict[str, str] = {}
    report: dict = {}
    for number, suite in enumerate(suites, 1):
        total = limit * 2 if suite == "decoder" else limit
        started = time.perf_counter()
        try:
            for done, record in enumerate(_records(context, suite, limit, seed, split), 1):
                now = time.perf_counter()
                record.seconds, started = now - started, now
                records.append(record)
                if progress is not None:
                    progress(suite, done, total)
        except UserError as error:  # the other suites may still work; the report says which did not
            failed[suite] = str(error)
            records = [r for r in records if r.suite != suite]
            if len(failed) == len(suites):
                raise
        report = build_report(records, suites[:number], failed, pinned)
        if json_path is not None:  # after every suite: a long evaluation that is stopped keeps what it has
            Path(json_path).parent.mkdir(parents=True, exist_ok=True)
            Path(json_path).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if html_dir is not None:
        write_html(report, records, Path(html_dir))
    return report
