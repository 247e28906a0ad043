"""Lossless drafts of later steps (FreeDave, arXiv:2510.00294): how often they would be right, and what they would gain.

    python -m benchmarks.drafts [--quick] [--json FILE] [--threads N]

The proposals of a step say which states the rule would reach in the steps after the next one if no probability changed. A next
forward that evaluates those states together goes on by one step and by as many more as were drafted right. Counted on
generations as they are: the shipped model with its own settings, and the middle one with random weights. A forward of d states
costs what a step of d requests costs; gain = times fewer forwards over that. Such a decoding is not part of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from benchmarks import common
from benchmarks.common import Row
from benchmarks.generation import Case, image_case, shipped_cases, text_case
from benchmarks.scaling import step_seconds
from llada_uni.backbone import Backbone
from llada_uni.generation import engine
from llada_uni.generation.settings import Settings, StepEvent
from llada_uni.generation.unmasking import Step, decide

STATES = (2, 3, 4)  # evaluated in one forward


def events_of(model: Backbone, case: Case) -> list[list[StepEvent]]:
    """The steps of each block of a case's generations."""
    blocks: list[list[StepEvent]] = []
    for prompt, branches in case.prompts:
        seen: list[StepEvent] = []
        engine.generate(model, prompt, case.settings, branches, on_step=seen.append)
        blocks += [list(steps) for _, steps in groupby(seen, lambda event: event.block_start)]
    return blocks


def drafted_right(steps: Sequence[StepEvent], at: int, settings: Settings, most: int) -> int:
    """How many states in a row, at most `most`, the proposals of step `at` foretell: those after the steps at + 1 and on."""
    event = steps[at]
    left = [i for i, final in enumerate(event.accepted) if not final]
    for number in range(1, most + 1):
        if at + number >= len(steps) or not left:
            return number - 1
        sure = [event.confidences[i] for i in left]
        count = min(settings.steps, settings.gen_length)
        proposed = [event.tokens[i] for i in left]
        now = Step(sure, settings.threshold, settings.block_length, count, event.step + number, proposals=proposed)
        changed = {left[n] for n in decide(settings.unmasking, now)}
        before, true = steps[at + number - 1], steps[at + number]
        happened = {i for i, final in enumerate(true.accepted) if final and not before.accepted[i]}
        if changed != happened or any(true.tokens[i] != event.tokens[i] for i in changed):
            return number - 1
        left = [i for i in left if i not in changed]
    return most


def forwards(steps: Sequence[StepEvent], settings: Settings, states: int) -> int:
    """Forwards that a block takes when each evaluates so many states."""
    done, count = 1, 1  # the first forward has no drafts
    while done < len(steps):
        done += 1 + drafted_right(steps, done - 1, settings, states - 1)
        count += 1
    return count


def rows_of(model: Backbone, name: str, case: Case, costs: dict[int, float]) -> Iterator[Row]:
    common.progress(f"{name}: {case.name}")
    blocks = events_of(model, case)
    plain = sum(map(len, blocks))
    asked = [(steps, at) for steps in blocks for at in range(len(steps) - 1)]
    right = sum(drafted_right(steps, at, case.settings, 1) for steps, at in asked)
    for states in STATES:
        fewer = plain / sum(forwards(steps, case.settings, states) for steps in blocks)
        more = {"forwards": plain, "times fewer": fewer, "times the cost": costs[states]}
        if asked:
            more["next state drafted right"] = right / len(asked)
        gain = fewer / costs[states]
        yield Row(f"{name}, {case.name}, {states} states", "plain", "gain", gain, 1.0, gain, more)


def measure(quick: bool) -> Iterator[Row]:
    middle = common.middle_backbone()
    shipped, cases = shipped_cases(1)
    codes, tokens = (64, 64) if quick else (256, 256)
    for name, model, these in (
        ("shipped", shipped, cases),
        ("middle", middle, [image_case(middle, codes), text_case(middle, 128, tokens, 1)]),
    ):
        seconds = {batch: step_seconds(model, 128, 32, batch, 9) for batch in (1, *STATES)}
        costs = {batch: seconds[batch] / seconds[1] for batch in STATES}
        for case in these:
            yield from rows_of(model, name, case, costs)


def main(given: Sequence[str] | None = None) -> int:
    options = common.start(common.arguments(__doc__), given)
    with torch.inference_mode():
        return common.run(lambda: measure(options.quick), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
