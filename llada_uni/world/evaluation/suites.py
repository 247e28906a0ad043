"""The suites: which samples each asks, and one run over them.

seeded samples of the world -> questions through the model's public calls (asking.py) -> scores by the checker (scoring.py) ->
a report with 95 % intervals (report.py). The counterparts in the report of LLaDA2.0-Uni: geneval (GenEval), understand, wise
(WISE, without and with thinking), text (numbers in the picture), edit (ImgEdit, several references, refilling), intergen
(stories, reasoning with pictures), dialogue, robust (the same requests in other words), decoder (codes to pixels).
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from math import lcm
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.world.checker import Checker
from llada_uni.world.drawing import GENEVAL
from llada_uni.world.edits import EDIT_KINDS
from llada_uni.world.evaluation.asking import ASK, Context, Record, ask_decoder, ask_drawing, words_of
from llada_uni.world.evaluation.report import build_report, write_html
from llada_uni.world.questions import UNDERSTAND_KINDS
from llada_uni.world.render import PIXELS
from llada_uni.world.rewording import mistyped
from llada_uni.world.samples import Sample
from llada_uni.world.sampling import sample_scene
from llada_uni.world.scene import Scene
from llada_uni.world.tasks import KINDS, sample_task

DEFAULT_SETTINGS: dict[str, dict[str, Any]] = {
    "generate": {"decoder": "turbo"},
    "think": {"decoder": "turbo"},
    "understand": {},
    "edit": {"decoder": "turbo"},
    "inpaint": {"decoder": "turbo"},
    "interleave": {"max_frames": 6, "decoder": "turbo"},
    "chat": {"decoder": "turbo"},
    "size": {"pixels": PIXELS},
}
"""Keyword arguments of the model's calls; what is not named is the model directory's own default. Both are
written into the report."""

Kind = tuple[str, str]


def _by_turns(*tasks: str) -> Iterator[Kind]:
    """A kind of each task in turn, until all their kinds have come equally often."""
    kinds = [tuple(KINDS[task]) for task in tasks]
    for i in range(lcm(*(len(names) for names in kinds))):
        yield from ((task, names[i % len(names)]) for task, names in zip(tasks, kinds, strict=True))


SUITES: dict[str, tuple[Kind, ...]] = {
    "geneval": tuple(("t2i", kind) for kind in GENEVAL),
    "understand": tuple(("understand", kind) for kind in UNDERSTAND_KINDS),
    "wise": tuple(("think", kind) for kind in KINDS["think"]),
    "text": (("t2i", "number"),),
    "edit": (*(("edit", kind) for kind in EDIT_KINDS), ("inpaint", "refill")),
    "intergen": tuple(_by_turns("story", "reasoning")),
    "dialogue": tuple(("dialogue", kind) for kind in KINDS["dialogue"]),
    "robust": tuple(
        kind
        for pair in zip([("t2i", k) for k in GENEVAL], [("understand", k) for k in UNDERSTAND_KINDS], strict=False)
        for kind in pair
    ),
    "decoder": (),
}
"""Every suite with its (task, kind) pairs, asked by turns. The decoder's pictures are no samples of a task."""
DECODERS = {"base50": ("base", 50), "turbo8": ("turbo", 8), "turbo4": ("turbo", 4)}
_PART_OF = {"story": "stories", "reasoning": "reasoning"}
_MISTYPED = 1 / 3  # of the reworded requests hold a typing mistake too
_HOPELESS = 10  # so many unusable answers from the start on, and the suite is given up


@dataclass(frozen=True)
class Case:
    """One question of a suite: its part of the suite ("" where there are none), its class, and who asks it."""

    part: str
    key: str
    sample: Sample
    seed: int
    ask: Callable[[Context, Sample, int], Record]


def draw_samples(suite: str, limit: int, seed: int, split: str, wordings: str = "train") -> list[Sample]:
    """The `limit` samples that a suite asks: the same for the same arguments, whatever the model; in other wordings, the same
    things are asked. None for the decoder. UserError for an unknown split."""
    numbered = zip(range(limit), cycle(SUITES[suite]), strict=False)
    return [sample_task(_rng(suite, split, seed, i), task, split, wordings, kind) for i, (task, kind) in numbered]


def decoder_scene(split: str, seed: int, i: int) -> Scene:
    """What picture i of the suite `decoder` shows."""
    return sample_scene(_rng("decoder", split, seed, i), split, numbers=0.1)


