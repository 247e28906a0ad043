"""The definition of block-diffusion generation: slow and obvious. The engine must equal it token for token.

prompt -> block after block, step after step: the whole sequence of every branch is computed anew, the logits
of the open places are combined, tokens chosen, some accepted -> answer.
Source: arXiv:2604.20796, block diffusion and guidance. Axes: T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal
from llada_uni.generation.guidance import combine
from llada_uni.generation.sampling import pick
from llada_uni.generation.settings import Generation, OnStep, Settings, StepEvent, Task, prepare
from llada_uni.generation.unmasking import accept, quota


@torch.no_grad()
def generate(
    model: Backbone,
    prompt: Sequence[int],
    settings: Settings,
    branches: Mapping[str, Sequence[int]] | None = None,
    generator: torch.Generator | None = None,
    canvas: Sequence[int] | None = None,
    on_step: OnStep | None = None,
) -> Generation:
    """Generate an answer behind `prompt`. The same arguments, results and errors as
    `engine.Engine.generate`.
    """
    task = prepare(model.config, prompt, settings, branches, canvas, generator)
    length, stops = settings.gen_length, frozenset(settings.stop_ids)
    steps = min(settings.steps, length)
    hanging = task.end - task.start - length
    answer = [*task.canvas, *[settings.mask_id] * hanging]
    is_open = [*task.open, *[True] * hanging]
    result = Generation([])

    def stands() -> bool:
        return task.has_stop(answer[:length], is_open[:length], stops)

    first_block = task.start // settings.block_length
    last_block = -(-task.end // settings.block_length)
    for block in range(first_block, last_block):
        begin = block * settings.block_length
        stop = min(begin + settings.block_length, task.end)
        for step in range(steps):
            if settings.early_stop and stands():
                break
            places = [c - task.start for c in range(max(begin, task.start), stop) if is_open[c - task.start]]
            if not places:
                break
            logits = torch.stack(
                [_logits(model, task, b, answer, stop, settings) for b in range(len(task.prompts))]
            )
            logits = combine(logits, settings.guidance)
            uniform = None
            if settings.temperature > 0:
                uniform = torch.rand(stop - begin, generator=generator, device=generator.device)
                uniform = uniform[[task.start + i - begin for i in places]].to(logits.device)
            logits = logits[[task.start + i for i in places]]
            choice, confidence = pick(
                logits, uniform, settings.temperature, settings.top_k, settings.top_p, task.forbidden
            )
            tokens = [task.token_of(i) for i in choice.tolist()]
            least = quota(settings.block_length, steps, step)
            accepted = accept(confidence.tolist(), least, settings.threshold)
            drafts = list(answer)
            for i, token in zip(places, tokens, strict=True):
                drafts[i] = token
            for i in accepted:
                answer[places[i]] = tokens[i]
                is_open[places[i]] = False
            result.evaluations += 1
            result.branch_evaluations += len(task.prompts)
            result.accepted.append(len(accepted))
            if on_step is not None:
                shown = range(max(begin - task.start, 0), min(stop - task.start, length))
                on_step(
                    StepEvent(
                        shown.start,
                        tuple(drafts[i] for i in shown),
                        tuple(not is_open[i] for i in shown),
                        step,
                    )
                )
        if stands():
            break
    for i, token in enumerate(answer[:length]):
        if token in stops and not is_open[i]:
            result.tokens = answer[: i + 1]
            return result
    result.tokens = answer[:length]
    return result


def _logits(
    model: Backbone, task: Task, branch: int, answer: list[int], stop: int, settings: Settings
) -> torch.Tensor:
    """Logits [columns 0 to stop, V] of one branch, computed from its first token on."""
    prompt = task.prompts[branch]
    device = model.lm_head.weight.device
    ids = torch.tensor([[*prompt, *answer[: stop - task.start]]], device=device)
    positions = torch.arange(ids.shape[1], device=device)
    columns = positions + task.shift(branch)
    mask = block_causal(columns, columns, settings.block_length)[None, None]
    logits = model(ids, position_ids=positions[None], attention_mask=mask)[0]
    if task.choice is not None:
        logits = logits[:, task.choice]
    # Only the answer's columns are read; those of a shorter prompt are filled so that columns are indices.
    answers = logits[len(prompt) :]
    return torch.cat((answers.new_zeros(task.start, answers.shape[1]), answers))
