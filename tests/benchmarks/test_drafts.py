"""States drafted from one step's proposals, against the steps that really followed."""

from __future__ import annotations

import torch

from benchmarks import drafts
from llada_uni.generation.settings import Settings, StepEvent

SETTINGS = Settings(mask_id=9, block_length=4, steps=4, gen_length=4, threshold=0.9)


def event(step: int, tokens: str, final: str, sure: tuple[float, ...]) -> StepEvent:
    return StepEvent(0, tuple(map(int, tokens)), tuple(mark == "x" for mark in final), step, sure)


def test_a_state_is_right_if_the_same_tokens_are_accepted_at_the_same_positions():
    first = event(0, "1234", "x...", (0.99, 0.8, 0.5, 0.6))  # foretells 2, then 4, then 3
    right = [first, event(1, "1234", "xx..", (1, 0.8, 0.5, 0.6)), event(2, "1234", "xx.x", (1, 1, 0.5, 0.6))]
    assert drafts.drafted_right(right, 0, SETTINGS, 1) == 1
    assert drafts.drafted_right(right, 0, SETTINGS, 3) == 2  # the block of this test ends there
    assert drafts.forwards(right, SETTINGS, 2) == 2 and drafts.forwards(right, SETTINGS, 3) == 2
    other_token = [first, event(1, "1534", "xx..", (1, 0.8, 0.5, 0.6))]
    other_position = [first, event(1, "1234", "x.x.", (1, 0.8, 0.95, 0.6))]
    assert drafts.drafted_right(other_token, 0, SETTINGS, 1) == drafts.drafted_right(other_position, 0, SETTINGS, 1) == 0
    assert drafts.forwards(other_token, SETTINGS, 2) == 2


def test_a_generation_is_cut_into_its_blocks():
    from benchmarks import h200
    from benchmarks.generation import Case

    model = h200.make_backbone(h200.tiny_backbone_config(), torch.device("cpu"), torch.float32)
    settings = Settings(mask_id=9, block_length=4, steps=2, gen_length=8, threshold=1.0, allowed=range(8))
    blocks = drafts.events_of(model, Case("text", settings, [([1, 2, 3, 4], None)]))
    assert [len(steps) for steps in blocks] == [2, 2]
    assert [steps[0].block_start for steps in blocks] == [0, 4]