def _rng(suite: str, split: str, seed: int, i: int) -> random.Random:
    """What sample i of a suite is drawn with."""
    return random.Random(f"{suite}/{split}/{seed}/{i}")


def cases(suite: str, limit: int, seed: int, split: str) -> Iterator[Case]:
    """What a suite asks, one after another."""
    reworded = iter(_reworded(suite, limit, seed, split)) if suite == "robust" else None
    for i, sample in enumerate(draw_samples(suite, limit, seed, split)):
        key, ask = ("inpainting" if sample.task == "inpaint" else sample.kind), ASK[sample.task]
        if suite == "wise":
            yield Case("without", key, sample, seed + i, ask_drawing)
            yield Case("with", key, sample, seed + i, ask)
        elif suite == "robust":
            yield Case("plain", f"{sample.task}: {key}", sample, seed + i, ask)
            yield Case("reworded", f"{sample.task}: {key}", next(reworded), seed + i, ask)
        else:
            yield Case(_PART_OF.get(sample.task, "") if suite == "intergen" else "", key, sample, seed + i, ask)


def _reworded(suite: str, limit: int, seed: int, split: str) -> Iterator[Sample]:
    """The samples of a suite in held-out wordings (another order of clauses among them), some mistyped."""
    rng = random.Random(f"{suite}/{split}/{seed}/mistyped")
    for sample in draw_samples(suite, limit, seed, split, "heldout"):
        if rng.random() < _MISTYPED:
            sample.turns[-1].parts[-1] = mistyped(rng, words_of(sample))
        yield sample


def _answers(context: Context, suite: str, limit: int, seed: int, split: str) -> Iterator[Record]:
    """The judged answers of a suite."""
    if suite == "decoder":
        for i in range(limit):
            scene = decoder_scene(split, seed, i)
            for part, (decoder, steps) in DECODERS.items():
                record = ask_decoder(context, scene, seed + i, decoder, steps)
                record.part = record.key = part
                yield record
        return
    errors = 0
    for i, case in enumerate(cases(suite, limit, seed, split)):
        try:
            record = case.ask(context, case.sample, case.seed)
        except UserError as error:  # an answer that cannot be used is a wrong answer, not the end of everything
            errors += 1
            if errors == i + 1 and errors in (_HOPELESS, limit):
                raise  # but a model that cannot do the task at all is no model with a score of 0
            record = Record(words_of(case.sample), {"right": 0.0}, got=f"error: {error}", error=True)
        record.part, record.key = case.part, case.key
        yield record


def _total(suite: str, limit: int) -> int:
    return limit * {"wise": 2, "robust": 2, "decoder": len(DECODERS)}.get(suite, 1)


def _defaults_of(model: Any) -> dict | None:
    """The settings that the model's directory brings, where it has any: None for other models."""
    defaults = getattr(getattr(model, "parts", None), "defaults", None)
    return defaults.to_json() if hasattr(defaults, "to_json") else None


def run_suites(
    model: Any,
    suites: Iterable[str] = tuple(SUITES),
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

    suites: names of SUITES; limit: samples a suite (at least 1; wise, robust and decoder ask each of them several times);
    split: "heldout" or "seen"; settings: changes to DEFAULT_SETTINGS; progress(suite, done, total) after every answer;
    json_path, html_dir: where to write the report and a page of pictures right and wrong. Sample i of a suite is answered
    with seed + i.

    Returns {"suites": {NAME: {"overall", "interval" (95 % Wilson), "n", "classes": {KEY: {"score", "n",
    "interval"}}, "metrics": {NAME: mean}, "errors", "seconds", "meaning"}}, "settings": {...}}. Suites of several parts hold
    each part in the same form under its name: wise "without" and "with", robust "plain" and "reworded", intergen "stories"
    and "reasoning", decoder "base50", "turbo8" and "turbo4". "overall" is the mean of the classes.
    "errors" counts answers that were no picture or no text; they score 0. A suite whose first samples all fail has
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
    pinned = {"limit": limit, "seed": seed, "split": split, "calls": used, "model_defaults": _defaults_of(model)}
    records: list[Record] = []
    failed: dict[str, str] = {}
    report: dict = {}
    for number, suite in enumerate(suites, 1):
        started = time.perf_counter()
        try:
            for done, record in enumerate(_answers(context, suite, limit, seed, split), 1):
                now = time.perf_counter()
                record.suite, record.seconds, started = suite, now - started, now
                records.append(record)
                if progress is not None:
                    progress(suite, done, _total(suite, limit))
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
